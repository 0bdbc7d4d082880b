"""Distances between samples: on the line by sorting, in many dimensions by slices."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.tensors import at_least_float32, check_samples, safe_sqrt, widest


def wasserstein_1d(x: Tensor, y: Tensor, p: int = 1) -> Tensor:
    """The Wasserstein distance between two samples on the line, exactly, from their quantile functions.

        W_p = (∫₀¹ |F⁻¹(u) - G⁻¹(u)|^p du)^(1/p)

    Arguments: `x` (N,) and `y` (M,), or (N, L) and (M, L) for L pairs of samples at once; N and M may differ; `p` 1 or
    2. Returns a scalar, or (L,), in data units. Raises `UsageError` on other shapes or powers.

    >>> wasserstein_1d(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([5.0, 6.0, 8.0]))
    tensor(5.)
    >>> wasserstein_1d(torch.tensor([0.0]), torch.tensor([1.0, 3.0]))
    tensor(2.)

    Source: Santambrogio (2015), Optimal Transport for Applied Mathematicians, proposition 2.17.
    """
    if x.ndim == 1 and y.ndim == 1:
        return wasserstein_1d(x[:, None], y[:, None], p)[0]
    return _take_root(_mean_power(x, y, p), p)


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, directions: int = 256, p: int = 1, generator: torch.Generator
) -> Tensor:
    """The Wasserstein distance between projections on random lines, averaged over directions.

        SW_p = (mean over θ of W_p(θᵀx, θᵀy)^p)^(1/p),   θ uniform on the unit sphere

    It is at most W_p, and zero only at equal laws; between two finite samples of one law it is above 0.

    Arguments: `x` (N, K), `y` (M, K); the number of `directions`; `p` 1 or 2; the `generator` that draws the
    directions, on any device. Returns a scalar, in data units. Raises `UsageError` on other shapes or powers.

    >>> x = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> sliced_wasserstein(x, x + 2, generator=torch.Generator().manual_seed(0)) < 2 * 2**0.5
    tensor(True)

    Source: Bonneel et al. (2015), section 3; directions by Monte Carlo.
    """
    check_samples(x, y)
    x, y = at_least_float32(x), at_least_float32(y)
    lines = torch.randn(x.shape[1], directions, generator=generator, device=generator.device, dtype=x.dtype).to(x)
    lines = lines / lines.norm(dim=0)
    with torch.autocast(x.device.type, enabled=False):
        powers = _mean_power(x @ lines, y @ lines, p)
    return _take_root(powers.mean(), p)


def energy_distance_1d(x: Tensor, y: Tensor) -> Tensor:
    """The energy distance between two samples on the line, as a V-statistic, in time O(N log N).

        2 ∫ (F(t) - G(t))² dt = 2 E|X - Y| - E|X - X'| - E|Y - Y'|

    Arguments: `x` (N,) and `y` (M,). Returns a scalar, in data units, never negative. Raises `UsageError` on other
    shapes.

    >>> energy_distance_1d(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor(2.)

    Source: Székely and Rizzo (2013), Energy Statistics, theorem 2.
    """
    if x.ndim != 1 or y.ndim != 1:
        raise UsageError(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}: must be (N,) and (M,)")
    check_samples(x[:, None], y[:, None])
    points, above = _distribution_gap(at_least_float32(x)[None], at_least_float32(y)[None])
    return 2 * (points.diff() * above.square()).sum()


@attrs.frozen(kw_only=True, eq=False)
class SlicedWitness:
    """A function that is 1-Lipschitz: the mean over directions of the best critic of the projections on each.

        F(z) = mean over θ of f_θ(θᵀz),   f_θ' = sign(F_y - F_x) between the projections, and 0 outside them

    with F_x and F_y the projections' distribution functions.
    """

    lines: Tensor
    """(K, L), unit vectors."""
    knots: Tensor
    """(L, P), where each f_θ bends, ascending."""
    values: Tensor
    """(L, P), f_θ there."""

    def __call__(self, points: Tensor) -> Tensor:
        """F at points (B, K): (B,)."""
        t = (points.to(self.lines) @ self.lines).T.contiguous()
        right = torch.searchsorted(self.knots, t).clamp(1, self.knots.shape[1] - 1)
        low, high = self.knots.gather(1, right - 1), self.knots.gather(1, right)
        start, end = self.values.gather(1, right - 1), self.values.gather(1, right)
        share = ((t - low) / torch.where(high > low, high - low, 1)).clamp(0, 1)
        return torch.lerp(start, end, share).mean(0)


def sliced_witness(x: Tensor, y: Tensor, *, directions: int = 256, generator: torch.Generator) -> SlicedWitness:
    """What proves the sliced W1 of two samples: mean F(x) - mean F(y) is its value on them.

    On other samples of the same laws it is an unbiased estimate of a lower bound of their sliced W1, and so of their
    W1, since a mean of 1-Lipschitz functions is one.

    Arguments: `x` (N, K), `y` (M, K); the number of `directions`; the `generator` that draws them. Returns F, which
    maps points (B, K) to (B,), in float64. Raises `UsageError` on other shapes.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> witness = sliced_witness(x, x + 2, generator=torch.Generator().manual_seed(0))
    >>> witness(x).mean() - witness(x + 2).mean()
    tensor(2., dtype=torch.float64)

    Source: Bonneel et al. (2015), section 3; the dual of W1 on the line.
    """
    check_samples(x, y)
    wide = widest(x.device)
    lines = torch.randn(x.shape[1], directions, generator=generator, device=generator.device, dtype=wide).to(x.device)
    lines = lines / lines.norm(dim=0)
    with torch.no_grad():
        knots, above = _distribution_gap((x.to(wide) @ lines).T, (y.to(wide) @ lines).T)
        rises = -knots.diff(dim=1) * above.sign()
        values = torch.cat([rises.new_zeros(len(rises), 1), rises.cumsum(1)], dim=1)
    return SlicedWitness(lines=lines, knots=knots, values=values)


def _distribution_gap(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled points of each row, ascending, (L, N + M), and F - G in the gaps between them, (L, N + M - 1)."""
    points, order = torch.cat([x, y], dim=1).sort(dim=1)
    n, m = x.shape[1], y.shape[1]
    steps = torch.where(order < n, m, -n).cumsum(1)[:, :-1]  # in units of 1 / nm, so that what is equal cancels to 0
    return points, steps.to(x.dtype) / (n * m)


def _mean_power(x: Tensor, y: Tensor, p: int) -> Tensor:
    """W_p^p of each column."""
    check_samples(x, y)
    if p not in (1, 2):
        raise UsageError(f"p = {p}: must be 1 or 2")
    x, y = at_least_float32(x).sort(0).values, at_least_float32(y).sort(0).values
    if len(x) == len(y):
        gap = x - y
        return (gap.abs() if p == 1 else gap.square()).mean(0)
    n, m = len(x), len(y)
    steps = torch.arange(1, n + 1, device=x.device) * m, torch.arange(1, m + 1, device=x.device) * n
    ends = torch.cat(steps).sort().values  # where either quantile function jumps, in units of 1 / nm
    widths = ends.diff(prepend=ends.new_zeros(1)).to(x.dtype) / (n * m)
    gap = x[(ends - 1) // m] - y[(ends - 1) // n]
    return widths @ (gap.abs() if p == 1 else gap.square())


def _take_root(power: Tensor, p: int) -> Tensor:
    return power if p == 1 else safe_sqrt(power)
