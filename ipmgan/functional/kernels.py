"""Kernels that depend on the distance alone, k(x, y) = φ(‖x - y‖²), each a sum over its widths.

A kernel maps squared distances to kernel values, element by element, so that one matrix of distances serves a whole
mixture. The mixture is summed in place, and with it its derivative φ': two matrices are kept for the backward pass,
however many widths there are. Second derivatives work too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ipmgan.functional.tensors import at_least_float32, check_samples

GMMN_WIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""The six widths of generative moment matching networks (variances: they stand where σ² does)."""
MMD_GAN_WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The five σ of MMD GAN."""
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The seven multiples of C of Wasserstein auto-encoders."""

Kernel = Callable[[Tensor], Tensor]
"""From squared distances, of any shape, to kernel values."""
_Term = Callable[[Tensor, float], tuple[Tensor, Tensor]]


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All squared Euclidean distances between the rows of x and of y, or among the rows of x.

        D_ij = ‖x_i - c‖² + ‖y_j - c‖² - 2 (x_i - c)ᵀ(y_j - c)

    One matrix product, about the mean c of the samples (halfway between the two means for x and y), clamped at 0; among
    the rows of x the diagonal is exactly 0. The absolute error is a few ε·max‖x_i - c‖², ε = 1.2e-7 in float32,
    wherever the origin lies. Autocast does not apply.

    Arguments: `x` (N, K); `y` (M, K). Returns (N, M), in squared data units. Raises `UsageError` on other shapes.

    >>> squared_distances(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
    tensor([[0., 4.],
            [1., 1.]])
    """
    other = x if y is None else y
    check_samples(x, other)
    with torch.autocast(x.device.type, enabled=False):
        x, other = at_least_float32(x), at_least_float32(other)
        centre = (x.detach().mean(0) + other.detach().mean(0)) / 2
        left = x - centre
        right = left if y is None else other - centre
        norms = left.square().sum(1)[:, None] + right.square().sum(1)
        distances = torch.addmm(norms, left, right.T, alpha=-2).clamp_min(0)
    return distances.fill_diagonal_(0) if y is None else distances


def rbf(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Gaussian kernels, widths σ in data units: Σ_σ exp(-‖d‖² / 2σ²).

    >>> rbf(torch.tensor([0.0, 2.0]), (1.0,))
    tensor([1.0000, 0.3679])
    """
    return _sum(squared, widths, lambda d2, sigma: _exponential(d2, 0.5 / sigma**2))


def gmmn(squared: Tensor, widths: tuple[float, ...] = GMMN_WIDTHS) -> Tensor:
    """Gaussian kernels, widths s in squared data units: Σ_s exp(-‖d‖² / 2s).

    >>> gmmn(torch.tensor([0.0]))
    tensor([6.])

    Source: Li et al. (2015), section 3, with the widths of the authors' experiments.
    """
    return _sum(squared, widths, lambda d2, s: _exponential(d2, 0.5 / s))


def imq(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Inverse multiquadrics, widths C in squared data units: Σ_C C / (C + ‖d‖²).

    >>> imq(torch.tensor([0.0, 2.0]), (2.0,))
    tensor([1.0000, 0.5000])

    Source: Tolstikhin et al. (2018), section 4, with C = 2·K·σ² for a prior N(0, σ² I) in K dimensions.
    """
    return _sum(squared, widths, _inverse)


def rational_quadratic(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Rational quadratics, exponents α: Σ_α (1 + ‖d‖² / 2α)^(-α).

    >>> rational_quadratic(torch.tensor([0.0, 2.0]), (1.0,))
    tensor([1.0000, 0.5000])
    """
    return _sum(squared, widths, _rational)


def laplace(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Laplace kernels, widths σ in data units: Σ_σ exp(-‖d‖ / σ).

    >>> laplace(torch.tensor([0.0, 1.0]), (1.0,))
    tensor([1.0000, 0.3679])
    """
    return _sum(squared, widths, _laplace)


def energy(squared: Tensor, widths: tuple[float, ...] = (1.0,)) -> Tensor:
    """The distance kernel -Σ_σ ‖d‖ / σ; with it MMD² is the energy distance 2E‖X-Y‖ - E‖X-X'‖ - E‖Y-Y'‖ (for σ = 1).

    It is positive definite only conditionally, which is all that a difference of laws needs.

    >>> energy(torch.tensor([0.0, 4.0]))
    tensor([-0., -2.])
    """
    return _sum(squared, widths, _distance)


KERNELS: Mapping[str, Callable[[Tensor, tuple[float, ...]], Tensor]] = MappingProxyType(
    {"rbf": rbf, "imq": imq, "gmmn": gmmn, "rq": rational_quadratic, "laplace": laplace, "energy": energy}
)


def _exponential(d2: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    value = torch.exp(d2 * -rate)
    return value, value * -rate


def _inverse(d2: Tensor, c: float) -> tuple[Tensor, Tensor]:
    value = c / (c + d2)
    return value, value.square() * (-1 / c)


def _rational(d2: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    base = 1 + d2 / (2 * alpha)
    value = base**-alpha
    return value, value / base * -0.5


def _laplace(d2: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    distance, inverse = _root(d2)
    value = torch.exp(distance * (-1 / sigma))
    return value, value * inverse * (-0.5 / sigma)


def _distance(d2: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    distance, inverse = _root(d2)
    return distance * (-1 / sigma), inverse * (-0.5 / sigma)


def _root(d2: Tensor) -> tuple[Tensor, Tensor]:
    """√d² and its inverse, both 0 at 0: a sample takes no force from its own copy."""
    inverse = torch.where(d2 > 0, torch.where(d2 > 0, d2, 1).rsqrt(), 0)
    return d2 * inverse, inverse


def _sum(squared: Tensor, widths: tuple[float, ...], term: _Term) -> Tensor:
    total: Tensor = _Mixture.apply(squared, widths, term)
    return total


class _Mixture(torch.autograd.Function):
    """Σ_w term(squared, w), which keeps the summed slope for the backward pass instead of every term."""

    @staticmethod
    def forward(ctx: Any, squared: Tensor, widths: tuple[float, ...], term: _Term) -> Tensor:
        total, slope = term(squared, widths[0])
        for width in widths[1:]:
            value, change = term(squared, width)
            total += value
            if ctx.needs_input_grad[0]:
                slope += change
        ctx.save_for_backward(squared, slope)
        ctx.widths, ctx.term = widths, term
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        squared, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this gradient: the slope needs its own graph
            slope = torch.stack([ctx.term(squared, width)[1] for width in ctx.widths]).sum(0)
        return grads[0] * slope, None, None
