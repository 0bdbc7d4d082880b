"""Several seeds of one configuration, trained at once."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from ipmgan.config import RunConfig
from ipmgan.engine.build import Data, build
from ipmgan.engine.checks import check
from ipmgan.engine.loop import Trainer, resolved
from ipmgan.engine.measure import Clock
from ipmgan.engine.replay import stepper
from ipmgan.engine.run import Run
from ipmgan.engine.rundir import SEED, RunDir, seeds_at
from ipmgan.engine.step import Step
from ipmgan.engine.tracking import check_trackers
from ipmgan.engine.vector import VectorStep, check_vectorised
from ipmgan.engine.ways import way
from ipmgan.errors import CheckpointError, DivergedError, UsageError
from ipmgan.registry import versions

COUNTS = ("step", "critic_steps", "steps_per_second", "samples_per_second")
"""What is no quantity of a run's quality."""


class Replicates:
    """Trains so many seeds of one configuration, each in a directory of its own, by one vectorised step.

    The seeds are the configuration's and those that follow it. Each run is, up to rounding, the one that its seed alone
    gives, and lies in ``seed-<n>/`` with its own metrics, samples and checkpoints; ``metrics.jsonl`` beside them holds
    the means over seeds, the standard deviations and the worst seed. A run whose loss is no longer finite is given up;
    the others go on. Raises `PairingError` where objective, enforcer, network or optimiser cannot be vectorised.
    """

    def __init__(
        self,
        config: RunConfig | str | Path | None = None,
        *,
        replicates: int,
        out: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if replicates < 2:
            raise UsageError(f"replicates = {replicates}: must be at least 2, or be left out")
        first = resolved(config, settings)
        if out is not None:
            RunDir.refuse_taken(Path(out))
        check(first)
        versions(first.plugins)
        check_trackers(first)
        data = Data.of(first)
        check_vectorised(Step(build(first, data)))
        path = RunDir.claim(first, out)
        seeds = range(first.schedule.seed, first.schedule.seed + replicates)
        configs = {seed: attrs.evolve(first, schedule=attrs.evolve(first.schedule, seed=seed)) for seed in seeds}
        self._prepare(path, [Trainer.start(one, path / f"{SEED}{seed}", data) for seed, one in configs.items()])

    def _prepare(self, path: Path, trainers: list[Trainer]) -> None:
        self.run_dir = RunDir(path)
        self.trainers = trainers
        self.config = trainers[0].config
        self.warnings = trainers[0].warnings
        self.way = way(self.config, trainers[0]._parts, runs=len(trainers))
        self._vector = VectorStep([trainer._step for trainer in trainers], compile=self.way != "off")
        self._advance = stepper(self._vector, self.way)
        self._stop = False

    @classmethod
    def resume(cls, path: str | Path, *, steps: int | None = None) -> Replicates:
        """The replicates under a directory, each put to its last valid checkpoint; raises as `Trainer.resume` does."""
        places = seeds_at(path)
        if not places:
            raise CheckpointError(f"{path} holds no replicates: it has no {SEED}*/config.toml")
        data = Data.of(RunDir(places[0]).config())
        made = cls.__new__(cls)
        made._prepare(Path(path), [Trainer.resume(place, steps=steps, data=data) for place in places])
        made.run_dir.forget_lines_after(max(trainer.step for trainer in made.trainers))
        return made

    @staticmethod
    def at(path: str | Path) -> bool:
        """Whether replicates lie there."""
        return bool(seeds_at(path))

    @property
    def step(self) -> int:
        """Generator steps that all runs have done."""
        return min(trainer.step for trainer in self.trainers)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return all(trainer.finished for trainer in self.trainers)

    @property
    def diverged(self) -> dict[int, DivergedError]:
        """Why seeds were given up."""
        return {self.trainers[place].config.schedule.seed: why for place, why in self._vector.diverged.items()}

    def stop(self) -> None:
        """Ask the runs to save and stop after the current step; may be called from a signal handler."""
        self._stop = True

    def train(self) -> list[Run]:
        """Train to the last step, or until `stop`, and return the runs in the order of their seeds."""
        for _ in self:
            pass
        return [Run(trainer.run_dir.path) for trainer in self.trainers]

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """Train, yielding after each step the line of means, or None for a step without one."""
        start = self.step
        with contextlib.ExitStack() as locks:
            for trainer in self.trainers:
                locks.enter_context(trainer.run_dir.locked())
                trainer._check_place()
            for trainer in self.trainers:
                locks.enter_context(trainer._tracking())
            clocks = [Clock(trainer._step) for trainer in self.trainers]
            self._catch_up(clocks)
            while not self.finished and not self._stop:
                with self.trainers[0]._explaining():
                    self._advance()
                    record = self._after(clocks)
                yield record
            self._stop = False
            if self.step > start:
                self._save()

    def _save(self) -> None:
        self._vector.show()
        for place, trainer in self._alive():
            with self._vector.giving_up(place):
                trainer.save()

    def _alive(self) -> list[tuple[int, Trainer]]:
        alive = [(n, trainer) for n, trainer in enumerate(self.trainers) if n not in self._vector.diverged]
        if not alive:
            raise next(iter(self._vector.diverged.values()))
        return alive

    def _catch_up(self, clocks: list[Clock]) -> None:
        """Let runs that were saved less far than others, by a crash between two saves, go on alone until they match."""
        furthest = max(trainer.step for trainer in self.trainers)
        for place, trainer in enumerate(self.trainers):
            with self._vector.giving_up(place):
                while trainer.step < furthest:
                    trainer._advance(clocks[place])
            trainer._step.steps = furthest

    def _after(self, clocks: list[Clock]) -> dict[str, Any] | None:
        schedule, step = self.config.schedule, self.step
        self._alive()
        due = (schedule.log_every, schedule.sample_every, schedule.checkpoint_every)
        if not self.finished and all(step % every for every in due):
            return None
        self._vector.show()
        records: dict[int, dict[str, Any]] = {}
        for place, trainer in self._alive():
            with self._vector.giving_up(place):
                record = trainer._after(clocks[place])
                if record is not None:
                    records[trainer.config.schedule.seed] = record
        if not records:
            return None
        line = summary(records) | {"diverged": sorted(self.diverged)}
        self.run_dir.log(line)
        return line


def summary(records: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The means over seeds, with the standard deviations under ``sd`` and the largest values under ``worst``.

    The largest is the worst, since what a run is judged by are distances.

    >>> summary({0: {"step": 5, "sliced": 1.0}, 1: {"step": 5, "sliced": 3.0}})
    {'step': 5, 'sliced': 2.0, 'sd': {'sliced': 1.4142135623730951}, 'worst': {'sliced': {'seed': 1, 'value': 3.0}}}
    """
    first = next(iter(records.values()))
    line: dict[str, Any] = {key: first[key] for key in COUNTS if key in first}
    spread, worst = {}, {}
    for key in first:
        values = {seed: record[key] for seed, record in records.items() if _finite(record.get(key))}
        if key in COUNTS or not values:
            continue
        line[key] = statistics.fmean(values.values())
        spread[key] = statistics.stdev(values.values()) if len(values) > 1 else 0.0
        seed = max(values, key=values.__getitem__)
        worst[key] = {"seed": seed, "value": values[seed]}
    return line | {"sd": spread, "worst": worst}


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
