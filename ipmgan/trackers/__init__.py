"""Where a run's lines of metrics are sent."""

from __future__ import annotations

from ipmgan.trackers.base import Tracker, Tracking
from ipmgan.trackers.tensorboard import TensorBoard

BUILTIN: tuple[type[Tracker], ...] = (TensorBoard,)

__all__ = ["BUILTIN", "TensorBoard", "Tracker", "Tracking"]
