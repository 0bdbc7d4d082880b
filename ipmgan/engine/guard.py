"""Watches that losses stay finite, without making a device wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ipmgan.errors import DivergedError


class Guard:
    """Watches that losses stay finite: at once on the CPU, at the next `check` where reading one stalls a device.

    There, the number of the step is a tensor too, so that a recorded step that is replayed notes its own number.
    """

    def __init__(self, device: torch.device) -> None:
        self._immediate = device.type == "cpu"
        self._step = 0
        self._step_there: Tensor | None = None
        self._bad: dict[tuple[str, str], Tensor] = {}

    def begin(self, step: int) -> None:
        """What is watched from now on belongs to this step."""
        self._step = step
        if self._step_there is not None:
            self._step_there.fill_(step)

    def watch(self, plugin: str, term: str, loss: Tensor) -> None:
        """Raise `DivergedError`, now or at `check`, for a loss that is not finite."""
        if not self._immediate:
            self._note(plugin, term, loss)
        elif not math.isfinite(loss.item()):
            raise _diverged(plugin, term, self._step)

    def check(self) -> None:
        """Raise `DivergedError` for the first loss that was not finite; waits for the device."""
        for error in self._noted().values():
            raise error

    def _note(self, plugin: str, term: str, loss: Tensor) -> None:
        """Let the device keep the first step at which this loss, or each of these, was not finite."""
        if self._step_there is None:
            self._step_there = torch.full((), self._step, device=loss.device)
        first = self._bad.setdefault((plugin, term), torch.full(loss.shape, -1, device=loss.device))
        first.copy_(torch.where((first < 0) & ~torch.isfinite(loss.detach()), self._step_there, first))

    def _noted(self) -> dict[int, DivergedError]:
        """The error of each place that had a loss that was not finite: that of its first."""
        earliest: dict[int, tuple[int, str, str]] = {}
        for (plugin, term), first in self._bad.items():
            for place, step in enumerate(first.reshape(-1).tolist()):
                if step >= 0 and step < earliest.get(place, (math.inf,))[0]:
                    earliest[place] = (step, plugin, term)
        return {place: _diverged(plugin, term, step) for place, (step, plugin, term) in earliest.items()}


class Guards(Guard):
    """Watches the losses of several runs, stacked, and notes which of them diverged instead of stopping all."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.diverged: dict[int, DivergedError] = {}
        """The first error of each run that has one, by its place."""

    def watch(self, plugin: str, term: str, loss: Tensor) -> None:
        """Note, now or at `check`, the losses that are not finite."""
        if not self._immediate:
            self._note(plugin, term, loss)
            return
        for place, each in enumerate(loss.tolist()):
            if not math.isfinite(each):
                self.diverged.setdefault(place, _diverged(plugin, term, self._step))

    def check(self) -> None:
        """Note the losses that were not finite; waits for the device."""
        self.diverged = self._noted() | self.diverged


def _diverged(plugin: str, term: str, step: int) -> DivergedError:
    return DivergedError(f"the {term} of {plugin} is not finite at step {step}: lower --lr, or check the data")
