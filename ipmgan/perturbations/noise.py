"""Instance noise."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

from ipmgan.perturbations.base import Perturbation
from ipmgan.plugin import option
from ipmgan.references import INSTANCE_NOISE, PRINCIPLED


@attrs.frozen(kw_only=True)
class Noise(Perturbation):
    """Adds independent noise to every coordinate of every sample, with a strength that falls to zero over the run.

        x -> x + s(t) e,    e ~ N(0, I)  or  e ~ U[-√3, √3]^d,    sd of a coordinate: s(t)

        constant:  s(t) = sd
        linear:    s(t) = sd (1 - t)
        cosine:    s(t) = sd (1 + cos πt) / 2          t: share of the steps done, from 0 to 1

    The objective compares P_r * N with P_g * N, the laws convolved with the noise's. They are equal only where P_r and
    P_g are, as the characteristic functions of both laws of noise vanish on no open set; and they overlap where P_r and
    P_g lie on thin sets apart, so that an f-divergence no longer sits at its maximum without a gradient.

        W1(P_r * N, P_g * N)  <=  W1(P_r, P_g)  <=  W1(P_r * N, P_g * N) + 2 s √d
        W1(P_r, P_g)  <=  2 s √d + 2 √2 C √JSD(P_r * N, P_g * N)

    with d coordinates, and C the radius of a ball that holds both perturbed laws: finite for data in a box under
    uniform noise, never under Gaussian (Arjovsky and Bottou, theorem 3.3).

    With `linear` and `cosine`, the last estimate of a run is one of P_r and P_g themselves. As t counts in shares of
    the run, a run that is resumed with another number of steps has another strength from there on. Both papers
    add noise with a fixed law and say that it is to be annealed, but not along which curve; linear is the default here.
    """

    name = "noise"
    references = (PRINCIPLED, INSTANCE_NOISE)

    sd: float = option(0.1, help="standard deviation of a coordinate at the start, in data units", above=0)
    law: str = option("gaussian", help="of a coordinate; uniform is bounded by √3 sd", choices=("gaussian", "uniform"))
    anneal: str = option("linear", help="how the strength falls", choices=("constant", "linear", "cosine"))

    def strength(self, done: float) -> float:
        """s(t), the standard deviation of a coordinate once a share `done` of the steps is done.

        >>> Noise(sd=2.0, anneal="cosine").strength(0.5)
        1.0
        """
        if self.anneal == "linear":
            return self.sd * (1 - done)
        return self.sd * (1 + math.cos(math.pi * done)) / 2 if self.anneal == "cosine" else self.sd

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, *, done: float) -> Tensor:
        """s(t) e, of this shape."""
        scale = self.strength(done)
        if self.law == "gaussian":
            return torch.randn(shape, generator=generator, device=generator.device).mul_(scale)
        bound = math.sqrt(3) * scale
        return torch.rand(shape, generator=generator, device=generator.device).mul_(2 * bound).sub_(bound)

    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        """The samples with the noise added."""
        return samples if drawn is None else samples + drawn
