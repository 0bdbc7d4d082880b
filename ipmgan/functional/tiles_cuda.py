"""One tile of pairs on CUDA: squared distances, values and slopes in one Triton kernel, and forces in another.

Every program takes a square of pairs and walks along the numbers of their samples, or a square of forces and walks
along the other samples; it sums differences, so that nothing cancels. Importing this module needs Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ipmgan.functional.kernels import Mixture
from ipmgan.functional.tiles import Block

SIDE = 64
"""Pairs along the side of what one program takes."""
_OPTIONS = {"num_warps": 8, "enable_fp_fusion": True}


@triton.jit
def _terms(squared: tl.tensor, KIND: tl.constexpr, WIDTHS: tl.constexpr) -> tl.tensor:
    """Values and derivatives of a mixture at squared distances: `Mixture.with_slope`, width by width."""
    value = squared * 0
    slope = squared * 0
    inverse = tl.where(squared > 0, 1 / tl.sqrt(tl.where(squared > 0, squared, 1)), 0)
    for w in tl.static_range(len(WIDTHS)):
        if KIND == "rbf":
            term = tl.exp(-0.5 * squared / (WIDTHS[w] * WIDTHS[w]))
            slope += term * (-0.5 / (WIDTHS[w] * WIDTHS[w]))
        elif KIND == "gmmn":
            term = tl.exp(-0.5 * squared / WIDTHS[w])
            slope += term * (-0.5 / WIDTHS[w])
        elif KIND == "imq":
            term = WIDTHS[w] / (WIDTHS[w] + squared)
            slope -= term * term / WIDTHS[w]
        elif KIND == "rq":
            base = 1 + 0.5 * squared / WIDTHS[w]
            term = tl.exp(-WIDTHS[w] * tl.log(base))
            slope -= 0.5 * term / base
        elif KIND == "laplace":
            term = tl.exp(-squared * inverse / WIDTHS[w])
            slope -= 0.5 * term * inverse / WIDTHS[w]
        else:
            term = -squared * inverse / WIDTHS[w]
            slope -= 0.5 * inverse / WIDTHS[w]
        value += term
    return value, slope


@triton.jit
def _fill(
    left: tl.tensor,
    right: tl.tensor,
    tile: tl.tensor,
    sums: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    numbers: tl.tensor,
    KIND: tl.constexpr,
    WIDTHS: tl.constexpr,
    SLOPES: tl.constexpr,
    SIDE: tl.constexpr,
) -> None:
    """The samples are columns, (numbers, n) and (numbers, m); `tile` is (n, m), `sums` (programs along m, n)."""
    row = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    column = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    squared = tl.zeros((SIDE, SIDE), dtype=left.dtype.element_ty)
    mine, others = left + row, right + column
    for _ in range(numbers):
        a = tl.load(mine, mask=row < n, other=0)
        b = tl.load(others, mask=column < m, other=0)
        difference = a[:, None] - b[None, :]
        squared += difference * difference
        mine += n
        others += m
    value, slope = _terms(squared, KIND, WIDTHS)
    inside = (row < n)[:, None] & (column < m)[None, :]
    tl.store(sums + tl.program_id(1) * n + row, tl.sum(tl.where(inside, value, 0), 1), mask=row < n)
    if SLOPES:
        tl.store(tile + row.to(tl.int64)[:, None] * m + column[None, :], slope, mask=inside)


@triton.jit
def _gather(
    force: tl.tensor,
    points: tl.tensor,
    others: tl.tensor,
    slopes: tl.tensor,
    scale: tl.tensor,
    n: tl.tensor,
    m: tl.tensor,
    numbers: tl.tensor,
    row_step: tl.tensor,
    column_step: tl.tensor,
    SIDE: tl.constexpr,
) -> None:
    """Add scale · Σ_j slopes_ij (points_i - others_j) to (n, numbers) forces; `others` is (m, numbers)."""
    row = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    number = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    at = row.to(tl.int64)[:, None] * numbers + number[None, :]
    inside = (row < n)[:, None] & (number < numbers)[None, :]
    point = tl.load(points + at, mask=inside, other=0)
    total = tl.zeros((SIDE, SIDE), dtype=force.dtype.element_ty)
    slope_at, other_at = slopes + row.to(tl.int64) * row_step, others + number
    for _ in range(m):
        slope = tl.load(slope_at, mask=row < n, other=0)
        other = tl.load(other_at, mask=number < numbers, other=0)
        total += slope[:, None] * (point - other[None, :])
        slope_at += column_step
        other_at += numbers
    tl.store(force + at, tl.load(force + at, mask=inside, other=0) + scale * total, mask=inside)


class Device:
    """A CUDA device: one kernel for the slopes of a tile and one for its forces, neither with a product to cancel."""

    def __init__(self, kernel: Mixture, *, slopes: bool) -> None:
        self.kernel = kernel
        self._slopes = slopes

    def weigh(self, first: Block, second: Block, tile: Tensor) -> tuple[Tensor, Tensor]:
        """The sums of the rows of the values, and the tile filled with slopes, if they are wanted."""
        n, m = tile.shape
        grid = (triton.cdiv(n, SIDE), triton.cdiv(m, SIDE))
        sums = tile.new_empty(grid[1], n)
        columns = first.points.T.contiguous(), second.points.T.contiguous()
        choice = {"KIND": self.kernel.name, "WIDTHS": self.kernel.widths, "SLOPES": self._slopes, "SIDE": SIDE}
        _fill[grid](*columns, tile, sums, n, m, first.points.shape[1], **choice, **_OPTIONS)
        return sums.sum(0, dtype=torch.float64), tile

    def push(self, block: Block, others: Tensor, slopes: Tensor, scale: float) -> None:
        """Add scale · Σ_j φ'_ij (x_i - z_j) to the force on each sample of a block."""
        n, numbers = block.points.shape
        grid = (triton.cdiv(n, SIDE), triton.cdiv(numbers, SIDE))
        sizes = n, len(others), numbers, *slopes.stride()
        _gather[grid](block.force, block.points, others, slopes, scale, *sizes, SIDE=SIDE, **_OPTIONS)
