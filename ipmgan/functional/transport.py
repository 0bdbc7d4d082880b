"""Wasserstein distances between samples: on the line by sorting, in many dimensions by slices."""

from __future__ import annotations

import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.tensors import at_least_float32, check_samples, safe_sqrt


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
