"""The norm of a convolution as that of its symbol, a matrix a frequency.

    y[p] = sum_i W_i x[s p + d i]                over positions p of an r-dimensional lattice; W_i is C_out x C_in
    V(theta) = sum_q V_q exp(-i q theta),        ||conv||_2 = sup_theta ||V(theta)||_2

V_q are the taps after the input is split into the s subsamplings that the taps meet, which moves numbers only: the
convolution is then one of stride 1. A convolution of zero-padded samples of n pixels is a part of the one around a
torus that is long enough for the padding, so that the maximum over the torus's frequencies bounds it; circular padding
is the torus itself, where the bound is exact. Where the sample's size is unknown, all of the plane is looked at, on a
grid of frequencies that a trigonometric polynomial cannot exceed by more than a known factor in between.

Sources: Sedghi, Gupta and Long (2019), theorem 6, for the torus; Ehlich and Zeller (1964), for between the points.
"""

from __future__ import annotations

import math
from typing import TypeGuard

import attrs
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape]
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
DENSITY = 8
"""Grid points a tap and axis where the size is unknown: the bound is then at most 2 % too high an axis."""


@attrs.frozen(kw_only=True)
class Axis:
    """One spatial axis: taps of the split convolution, the frequencies looked at, and the factor for those between."""

    phases: int = 1
    taps: int = 1
    points: int = 1
    slack: float = 1.0


