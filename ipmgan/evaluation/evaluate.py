"""Computes metrics of a run's generator, or of stored samples, over repeated draws."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor, nn

from ipmgan.data.base import Source, Split
from ipmgan.engine.build import choose_device
from ipmgan.engine.facts import known
from ipmgan.engine.run import Run
from ipmgan.engine.streams import Streams, seed_of
from ipmgan.errors import DataError, UsageError, choose_from
from ipmgan.evaluation.pools import Pool, passes
from ipmgan.evaluation.results import Evaluation, Result
from ipmgan.evaluation.stored import is_run, read_samples
from ipmgan.metrics import BUILTIN
from ipmgan.metrics.base import Comparison, Metric, Reading
from ipmgan.registry import registry, table_of, versions

SPLITS: tuple[Split, ...] = ("held-out", "train")
FILE = "evaluation.json"
"""Where the evaluation of a run lies, in its directory."""


@attrs.frozen(kw_only=True)
class Subject:
    """What is evaluated: where generated samples come from."""

    title: str
    path: Path
    step: int | None
    source: Source
    size: int | None
    """How many samples there are; None where there is no end of them."""
    draw: Callable[[int, int], Tensor]
    """From a number of samples and a repeat to the samples."""
    how: Callable[[int], str]


@attrs.frozen(kw_only=True)
class Job:
    """A metric, and how many samples of either side it takes."""

    metric: Metric
    real: int
    generated: int


class Evaluator:
    """Metrics of a run, of a file or of a folder of samples; iterating over it computes them, one reading at a time.

    `what` is a run or its directory, or a .npy, .npz or .safetensors file or a folder of images, for which `source`
    says what the real samples are. `metrics` are selections or objects; without any, all built-in ones and those of
    the run are taken that say something about such samples. Each is computed in every one of `repeats` draws, of
    `samples` of either side, or of as many as the metric takes by default; there are at most as many real ones as the
    split has. `networks` are the user's own feature networks, by name. The same seed gives the same numbers.

    Raises `UsageError` for a metric that does not go with the samples or their number, `CheckpointError` where there is
    no run, `DataError` where samples are missing or too few.
    """

    def __init__(
        self,
        what: str | Path | Run,
        *,
        metrics: Sequence[str | Metric] = (),
        samples: int | None = None,
        repeats: int = 5,
        split: str = "held-out",
        source: str | Source | None = None,
        seed: int = 0,
        average: bool = True,
        device: str = "auto",
        networks: Mapping[str, nn.Module] | None = None,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(choose_from("split", split, SPLITS))
        for name, number in (("samples", samples), ("repeats", repeats)):
            if number is not None and number < 1:
                raise UsageError(f"{name} = {number}: must be at least 1")
        self.repeats, self.seed, self.split = repeats, seed, split
        self._streams = Streams(seed, choose_device(device))
        own = _source(source)
        self.subject = self._run(what, own, average, device) if is_run(what) else self._file(Path(str(what)), own)
        self._pool = Pool(self.subject.source.open(_split(split)), self._streams, f"evaluate-{split}", repeats)
        self._blank = self._facts(networks or {})
        self.skipped: dict[str, str] = {}
        """Metrics that were left out, and why."""
        wanted = [registry().make("metric", each) if isinstance(each, str) else each for each in metrics]
        chosen = self._checked(wanted) if wanted else self._default(what)
        self._versions = versions([self.subject.source, *chosen])
        self.jobs = [self._job(metric, samples, exactly=bool(wanted)) for metric in chosen]
        self._readings: list[list[Reading]] = [[] for _ in self.jobs]
        self._seconds = [0.0] * len(self.jobs)

    def __len__(self) -> int:
        """How many readings there are in all."""
        return len(self.jobs) * self.repeats

    def __iter__(self) -> Iterator[str]:
        """Compute, yielding before each reading what it will be."""
        for repeat in range(self.repeats):
            comparison: Comparison | None = None
            for number, job in enumerate(self.jobs):
                yield f"{job.metric.name}, draw {repeat + 1} of {self.repeats}"
                start = time.perf_counter()
                comparison = comparison or self._compare(repeat)
                generator = self._streams.at(f"evaluate-metric-{job.metric.name}", repeat)
                reading = job.metric.read(comparison.first(job.real, job.generated), generator=generator)
                self._readings[number].append(attrs.evolve(reading, value=float(reading.value)))
                self._seconds[number] += time.perf_counter() - start

    def evaluation(self) -> Evaluation:
        """The results of all draws that were computed; raises `UsageError` where there are none yet."""
        if not all(self._readings):
            raise UsageError("nothing was computed yet: iterate over the evaluator first")
        subject = self.subject
        return Evaluation(
            subject=subject.title,
            step=subject.step,
            source=table_of(subject.source),
            seed=self.seed,
            repeats=self.repeats,
            versions=self._versions,
            results=tuple(map(self._result, self.jobs, self._readings, self._seconds)),
            skipped=dict(self.skipped),
        )

    def _result(self, job: Job, readings: Sequence[Reading], seconds: float) -> Result:
        return Result.of(
            job.metric,
            readings,
            split=self.split,
            real=job.real,
            generated=job.generated,
            real_draws=self._pool.how(job.real),
            generated_draws=self.subject.how(job.generated),
            seconds=round(seconds, 2),
        )

    def _run(self, what: str | Path | Run, source: Source | None, average: bool, device: str) -> Subject:
        run = what if isinstance(what, Run) else Run(what)
        shapes = [part.spec().shape for part in (run.source, source or run.source)]
        if shapes[0] != shapes[1]:
            raise UsageError(f"the run's samples are {shapes[0]}, and those of --source {shapes[1]}")

        def draw(count: int, repeat: int) -> Tensor:
            seed = seed_of(self.seed, "evaluate-generated", repeat)
            return run.sample(count, seed=seed, average=average, device=device).to(self._streams.device)

        return Subject(
            title=str(run.path),
            path=run.path,
            step=run.dir.snapshot().step,
            source=source or run.source,
            size=None,
            draw=draw,
            how=lambda count: "fresh",
        )

    def _file(self, path: Path, source: Source | None) -> Subject:
        if source is None:
            raise UsageError(f"{path} is no run: say what its samples are compared with, such as --source mnist")
        held = read_samples(path.expanduser(), source.spec())
        pool = Pool(held, self._streams, "evaluate-stored", self.repeats)
        return Subject(
            title=str(path), path=path, step=None, source=source, size=pool.size, draw=pool.draw, how=pool.how
        )

    def _facts(self, networks: Mapping[str, nn.Module]) -> Comparison:
        """A comparison without samples, with all that is known of them."""
        train = self.subject.source.open("train")
        return attrs.evolve(
            known(self.subject.source, self._streams.device), split=self.split, train=passes(train), networks=networks
        )

    def _compare(self, repeat: int) -> Comparison:
        real = self._pool.draw(max(job.real for job in self.jobs), repeat)
        fake = self.subject.draw(max(job.generated for job in self.jobs), repeat)
        return attrs.evolve(self._blank, real=real, fake=fake, known={})

    def _checked(self, metrics: Sequence[Any]) -> list[Metric]:
        for metric in metrics:
            reason = metric.refuses(self._blank)
            if reason:
                raise UsageError(f"{metric.name}: {reason}")
        return list(metrics)

    def _default(self, what: object) -> list[Metric]:
        run = what if isinstance(what, Run) else Run(self.subject.path) if self.subject.step is not None else None
        found: list[Metric] = []
        for given in (*(run.settings.get("metrics", ()) if run else ()), *({"name": kind.name} for kind in BUILTIN)):
            try:
                metric = registry().make("metric", given)
            except UsageError as error:
                self.skipped[str(given.get("name"))] = str(error)
                continue
            assert isinstance(metric, Metric)
            reason = metric.refuses(self._blank)
            if reason:
                self.skipped[metric.name] = reason
            elif metric not in found:
                found.append(metric)
        return found

    def _job(self, metric: Metric, samples: int | None, *, exactly: bool) -> Job:
        there = [size for size in (self._pool.size, self.subject.size) if size is not None]
        real = generated = min([metric.samples, *there])
        if samples is not None:
            if self.subject.size is not None and samples > self.subject.size:
                raise DataError(f"{self.subject.title} holds {self.subject.size:,} samples, fewer than {samples:,}")
            real, generated = min([samples, *there[: self._pool.size is not None]]), samples
        most = metric.most(self._blank.shape)
        if most is not None and real * generated > most**2:
            if exactly:
                raise UsageError(
                    f"{metric.name} between {real:,} and {generated:,} samples does not fit: the largest size that "
                    f"does is {most:,} a side; take --samples {most}, or sliced-wasserstein"
                )
            real, generated = min(real, most), min(generated, most)
        return Job(metric=metric, real=real, generated=generated)


def evaluate(what: str | Path | Run, *, out: str | Path | None = None, **settings: Any) -> Evaluation:
    """Compute metrics of a run, or of stored samples, and write them to ``evaluation.json``.

    `what` and `settings` are those of `Evaluator`. The file goes into the run's directory, or to `out`; for stored
    samples it is written only to `out`. Raises as `Evaluator` does.
    """
    evaluator = Evaluator(what, **settings)
    for _ in evaluator:
        pass
    evaluation = evaluator.evaluation()
    target = place(evaluator, out)
    if target is not None:
        evaluation.save(target)
    return evaluation


def place(evaluator: Evaluator, out: str | Path | None) -> Path | None:
    """Where an evaluation is written: `out`, or in the run's directory; nowhere for samples from a file."""
    if out is not None:
        return Path(out)
    return evaluator.subject.path / FILE if evaluator.subject.step is not None else None


def _source(given: str | Source | None) -> Source | None:
    made = registry().make("source", given) if isinstance(given, str) else given
    assert made is None or isinstance(made, Source)
    return made


def _split(name: str) -> Split:
    return "train" if name == "train" else "held-out"
