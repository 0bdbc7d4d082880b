"""A table that other programs read."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from ipmgan.trackers.base import Tracker, Tracking, last_step

HEADER = ["step", "name", "value"]


@attrs.frozen(kw_only=True)
class CSV(Tracker):
    """Writes a run's metrics as a table, for spreadsheets and statistics programs.

        step,name,value
        100,critic_loss,-0.0318
        100,held_out_estimate,0.0297

    into ``metrics.csv`` in the run's directory: one row a number, since not every line of metrics has every number.
    """

    name = "csv"

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        """Start the table, or go on with what the resumed run kept of it."""
        path, last = run / "metrics.csv", last_step(run)
        kept = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdecimal() and int(row[0]) <= last]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([HEADER, *kept])
        return Rows(path)


class Rows(Tracking):
    """A table that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a row for each number."""
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "step"}
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([record["step"], name, value] for name, value in numbers.items())
