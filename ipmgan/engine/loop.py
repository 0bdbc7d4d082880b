"""The run: steps, lines of metrics, pictures and checkpoints, from the start or from where it stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import attrs
import torch

from ipmgan.config import RunConfig, configure
from ipmgan.drawing.samples import draw_samples
from ipmgan.engine import checkpoint
from ipmgan.engine.audit import audit_record
from ipmgan.engine.build import Data, build
from ipmgan.engine.checks import check
from ipmgan.engine.measure import Clock, certify, generate, measure, quality
from ipmgan.engine.replay import stepper
from ipmgan.engine.run import Run
from ipmgan.engine.rundir import RunDir, writing
from ipmgan.engine.state import capture, restore
from ipmgan.engine.step import Step
from ipmgan.engine.tracking import Tracked, check_trackers
from ipmgan.engine.ways import way
from ipmgan.errors import CheckpointError, UsageError
from ipmgan.lipschitz import Certificate
from ipmgan.registry import versions

IMAGES_SHOWN, POINTS_SHOWN = 64, 1000
Given = RunConfig | str | Path | None
"""All of a configuration, or the file that it starts from."""


class Trainer:
    """Trains one run, in a directory of its own.

    The settings are those of `configure`, over a TOML file if `config` names one; or `config` is all of it. The
    directory is `out`, or a new one under ``runs/``. Parts that do not fit together raise a `UsageError` before
    anything is allocated. With more than one of `replicates`, what is made is a `Replicates` of so many seeds.
    """

    def __new__(cls, *arguments: Any, replicates: int = 1, **settings: Any) -> Any:
        if replicates == 1:
            return super().__new__(cls)
        from ipmgan.engine.replicates import Replicates  # It is made of trainers.

        return Replicates(*arguments, replicates=replicates, **settings)

    def __init__(
        self,
        config: Given = None,
        *,
        out: str | Path | None = None,
        replicates: int = 1,
        **settings: Any,
    ) -> None:
        self._start(resolved(config, settings), out)

    @classmethod
    def start(cls, config: RunConfig, out: str | Path, data: Data) -> Trainer:
        """A trainer on data that is open already."""
        trainer: Trainer = cls.__new__(cls)
        trainer._start(config, out, data)
        return trainer

    def _start(self, config: RunConfig, out: str | Path | None, data: Data | None = None) -> None:
        if out is not None:
            RunDir.refuse_taken(Path(out))
        check_trackers(config)
        self._prepare(config, data)
        self.run_dir = RunDir.create(self.config, out)

    def _prepare(self, config: RunConfig, data: Data | None = None) -> None:
        versions(config.plugins)  # Refuses, before the first step, what no resumed run would find again.
        self.config = config
        self.warnings = check(config)
        self._parts = build(config, data)
        self.way = way(config, self._parts)
        self._step = Step(self._parts, compile=self.way != "off")
        self._run_step = stepper(self._step, self.way)
        self._stop = False

    @classmethod
    def resume(cls, path: str | Path, *, steps: int | None = None, data: Data | None = None) -> Trainer:
        """The trainer of an existing run, put to its last valid checkpoint; `steps` changes the total.

        Raises `CheckpointError` where there is no run, where every checkpoint is damaged, or where the data or a
        plugin has changed since.
        """
        trainer: Trainer = cls.__new__(cls)
        trainer.run_dir = RunDir(path)
        config = trainer.run_dir.config()
        if steps is not None:
            config = attrs.evolve(config, schedule=attrs.evolve(config.schedule, steps=steps))
        with trainer.run_dir.locked():
            snapshot = checkpoint.load_latest(trainer.run_dir.checkpoints)
            trainer._prepare(config, data)
            if snapshot is not None:
                restore(trainer._parts, trainer._step, snapshot)
            if trainer.step > config.schedule.steps:
                raise UsageError(f"{path} is at step {trainer.step} already: --steps must be at least that")
            trainer.run_dir.forget_after(trainer.step)
            trainer.run_dir.write_config(config)
        return trainer

    @property
    def step(self) -> int:
        """Generator steps done."""
        return self._step.steps

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.schedule.steps

    def certificate(self) -> Certificate | None:
        """What the critic's Lipschitz constant can be at most, as it stands, and why; None without a critic."""
        return certify(self._parts)

    def stop(self) -> None:
        """Ask the run to save and stop after the current step; may be called from a signal handler."""
        self._stop = True

    def train(self) -> Run:
        """Train to the last step, or until `stop`, and return the run."""
        for _ in self:
            pass
        return Run(self.run_dir.path)

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        """Train, yielding after each step its line of metrics, or None for a step without one."""
        start = self.step
        with self.run_dir.locked():
            self._check_place()
            with self._tracking():
                clock = Clock(self._step)
                while not self.finished and not self._stop:
                    with self._explaining():
                        record = self._advance(clock)
                    yield record
                self._stop = False
                if self.step > start:
                    self.save()

    def _tracking(self) -> contextlib.AbstractContextManager[None]:
        """Have what is logged in a block tracked; nothing is opened where no step is left."""
        self._tracked = Tracked(self.config, self.run_dir.path, self._parts.streams)
        return contextlib.nullcontext() if self.finished else self._tracked.opened()

    def _check_place(self) -> None:
        """Refuse where the run has gone on without this trainer, or where its disk is nearly full."""
        folder = self.run_dir.checkpoints
        if any(checkpoint.is_valid(checkpoint.path_of(folder, n)) for n in checkpoint.steps(folder) if n > self.step):
            raise CheckpointError(f"{self.run_dir.path} has gone on beyond step {self.step} since: resume it again")
        with writing(folder):
            checkpoint.require_space(folder, capture(self._parts, self._step).size)

    def _advance(self, clock: Clock) -> dict[str, Any] | None:
        """One step, with what is due after it."""
        with self._parts.streams.global_draws("layers", self.step):
            self._run_step()
        return self._after(clock)

    def _after(self, clock: Clock) -> dict[str, Any] | None:
        """The line of metrics, the picture and the checkpoint that are due at this step."""
        schedule = self.config.schedule
        picture = self.finished or self.step % schedule.sample_every == 0
        record = self._record(clock, picture) if picture or self.step % schedule.log_every == 0 else None
        if self.finished or self.step % schedule.checkpoint_every == 0:
            self.save()
        return record

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Say what a user can do where memory runs out."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                batch = self.config.schedule.batch
                raise UsageError(
                    f"out of memory at step {self.step} with batch = {batch}: lower --batch. Checkpoints are untouched"
                ) from error
            raise

    def _record(self, clock: Clock, picture: bool) -> dict[str, Any]:
        self._step.check_finite()
        with self._parts.streams.global_draws("measuring", self.step):
            record = measure(self._parts, self._step) | clock.rates(self.config.schedule.batch)
            if self.config.schedule.audit_every and self.step % self.config.schedule.audit_every == 0:
                record |= audit_record(self._parts)
            if picture:
                record |= quality(self._parts, self.step)
                path = self._draw()
        self.run_dir.log(record)
        self._tracked.log(record)
        if picture:
            self._tracked.picture(self.step, path)
        clock.restart()
        return record

    def _draw(self) -> Path:
        parts, spec = self._parts, self.config.source.spec()
        images = len(spec.shape) == 3
        count = IMAGES_SHOWN if images else POINTS_SHOWN
        fake = generate(parts.best_generator, self.config.latent.draw(count, parts.streams.at("picture-latents", 0)))
        real = None if images else parts.held_out.some(count)
        picture = self.run_dir.samples / f"{self.step:09d}.png"
        with writing(picture):
            draw_samples(picture, fake, real, spec.bounds)
        return picture

    def save(self) -> Path:
        """Write a checkpoint of this moment; raises `DivergedError` rather than save what is not finite."""
        self._step.check_finite()
        snapshot = capture(self._parts, self._step)
        return checkpoint.save(self.run_dir.checkpoints, snapshot, keep=self.config.schedule.keep)


