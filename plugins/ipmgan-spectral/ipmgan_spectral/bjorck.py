"""Weights made orthogonal by iteration."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, option
from torch import Tensor, nn

from ipmgan_spectral.lattice import Lattice
from ipmgan_spectral.layers import constrained, lattices, parametrise
from ipmgan_spectral.papers import BJORCK, SORTING
from ipmgan_spectral.spectral import ADAM


@attrs.frozen(kw_only=True)
class Bjorck(LipschitzEnforcer):
    """Lets each weight of the critic be the orthogonal matrix nearest to free numbers, by Björck's iteration.

        A_0 = W / sqrt(|W W^T|_inf),   A_{t+1} = A_t (3 I - A_t^T A_t) / 2,   W_l -> K^(1/L) A_T

    over the critic's L linear and convolution layers. Each step maps a singular value a to a (3 - a^2) / 2, which is in
    [a, 1] for every a in [0, 1]; |W W^T|_inf >= |W|_2^2 starts them there. So the constraint holds after every number
    of `iterations` T: more of them bring the singular values up to 1, never beyond. It starts at orthogonal weights.

    Unlike `orthogonal`, the free numbers are the weight's own entries, and the cost is matrix products alone: 2 T times
    those of the layer's forward pass for a batch of as many samples as the weight has rows. Convolutions are treated as
    there: the kernel as a matrix is orthogonal, divided by the root of how many patches a pixel lies in. Compiled, all
    T steps of each layer are code of their own, which takes minutes to make: `--compile off` suits short runs. Batch
    norm is refused; layer norm divides by what may be small, so that norm=none is what bounds a critic.

    Departs from the paper in the first scaling, by a closer bound on |W|_2 than sqrt(|W|_1 |W|_inf).
    Source: Anil, Lucas and Grosse (2019), section 4.2; Björck and Bowie (1971), of order 1.
    """

    name: ClassVar[str] = "bjorck"
    references: ClassVar[tuple[Reference, ...]] = (SORTING, BJORCK)
    defaults: ClassVar[Training] = Training(critic_optimizer=ADAM, generator_optimizer=ADAM)
    per_sample: ClassVar[bool] = True

    k: float = option(1.0, help="K, the constant of all layers together", above=0)
    iterations: int = option(15, help="T, steps towards an orthogonal matrix in each forward pass", at_least=1)
    shape: tuple[int, ...] | None = option(
        None, help="of a sample, such as [1,28,28]: tells convolutions that cover their input", at_least=1
    )

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic, its weights the nearest orthogonal ones. Raises `PairingError` where they cannot be."""
        layers = constrained(critic, self.name)
        scale = self.k ** (1 / len(layers))
        for name, lattice in lattices(critic, layers, self.shape, self.name).items():
            parametrise(layers[name], BjorckKernel(scale, lattice, self.iterations))
        return critic


class BjorckKernel(nn.Module):
    """weight -> the kernel that iteration makes of it, a matrix for each group of channels."""

    def __init__(self, scale: float, lattice: Lattice, iterations: int) -> None:
        super().__init__()
        self.factor, self.groups, self.iterations = scale / lattice.overlap, lattice.groups, iterations

    def forward(self, weight: Tensor) -> Tensor:
        """The kernel, in the weight's own precision even under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            matrices, tall = self._matrices(weight)
            near = orthonormal(matrices, self.iterations) * self.factor
        return (near.mT if tall else near).reshape(weight.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The orthogonal matrices nearest to a weight, from which the iteration starts."""
        matrices, tall = self._matrices(weight.detach())
        u, _, v = torch.linalg.svd(matrices, full_matrices=False)
        near: Tensor = u @ v
        return (near.mT if tall else near).reshape(weight.shape).contiguous()

    def _matrices(self, weight: Tensor) -> tuple[Tensor, bool]:
        """(groups, m, n) with m <= n, and whether that is transposed."""
        matrices = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        tall = matrices.shape[1] > matrices.shape[2]
        return (matrices.mT if tall else matrices), tall


def orthonormal(matrices: Tensor, iterations: int) -> Tensor:
    """Matrices (..., m, n), m <= n, after so many steps towards those with orthonormal rows; zeros stay zeros.

    >>> import torch
    >>> A = orthonormal(torch.tensor([[3.0, 0.0, 1.0], [4.0, 5.0, 0.0]]), 30)
    >>> torch.allclose(A @ A.mT, torch.eye(2), atol=1e-6)
    True
    """
    gram = matrices @ matrices.mT
    square = gram.abs().sum(-1).amax(-1)[..., None, None]
    square = torch.where(square > 0, square, 1)
    found, gram = matrices * square.rsqrt(), gram / square
    for step in range(iterations):
        if step:
            gram = found @ found.mT
        found = 1.5 * found - 0.5 * (gram @ found)
    return found
