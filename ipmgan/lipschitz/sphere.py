"""Projection of the weights to spheres or balls."""

from __future__ import annotations

import math

import attrs
import torch
from torch import nn

from ipmgan.errors import UsageError
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.lipschitz.weights import projected, refuse_parametrized
from ipmgan.plugin import Training, option
from ipmgan.references import WGAN

_C = 0.01


@attrs.frozen(kw_only=True)
class Sphere(LipschitzEnforcer):
    """Keeps the critic's weights on a sphere, or in the ball inside it, by rescaling them after each of its updates.

        tensor:  W_l <- rho_l W_l / ||W_l||_F              K <= prod_l rho_l
        whole:   W_l <- rho W_l / sqrt(sum_m ||W_m||_F^2)  K <= (rho^2 / L)^(L/2)

    for L linear layers, since ||W||_2 <= ||W||_F and, for the whole, by the inequality of the means; a convolution
    counts with the root of how many patches overlap on top. Where `radius` is left open, it is the Frobenius norm of
    the corner of the clipping box of half-width `c`, rho_l = c sqrt(n_in n_out), so that the bound on K is that of
    `clip`; and sqrt(L) for the whole vector, where the bound on K is 1. A linear critic reaches rho ||delta||_2 on a
    mean shift delta: unlike the box, a sphere prefers no direction.

    `shape = "sphere"` rescales always; "ball" only weights that lie outside. Biases, other one-dimensional parameters
    and normalisation layers stay out of it, as they add nothing to K or are not held down by it. A tensor of zeros
    stays zero. The paper tried this in passing and gives neither radius nor scope: both defaults here are choices.
    """

    name = "sphere"
    references = (WGAN,)
    defaults = Training(critic_optimizer="RMSprop:lr=5e-5", generator_optimizer="RMSprop:lr=5e-5")
    momentum_free = True

    scope: str = option(
        "tensor", help="one sphere for each tensor, or one for all together", choices=("tensor", "whole")
    )
    shape: str = option("sphere", help="rescale always, or only from outside", choices=("sphere", "ball"))
    radius: float | None = option(
        None, help="radius; left open, c sqrt(n_in n_out) or, for the whole, sqrt(L)", above=0
    )
    c: float = option(_C, help="the box whose corner gives each tensor's radius, where that is left open", above=0)

    def __attrs_post_init__(self) -> None:
        if self.c != _C and (self.radius is not None or self.scope == "whole"):
            raise UsageError(f"c = {self.c} has no effect beside radius or scope='whole': leave it out")

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic as it is. Raises `PairingError` where weights are computed from others."""
        refuse_parametrized(critic, self.name)
        return critic

    @torch.no_grad()
    def after_step(self, critic: nn.Module) -> None:
        """Rescale in place."""
        weights = projected(critic, biases=False)
        if not weights:
            return
        norms = torch.stack(torch._foreach_norm(weights))
        if self.scope == "whole":
            radii = [self.radius or math.sqrt(len(weights))] * len(weights)
            norms = torch.linalg.vector_norm(norms).expand(len(weights))
        else:
            radii = [self.radius or self.c * math.sqrt(weight.numel()) for weight in weights]
        # Zeros, which have no direction, are multiplied by zero; the radii stay numbers, so that none is copied over.
        inverse = torch.where(norms > 0, norms.reciprocal(), 0)
        scales = torch._foreach_mul(list(inverse.unbind()), radii)
        if self.shape == "ball":
            torch._foreach_clamp_max_(scales, 1.0)
        torch._foreach_mul_(weights, scales)