@attrs.frozen(kw_only=True)
class Lattice:
    """Where the symbol of a layer is looked at. A linear layer is a convolution without axes."""

    axes: tuple[Axis, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, layer: nn.Module, shapes: Shapes | None = None) -> Lattice | None:
        """That of a linear or convolution layer; None where its padding is not known to fit on a torus.

        Args:
            layer: not changed.
            shapes: of what it gets and gives for one sample, (C, *spatial); optional. Tells the torus.

        >>> Lattice.of(nn.Conv1d(3, 8, 4, stride=2, padding=1), ((3, 9), (8, 4)))
        Lattice(axes=(Axis(phases=2, taps=2, points=5, slack=1.0),), groups=1)
        """
        if not is_convolution(layer):
            return cls()
        across = range(len(layer.kernel_size))
        axes = [_axis(layer, axis, shapes) for axis in across]
        found = tuple(axis for axis in axes if axis is not None)
        return cls(axes=found, groups=layer.groups) if len(found) == len(axes) else None

    @property
    def overlap(self) -> float:
        """The root of how many patches a number lies in: what a kernel's norm as a matrix can be exceeded by."""
        return math.sqrt(math.prod(axis.taps for axis in self.axes))

    @property
    def cost(self) -> int:
        """Frequencies, half of which are conjugates of others."""
        return math.prod(axis.points for axis in self.axes[:-1]) * (self.axes[-1].points // 2 + 1 if self.axes else 1)

    def symbol(self, kernel: Tensor) -> Tensor:
        """The matrices V, (groups * frequencies, C_out / groups, C_in * phases): real where there is one frequency.

        Args:
            kernel: (C_out, C_in / groups, *k); for a transposed convolution (C_in, C_out / groups, *k) as it is, for it
                is the adjoint of the convolution with this kernel.
        """
        for place, axis in enumerate(self.axes, start=2):
            before, after = kernel.shape[:place], kernel.shape[place + 1 :]
            zeros = kernel.new_zeros(*before, axis.taps * axis.phases - kernel.shape[place], *after)
            split = torch.cat([kernel, zeros], dim=place).reshape(*before, axis.taps, axis.phases, *after)
            kernel = split.movedim(place + 1, 2).flatten(1, 2)
        taps = kernel.reshape(self.groups, -1, *kernel.shape[1:])
        points = [axis.points for axis in self.axes]
        if math.prod(points) == 1:
            return taps.flatten(2)
        turned: Tensor = torch.fft.rfftn(taps, s=points, dim=tuple(range(3, taps.dim())))
        return turned.flatten(3).movedim(3, 1).flatten(0, 1)

    def norm(self, kernel: Tensor) -> Tensor:
        """The bound, a scalar in the kernel's precision: exact but for the axes' slack, and for what is cropped.

        >>> kernel = torch.tensor([[[1.0, 2.0, 1.0]]])
        >>> circular = nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
        >>> round(float(Lattice.of(circular, ((1, 6), (1, 6))).norm(kernel)), 6)
        4.0
        """
        return _tops(self.symbol(kernel)).amax() * self.slack

    @property
    def slack(self) -> float:
        """What the norm can exceed its largest value on the grid by."""
        return math.prod(axis.slack for axis in self.axes)

    def slope(self, kernel: Tensor) -> Tensor:
        """The gradient G of the norm at a kernel, of its shape: norm(W) = <G, W>, and >= <G, W'> for any other W'."""
        symbol = self.symbol(kernel)
        place = (
            _tops(symbol).argmax()[None] if len(symbol) > 1 else torch.zeros_like(symbol[:1, 0, 0], dtype=torch.long)
        )
        top = symbol.index_select(0, place)[0]
        u, v = singular_pair(top)

        def along(other: Tensor) -> Tensor:
            return (u.conj() @ self.symbol(other).index_select(0, place)[0] @ v).real * self.slack

        gradient: Tensor = torch.func.grad(along)(kernel)
        return gradient


def is_convolution(layer: nn.Module) -> TypeGuard[Convolution]:
    """Whether it is one of torch's."""
    return isinstance(layer, CONVOLUTIONS)


def singular_pair(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The first singular vectors u (m,) and v (n,) of a real or complex (m, n), with u* A v = ||A||_2.

    From the eigenvectors of the smaller Gram matrix, which costs min(m, n)^3.
    """
    if matrix.shape[0] > matrix.shape[1]:
        v, u = singular_pair(matrix.mH)
        return u, v
    u = torch.linalg.eigh(matrix @ matrix.mH)[1][:, -1]
    return u, unit(matrix.mH @ u)


def unit(x: Tensor) -> Tensor:
    """A vector at length 1; zeros stay zeros."""
    length: Tensor = torch.linalg.vector_norm(x)
    return x / length.clamp_min(torch.finfo(x.dtype).tiny)


def _tops(matrices: Tensor) -> Tensor:
    """The largest singular value of each (..., m, n)."""
    if matrices.shape[-2] > matrices.shape[-1]:
        matrices = matrices.mH
    top: Tensor = torch.linalg.eigvalsh(matrices @ matrices.mH)[..., -1]
    return top.clamp_min(0).sqrt()


def _axis(layer: Convolution, axis: int, shapes: Shapes | None) -> Axis | None:
    size, stride, gap = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    pad, total = padding(layer, axis)
    large, small = (0, 0) if shapes is None else _sizes(layer, axis, shapes)
    circular = layer.padding_mode == "circular" and total > 0
    if circular:
        # More padding than the kernel reaches over would show outputs twice.
        known = stride == 1 if shapes is None else large % stride == 0
        if total > gap * (size - 1) or not known:
            return None
    elif layer.padding_mode != "zeros" and total > 0:
        return None
    if small == 1 and not circular:
        return Axis(phases=size)  # The kernel is applied once, as a matrix.
    phases = min(stride // math.gcd(stride, gap), size)
    taps = -(-size // phases)
    if taps == 1:
        return Axis(phases=phases)
    if shapes is None:
        points = DENSITY * taps
        return Axis(phases=phases, taps=taps, points=points, slack=1 / math.cos(math.pi * (taps - 1) / (2 * points)))
    if circular:
        around = large // stride
        return Axis(phases=phases, taps=taps, points=around * -(-taps // around))
    around = -(-max(large + pad, stride * small) // stride)
    return Axis(phases=phases, taps=taps, points=max(around, taps))


def padding(layer: Convolution, axis: int) -> tuple[int, int]:
    """The longer of the two sides that are added, and both together."""
    if layer.padding == "valid":
        return 0, 0
    if layer.padding == "same":
        total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        return total - total // 2, total
    return int(layer.padding[axis]), 2 * int(layer.padding[axis])


def _sizes(layer: Convolution, axis: int, shapes: Shapes) -> tuple[int, int]:
    """What the convolution runs over, and its positions: of a transposed one, what it gives and gets."""
    large, small = reversed(shapes) if isinstance(layer, TRANSPOSED) else shapes
    return large[axis + 1], small[axis + 1]
