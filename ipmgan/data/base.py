"""The contract of a source, and the three forms in which it hands out samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ipmgan.plugin import Plugin

Split = Literal["train", "held-out"]


@attrs.frozen(kw_only=True)
class SampleSpec:
    """What a sample looks like: its shape, (D,) or (channels, height, width), and the interval its values lie in."""

    shape: tuple[int, ...]
    bounds: tuple[float, float] | None = None
    """None where the values are unbounded."""


@attrs.frozen(kw_only=True, eq=False)
class Resident:
    """A finite set of samples that lives on the device, (N, *shape).

    Images stay uint8 until they are taken; then 0..255 becomes the interval `bounds`.
    """

    samples: Tensor
    bounds: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device) -> Resident:
        """The same samples on a device."""
        return attrs.evolve(self, samples=self.samples.to(device))

    def take(self, index: Tensor) -> Tensor:
        """The samples at these indices, float32.

        >>> import torch
        >>> Resident(samples=torch.tensor([[0, 255]], dtype=torch.uint8), bounds=(-1, 1)).take(torch.tensor([0]))
        tensor([[-1.,  1.]])
        """
        return to_interval(self.samples[index], self.bounds)


@attrs.frozen(kw_only=True, eq=False)
class Sampler:
    """A law that can be drawn from without end.

    `draw(n, generator)` gives n independent samples, (n, *shape), on the generator's device, for a batch or for many.
    """

    draw: Callable[[int, torch.Generator], Tensor]


@attrs.frozen(kw_only=True, eq=False)
class Streamed:
    """A finite set of samples too large to hold: a map-style dataset of uint8 or float32 tensors of one shape."""

    dataset: Dataset[Tensor]
    bounds: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]


Samples = Resident | Sampler | Streamed


def to_interval(samples: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """uint8 samples as float32 in `bounds` (0 -> low, 255 -> high); others as float32, unchanged."""
    if samples.dtype == torch.uint8 and bounds is not None:
        low, high = bounds
        return samples.to(torch.float32).mul_((high - low) / 255).add_(low)
    return samples.to(torch.float32)


class Source(Plugin):
    """Where real samples come from."""

    kind = "source"

    @abstractmethod
    def spec(self) -> SampleSpec:
        """What a sample looks like, without loading the samples."""

    @abstractmethod
    def open(self, split: Split) -> Samples:
        """The samples of one split; the two splits share none.

        Raises `DataError` where the data is missing or unreadable.
        """
