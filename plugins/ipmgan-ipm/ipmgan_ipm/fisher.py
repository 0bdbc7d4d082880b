"""Fisher GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
import torch
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from torch import Tensor

from ipmgan_ipm.lagrangian import augmented

FISHER = Reference(
    key="mroueh2017fisher",
    title="Fisher GAN",
    authors=("Youssef Mroueh", "Tom Sercu"),
    year=2017,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1705.09675",
)
_ADAM = "Adam:lr=2e-4,betas=[0.5,0.999]"


@attrs.frozen(kw_only=True)
class Fisher(Objective):
    """The Fisher IPM: the gap between the critic's means, in units of its second moment over both laws.

        Ω = ½ E_r[f(x)²] + ½ E_g[f(x)²]
        critic:     minimise  E_g[f(x)] - E_r[f(x)] - λ (1 - Ω) + ρ/2 (1 - Ω)²,  and then λ <- λ - ρ (1 - Ω)
        generator:  minimise  -E_g[f(x)]
        estimate:   (E_r[f(x)] - E_g[f(x)]) / √Ω  <=  F(P_r, P_g)  <=  2
        F² = ∫ (p_r - p_g)² / m = 4 χ²(P_r ‖ m),   m = (p_r + p_g) / 2

    The multiplier λ is state between steps, 0 at the start. At the optimum f = (p_r - p_g) / (F m), Ω = 1, λ = F/2, and
    the critic's loss is -F. The estimate does not depend on the critic's scale, so that it is a lower bound wherever
    the constraint stands. It is that of the two batches: a critic that tells finite samples apart by heart reads 2,
    which held-out data shows. No Lipschitz constraint is needed, and batch norm may stay.

    ρ = 1e-6 is the paper's, for very long runs; one of thousands of steps settles with 1e-2.

    Departs from the paper in nothing but its number: the paper reports the gap itself, which is F only where Ω = 1.
    Source: Mroueh and Sercu (2017), theorem 1 and algorithm 1.
    """

    name: ClassVar[str] = "fisher"
    references: ClassVar[tuple[Reference, ...]] = (FISHER,)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    whole_batch: ClassVar[bool] = True
    estimates: ClassVar[Quantity] = Quantity(
        name="Fisher IPM",
        unit="standard deviations of the critic",
        low=-2,
        high=2,
        bound="lower bound of F",
    )
    defaults: ClassVar[Training] = Training(batch=64, n_critic=2, generator_optimizer=_ADAM, critic_optimizer=_ADAM)

    rho: float = option(1e-6, help="ρ, weight of the penalty and step of the multiplier", above=0)

    def state(self) -> Mapping[str, Tensor]:
        return {"multiplier": torch.zeros(())}

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        term, multiplier = augmented(_second_moment(real, fake), state["multiplier"], self.rho)
        return fake.mean() - real.mean() + term, {"multiplier": multiplier}

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.critic_loss_and_state(real, fake, self.state())[0]

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        omega = _second_moment(real, fake)
        scale = torch.where(omega > 0, omega, 1).rsqrt()  # A critic of zeros sees no gap, and 0 is what it reads.
        return (real.mean() - fake.mean()) * scale


def _second_moment(real: Tensor, fake: Tensor) -> Tensor:
    return (real.square().mean() + fake.square().mean()) / 2
