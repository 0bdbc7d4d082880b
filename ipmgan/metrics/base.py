"""The contract of a metric: a number about generated samples that no critic has a hand in."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ipmgan.plugin import Plugin, Quantity


class Metric(Plugin):
    """A comparison of held-out real samples with generated ones."""

    kind = "metric"
    measures: ClassVar[Quantity]
    samples: ClassVar[int]
    """How many samples of each side a computation takes."""

    @abstractmethod
    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        """The value, a scalar, from samples (N, ...) and (M, ...)."""
