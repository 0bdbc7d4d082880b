"""What a source tells of its samples before any is drawn, for metrics to know."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ipmgan.data.base import Source
from ipmgan.metrics.base import Comparison, Modes

CPU = torch.device("cpu")


@runtime_checkable
class Mixture(Protocol):
    """A source that knows the modes of its law."""

    def mode_centres(self) -> Tensor:
        """(K, D)."""

    def mode_std(self) -> float:
        """That of each mode."""


def known(source: Source, device: torch.device = CPU) -> Comparison:
    """A comparison without samples yet, with what a source tells of its own."""
    spec = source.spec()
    modes = Modes(centres=source.mode_centres(), std=source.mode_std()) if isinstance(source, Mixture) else None
    none = torch.empty(0, *spec.shape, device=device)
    return Comparison(real=none, fake=none, bounds=spec.bounds, modes=modes)
