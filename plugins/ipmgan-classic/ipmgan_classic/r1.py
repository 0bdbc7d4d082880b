"""The R1 penalty."""

from __future__ import annotations

from typing import ClassVar

import attrs
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms
from torch import Tensor, nn

CONVERGE = Reference(
    key="mescheder2018which",
    title="Which Training Methods for GANs do actually Converge?",
    authors=("Lars Mescheder", "Andreas Geiger", "Sebastian Nowozin"),
    year=2018,
    venue="International Conference on Machine Learning",
    arxiv="1801.04406",
)
RMSPROP = "RMSprop:lr=1e-4"


@attrs.frozen(kw_only=True)
class R1(LipschitzEnforcer):
    """Penalises the critic's squared slope at real samples, so that a game that would circle settles.

        gamma/2 * mean_i ||grad f(real_i)||_2²

    In the smallest GAN, real samples at 0, generated ones at theta and the critic psi x, the gradient steps at the
    equilibrium have the eigenvalues -gamma/2 ± sqrt(gamma²/4 - 1/4): ± i/2, a circle, for gamma = 0, and a spiral or a
    node inwards for every gamma > 0.

    It bounds no slope, and none at all where there are no real samples. A linear critic that maximises the gap of means
    a distance D apart has slope D / gamma and gap D² / gamma, which is no W1.

    f is the critic's output as the objective gets it, a logit for a GAN. The ½ is the paper's; the authors' code leaves
    it out, so that its 10 is gamma = 20 here. Every sample counts alone, which rules out batch norm.
    Source: Mescheder, Geiger and Nowozin (2018), section 4.1.
    """

    name: ClassVar[str] = "r1"
    references: ClassVar[tuple[Reference, ...]] = (CONVERGE,)
    defaults: ClassVar[Training] = Training(critic_optimizer=RMSPROP, generator_optimizer=RMSPROP)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    gamma: float = option(10.0, help="twice the weight", above=0)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of real samples (N, ...)."""
        return self.gamma / 2 * gradient_norms(critic, real).square().mean()
