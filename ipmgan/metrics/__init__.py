"""Metrics: numbers about generated samples that no critic has a hand in."""

from ipmgan.metrics.base import Metric
from ipmgan.metrics.sliced import SlicedWasserstein

BUILTIN: tuple[type[Metric], ...] = (SlicedWasserstein,)
"""The metrics that come with the package."""

__all__ = ["BUILTIN", "Metric", "SlicedWasserstein"]
