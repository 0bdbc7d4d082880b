"""MMD² with its gradient, tile by tile, so that the matrix of kernel values is never held.

    value = a Σ_{i≠j} k(x_i, x_j) + b Σ_{i≠j} k(y_i, y_j) - 2 Σ k(x_i, y_j) / NM
    ∂value/∂x_i = 4a Σ_j φ'(‖x_i - x_j‖²) (x_i - x_j) - 4 Σ_j φ'(‖x_i - y_j‖²) (x_i - y_j) / NM

with a = 1/N(N-1), b = 1/M(M-1) for the U-statistic, and a = 1/N², b = 1/M² and the diagonals for the V-statistic. One
pass over the pairs gives both, so that going backward only scales what is there. Beyond the inputs it holds a centred
copy of them, the gradients and one tile. A pair within x or within y is visited once. Tiles are summed in float64.

Neither distances nor forces cancel. Samples of up to `FEW` numbers are subtracted, longer ones multiplied as matrices
in their own type; a tile with a pair closer than a sixth of its distance to the mean, where that loses digits, is done
in float64. On CUDA all samples are subtracted. In float32 MMD² is right to 1e-7 · k(0) and its gradient to 1e-6 of its
norm, for clusters far apart and data far from the origin too; where the samples nearly agree, so that the gradient is a
small difference of large forces, it is right to 1e-6 of those.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Protocol

import attrs
import torch
from torch import Tensor

from ipmgan.functional.kernels import Mixture

TILE = 1024
"""Samples along the side of a tile on the CPU: enough for fast matrix products, few enough for the cache."""
CUDA_TILE = 4096
"""The same on CUDA."""
FEW = 8
"""Numbers a sample up to which samples are subtracted on the CPU."""
COMPILED = 2**23
"""Pairs from which gradients come from a compiled kernel, where there is a compiler: fewer do not repay its seconds."""
_CLOSE = 1 / 32
"""A squared distance below so many squared distances from the mean is taken in float64."""
_STRIP = 2**16
"""Kernel values that are computed at a time where nothing is compiled: few enough for the cache."""

_Program = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From two sets of samples and a tile to the sums of its rows; puts the slopes into the tile."""


@attrs.frozen(eq=False)
class Block:
    """Consecutive samples of x or of y, and where the forces on them are gathered."""

    side: int
    points: Tensor
    norms: Tensor
    force: Tensor | None
    pull: Tensor


