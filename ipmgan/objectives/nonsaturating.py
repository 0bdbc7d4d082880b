"""The GAN game with the -log D generator."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
from torch import Tensor

from ipmgan import references as papers
from ipmgan.functional.adversarial import discriminator_loss, jsd_lower_bound, nonsaturating_generator_loss
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, Training


@attrs.frozen(kw_only=True)
class NonSaturating(Objective):
    """The GAN in common use: a discriminator D = sigmoid(logit), and a generator that maximises log D.

        critic:     minimise  -L = -E_r[log D] - E_g[log(1 - D)]
        generator:  minimise  E_g[-log D]
        estimate:   L/2 + log 2  <=  JSD(P_r, P_g)  <=  log 2,   in nats

    The estimate is a lower bound of JSD = ½ KL + ½ KL, met by the best discriminator. The generator does not descend
    it: at the best discriminator its gradient is that of KL(P_g ‖ P_r) - 2 JSD, which never saturates but grows noisy.

    Labels are not smoothed: smoothing would move the optimum, and no JSD could be read off. Source: Goodfellow et al.
    (2014), section 3; Arjovsky and Bottou (2017), theorem 2.5; optimiser from Radford et al. (2016).
    """

    name: ClassVar[str] = "nonsaturating"
    aliases: ClassVar[tuple[str, ...]] = ("nsgan",)
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.GAN, papers.PRINCIPLED, papers.DCGAN)
    critic: ClassVar[CriticKind] = CriticKind.LOGIT
    estimates: ClassVar[Quantity] = Quantity(name="JSD", unit="nats", high=math.log(2), bound="lower bound of JSD")
    defaults: ClassVar[Training] = Training(
        batch=64,
        n_critic=1,
        generator_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
        critic_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
    )

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return discriminator_loss(real, fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return nonsaturating_generator_loss(fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return jsd_lower_bound(real, fake)
