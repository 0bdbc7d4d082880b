"""What a whole run costs beside its bare loop: ``python benchmarks/whole_run.py [WORKLOAD ...] [--steps 1000]``

A round is one run as ``ipmgan train`` makes it, from the resolved settings to the last line: building, steps, the
live display, lines of metrics, held-out estimates, certificates, pictures, checkpoints, curves; and as many iterations
of the hand-written loop, which does none of that. Prints the ratio of the rates. Starting Python and importing torch is
left out: it does not grow with the run. ``--settings`` takes any of a run's, such as ``log_every=10``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ipmgan.bench import plain
from ipmgan.bench.race import Contestant, Spread, race, ratios, warm_up
from ipmgan.bench.workloads import workload
from ipmgan.cli.display import follow
from ipmgan.config import RunConfig
from ipmgan.engine.loop import Trainer
from ipmgan.selection import parse_selection

CPU = torch.device("cpu")


def whole(config: RunConfig, folder: Path) -> Contestant:
    """A run as a person sees it on a terminal; its output goes nowhere."""

    def contestant(seconds: float) -> float:
        out = folder / f"run-{time.monotonic_ns()}"
        start = time.perf_counter()
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            follow(Trainer(config, out=out))
        return config.schedule.steps / (time.perf_counter() - start)

    return contestant


def bare(step: Callable[[], None], steps: int) -> Contestant:
    """So many iterations of a loop."""

    def contestant(seconds: float) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return steps / (time.perf_counter() - start)

    return contestant


def meet(name: str, steps: int, rounds: int, settings: dict[str, object]) -> None:
    """Race a workload, and print the ratio."""
    os.environ["FORCE_COLOR"] = "1"  # Rich then takes any output for a terminal, and draws the live display.
    with tempfile.TemporaryDirectory() as folder:
        config = workload(name).config(Path(folder), device="cpu", steps=steps, **settings)
        step = plain.loop(name, CPU).step
        warm_up(step)
        contestants = {"train": whole(config, Path(folder)), "plain": bare(step, steps)}
        rates = race(contestants, rounds=rounds, seconds=0.0)
    train, by_hand = Spread.of(rates["train"]), Spread.of(rates["plain"])
    ratio = ratios(rates["train"], rates["plain"])
    print(f"{name}, {steps} steps: train {train.median:.3f} it/s, plain {by_hand.median:.3f} it/s,", end=" ")
    print(f"train over plain {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})", flush=True)


def main() -> None:
    """Race the workloads that were named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=["toy-gp", "toy-clip", "small-toy", "image-mlp"])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--settings", default="", help="more settings of the run, as key=value,key=value")
    asked = parser.parse_args()
    settings = parse_selection(f"run:{asked.settings}") if asked.settings else {}
    settings.pop("name", None)
    for name in asked.workloads:
        meet(name, asked.steps, asked.rounds, settings)


if __name__ == "__main__":
    main()
