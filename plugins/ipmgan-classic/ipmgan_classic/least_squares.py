"""The least-squares GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, UsageError, option
from torch import Tensor

LSGAN = Reference(
    key="mao2017least",
    title="Least Squares Generative Adversarial Networks",
    authors=("Xudong Mao", "Qing Li", "Haoran Xie", "Raymond Y. K. Lau", "Zhen Wang", "Stephen Paul Smolley"),
    year=2017,
    venue="International Conference on Computer Vision",
    arxiv="1611.04076",
)


@attrs.frozen(kw_only=True)
class LeastSquares(Objective):
    """The Pearson χ² between the model and the half-and-half mixture, by a critic that regresses on labels.

        critic:     minimise  L_D = ½ E_r[(f(x) - b)²] + ½ E_g[(f(x) - a)²]
        generator:  minimise  ½ E_g[(f(x) - c)²]
        estimate:   1 - 4 L_D / (b - a)²  <=  χ²  <=  1,   χ² = ∫ (p_g - m)² / m,   m = (p_r + p_g) / 2

    The best critic is (b p_r + a p_g) / (p_r + p_g); it meets the bound, whatever the labels are. The labels decide
    what the generator descends: with b - c = 1 and b - a = 2, as here, ½ E_r[(f - c)²] + ½ E_g[(f - c)²] at the best
    critic is this χ², half of the paper's χ²(p_r + p_g ‖ 2 p_g). The paper's other labels are a=0,b=1,c=1.

    Departs from the paper in the optimiser: Adam as in DCGAN, so that only the loss differs from `nonsaturating`.
    Source: Mao et al. (2017), equations 2, 5 and 8.
    """

    name: ClassVar[str] = "least-squares"
    aliases: ClassVar[tuple[str, ...]] = ("lsgan",)
    references: ClassVar[tuple[Reference, ...]] = (LSGAN,)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    estimates: ClassVar[Quantity] = Quantity(
        name="χ²", unit="squared relative deviations", high=1, bound="lower bound of χ² to the half-and-half mixture"
    )
    defaults: ClassVar[Training] = Training(
        batch=64,
        n_critic=1,
        generator_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
        critic_optimizer="Adam:lr=2e-4,betas=[0.5,0.999]",
    )

    a: float = option(-1.0, help="the critic's label of generated samples")
    b: float = option(1.0, help="the critic's label of real samples; above a")
    c: float = option(0.0, help="the label that the generator wants for its samples; above a")

    def __attrs_post_init__(self) -> None:
        if self.b <= self.a or self.c <= self.a:
            raise UsageError(f"labels a={self.a:g}, b={self.b:g}, c={self.c:g}: b and c must be above a")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.b).square().mean() + (fake - self.a).square().mean()) / 2

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - self.c).square().mean() / 2

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return 1 - 4 * self.critic_loss(real, fake) / (self.b - self.a) ** 2
