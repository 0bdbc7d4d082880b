"""The gradient penalty."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from ipmgan.errors import UsageError
from ipmgan.functional.penalties import gradient_norms, interpolates, slope_penalty
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.plugin import Training, option
from ipmgan.references import WGAN_GP

_ADAM = "Adam:lr=1e-4,betas=[0.0,0.9]"


@attrs.frozen(kw_only=True)
class GradientPenalty(LipschitzEnforcer):
    """Penalises the critic for slopes other than the target, at points between real and generated samples.

        lambda * mean_i (||grad f(x_i)||_2 - t)^2,     x_i = eps_i real_i + (1 - eps_i) fake_i,   eps_i ~ U(0, 1)

    with one eps a sample and the norm over all of a sample's axes. `sides = "one"` charges slopes above the target
    only. It is a soft constraint: it bounds nothing off the segments, and at its optimum the critic is too steep. For a
    linear critic and a separation D of the means, the slope is 1 + D / (2 lambda) and the gap D (1 + D / (2 lambda)):
    the gap of a penalised critic is above W1, by 10 % for D = 2 and lambda = 10.

    Other points give the penalties of later papers: "real" (with target 0 and half the weight, R1 of Mescheder et al.
    2018) and "fake" (R2). Every sample counts alone, which rules out batch norm: the summed output's gradient then
    vanishes, and the penalty reads lambda t^2 whatever the slope. The penalty is computed without autocast, in float32
    or wider. A slope of exactly 0 is charged but not pushed, as no direction is steeper than another.
    """

    name = "gp"
    references = (WGAN_GP,)
    defaults = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward = True
    per_sample = True
    scalar_critic = True

    weight: float = option(10.0, help="lambda", above=0)
    target: float = option(1.0, help="the slope that costs nothing", at_least=0)
    sides: str = option("two", help="charge slopes on both sides of the target, or only above", choices=("two", "one"))
    points: str = option("between", help="where the slope is taken", choices=("between", "real", "fake"))

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor | None:
        """One eps a sample, (N,), where points lie between."""
        if self.points != "between":
            return None
        dtype = torch.promote_types(real.dtype, torch.float32)
        return torch.rand(len(real), generator=generator, device=generator.device, dtype=dtype).to(real.device)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of samples (N, ...).

        Raises `UsageError` where points between were not drawn, and `PairingError` where the critic is not scalar.
        """
        norms = gradient_norms(critic, self._points(real, fake, drawn))
        return self.weight * slope_penalty(norms, target=self.target, one_sided=self.sides == "one")

    def _points(self, real: Tensor, fake: Tensor, drawn: Tensor | None) -> Tensor:
        if self.points != "between":
            return real if self.points == "real" else fake
        if drawn is None:
            raise UsageError(
                "a gradient penalty between samples needs its weights: penalty(..., drawn=draw(real, rng))"
            )
        return interpolates(real, fake, drawn)
