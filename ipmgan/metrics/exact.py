"""The exact Wasserstein distances between samples."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.programmes import exact_wasserstein
from ipmgan.metrics import papers
from ipmgan.metrics.base import Metric
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference

PAIR = 60
"""Bytes that a pair of samples takes, in the matrix of costs and inside the solver."""
MEMORY_HELP = "mebibytes that it may take; 1,024 are for some 4,200 samples a side, and some 20 seconds"


@attrs.frozen(kw_only=True)
class ExactW1(Metric):
    """The W1 distance between the samples, exactly: the cheapest way to move one set onto the other.

        W1 = min over couplings π of Σ π_ij ‖x_i - y_j‖

    By the network simplex of POT, in data units. It is the distance of the empirical laws: above W1 of the laws
    themselves on average, by an amount that falls as slowly as N^(-1/K) in K dimensions and does not vanish at equal
    laws. So it is compared at equal numbers of samples, and with its value between two sets of real ones. Memory grows
    with N M, and time faster: a number of samples beyond `memory` is refused.
    Source: Bonneel et al. (2011), section 4.
    """

    name: ClassVar[str] = "exact-w1"
    references: ClassVar[tuple[Reference, ...]] = (papers.BONNEEL_DISPLACEMENT,)
    measures: ClassVar[Quantity] = Quantity(
        name="exact W1", unit="data units", low=0, bound="exact for the samples; above W1 of the laws on average"
    )
    samples: ClassVar[int] = 1000

    memory: int = option(1024, help=MEMORY_HELP, at_least=1)

    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        check_size(real, fake, self.memory)
        return exact_wasserstein(real.flatten(1), fake.flatten(1), 1)

    def most(self, shape: tuple[int, ...]) -> int:
        """The largest equal number of samples a side."""
        return largest(self.memory)


@attrs.frozen(kw_only=True)
class ExactW2(Metric):
    """The W2 distance between the samples, exactly: like W1, with squared distances as costs.

        W2 = (min over couplings π of Σ π_ij ‖x_i - y_j‖²)^½

    By the network simplex of POT, in data units. At least W1 of the same samples. All that holds for exact-w1 holds
    here: the value is above W2 of the laws on average, and a number of samples beyond `memory` is refused.
    Source: Bonneel et al. (2011), section 4.
    """

    name: ClassVar[str] = "exact-w2"
    references: ClassVar[tuple[Reference, ...]] = (papers.BONNEEL_DISPLACEMENT,)
    measures: ClassVar[Quantity] = Quantity(
        name="exact W2", unit="data units", low=0, bound="exact for the samples; above W2 of the laws on average"
    )
    samples: ClassVar[int] = 1000

    memory: int = option(1024, help=MEMORY_HELP, at_least=1)

    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        check_size(real, fake, self.memory)
        return exact_wasserstein(real.flatten(1), fake.flatten(1), 2)

    def most(self, shape: tuple[int, ...]) -> int:
        """The largest equal number of samples a side."""
        return largest(self.memory)


def largest(memory: int) -> int:
    """The largest equal number of samples a side whose transport problem fits into so many mebibytes."""
    return math.isqrt(memory * 2**20 // PAIR)


def check_size(x: Tensor, y: Tensor, memory: int) -> None:
    """Raise `UsageError` where the samples do not fit, with the largest number that does."""
    if len(x) * len(y) * PAIR > memory * 2**20:
        most = largest(memory)
        raise UsageError(
            f"exact transport between {len(x):,} and {len(y):,} samples takes more than memory={memory} MiB: the "
            f"largest size that fits is {most:,} a side; take --samples {most}, or sliced-wasserstein"
        )