@torch.no_grad()
def mmd2_and_forces(
    x: Tensor, y: Tensor, kernel: Mixture, *, unbiased: bool, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """MMD² (U- or V-statistic) and its gradients in x and in y; one that is not wanted comes back empty.

    Arguments: `x` (N, K) and `y` (M, K), both float32 or both float64, on the CPU or on CUDA. No graph is made.
    """
    points = torch.cat([x, y])
    points -= points.mean(0)
    forces = [torch.zeros_like(z) if wants else z.new_empty(0) for z, wants in zip((x, y), wanted, strict=True)]
    pulls = points.new_zeros(len(points), dtype=torch.float64)
    blocks = [
        *_blocks(0, points[: len(x)], forces[0] if wanted[0] else None, pulls[: len(x)]),
        *_blocks(1, points[len(x) :], forces[1] if wanted[1] else None, pulls[len(x) :]),
    ]
    engine = _engine(kernel, points, slopes=any(wanted))
    tile = points.new_empty(max(len(block.points) for block in blocks) ** 2)
    total = points.new_zeros((), dtype=torch.float64)
    n, m = len(x), len(y)
    scales = (1 / (n * (n - 1)), -1 / (n * m), 1 / (m * (m - 1))) if unbiased else (1 / n**2, -1 / (n * m), 1 / m**2)
    for number, first in enumerate(blocks):
        for second in blocks[number:]:
            total += _tile(engine, first, second, tile, scales[first.side + second.side])
    if not unbiased:
        total += kernel.at_zero * (1 / n + 1 / m)
    for block in blocks:
        if block.force is not None:
            block.force.addcmul_(block.points, block.pull[:, None].to(x.dtype)).mul_(4)
    return total.to(x.dtype), forces[0], forces[1]


def _blocks(side: int, points: Tensor, force: Tensor | None, pull: Tensor) -> list[Block]:
    count = -(-len(points) // (CUDA_TILE if points.is_cuda else TILE))
    length = -(-len(points) // count)
    mine = torch.split(points, length)
    norms = [torch.linalg.vector_norm(part, dim=1).square() for part in mine]  # no copy of the samples, squared or not
    forces = [None] * len(mine) if force is None else torch.split(force, length)
    return [Block(side, *parts) for parts in zip(mine, norms, forces, torch.split(pull, length), strict=True)]


def _tile(engine: Engine, first: Block, second: Block, tile: Tensor, scale: float) -> Tensor:
    """The values of the pairs of two blocks, summed; adds to the forces on both."""
    same = first is second
    slopes = tile[: len(first.points) * len(second.points)].view(len(first.points), len(second.points))
    rows, slopes = engine.weigh(first, second, slopes)
    if same:
        slopes.fill_diagonal_(0)
    if first.force is not None:
        engine.push(first, second.points, slopes, scale)
    if second.force is not None and not same:
        engine.push(second, first.points, slopes.T, scale)
    value = rows.sum(dtype=torch.float64)
    return (value - engine.kernel.at_zero * len(first.points)) * scale if same else value * (2 * scale)


class Engine(Protocol):
    """How a tile is done on a device."""

    kernel: Mixture

    def weigh(self, first: Block, second: Block, tile: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of the rows of the values, and the slopes, in the tile that is given or in another."""

    def push(self, block: Block, others: Tensor, slopes: Tensor, scale: float) -> None:
        """Add scale · Σ_j φ'_ij (x_i - z_j) to the force on each sample of a block."""


class _Host:
    """The CPU: distances and forces as matrix products, and a program for what lies between."""

    def __init__(self, kernel: Mixture, points: Tensor, *, slopes: bool) -> None:
        self.kernel = kernel
        self._slopes = slopes
        self._few = points.shape[1] <= FEW
        compiled = slopes and len(points) ** 2 >= 2 * COMPILED
        self._program = _program(kernel, few=self._few, slopes=slopes, compiled=compiled)
        self._wide: Tensor | None = None

    def weigh(self, first: Block, second: Block, tile: Tensor) -> tuple[Tensor, Tensor]:
        if self._few:
            close = tile.dtype != torch.float64
            rows = self._program(first.points.T.contiguous(), second.points.T.contiguous(), tile)
        else:
            close = _distances(first, second, tile)
            rows = self._program(tile[:0], tile[:0], tile)
        return rows, self._widened(tile) if close and self._slopes else tile

    def push(self, block: Block, others: Tensor, slopes: Tensor, scale: float) -> None:
        assert block.force is not None
        sums = slopes.sum(1)
        if (
            slopes.dtype == block.force.dtype
        ):  # the two halves apart: no pair is close, and the sum meets x_i at the end
            block.pull.add_(sums, alpha=scale)
            block.force.addmm_(slopes, others, alpha=-scale)
        else:
            halves = (block.points * sums[:, None]).addmm_(slopes, others.to(slopes.dtype), alpha=-1)
            block.force.add_(halves, alpha=scale)

    def _widened(self, tile: Tensor) -> Tensor:
        if self._wide is None or self._wide.numel() < tile.numel():
            self._wide = tile.new_empty(tile.numel(), dtype=torch.float64)
        return self._wide[: tile.numel()].view_as(tile).copy_(tile)


def _distances(first: Block, second: Block, tile: Tensor) -> bool:
    """Fill a tile with squared distances by a matrix product; whether that needed float64, for close pairs."""
    torch.add(first.norms[:, None], second.norms, out=tile)
    tile.addmm_(first.points, second.points.T, alpha=-2)
    if first is second:
        tile.fill_diagonal_(torch.inf)
    close = tile.dtype != torch.float64 and bool((tile.amin(1) < _CLOSE * first.norms).any())
    if close:
        left, right = first.points.double(), second.points.double()
        norms = left.square().sum(1)[:, None] + right.square().sum(1)
        tile.copy_(norms.addmm_(left, right.T, alpha=-2))
    if first is second:
        tile.fill_diagonal_(0)
    tile.clamp_min_(0)
    return close


def _engine(kernel: Mixture, points: Tensor, *, slopes: bool) -> Engine:
    if not points.is_cuda:
        return _Host(kernel, points, slopes=slopes)
    from ipmgan.functional import tiles_cuda  # where there is Triton only

    return tiles_cuda.Device(kernel, slopes=slopes)


def triton_is_there() -> bool:
    """Whether kernels for CUDA can be written here."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _program(kernel: Mixture, *, few: bool, slopes: bool, compiled: bool) -> _Program:
    """Values and slopes of a tile, from distances or from samples of few numbers: one compiled kernel, or strips."""

    def whole(left: Tensor, right: Tensor, tile: Tensor) -> Tensor:
        values, slope = kernel.with_slope(_differences(left, right) if few else tile)
        if slopes:
            tile.copy_(slope)
        return values.sum(1)

    def by_strips(left: Tensor, right: Tensor, tile: Tensor) -> Tensor:
        height = max(1, _STRIP // tile.shape[1])
        tops = range(0, len(tile), height)
        return torch.cat([whole(left[:, top : top + height], right, tile[top : top + height]) for top in tops])

    fast = _compiled(whole, few=few) if compiled else None
    return fast or by_strips


def _compiled(program: _Program, *, few: bool) -> _Program | None:
    """A program for tiles of any size; None where it cannot be made, as there may be no compiler for C++."""
    compiled: _Program = torch.compile(program, dynamic=True)

    def fast(left: Tensor, right: Tensor, tile: Tensor) -> Tensor:
        with torch._dynamo.config.patch(specialize_float=True, recompile_limit=256):  # the widths are constants
            return compiled(left, right, tile)

    sample = torch.rand(2 if few else 0, 48)
    try:
        fast(sample, sample[:, :40].clone(), torch.rand(48, 40))
    except RuntimeError:
        return None
    return fast


def _differences(left: Tensor, right: Tensor) -> Tensor:
    """Squared distances between points (K, n) and (K, m), one number a time."""
    squared = (left[0][:, None] - right[0]).square()
    for number in range(1, len(left)):
        difference = left[number][:, None] - right[number]
        squared = torch.addcmul(squared, difference, difference)
    return squared
