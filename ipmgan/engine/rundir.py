"""The directory of a run, and where everything in it lies."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from ipmgan.config import RunConfig, from_table, part, read_toml
from ipmgan.engine import checkpoint
from ipmgan.engine.checkpoint import Snapshot
from ipmgan.errors import CheckpointError, UsageError, choose_from
from ipmgan.selection import Table

DEFAULT_PARENT = Path("runs")
SEED = "seed-"
"""What the directories of replicates begin with."""
NO_PLUGINS = ("python", "torch")
"""What a checkpoint has the version of, and offers no plugins."""


class RunDir:
    """``config.toml``, ``metrics.jsonl``, ``samples/``, ``checkpoints/`` and ``run.lock`` of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.toml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.samples = self.path / "samples"
        self.checkpoints = self.path / "checkpoints"
        self._lock = filelock.FileLock(self.path / "run.lock")

    @classmethod
    def create(cls, config: RunConfig, out: str | Path | None = None) -> RunDir:
        """A new directory: `out`, or the first free of ``runs/<title>``, ``runs/<title>-2``, ...

        Raises `UsageError` if `out` exists and is not empty, `CheckpointError` if nothing can be written there.
        """
        try:
            run = cls(cls.claim(config, out))
            run.samples.mkdir()
            run.checkpoints.mkdir()
            run.write_config(config)
            run.metrics_file.touch()
        except OSError as error:
            raise CheckpointError(f"no run can be written to {out or DEFAULT_PARENT}: {error}") from error
        return run

    @staticmethod
    def at(path: str | Path) -> bool:
        """Whether a run lies there."""
        return (Path(path) / "config.toml").is_file()

    @staticmethod
    def refuse_taken(path: Path) -> None:
        """Raise `UsageError` where something is in the way of a new run."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path} exists and is not empty: choose another --out, or: ipmgan resume {path}")

    @classmethod
    def claim(cls, config: RunConfig, out: str | Path | None) -> Path:
        """An empty directory: `out`, or the first free one under ``runs/``."""
        if out is not None:
            path = Path(out)
            cls.refuse_taken(path)
            path.mkdir(parents=True, exist_ok=True)
            return path
        DEFAULT_PARENT.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = DEFAULT_PARENT / (config.title if number == 1 else f"{config.title}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            return path

    def table(self) -> Table:
        """The configuration as it is written, whatever is installed; raises `CheckpointError` where this is no run."""
        if not self.config_file.is_file():
            seeds = ", ".join(map(str, seeds_at(self.path)))
            several = f"holds runs of several seeds: give one of them, {seeds}"
            raise CheckpointError(f"{self.path} {several if seeds else 'is not a run: it has no config.toml'}")
        try:
            return read_toml(self.config_file)
        except UsageError as error:
            raise CheckpointError(str(error)) from error

    def config(self) -> RunConfig:
        """The run's configuration; raises `CheckpointError` where this is no run, or a plugin of it is missing."""
        table = self.table()
        with self._naming_what_is_missing():
            return from_table(table)

    def part(self, key: str) -> Any:
        """One setting that is a table, such as ``generator``, made alone: where that is enough, others may be missing.

        Raises as `config` does.
        """
        table = self.table()
        with self._naming_what_is_missing():
            return part(table, key)

    def snapshot(self, step: int | None = None) -> Snapshot:
        """The checkpoint of a step, or the last valid one; raises `CheckpointError` where there is none."""
        if step is None:
            last = checkpoint.load_latest(self.checkpoints)
            if last is None:
                raise CheckpointError(f"{self.path} has no checkpoint yet: train it with: ipmgan resume {self.path}")
            return last
        kept = checkpoint.steps(self.checkpoints)
        if step not in kept:
            raise CheckpointError(choose_from(f"checkpoint of {self.path} at step", step, map(str, kept)))
        return checkpoint.load(checkpoint.path_of(self.checkpoints, step))

    @contextlib.contextmanager
    def _naming_what_is_missing(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            missing = self._not_installed()
            start = "; " if "\n" in str(error) else "\n"  # An error is two lines at most.
            note = f"{start}The run was saved with {'; '.join(missing)}" if missing else ""
            raise CheckpointError(f"{self.config_file}: {error}{note}") from error

    def _not_installed(self) -> list[str]:
        """Which distributions of the last checkpoint are missing here, or of another version."""
        missing = []
        for name, version in checkpoint.latest_versions(self.checkpoints).items():
            here = _installed(name)
            if here != version and name not in NO_PLUGINS:
                missing.append(f"{name} {version}, {f'here it is {here}' if here else 'which is not installed'}")
        return missing

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; raises `CheckpointError` if another process does. The lock goes with its process."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise CheckpointError(f"{self.path} is being trained by another process") from error
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be written: {error}") from error
        try:
            yield
        finally:
            self._lock.release()

    def write_config(self, config: RunConfig) -> None:
        """Replace ``config.toml``, whole or not at all."""
        _replace(self.config_file, config.toml())

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line of metrics; what is not finite becomes null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with writing(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics; what a crash left of others is passed over."""
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [record for record in map(_record, lines) if record is not None]

    def forget_after(self, step: int) -> None:
        """Drop the metrics and samples of later steps, which a run leaves that dies after its last checkpoint."""
        self.forget_lines_after(step)
        with writing(self.samples):
            self.samples.mkdir(exist_ok=True)
            for picture in self.samples.iterdir():
                number = re.match("[0-9]+", picture.name)
                if number and int(number.group()) > step:
                    picture.unlink()

    def forget_lines_after(self, step: int) -> None:
        """Drop the metrics of later steps."""
        kept = "".join(json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step)
        _replace(self.metrics_file, kept)


def seeds_at(path: str | Path) -> list[Path]:
    """The directories of replicates that lie there, in the order of their seeds; none where nobody trained any."""
    found = [place for place in Path(path).glob(f"{SEED}*") if place.name.removeprefix(SEED).isdecimal()]
    return sorted(found, key=lambda place: int(place.name.removeprefix(SEED))) if any(map(RunDir.at, found)) else []


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what could not be written: turns an `OSError` into a `CheckpointError`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def _replace(path: Path, text: str) -> None:
    """Replace a file, whole or not at all."""
    temporary = path.with_suffix(".writing")
    with writing(path):
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # The latter for what is no name.
        return None
