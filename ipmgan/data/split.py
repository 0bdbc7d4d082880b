"""How finite data is divided into a training and a held-out part."""

from __future__ import annotations

import torch
from torch import Tensor

from ipmgan.data.base import Split
from ipmgan.errors import DataError, UsageError

_SEED = 1797


def held_out_count(count: int, share: float, what: str) -> int:
    """How many of `count` samples are held out: the share, rounded, and at least one on either side.

    Raises `DataError` where there are fewer than two samples.
    """
    if count < 2:
        raise DataError(f"{what} has {count} sample(s): at least 2 are needed, one to train on and one held out")
    return min(max(round(share * count), 1), count - 1)


def split_indices(count: int, share: float, split: Split, what: str) -> Tensor:
    """The ascending indices of a split, by one fixed permutation of the samples, the same on every machine.

    >>> train, held = (split_indices(10, 0.2, s, "it") for s in ("train", "held-out"))
    >>> len(train), len(held), sorted([*train.tolist(), *held.tolist()]) == list(range(10))
    (8, 2, True)
    """
    held = held_out_count(count, share, what)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(_SEED), device="cpu")
    return (order[:held] if split == "held-out" else order[held:]).sort().values


def check_bounds(bounds: tuple[float, ...]) -> tuple[float, float]:
    """The interval, if it is one; raises `UsageError` otherwise.

    >>> check_bounds((0.0, 1.0))
    (0.0, 1.0)
    """
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise UsageError(f"bounds = {bounds}: must be two numbers, the lower first, such as (-1.0, 1.0)")
    return bounds[0], bounds[1]
