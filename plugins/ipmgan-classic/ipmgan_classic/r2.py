"""The R2 penalty."""

from __future__ import annotations

from typing import ClassVar

import attrs
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms
from torch import Tensor, nn

from ipmgan_classic.r1 import CONVERGE, RMSPROP


@attrs.frozen(kw_only=True)
class R2(LipschitzEnforcer):
    """Penalises the critic's squared slope at generated samples, so that a game that would circle settles.

        gamma/2 * mean_i ||grad f(fake_i)||_2²

    What `r1` does at real samples, and with the same effect near the equilibrium, where the two laws agree. It bounds
    no slope, and holds the critic down where the generator has to learn from it. A linear critic that maximises the gap
    of means a distance D apart has slope D / gamma and gap D² / gamma, which is no W1.

    f is the critic's output as the objective gets it, a logit for a GAN. The ½ is the paper's; the authors' code leaves
    it out, so that its 10 is gamma = 20 here. Every sample counts alone, which rules out batch norm.
    Source: Mescheder, Geiger and Nowozin (2018), section 4.1.
    """

    name: ClassVar[str] = "r2"
    references: ClassVar[tuple[Reference, ...]] = (CONVERGE,)
    defaults: ClassVar[Training] = Training(critic_optimizer=RMSPROP, generator_optimizer=RMSPROP)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    gamma: float = option(10.0, help="twice the weight", above=0)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of generated samples (N, ...)."""
        return self.gamma / 2 * gradient_norms(critic, fake).square().mean()
