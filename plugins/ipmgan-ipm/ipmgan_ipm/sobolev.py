"""Sobolev GAN's constraint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms
from torch import Tensor, nn

from ipmgan_ipm.lagrangian import augmented

SOBOLEV = Reference(
    key="mroueh2018sobolev",
    title="Sobolev GAN",
    authors=("Youssef Mroueh", "Chun-Liang Li", "Tom Sercu", "Anant Raj", "Yu Cheng"),
    year=2018,
    venue="International Conference on Learning Representations",
    arxiv="1711.04894",
)
_ADAM = "Adam:lr=2e-4,betas=[0.5,0.999]"


@attrs.frozen(kw_only=True)
class Sobolev(LipschitzEnforcer):
    """Holds the critic's mean squared slope at one, by a multiplier: with `wgan`, the Sobolev IPM.

        Ω = E_μ ‖∇f(x)‖²,   μ = (P_r + P_g) / 2
        adds to the critic's loss  -λ (1 - Ω) + ρ/2 (1 - Ω)²,  and then λ <- λ - ρ (1 - Ω)
        while Ω = 1,  E_r[f(x)] - E_g[f(x)]  <=  S(P_r, P_g)
        in one dimension,  S² = ∫ (F_r - F_g)² / μ dx,   F the distribution functions

    The multiplier λ is state between steps, 0 at the start; at the optimum it is S/2, and f' = (F_g - F_r) / (S μ) in
    one dimension. The slope is bounded on average and nowhere in particular: the critic has no Lipschitz constant to
    speak of, and what `wgan` calls K·W1 is S here, in data units. The constraint holds where the penalty in the metrics
    is about 0; until then the gap is S·√Ω at best. Every sample counts alone, which rules out batch norm.

    Departs from the paper in ρ, which is larger, so that λ settles within some thousands of critic steps.
    Source: Mroueh et al. (2018), algorithm 1.
    """

    name: ClassVar[str] = "sobolev"
    references: ClassVar[tuple[Reference, ...]] = (SOBOLEV,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    rho: float = option(1e-2, help="ρ, weight of the penalty and step of the multiplier", above=0)

    def state(self) -> Mapping[str, Tensor]:
        """The multiplier, 0."""
        return {"multiplier": torch.zeros(())}

    def penalty_and_state(
        self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The two terms, a scalar, of samples (N, ...), and the next multiplier."""
        squared = gradient_norms(critic, torch.cat([real, fake])).square()
        omega = (squared[: len(real)].mean() + squared[len(real) :].mean()) / 2
        term, multiplier = augmented(omega, state["multiplier"], self.rho)
        return term, {"multiplier": multiplier}

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The two terms at the first step."""
        return self.penalty_and_state(critic, real, fake, drawn, self.state())[0]
