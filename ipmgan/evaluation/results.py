"""What an evaluation found: a result for each metric, each with all that its number hangs on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ipmgan.engine.rundir import writing
from ipmgan.errors import UsageError, choose_from
from ipmgan.metrics.base import Metric, Reading
from ipmgan.plugin import Quantity
from ipmgan.registry import table_of
from ipmgan.selection import fields_of

SCHEMA = 1


@attrs.frozen(kw_only=True)
class Estimate:
    """A mean over repeated draws, and its standard error; None from one draw that does not tell it."""

    value: float
    standard_error: float | None

    @classmethod
    def over(cls, values: Sequence[float], alone: float | None = None) -> Estimate:
        """From the values of the draws; `alone` is the standard error where there is one draw only.

        >>> Estimate.over([1.0, 3.0])
        Estimate(value=2.0, standard_error=1.0)
        """
        count = len(values)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(value=mean, standard_error=alone)
        variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
        return cls(value=mean, standard_error=math.sqrt(variance / count))


@attrs.frozen(kw_only=True)
class Result:
    """A metric's value over repeated draws, and what it was computed from."""

    metric: str
    options: Mapping[str, Any]
    """Those that are not the metric's own defaults."""
    measures: Quantity
    value: float
    standard_error: float | None
    values: tuple[float, ...]
    """One for each draw."""
    more: Mapping[str, Estimate]
    """Further numbers of the same computation."""
    split: str
    """Where the real samples come from, ``held-out`` or ``train``."""
    real: int
    generated: int
    """How many samples of either side a draw has."""
    real_draws: str
    generated_draws: str
    """How the sets of the draws lie to each other: fresh, disjoint, overlapping, or all samples every time."""
    resizing: str
    network: str
    checksum: str
    """The feature network, what is done to samples before it, and the sha256 of its weights."""
    seconds: float

    @property
    def title(self) -> str:
        """The metric with its options, as one would select it."""
        options = ",".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.metric}:{options}" if options else self.metric

    @classmethod
    def of(cls, metric: Metric, readings: Sequence[Reading], **drawn: Any) -> Result:
        """From the readings of the draws."""
        values = tuple(float(reading.value) for reading in readings)
        last = readings[-1]
        mean = Estimate.over(values, last.standard_error)
        chosen = {name for name, field in fields_of(type(metric)).items() if getattr(metric, name) != field.default}
        options = {key: option for key, option in table_of(metric).items() if key in chosen}
        return cls(
            metric=metric.name,
            options=options,
            measures=metric.measures,
            value=mean.value,
            standard_error=mean.standard_error,
            values=values,
            more={key: Estimate.over([float(reading.more[key]) for reading in readings]) for key in last.more},
            resizing=last.resizing,
            network=last.network,
            checksum=last.checksum,
            **drawn,
        )

    def table(self) -> dict[str, Any]:
        """The result as plain values; what is not finite is None."""
        plain = attrs.asdict(self, recurse=False)
        measures = plain.pop("measures")
        told = {"quantity": measures.name, "unit": measures.unit, "bound": measures.bound}
        more = {key: attrs.asdict(estimate) for key, estimate in self.more.items()}
        table = finite(plain | {"more": more})
        return {"metric": table.pop("metric")} | told | table


@attrs.frozen(kw_only=True)
class Evaluation:
    """The results of an evaluation, and what was evaluated."""

    subject: str
    """The run's directory, or the file or folder of samples."""
    step: int | None
    """The training step of the generator; None for samples from a file."""
    source: Mapping[str, Any]
    seed: int
    repeats: int
    versions: Mapping[str, str]
    results: tuple[Result, ...]
    skipped: Mapping[str, str]
    """Metrics that say nothing about such samples, and why."""

    def __getitem__(self, metric: str) -> Result:
        """The first result of a metric, by its name; raises `UsageError` where there is none."""
        for result in self.results:
            if result.metric == metric:
                return result
        raise UsageError(choose_from("result of a metric named", metric, [result.metric for result in self.results]))

    def table(self) -> dict[str, Any]:
        """The evaluation as plain values."""
        plain = attrs.asdict(self, recurse=False)
        return {"schema": SCHEMA} | plain | {"results": [result.table() for result in self.results]}

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all; raises `CheckpointError` or `UsageError` where that cannot be."""
        _save(Path(path), self.table())


@attrs.frozen(kw_only=True)
class Spread:
    """A number over several seeds: its mean, and the standard deviation with n - 1; None for a single seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]
    """One for each seed."""

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread:
        """From the values of the seeds.

        >>> Spread.over([1.0, 3.0])
        Spread(mean=2.0, sd=1.4142..., values=(1.0, 3.0))
        """
        over = Estimate.over(values)
        sd = None if over.standard_error is None else over.standard_error * math.sqrt(len(values))
        return cls(mean=over.value, sd=sd, values=tuple(values))


@attrs.frozen(kw_only=True)
class SeedsResult:
    """A metric's value over several seeds, and that of its further numbers."""

    first: Result
    """That of the first seed, which says what is measured."""
    value: Spread
    more: Mapping[str, Spread]

    @classmethod
    def of(cls, results: Sequence[Result]) -> SeedsResult:
        """From the results of the seeds, by the same metric."""
        more = {key: Spread.over([one.more[key].value for one in results]) for key in results[0].more}
        return cls(first=results[0], value=Spread.over([one.value for one in results]), more=more)

    def table(self) -> dict[str, Any]:
        """The result as plain values."""
        whole = self.first.table()
        told = {key: whole[key] for key in ("metric", "options", "quantity", "unit", "bound")}
        more = {key: attrs.asdict(spread) for key, spread in self.more.items()}
        return told | finite({"value": attrs.asdict(self.value), "more": more})


@attrs.frozen(kw_only=True)
class SeedsEvaluation:
    """The evaluations of several seeds of one configuration, by the same metrics."""

    subject: str
    """The directory of the replicates."""
    seeds: tuple[Evaluation, ...]

    @property
    def results(self) -> tuple[SeedsResult, ...]:
        """One for each metric."""
        return tuple(map(SeedsResult.of, zip(*(one.results for one in self.seeds), strict=True)))

    def table(self) -> dict[str, Any]:
        """The evaluations as plain values."""
        over = {"results": [result.table() for result in self.results]}
        return {"schema": SCHEMA, "subject": self.subject} | over | {"seeds": [one.table() for one in self.seeds]}

    def save(self, path: str | Path) -> None:
        """Write them as JSON; raises as `Evaluation.save` does."""
        _save(Path(path), self.table())


def _save(target: Path, table: Mapping[str, Any]) -> None:
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is no file: give --out a file's name")
    temporary = target.with_name(f"{target.name}.writing")
    with writing(target):
        temporary.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        temporary.replace(target)


def finite(table: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with None for what JSON cannot say.

    >>> finite({"value": float("nan"), "values": (1.0, float("inf"))})
    {'value': None, 'values': [1.0, None]}
    """
    return {key: _finite(value) for key, value in table.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
