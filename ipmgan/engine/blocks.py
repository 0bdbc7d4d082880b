"""Random draws for many batches in one go: to launch a draw takes longer than to make a small batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ipmgan.engine.streams import Streams

Draw = Callable[[int, torch.Generator], Tensor]
"""So many independent draws, (n, *shape), on the generator's device."""
IN_BLOCK = 2**16
"""Numbers in a block, which a core's cache holds; a batch with more is a block by itself."""


class Blocks:
    """Batches of independent draws; batch k is a pure function of (seed, stream, k).

    A block of n batches is drawn at once: batch k is the (k mod n)-th of block k div n.
    """

    def __init__(self, draw: Draw, batch: int, streams: Streams, stream: str) -> None:
        self._draw, self._batch, self._streams, self._stream = draw, batch, streams, stream
        self._last = functools.lru_cache(maxsize=1)(self.block)

    def batch(self, number: int) -> Tensor:
        """Batch `number`, (batch, *shape)."""
        block, place = divmod(number, self.count)
        return self._last(block)[place]

    @functools.cached_property
    def count(self) -> int:
        """Batches in a block."""
        one = self._draw(1, torch.Generator(self._streams.device))
        return max(1, IN_BLOCK // (self._batch * one.numel()))

    def block(self, number: int) -> Tensor:
        """Block `number`, (count, batch, *shape)."""
        drawn = self._draw(self.count * self._batch, self._streams.at(self._stream, number))
        return drawn.reshape(self.count, self._batch, *drawn.shape[1:])


class StackedBlocks(Blocks):
    """The batches of several seeds, stacked: (seeds, batch, *shape)."""

    def __init__(self, seeds: Sequence[Blocks]) -> None:
        self._seeds, self.count = list(seeds), seeds[0].count
        self._last = functools.lru_cache(maxsize=1)(self.block)

    def block(self, number: int) -> Tensor:
        """Block `number`, (count, seeds, batch, *shape)."""
        return torch.stack([seed.block(number) for seed in self._seeds], dim=1)
