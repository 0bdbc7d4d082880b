"""The local penalty of DRAGAN."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from ipmgan.functional import gradient_norms, slope_penalty
from torch import Tensor, nn

from ipmgan_classic.points import needed, normal, uniform

KODALI = Reference(
    key="kodali2017convergence",
    title="On Convergence and Stability of GANs",
    authors=("Naveen Kodali", "Jacob Abernethy", "James Hays", "Zsolt Kira"),
    year=2017,
    venue="arXiv preprint",
    arxiv="1705.07215",
)
_ADAM = "Adam:lr=1e-4,betas=[0.5,0.9]"


@attrs.frozen(kw_only=True)
class DRAGAN(LipschitzEnforcer):
    """Penalises the critic for slopes other than k around the real samples, wherever the generated ones are.

        lambda * mean_i (||grad f(real_i + delta_i)||_2 - k)²

        noise = "uniform":   delta_i = c s u_i,   u_i ~ U(0, 1)^d,   s the standard deviation of all the batch's numbers
        noise = "gaussian":  delta_i ~ N(0, c I)

    Every number of a sample moves by itself. The critic is held smooth near the data only; it bounds nothing elsewhere.

    The paper and the authors' code differ, and "uniform" with c = .5, the default, is the code: it moves numbers up
    only, by s/4 on average, and by an amount that follows the data. Left out is a further factor U(0, 1) that the code
    puts on each delta_i, and that its authors called needless. The paper writes the Gaussian, with c near 10, which is
    far outside of images in (-1, 1). f is the critic's output as the objective gets it, a logit for a GAN, as in the
    code. Every sample counts alone, which rules out batch norm. Source: Kodali et al. (2017), section 2.
    """

    name: ClassVar[str] = "dragan"
    references: ClassVar[tuple[Reference, ...]] = (KODALI,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True

    weight: float = option(10.0, help="lambda", above=0)
    target: float = option(1.0, help="k, the slope that costs nothing", at_least=0)
    noise: str = option("uniform", help="how real samples are moved", choices=("uniform", "gaussian"))
    c: float = option(0.5, help="how far: in standard deviations of the data, or as the Gaussian's variance", above=0)

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor:
        """A number for each of a sample's numbers, (N, ...): U(0, 1) or N(0, 1)."""
        draw = uniform if self.noise == "uniform" else normal
        return draw(tuple(real.shape), real, generator)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of real samples (N, ...)."""
        norms = gradient_norms(critic, real + self._reach(real) * needed(drawn))
        return self.weight * slope_penalty(norms, target=self.target)

    def _reach(self, real: Tensor) -> Tensor | float:
        return self.c * real.std(correction=0) if self.noise == "uniform" else math.sqrt(self.c)
