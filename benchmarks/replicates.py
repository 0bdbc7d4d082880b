"""Seed-iterations a second of replicates against one run by hand: ``python benchmarks/replicates.py [K ...]``

A round is so many seconds of the hand-written loop of one seed, and of the vectorised step of K seeds, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import attrs
import torch

from ipmgan.bench import plain
from ipmgan.bench.race import race, ratios, timed, warm_up
from ipmgan.bench.workloads import workload
from ipmgan.engine.build import Data, build
from ipmgan.engine.step import Step
from ipmgan.engine.vector import VectorStep

CPU = torch.device("cpu")


def replicates(name: str, count: int, folder: Path, *, compile: bool) -> VectorStep:
    """The vectorised step of so many seeds."""
    config = workload(name).config(folder, device="cpu")
    data = Data.of(config)
    configs = [attrs.evolve(config, schedule=attrs.evolve(config.schedule, seed=seed)) for seed in range(count)]
    return VectorStep([Step(build(one, data)) for one in configs], compile=compile)


def meet(name: str, count: int, rounds: int, seconds: float) -> None:
    """Race K seeds against one by hand, and print the ratios of seed-iterations a second."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {"plain": plain.loop(name, CPU).step}
        for way in ("eager", "compiled"):
            runs[way] = replicates(name, count, Path(folder), compile=way == "compiled").run
        for run in runs.values():
            warm_up(run)
        rates = race({key: timed(run, CPU) for key, run in runs.items()}, rounds=rounds, seconds=seconds)
    for way in ("eager", "compiled"):
        spread = ratios([count * rate for rate in rates[way]], rates["plain"])
        print(f"{name} K = {count}, {way}: {spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f}) of one by hand")


def main() -> None:
    """Race each K in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[16, 64])
    parser.add_argument("--workload", default="small-toy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    for count in given.counts:
        meet(given.workload, count, given.rounds, given.seconds)


if __name__ == "__main__":
    main()
