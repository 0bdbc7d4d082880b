"""The directory of a run, and where everything in it lies."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from ipmgan.config import RunConfig, read_toml, resolve
from ipmgan.errors import CheckpointError, UsageError

DEFAULT_PARENT = Path("runs")


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
            run = cls(cls._claim(config, out))
            run.samples.mkdir()
            run.checkpoints.mkdir()
            run.write_config(config)
            run.metrics_file.touch()
        except OSError as error:
            raise CheckpointError(f"no run can be written to {out or DEFAULT_PARENT}: {error}") from error
        return run

    @staticmethod
    def _claim(config: RunConfig, out: str | Path | None) -> Path:
        if out is not None:
            path = Path(out)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(f"{path} exists and is not empty: choose another --out, or: ipmgan resume {path}")
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

    def config(self) -> RunConfig:
        """The run's configuration; raises `CheckpointError` where this is no run, or a plugin of it is missing."""
        if not self.config_file.is_file():
            raise CheckpointError(f"{self.path} is not a run: it has no config.toml")
        try:
            return resolve(read_toml(self.config_file))
        except UsageError as error:
            raise CheckpointError(f"{self.config_file}: {error}") from error

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
        temporary = self.config_file.with_suffix(".writing")
        temporary.write_text(config.toml(), encoding="utf-8")
        temporary.replace(self.config_file)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line of metrics; what is not finite becomes null."""
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in record.items()
        }
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of metrics."""
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def forget_after(self, step: int) -> None:
        """Drop the metrics and samples of later steps, which a run leaves that dies after its last checkpoint."""
        kept = "".join(json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step)
        temporary = self.metrics_file.with_suffix(".writing")
        temporary.write_text(kept, encoding="utf-8")
        temporary.replace(self.metrics_file)
        for picture in self.samples.iterdir():
            number = re.match(r"\d+", picture.name)
            if number and int(number.group()) > step:
                picture.unlink()
