"""Rates of several things that run in one process, taken in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import attrs
import torch

WARM_UP = 4
"""Iterations before the clock starts: compilers, caches and allocators settle in them."""
Contestant = Callable[[float], float]
"""Runs for about so many seconds and returns iterations a second."""


@attrs.frozen(kw_only=True)
class Spread:
    """The middle, the smallest and the largest of a few numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of these numbers.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
        """
        held = list(values)
        return cls(median=statistics.median(held), low=min(held), high=max(held))


def ratios(rates: Iterable[float], others: Iterable[float]) -> Spread:
    """The spread of the ratios, round by round: what slows both in one round leaves its ratio alone.

    >>> ratios([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    Spread(median=2.0, low=2.0, high=3.0)
    """
    return Spread.of(rate / other for rate, other in zip(rates, others, strict=True))


def timed(run: Callable[[], None], device: torch.device) -> Contestant:
    """A contestant that repeats `run`, at least once, and waits for the device before it reads the clock."""

    def contestant(seconds: float) -> float:
        synchronize(device)
        count, start = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - start < seconds:
            run()
            count += 1
        synchronize(device)
        return count / (time.perf_counter() - start)

    return contestant


def race(contestants: Mapping[str, Contestant], *, rounds: int, seconds: float) -> dict[str, tuple[float, ...]]:
    """Iterations a second of each contestant in each round; every second round goes through them backwards."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            rates[name].append(contestants[name](seconds))
    return {name: tuple(values) for name, values in rates.items()}


def warm_up(run: Callable[[], None]) -> None:
    """Iterations that are not timed."""
    for _ in range(WARM_UP):
        run()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was asked to."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
