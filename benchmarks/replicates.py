"""Replicates against one run, by hand and by the step: ``python benchmarks/replicates.py [K ...] [--device cuda]``

A round is so many seconds of the hand-written loop of one seed, and in each mode of the step of one seed and of that of
K seeds, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import torch

from ipmgan.bench import plain
from ipmgan.bench.modes import Mode, iteration, modes
from ipmgan.bench.race import race, ratios, timed, warm_up
from ipmgan.bench.workloads import workload
from ipmgan.config import RunConfig
from ipmgan.engine.build import Data, build
from ipmgan.engine.replay import stepper
from ipmgan.engine.step import Step
from ipmgan.engine.vector import VectorStep


def replicates(config: RunConfig, count: int, mode: Mode) -> Callable[[], None]:
    """An iteration of so many seeds in a mode."""
    data, way = Data.of(config), mode.settings["compile"]
    configs = [attrs.evolve(config, schedule=attrs.evolve(config.schedule, seed=seed)) for seed in range(count)]
    return stepper(VectorStep([Step(build(one, data)) for one in configs], compile=way != "off"), way)


def meet(name: str, count: int, device: torch.device, rounds: int, seconds: float) -> None:
    """Race them, and print seed-iterations a second as ratios."""
    with tempfile.TemporaryDirectory() as folder:
        config = workload(name).config(Path(folder), device=str(device))
        runs: dict[str, Callable[[], None]] = {"by hand": plain.loop(name, device).step}
        for mode in modes([], device):
            runs[f"one {mode.name}"] = iteration(config, mode)
            runs[f"all {mode.name}"] = replicates(config, count, mode)
        for run in runs.values():
            warm_up(run)
        rates = race({key: timed(run, device) for key, run in runs.items()}, rounds=rounds, seconds=seconds)
    for mode in modes([], device):
        several = [count * rate for rate in rates[f"all {mode.name}"]]
        hand, one = (ratios(several, rates[other]) for other in ("by hand", f"one {mode.name}"))
        print(
            f"{name} K = {count}, {mode.name}: {hand.median:.2f} ({hand.low:.2f} to {hand.high:.2f}) of one by hand, "
            f"{one.median:.2f} ({one.low:.2f} to {one.high:.2f}) of one {mode.name}; "
            f"an iteration of all takes {count / one.median:.2f} times as long as one's"
        )


def main() -> None:
    """Race each K in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[16, 64])
    parser.add_argument("--workload", default="small-toy")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    for count in given.counts:
        meet(given.workload, count, given.device, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
