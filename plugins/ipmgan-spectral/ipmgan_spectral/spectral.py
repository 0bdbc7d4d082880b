"""Spectral normalisation."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from torch import Tensor, nn

from ipmgan_spectral.lattice import Lattice, singular_pair, unit
from ipmgan_spectral.layers import constrained, lattices, parametrisations, parametrise
from ipmgan_spectral.papers import CONVOLUTIONS, SPECTRAL

ADAM = "Adam:lr=2e-4,betas=[0.5,0.999]"


@attrs.frozen(kw_only=True)
class Spectral(LipschitzEnforcer):
    """Divides each weight of the critic by its norm, so that the critic is K-Lipschitz.

        W_l -> K^(1/L) W_l / sigma(W_l),   l = 1, ..., L

    over the critic's L linear and convolution layers. With slopes of at most 1 in between, as of ReLU, tanh or sorting,
    the critic of a sequence of layers has the constant K; its certificate says what another has. Batch norm is refused;
    layer norm divides by what may be small, so that norm=none is what bounds a critic.

    By default sigma is estimated by power iteration, `iterations` at each update of the critic, as in the paper:

        v <- W^T u / |W^T u|,   u <- W v / |W v|,   sigma = u^T W v <= |W|_2

    It starts at the exact vectors and follows the weights, from below: weights exceed their norm by what sigma lags
    behind, which the certificate shows. A convolution's kernel is reshaped to C_out x (C_in k^2), whose norm is not
    that of the convolution: this is at most sqrt(o) times as large, o being how many patches a pixel lies in, and K
    then no bound of anything.

    With `exact` it is one. sigma is the norm itself: of a matrix by its eigenvalues, of a convolution as the largest
    norm of its symbol over all frequencies of the plane, which bounds it for samples of every size, with stride,
    dilation and zero padding. Given the sample's `shape`, it is the largest over the frequencies of the torus around
    each layer's own input: equal to its norm where padding is circular, and closely above it for zero padding. Other
    paddings are refused. Each update then costs an eigenvalue decomposition a frequency.

    Departs from the paper in when it iterates: after each update of the critic, instead of in its forward pass. So
    real and generated samples meet the same critic, and neither the generator's step nor an evaluation moves it. Its
    optimiser is that of DCGAN, setting C of the paper's table 1.
    Source: Miyato et al. (2018), algorithm 1; Sedghi, Gupta and Long (2019), theorem 6, for the norm of convolutions.
    """

    name: ClassVar[str] = "spectral"
    aliases: ClassVar[tuple[str, ...]] = ("sn",)
    references: ClassVar[tuple[Reference, ...]] = (SPECTRAL, CONVOLUTIONS)
    defaults: ClassVar[Training] = Training(critic_optimizer=ADAM, generator_optimizer=ADAM)
    per_sample: ClassVar[bool] = True

    k: float = option(1.0, help="K, the constant of all layers together", above=0)
    exact: bool = option(
        False, help="divide by a proven bound on each layer's norm, not by an estimate of its kernel's"
    )
    iterations: int = option(1, help="power iterations at each update of the critic (not used with exact)", at_least=1)
    shape: tuple[int, ...] | None = option(
        None, help="of a sample, such as [1,28,28]: with exact, convolutions are bounded for it alone", at_least=1
    )

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic, its weights normalised from now on. Raises `PairingError` where they cannot be."""
        layers = constrained(critic, self.name)
        scale = self.k ** (1 / len(layers))
        if self.exact:
            for name, lattice in lattices(critic, layers, self.shape, self.name).items():
                parametrise(layers[name], ExactNorm(layers[name].get_parameter("weight"), scale, lattice))
        else:
            for layer in layers.values():
                parametrise(layer, KernelNorm(layer.get_parameter("weight"), scale))
        return critic

    @torch.no_grad()
    def after_step(self, critic: nn.Module) -> None:
        """Bring the estimates of the norms up to date, in place."""
        for norm, weight in parametrisations(critic, KernelNorm):
            for _ in range(self.iterations):
                norm.iterate(weight)  # type: ignore[operator]
        for norm, weight in parametrisations(critic, ExactNorm):
            norm.follow(weight)  # type: ignore[operator]


class KernelNorm(nn.Module):
    """weight -> scale · weight / (u^T W v), W being the weight as a matrix of one row an output.

    Sums of products, which autocast leaves in the weight's own precision.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        u, v = singular_pair(weight.detach().flatten(1))
        self.register_buffer("u", u)
        self.register_buffer("v", v)

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight."""
        return normalised(weight, ((weight.flatten(1) * self.v).sum(1) * self.u).sum(), self.scale)

    def iterate(self, weight: Tensor) -> None:
        """One power iteration, in place; a weight of zeros leaves the vectors as they are."""
        matrix = weight.flatten(1)
        v = unit(matrix.mT @ self.u)
        u = unit(matrix @ v)
        found = u.any()
        self.v.copy_(torch.where(found, v, self.v))
        self.u.copy_(torch.where(found, u, self.u))


class ExactNorm(nn.Module):
    """weight -> scale · weight / norm(weight), where norm(W) = <G, W> for its gradient G at the last update."""

    gradient: Tensor

    def __init__(self, weight: Tensor, scale: float, lattice: Lattice) -> None:
        super().__init__()
        self.scale, self.lattice = scale, lattice
        self.register_buffer("gradient", lattice.slope(weight.detach()))

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight."""
        return normalised(weight, (weight * self.gradient).sum(), self.scale)

    def follow(self, weight: Tensor) -> None:
        """Take the gradient anew, in place."""
        self.gradient.copy_(self.lattice.slope(weight.detach()))


def normalised(weight: Tensor, sigma: Tensor, scale: float) -> Tensor:
    """scale · weight / sigma; a weight of zeros stays zero, with a finite gradient."""
    return weight * (scale / torch.where(sigma > 0, sigma, 1))
