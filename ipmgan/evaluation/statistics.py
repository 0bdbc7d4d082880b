"""How sure a number is: intervals by resampling, and the test of no difference."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

BOOTSTRAPS = 1000
GROUPS = 20

Estimate = Callable[[Tensor, Tensor], Tensor]
"""From what a critic puts out for each sample of either side to a scalar."""


def quantile(probability: float) -> float:
    """Of the standard normal law.

    >>> round(quantile(0.975), 2)
    1.96
    """
    return statistics.NormalDist().inv_cdf(probability)


def around(value: float, error: float, confidence: float) -> tuple[float, float]:
    """The interval of a value that is normal about the truth.

    >>> low, high = around(1.0, 0.1, 0.95)
    >>> round(low, 3), round(high, 3)
    (0.804, 1.196)
    """
    reach = quantile((1 + confidence) / 2) * error
    return value - reach, value + reach


def bootstrap(
    estimate: Estimate, real: Tensor, fake: Tensor, confidence: float, generator: torch.Generator
) -> tuple[float, float]:
    """The percentile interval of a function of means: each side drawn anew from itself, with replacement."""
    values = []
    for _ in range(BOOTSTRAPS):
        drawn = (
            side[torch.randint(len(side), (len(side),), generator=generator, device=side.device)]
            for side in (real, fake)
        )
        values.append(estimate(*drawn))
    tail = (1 - confidence) / 2
    ends = (
        torch.stack(values).double().quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64, device=real.device))
    )
    return float(ends[0]), float(ends[1])


def jackknife(estimate: Estimate, real: Tensor, fake: Tensor, confidence: float) -> tuple[float, float]:
    """The interval of a function of whole batches, in which a sample must not stand twice: groups are left out in turn.

    Samples come in random order, so the groups are random.
    """
    groups = min(GROUPS, len(real), len(fake))
    parts = [side.tensor_split(groups) for side in (real, fake)]
    values = []
    for left_out in range(groups):
        kept = (torch.cat([part for i, part in enumerate(side) if i != left_out]) for side in parts)
        values.append(float(estimate(*kept)))
    spread = (groups - 1) * statistics.pvariance(values)
    return around(float(estimate(real, fake)), spread**0.5, confidence)


def permutation_p_value(
    observed: float, permuted: Callable[[Tensor], float], count: int, permutations: int, generator: torch.Generator
) -> float:
    """The share of orders of `count` pooled samples that look at least as different as the given one, itself included.

    (1 + #{permuted >= observed}) / (1 + permutations)

    Where the two laws are equal and nothing was chosen with an eye on these samples, it is at most α with probability
    at most α, for any number of samples.

    Source: Phipson and Smyth (2010), Permutation P-values Should Never Be Zero, section 4.
    """
    as_high = 0
    for _ in range(permutations):
        order = torch.randperm(count, generator=generator, device=generator.device)
        as_high += permuted(order) >= observed
    return (1 + as_high) / (1 + permutations)
