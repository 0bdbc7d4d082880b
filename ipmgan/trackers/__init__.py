"""Where a run's lines of metrics are sent."""

from __future__ import annotations

from ipmgan.trackers.base import Tracker, Tracking
from ipmgan.trackers.csvfile import CSV
from ipmgan.trackers.tensorboard import TensorBoard

BUILTIN: tuple[type[Tracker], ...] = (CSV, TensorBoard)

__all__ = ["BUILTIN", "CSV", "TensorBoard", "Tracker", "Tracking"]
