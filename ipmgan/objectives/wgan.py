"""The Wasserstein GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from ipmgan import references as papers
from ipmgan.functional.tensors import at_least_float32
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, Training


@attrs.frozen(kw_only=True)
class WGAN(Objective):
    """The Wasserstein-1 distance by its dual, with a critic whose Lipschitz constant an enforcer holds down.

        critic:     minimise  E_g[f(x)] - E_r[f(x)]
        generator:  minimise  -E_g[f(x)]
        estimate:   E_r[f(x)] - E_g[f(x)]  <=  K · W1(P_r, P_g)

    K is a Lipschitz constant of the critic, so the estimate is a lower bound of K times W1, in data units times K; it
    is comparable between runs only for one architecture and enforcer. On a batch it is a difference of two means, and
    may be negative. Where the critic is penalised instead of constrained, K is not 1 and the estimate is not W1.

    Departs from Algorithm 1 in torch's RMSprop (decay .99, eps outside the root) for the one that the paper leaves
    unstated. Source: Arjovsky, Chintala and Bottou (2017), equation 2 and algorithm 1.
    """

    name: ClassVar[str] = "wgan"
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.WGAN,)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    needs_lipschitz: ClassVar[bool] = True
    estimates: ClassVar[Quantity] = Quantity(name="K·W1", unit="data units times K", bound="lower bound of K·W1")
    defaults: ClassVar[Training] = Training(
        batch=64, n_critic=5, generator_optimizer="RMSprop:lr=5e-5", critic_optimizer="RMSprop:lr=5e-5"
    )

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return at_least_float32(fake).mean() - at_least_float32(real).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -at_least_float32(fake).mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return at_least_float32(real).mean() - at_least_float32(fake).mean()
