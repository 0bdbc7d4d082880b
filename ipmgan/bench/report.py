"""`ipmgan bench`: the ceilings, the work of each workload, and the rates that the modes reach."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from ipmgan.bench import plain
from ipmgan.bench.ceilings import Ceilings
from ipmgan.bench.modes import EAGER, Mode, iteration
from ipmgan.bench.race import Spread, race, ratios, timed, warm_up
from ipmgan.bench.work import Limit, Work, count_work, limit
from ipmgan.config import RunConfig
from ipmgan.errors import UsageError, choose_from

PLAIN = "plain"


@attrs.frozen(kw_only=True)
class Result:
    """What was measured of one workload; `rates` has iterations a second by contestant and round."""

    workload: str
    precision: str
    work: Work
    limit: Limit
    rates: dict[str, tuple[float, ...]]

    def fraction(self, name: str) -> float:
        """The share of the limit that a contestant's median rate is."""
        return Spread.of(self.rates[name]).median / self.limit.rate

    def ratio(self, name: str) -> Spread | None:
        """A contestant's rate over that of the hand-written loop, round by round; None where it did not race."""
        if PLAIN not in self.rates or name == PLAIN:
            return None
        return ratios(self.rates[name], self.rates[PLAIN])

    def table(self) -> dict[str, Any]:
        """The result as plain values; rates in iterations a second."""
        return {
            "workload": self.workload,
            "precision": self.precision,
            "flops": {"matmul": self.work.matmul_flops, "convolution": self.work.convolution_flops},
            "bytes": {
                "weights": self.work.weight_bytes,
                "activations": self.work.activation_bytes,
                "updates": self.work.update_bytes,
            },
            "limit": {**attrs.asdict(self.limit), "rate": self.limit.rate, "bound": self.limit.bound},
            "rates": [
                {
                    "mode": name,
                    **attrs.asdict(Spread.of(rates)),
                    "rounds": list(rates),
                    "fraction_of_limit": self.fraction(name),
                    "to_plain": None if (ratio := self.ratio(name)) is None else attrs.asdict(ratio),
                }
                for name, rates in self.rates.items()
            ],
        }


def bench(
    name: str,
    config: RunConfig,
    modes: Sequence[Mode],
    ceilings: Ceilings,
    *,
    against: str | None = None,
    rounds: int = 7,
    seconds: float = 1.0,
) -> Result:
    """Time a run in some modes, in turns, for about `seconds` each in every round.

    Args:
        name: what to call it; that of a workload, to race against its hand-written loop.
        config: the run; its device is the one that is measured.
        modes: the ways to run its step.
        ceilings: of that device.
        against: "plain" for the hand-written loop, which always computes in float32; None for nobody.
        rounds: how many.
        seconds: for each mode in each round, or one iteration, if that takes longer.

    Raises `UsageError` where nobody wrote that loop.
    """
    check_against(name, against)
    counted = iteration(config, EAGER)
    work = count_work(counted, counted.step.optimizers())
    device = counted.parts.device
    del counted
    runs: dict[str, Callable[[], None]] = {mode.name: iteration(config, mode) for mode in modes}
    for run in runs.values():
        warm_up(run)
    contestants = {key: timed(run, device) for key, run in runs.items()}
    with contextlib.ExitStack() as rivals:
        if against is not None:
            contestants[against] = rivals.enter_context(plain.racing(name, device))
        rates = race(contestants, rounds=rounds, seconds=seconds)
    return Result(
        workload=name,
        precision=config.schedule.precision,
        work=work,
        limit=limit(work, ceilings, config.schedule.precision),
        rates=rates,
    )


def check_against(name: str, against: str | None) -> None:
    """Raise `UsageError` unless there is such a rival for what is named so."""
    if against is None:
        return
    if against != PLAIN:
        raise UsageError(choose_from("rival", against, [PLAIN]))
    if name not in plain.MAKERS:
        raise UsageError(f"no hand-written loop for {name}: there is one for {', '.join(plain.MAKERS)}")
