"""The relativistic average GAN."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from torch import Tensor
from torch.nn import functional

RELATIVISTIC = Reference(
    key="jolicoeur2019relativistic",
    title="The Relativistic Discriminator: A Key Element Missing from Standard GAN",
    authors=("Alexia Jolicoeur-Martineau",),
    year=2019,
    venue="International Conference on Learning Representations",
    arxiv="1807.00734",
)
RELATIVISTIC_DIVERGENCES = Reference(
    key="jolicoeur2020relativistic",
    title="On Relativistic f-Divergences",
    authors=("Alexia Jolicoeur-Martineau",),
    year=2020,
    venue="International Conference on Machine Learning",
    arxiv="1901.02474",
)


@attrs.frozen(kw_only=True)
class RelativisticAverage(Objective):
    """A divergence by a critic that is asked how far a sample stands above the average of the other side.

        critic:     minimise  L_D = E_r[h(u)] + E_g[h(v)],   u = f(x) - E_g[f],   v = E_r[f] - f(x)
        generator:  minimise  E_r[h(-u)] + E_g[h(-v)]
        h(z):       log(1 + e^-z)  (standard),   (1 - z)²  (least-squares),   max(0, 1 - z)  (hinge)
        estimate:   1 - L_D / 2h(0),   a lower bound of that of the best critic, which is within [0, 1]

    The best critic's estimate is 0 where the laws agree only. For least squares it is 4χ² / (1 + 3χ²), with the χ² to
    the half-and-half mixture of `least-squares`, and 1 where the laws are disjoint only. For the standard loss it is at
    least JSD / log 2, for the hinge at least TV, but 1 says less there: both reach it as soon as each law has mass,
    however little, where the other has none, as a critic that is extreme there carries both averages past everything.

    The averages are those of the batch, so that parts of a batch do not add up, and an estimate on N samples is off by
    O(1/N). The real batch is in the generator's loss, with a gradient through the average of the generated ones.

    Departs from the paper in the optimiser: Adam as in DCGAN, so that only the loss differs from `nonsaturating`. Code
    that circulates takes u of the real samples in both terms; the paper's v, of the generated ones, is used here.
    Source: Jolicoeur-Martineau (2019), section 4; for the divergence, Jolicoeur-Martineau (2020).
    """

    name: ClassVar[str] = "relativistic-average"
    aliases: ClassVar[tuple[str, ...]] = ("ragan",)
    references: ClassVar[tuple[Reference, ...]] = (RELATIVISTIC, RELATIVISTIC_DIVERGENCES)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    estimates: ClassVar[Quantity] = Quantity(
        name="relativistic average divergence",
        unit="share of its largest value",
        high=1,
        bound="lower bound of the divergence",
    )
    defaults: ClassVar[Training] = Training(
        batch=64,
        n_critic=1,
        generator_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
        critic_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
    )

    variant: str = option("standard", help="the loss h of a distance", choices=("standard", "least-squares", "hinge"))

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._cost(real - fake.mean()).mean() + self._cost(real.mean() - fake).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._cost(fake.mean() - real).mean() + self._cost(fake - real.mean()).mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        indifferent = math.log(2) if self.variant == "standard" else 1.0
        return 1 - self.critic_loss(real, fake) / (2 * indifferent)

    def _cost(self, distance: Tensor) -> Tensor:
        match self.variant:
            case "standard":
                return functional.softplus(-distance)
            case "least-squares":
                return (1 - distance).square()
            case _:
                return (1 - distance).relu()
