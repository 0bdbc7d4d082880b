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
        if self._immediate:
            if not math.isfinite(loss.item()):
                raise _diverged(plugin, term, self._step)
            return
        if self._step_there is None:
            self._step_there = torch.full((), self._step, device=loss.device)
        first = self._bad.setdefault((plugin, term), torch.full((), -1, device=loss.device))
        first.copy_(torch.where((first < 0) & ~torch.isfinite(loss.detach()), self._step_there, first))

    def check(self) -> None:
        """Raise `DivergedError` for the first loss that was not finite; waits for the device."""
        steps = {key: int(first) for key, first in self._bad.items()}
        bad = {key: step for key, step in steps.items() if step >= 0}
        if bad:
            plugin, term = min(bad, key=bad.__getitem__)
            raise _diverged(plugin, term, bad[plugin, term])


def _diverged(plugin: str, term: str, step: int) -> DivergedError:
    return DivergedError(f"the {term} of {plugin} is not finite at step {step}: lower --lr, or check the data")