def resolved(config: Given, settings: dict[str, Any]) -> RunConfig:
    """The configuration that a trainer is given, whole or as a file and settings."""
    if isinstance(config, RunConfig):
        if settings:
            raise UsageError(f"a RunConfig is complete: {', '.join(settings)} cannot be given beside it")
        return config
    return configure(config=config, **settings)


@overload
def train(config: Given = None, *, replicates: None = None, out: str | Path | None = None, **settings: Any) -> Run: ...


@overload
def train(config: Given = None, *, replicates: int, out: str | Path | None = None, **settings: Any) -> list[Run]: ...


def train(
    config: Given = None, *, replicates: int | None = None, out: str | Path | None = None, **settings: Any
) -> Run | list[Run]:
    """Train a run from start to end; the arguments are those of `Trainer`.

    With `replicates`, so many seeds are trained at once, and their runs come back in a list.

    ::

        run = ipmgan.train(objective="wgan", lipschitz="clip", source="ring8", steps=1000)
        runs = ipmgan.train(objective="wgan", lipschitz="clip", source="ring8", steps=1000, replicates=8)
    """
    trainer = Trainer(config, out=out, replicates=1 if replicates is None else replicates, **settings)
    runs = trainer.train()
    return [runs] if replicates == 1 else runs


def resume(path: str | Path, *, steps: int | None = None) -> Run | Any:
    """Go on with a run to its end, or to a new total of `steps`; raises as `Trainer.resume` does.

    A directory of replicates gives the list of their runs.
    """
    from ipmgan.engine.replicates import Replicates  # It is made of trainers.

    kind = Replicates if Replicates.at(path) else Trainer
    return kind.resume(path, steps=steps).train()
