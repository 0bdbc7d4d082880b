"""McGAN's mean matching."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from torch import Tensor

MCGAN = Reference(
    key="mroueh2017mcgan",
    title="McGan: Mean and Covariance Feature Matching GAN",
    authors=("Youssef Mroueh", "Tom Sercu", "Vaibhava Goel"),
    year=2017,
    venue="International Conference on Machine Learning",
    arxiv="1702.08398",
)
_ORDERS = {"l1": 1.0, "l2": 2.0, "linf": math.inf}


@attrs.frozen(kw_only=True)
class MeanMatching(Objective):
    """The distance between the means of a critic's features: the IPM over their linear functions.

        ‖E_r Φ(x) - E_g Φ(x)‖_q = max over ‖v‖_p <= 1 of  E_r⟨v, Φ(x)⟩ - E_g⟨v, Φ(x)⟩,   1/p + 1/q = 1
        critic:     minimise  -‖E_r Φ - E_g Φ‖_q
        generator:  minimise   ‖E_r Φ - E_g Φ‖_q
        estimate:   the same, <= the supremum over all features that the enforcer allows

    Scaled features scale it, so an enforcer must hold them: it is W1's lower bound times K for a K-Lipschitz Φ and
    q = 2. On two batches it is exact for these, and for the laws behind them too large by the noise of the means,
    about √(tr Cov Φ · 2/N) where they are equal.

    Departs from the paper in solving for v: its norm is met exactly, instead of by projected steps of a v of its own.
    Source: Mroueh, Sercu and Goel (2017), section 3, the primal form.
    """

    name: ClassVar[str] = "mean-matching"
    aliases: ClassVar[tuple[str, ...]] = ("mcgan-mean",)
    references: ClassVar[tuple[Reference, ...]] = (MCGAN,)
    critic: ClassVar[CriticKind] = CriticKind.FEATURES
    needs_lipschitz: ClassVar[bool] = True
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    estimates: ClassVar[Quantity] = Quantity(
        name="distance of mean features", unit="the critic's", low=0, bound="lower bound of the supremum over features"
    )
    defaults: ClassVar[Training] = Training(
        batch=64, n_critic=5, generator_optimizer="RMSprop:lr=5e-5", critic_optimizer="RMSprop:lr=5e-5"
    )

    norm: str = option("l2", help="q: 1, 2 or infinity", choices=tuple(_ORDERS))

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.estimate(real, fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.estimate(real, fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(real.mean(0) - fake.mean(0), ord=_ORDERS[self.norm])
        return norm
