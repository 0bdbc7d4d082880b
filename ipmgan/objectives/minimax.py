"""The original GAN game, with the generator on the same value as the discriminator."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
from torch import Tensor

from ipmgan import references as papers
from ipmgan.functional.adversarial import discriminator_loss, jsd_lower_bound, minimax_generator_loss
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, Training


@attrs.frozen(kw_only=True)
class Minimax(Objective):
    """The Jensen-Shannon divergence by a discriminator D = sigmoid(logit), with the saturating log(1 - D) generator.

        critic:     minimise  -L = -E_r[log D] - E_g[log(1 - D)]
        generator:  minimise  E_g[log(1 - D)]
        estimate:   L/2 + log 2  <=  JSD(P_r, P_g)  <=  log 2,   in nats

    The estimate is a lower bound of JSD = ½ KL + ½ KL, met by the best discriminator, and negative for one worse than
    a coin. Once the discriminator wins, the generator's gradient vanishes; see `nonsaturating`.

    Departs from the paper in the optimiser: Adam as in the later DCGAN, for want of one in the first. Labels are not
    smoothed: smoothing would move the optimum, and no JSD could be read off.
    Source: Goodfellow et al. (2014), equation 1.
    """

    name: ClassVar[str] = "minimax"
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.GAN, papers.DCGAN)
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
        return minimax_generator_loss(fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return jsd_lower_bound(real, fake)
