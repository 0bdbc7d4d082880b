"""The hinge loss, also called geometric GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
from ipmgan import CriticKind, Objective, Quantity, Reference, Training
from torch import Tensor

GEOMETRIC = Reference(
    key="lim2017geometric",
    title="Geometric GAN",
    authors=("Jae Hyun Lim", "Jong Chul Ye"),
    year=2017,
    venue="arXiv preprint",
    arxiv="1705.02894",
)


@attrs.frozen(kw_only=True)
class Hinge(Objective):
    """The total variation by a critic with a margin: at least 1 on real samples, at most -1 on generated ones.

        critic:     minimise  L_D = E_r[max(0, 1 - f(x))] + E_g[max(0, 1 + f(x))]
        generator:  minimise  -E_g[f(x)]
        estimate:   1 - L_D / 2  <=  TV(P_r, P_g)  <=  1

    The best critic is 1 where real samples are likelier and -1 elsewhere; there L_D = 2 - 2·TV, and the generator's
    loss with the constant E_r[f(x)] added is 2·TV. The hinge is on each sample.

    This is the geometric GAN, and `geometric` is another name for it. The paper derives it from a support vector
    machine on the critic's features, whose margin term, ½ ‖w‖² of the last layer's weights, is left to the optimiser.

    Departs from the paper in the optimiser: Adam as in DCGAN, so that only the loss differs from `nonsaturating`.
    Source: Lim and Ye (2017), section 3.
    """

    name: ClassVar[str] = "hinge"
    aliases: ClassVar[tuple[str, ...]] = ("geometric",)
    references: ClassVar[tuple[Reference, ...]] = (GEOMETRIC,)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    estimates: ClassVar[Quantity] = Quantity(name="TV", unit="probability", high=1, bound="lower bound of TV")
    defaults: ClassVar[Training] = Training(
        batch=64,
        n_critic=1,
        generator_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
        critic_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
    )

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (1 - real).relu().mean() + (1 + fake).relu().mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return 1 - self.critic_loss(real, fake) / 2
