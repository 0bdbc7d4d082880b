"""The zero-centred gradient penalty."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms
from torch import Tensor, nn

from ipmgan_classic.points import POINTS, draw_for, points_at

GENERALIZATION = Reference(
    key="thanhtung2019improving",
    title="Improving Generalization and Stability of Generative Adversarial Networks",
    authors=("Hoang Thanh-Tung", "Truyen Tran", "Svetha Venkatesh"),
    year=2019,
    venue="International Conference on Learning Representations",
    arxiv="1902.03984",
)
_ADAM = "Adam:lr=3e-4,betas=[0.5,0.9]"


@attrs.frozen(kw_only=True)
class ZeroCentred(LipschitzEnforcer):
    """Penalises the critic's squared slope, at points of your choice.

        lambda * mean_i ||grad f(x_i)||_2²

        points = "between":  x_i = eps_i real_i + (1 - eps_i) fake_i,   eps_i ~ U(0, 1)
        points = "real":     x_i = real_i;   R1 with gamma = 2 lambda, see `r1`
        points = "fake":     x_i = fake_i;   R2 with gamma = 2 lambda, see `r2`
        points = "noisy":    x_i = real_i + noise * z_i,   z_i ~ N(0, I)

    Flat is the critic of two equal laws, so that the penalty vanishes where training should end. It bounds no slope: a
    linear critic that maximises the gap of means a distance D apart has slope D / (2 lambda) and gap D² / (2 lambda),
    which is no W1.

    Departs from the paper in the function whose slope counts: here the critic's output as the objective gets it, a
    logit for a GAN; in the paper's code the probability, whose slope is at most a quarter of the logit's. Every sample
    counts alone, which rules out batch norm. Source: Thanh-Tung, Tran and Venkatesh (2019); learning rates from its
    code.
    """

    name: ClassVar[str] = "zero-centred"
    aliases: ClassVar[tuple[str, ...]] = ("zero-centered", "0-gp")
    references: ClassVar[tuple[Reference, ...]] = (GENERALIZATION,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    weight: float = option(100.0, help="lambda", above=0)
    points: str = option("between", help="where the slope is taken", choices=POINTS)
    noise: float = option(0.1, help="standard deviation of noisy points, in the samples' unit", above=0)

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor | None:
        """A weight a sample (N,) between samples, noise (N, ...) for noisy points."""
        return draw_for(self.points, real, generator)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of samples (N, ...)."""
        norms = gradient_norms(critic, points_at(self.points, real, fake, drawn, self.noise))
        return self.weight * norms.square().mean()
