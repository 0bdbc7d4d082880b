"""The contract of a tracker: what sends a run's lines of metrics elsewhere."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipmgan.plugin import Plugin


class Tracking:
    """A run that is being tracked. Every method does nothing unless overridden.

    They are called between steps, and the run waits for them.
    """

    def log(self, record: Mapping[str, Any]) -> None:
        """A line of metrics, as the run yields it: numbers by name, among them ``step``; nan and inf may occur."""

    def picture(self, step: int, path: Path) -> None:
        """The picture of samples after so many steps: a PNG file in the run's directory."""

    def close(self) -> None:
        """The run has ended, or stopped; nothing follows."""


class Tracker(Plugin):
    """Somewhere to send what a run logs.

    A tracker decides nothing about a run: it gets copies, and may draw from no random generator that training uses. One
    that raises is named in a warning and left out from there on; the run goes on as if it had never been there.
    """

    kind = "tracker"

    def check(self) -> None:
        """Raise `UsageError` where this machine lacks what the tracker needs; called before a new run is made."""

    @abstractmethod
    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        """Start to track the run in this directory, or go on where it was resumed.

        `settings` are those of its ``config.toml``. In a run that is resumed, ``metrics.jsonl`` holds the lines up to
        the checkpoint that it goes on from; later ones, which may have been tracked before, come again.
        """


def last_step(run: Path) -> int:
    """The step of a run's last line of metrics; -1 before the first."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return int(json.loads(lines[-1])["step"]) if lines else -1
