"""Hands a run's lines and pictures to its trackers, and keeps the run out of their reach."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ipmgan.config import RunConfig
from ipmgan.engine.streams import Streams
from ipmgan.errors import IpmganError, PluginError
from ipmgan.registry import versions
from ipmgan.trackers import Tracking


def check_trackers(config: RunConfig) -> None:
    """Raise `UsageError` where a tracker's name stands for another class, or where it lacks what it needs here."""
    versions(config.trackers)
    for tracker in config.trackers:
        try:
            tracker.check()
        except IpmganError:
            raise
        except Exception as error:
            raise PluginError(f"the tracker {tracker.name} cannot be used: {_reason(error)}") from error


class Tracked:
    """The trackers of a run while it is trained.

    Each gets copies, and draws from random generators that are put back. One that raises is named in a warning and left
    out from there on.
    """

    def __init__(self, config: RunConfig, path: Path, streams: Streams) -> None:
        self._config, self._path, self._streams = config, path, streams
        self._live: list[tuple[str, Tracking]] = []

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Track what is logged until the end of this block."""
        for tracker in self._config.trackers:
            with self._guarded(tracker.name):
                tracking = tracker.open(self._path, self._config.table())
                if not isinstance(tracking, Tracking):
                    raise TypeError(f"open must return a Tracking, not {tracking!r}")
                self._live.append((tracker.name, tracking))
        try:
            yield
        finally:
            for name, tracking in self._live:
                with self._guarded(name, tracking):
                    tracking.close()
            self._live = []

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand on a line of metrics."""
        for name, tracking in self._live:
            with self._guarded(name, tracking):
                tracking.log(copy.deepcopy(record))

    def picture(self, step: int, path: Path) -> None:
        """Hand on a picture of samples."""
        for name, tracking in self._live:
            with self._guarded(name, tracking):
                tracking.picture(step, path)

    @contextlib.contextmanager
    def _guarded(self, name: str, tracking: Tracking | None = None) -> Iterator[None]:
        try:
            with self._streams.global_draws("tracking", 0):
                yield
        # A tracker is somebody else's code: whatever it raises, `sys.exit` included, must not stop the run.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._live = [(other, live) for other, live in self._live if live is not tracking]
            warnings.warn(f"the tracker {name} is off from here on: {_reason(error)}", stacklevel=2)


def _reason(error: BaseException) -> str:
    """An error on one line."""
    text = str(error) if isinstance(error, IpmganError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
