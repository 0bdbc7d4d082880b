"""Draws sets of samples for evaluation, one a repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ipmgan.data.base import Resident, Sampler, Samples, to_interval
from ipmgan.engine.streams import Streams

PASS = 8192
"""Samples that a pass over all of them has in memory at a time."""


class Pool:
    """Sets of samples, one a repeat, each a pure function of seed, name and repeat.

    Repeats share no samples where there are enough for all of them. Of a finite set, fewer are the first of more.
    """

    def __init__(self, samples: Samples, streams: Streams, name: str, repeats: int) -> None:
        self._samples, self._streams, self._name, self._repeats = samples, streams, name, repeats
        self.size = None if isinstance(samples, Sampler) else len(samples)
        """How many samples there are; None where there is no end of them."""

    def draw(self, count: int, repeat: int) -> Tensor:
        """`count` samples in random order, or all where there are fewer, (count, *shape), float32 on the device."""
        if isinstance(self._samples, Sampler):
            return self._samples.draw(count, self._streams.at(self._name, repeat))
        generator = self._streams.at(self._name, 0)
        order = torch.randperm(len(self._samples), generator=generator, device=generator.device)
        parts = [order[(repeat + number) % self._repeats :: self._repeats] for number in range(self._repeats)]
        return _take(self._samples, torch.cat(parts)[:count]).to(self._streams.device)

    def how(self, count: int) -> str:
        """How the sets of the repeats lie to each other, in words."""
        if self.size is None:
            return "fresh"
        if count >= self.size:
            return "all"
        return "disjoint" if count * self._repeats <= self.size else "overlapping"


def passes(samples: Samples) -> Callable[[], Iterable[Tensor]] | None:
    """All samples, a batch at a time, as often as they are asked for; None where there is no end of them."""
    if isinstance(samples, Sampler):
        return None
    finite = samples

    def batches() -> Iterator[Tensor]:
        length = PASS if isinstance(finite, Resident) else 512
        for start in range(0, len(finite), length):
            yield _take(finite, torch.arange(start, min(start + length, len(finite))))

    return batches


def _take(samples: Samples, index: Tensor) -> Tensor:
    assert not isinstance(samples, Sampler)
    if isinstance(samples, Resident):
        return samples.take(index.to(samples.samples.device))
    return to_interval(torch.stack([samples.dataset[int(i)] for i in index]), samples.bounds)
