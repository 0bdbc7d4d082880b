"""The contract of an enforcer: what holds the critic's Lipschitz constant down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ipmgan.plugin import Plugin


class LipschitzEnforcer(Plugin):
    """A constraint on the critic. Every method does nothing unless overridden."""

    kind = "lipschitz"
    enforces: ClassVar[bool] = True
    """False for the enforcer that enforces nothing."""
    needs_double_backward: ClassVar[bool] = False
    """Differentiates through the critic's gradient, so every layer must be twice differentiable."""
    per_sample: ClassVar[bool] = False
    """Needs f(x_i) to depend on x_i alone: refuses batch norm in the critic."""
    scalar_critic: ClassVar[bool] = False
    """Needs a critic that puts out one number a sample."""
    momentum_free: ClassVar[bool] = False
    """Suffers from momentum in the critic's optimiser (the projection undoes what the momentum remembers)."""
    vectorises: ClassVar[bool] = True
    """Works under `torch.func.vmap`, by which several seeds are trained at once."""

    elementwise: ClassVar[bool] = False
    """`after_step` changes every number of the weights by itself, so that it does for a stack of critics what it does
    for each of them."""

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic, reparametrised where the constraint asks for it; called once, before the optimiser is made."""
        return critic

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor | None:
        """The random numbers that one penalty needs, for so many samples, or None.

        Drawn apart from it, since what is compiled, or runs for many seeds at once, cannot draw from a generator.
        """
        return None

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor | None:
        """A scalar to add to the critic's loss, or None.

        `real` and `fake` are samples, (N, ...), without graph; `drawn` is what `draw` returned.
        """
        return None

    def after_step(self, critic: nn.Module) -> None:
        """Project the critic's weights in place; called under `torch.no_grad` after every update of the critic."""

    def state(self) -> Mapping[str, Tensor]:
        """What the enforcer keeps between critic steps, as it is at the start: small tensors, such as a multiplier.

        The engine holds the copies that move, one for each run, and saves and restores them.
        """
        return {}

    def penalty_and_state(
        self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None, state: Mapping[str, Tensor]
    ) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """The penalty, given what is kept, and what is kept after this critic step, without graph.

        An enforcer that keeps nothing has no need of it.
        """
        return self.penalty(critic, real, fake, drawn), state
