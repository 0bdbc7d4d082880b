"""Weights with orthonormal rows or columns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from ipmgan_spectral.lattice import Lattice
from ipmgan_spectral.layers import constrained, lattices, parametrise
from ipmgan_spectral.papers import CHEAP
from ipmgan_spectral.spectral import ADAM

MAPS = ("auto", "householder", "cayley", "matrix_exp")


@attrs.frozen(kw_only=True)
class Orthogonal(LipschitzEnforcer):
    """Lets each weight of the critic be an orthogonal matrix, so that the critic is K-Lipschitz and its gradient lives.

        W_l W_l^T = K^(2/L) I  or  W_l^T W_l = K^(2/L) I,   l = 1, ..., L

    whichever is smaller, over the critic's L linear layers: all singular values are K^(1/L), where spectral
    normalisation sets the largest alone. By torch's parametrisation, of which `map` is the one from free numbers to an
    orthogonal matrix: a product of Householder reflections, the Cayley map or the exponential of a skew-symmetric
    matrix; "auto" is the exponential for square matrices and reflections for others. Exact up to rounding.

    Of a convolution, the kernel as a matrix C_out x (C_in k^2) is orthogonal, divided by sqrt(o), where o is how many
    patches a pixel lies in: its norm is then at most K^(1/L), and less unless the kernel is smooth; its certificate
    says how much. Given the sample's `shape`, a convolution that covers its whole input counts as a matrix, with o = 1.
    A convolution that is itself orthogonal is none of these: that takes kernels of another kind.

    Departs from torch in keeping the signs that it stores beside the reflections from weight decay. torch vectorises
    the gradient of reflections slowly, and says so, which replicates notice; `bjorck` is free of that. Batch norm
    is refused; layer norm divides by what may be small, so that norm=none is what bounds a critic.
    Source: Lezcano-Casado and Martínez-Rubio (2019), and torch.nn.utils.parametrizations.orthogonal.
    """

    name: ClassVar[str] = "orthogonal"
    references: ClassVar[tuple[Reference, ...]] = (CHEAP,)
    defaults: ClassVar[Training] = Training(critic_optimizer=ADAM, generator_optimizer=ADAM)
    per_sample: ClassVar[bool] = True

    k: float = option(1.0, help="K, the constant of all layers together", above=0)
    map: str = option("auto", help="from free numbers to an orthogonal matrix", choices=MAPS)
    shape: tuple[int, ...] | None = option(
        None, help="of a sample, such as [1,28,28]: tells convolutions that cover their input", at_least=1
    )

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic, its weights the nearest orthogonal ones. Raises `PairingError` where they cannot be."""
        layers = constrained(critic, self.name)
        scale = self.k ** (1 / len(layers))
        for name, lattice in lattices(critic, layers, self.shape, self.name).items():
            weight = layers[name].get_parameter("weight").cpu()
            parametrise(layers[name], OrthogonalKernel(weight, scale, lattice, self.map))
        return critic


class OrthogonalKernel(nn.Module):
    """matrices -> the kernel that they are mapped to by torch's orthogonal parametrisation, one a group of channels."""

    def __init__(self, weight: Tensor, scale: float, lattice: Lattice, chosen: str) -> None:
        super().__init__()
        self.factor, self.groups, self.shape = scale / lattice.overlap, lattice.groups, weight.shape
        matrices = self._matrices(weight)
        if chosen == "auto":
            chosen = "matrix_exp" if matrices.shape[1] == matrices.shape[2] else "householder"
        self.reflects = chosen == "householder"
        holder = nn.Module()
        holder.weight = nn.Parameter(matrices)
        with _drawing_nothing():
            # Reflections need no matrix to start from, which would be as large as the longer side squared.
            orthogonal(holder, orthogonal_map=chosen, use_trivialization=not self.reflects)
        self.map = holder.get_submodule("parametrizations.weight.0")

    def forward(self, original: Tensor) -> Tensor:
        """The kernel, in the original's precision even under autocast."""
        if self.reflects:
            # torch keeps signs on the diagonal, and cuts what weight decay leaves of them to 0.
            signs = original.diagonal(dim1=-2, dim2=-1).sign()
            original = original.diagonal_scatter(signs, dim1=-2, dim2=-1)
        with torch.autocast(original.device.type, enabled=False):
            matrices: Tensor = self.map(original)
        return (matrices * self.factor).reshape(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is mapped to the orthogonal matrices nearest to a weight in the sense of Gram and Schmidt."""
        with _drawing_nothing():
            original: Tensor = self.map.right_inverse(self._matrices(weight).cpu())  # type: ignore[operator]
        self.map.to(weight.device)
        return original.to(weight.device)

    def _matrices(self, weight: Tensor) -> Tensor:
        return weight.detach().reshape(self.groups, self.shape[0] // self.groups, -1)


@contextlib.contextmanager
def _drawing_nothing() -> Iterator[None]:
    """torch completes a rectangular matrix to a square one by random columns, whose choice does not matter.

    On the CPU, they are the same for every run, and the global generator is put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield
