"""The contract of a perturbation: what is done to everything that the critic sees."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ipmgan.plugin import Plugin


class Perturbation(Plugin):
    """A change to real and generated samples alike, in both steps and in estimates.

    The objective then compares the perturbed laws, and gradients pass through the change to the generator.
    """

    kind = "perturbation"
    vectorises: ClassVar[bool] = True
    """Works under `torch.func.vmap`, by which several seeds are trained at once."""

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, *, done: float) -> Tensor | None:
        """What one batch of this shape, (N, ...), needs, on the generator's device: random numbers as a rule, or None.

        `done` is the share of the run's steps that are done, from 0 to 1. Whatever changes in the course of a run
        enters here, since what is compiled, or runs for many seeds at once, neither draws nor counts.
        """
        return None

    @abstractmethod
    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        """The perturbed samples, of the same shape; a pure function, differentiable in the samples, (N, ...).

        `drawn` is what `draw` returned.
        """
