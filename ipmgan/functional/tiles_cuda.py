"""One tile of pairs on CUDA: squared distances, kernel values and slopes in one Triton kernel, none of them kept.

Every program takes a square of pairs, walks along the numbers of their samples and sums squared differences, so that
nothing cancels. Importing this module needs Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ipmgan.functional.kernels import Mixture

SIDE = 64
"""Pairs along the side of what one program takes."""


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


def weigh(left: Tensor, right: Tensor, tile: Tensor, kernel: Mixture, *, slopes: bool) -> Tensor:
    """Fill a tile (n, m) with slopes, if they are wanted; return the sums of the rows of its values, in float64."""
    n, m = tile.shape
    grid = (triton.cdiv(n, SIDE), triton.cdiv(m, SIDE))
    sums = tile.new_empty(grid[1], n)
    _fill[grid](
        left.T.contiguous(),
        right.T.contiguous(),
        tile,
        sums,
        n,
        m,
        left.shape[1],
        KIND=kernel.name,
        WIDTHS=kernel.widths,
        SLOPES=slopes,
        SIDE=SIDE,
        num_warps=8,
        enable_fp_fusion=True,
    )
    return sums.sum(0, dtype=torch.float64)
