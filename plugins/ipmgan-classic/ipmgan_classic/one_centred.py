"""The one-centred gradient penalty."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms, slope_penalty
from torch import Tensor, nn

from ipmgan_classic.points import POINTS, draw_for, points_at

WGAN_GP = Reference(
    key="gulrajani2017improved",
    title="Improved Training of Wasserstein GANs",
    authors=("Ishaan Gulrajani", "Faruk Ahmed", "Martin Arjovsky", "Vincent Dumoulin", "Aaron Courville"),
    year=2017,
    venue="Advances in Neural Information Processing Systems",
    arxiv="1704.00028",
)
_ADAM = "Adam:lr=1e-4,betas=[0.0,0.9]"


@attrs.frozen(kw_only=True)
class OneCentred(LipschitzEnforcer):
    """Penalises the critic for slopes other than 1, at points of your choice.

        lambda * mean_i (||grad f(x_i)||_2 - 1)²

        points = "between":  x_i = eps_i real_i + (1 - eps_i) fake_i,   eps_i ~ U(0, 1)
        points = "real":     x_i = real_i
        points = "fake":     x_i = fake_i
        points = "noisy":    x_i = real_i + noise * z_i,   z_i ~ N(0, I)

    Between samples it is the penalty of WGAN-GP, the same as `gp`, whose optimum for a linear critic and a separation D
    of the means has slope 1 + D / (2 lambda). Near the real samples it is that of DRAGAN; `dragan` scales its noise
    with the data. Equal laws want a flat critic, which this penalty charges in full, so that a game need not settle
    there; those that aim at slope 0, `zero-centred`, `r1` and `r2`, vanish there.

    It bounds nothing away from the points. Every sample counts alone, which rules out batch norm.
    Source: Gulrajani et al. (2017), equation 3.
    """

    name: ClassVar[str] = "one-centred"
    aliases: ClassVar[tuple[str, ...]] = ("one-centered", "1-gp")
    references: ClassVar[tuple[Reference, ...]] = (WGAN_GP,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    weight: float = option(10.0, help="lambda", above=0)
    points: str = option("between", help="where the slope is taken", choices=POINTS)
    noise: float = option(0.1, help="standard deviation of noisy points, in the samples' unit", above=0)

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor | None:
        """A weight a sample (N,) between samples, noise (N, ...) for noisy points."""
        return draw_for(self.points, real, generator)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of samples (N, ...)."""
        norms = gradient_norms(critic, points_at(self.points, real, fake, drawn, self.noise))
        return self.weight * slope_penalty(norms)
