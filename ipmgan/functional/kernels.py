"""Kernels that depend on the distance alone, k(x, y) = φ(‖x - y‖²), each a sum over its widths.

A kernel maps squared distances to kernel values, element by element, so that one matrix of distances serves a whole
mixture. The mixture is summed as it is computed, and with it its derivative φ': two matrices are kept for the backward
pass, however many widths there are. Second derivatives work too.

Exponentials whose rates are powers of two of one another come from one by repeated squaring, at most up to its 16th
power. That multiplies the relative error by the power: a value is right to 2e-6 of itself in float32 and to 4e-15 in
float64, where the exponential taken directly is right to 1e-7 and 2e-16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ipmgan.errors import UsageError, choose_from
from ipmgan.functional.tensors import check_samples, widest

GMMN_WIDTHS = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)
"""The six widths of generative moment matching networks (variances: they stand where σ² does)."""
MMD_GAN_WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""The five σ of MMD GAN."""
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The seven multiples of C of Wasserstein auto-encoders."""

Kernel = Callable[[Tensor], Tensor]
"""From squared distances, of any shape, to kernel values."""
_Terms = Callable[[Tensor, tuple[float, ...]], tuple[Tensor, Tensor]]

_POWER = 16.0
"""The highest power that is taken of an exponential."""


@dataclass(frozen=True)
class Mixture:
    """A kernel of `KERNELS` and its widths: a function of squared distances that knows its own derivative.

    Large samples are compared without their matrix of distances under such a kernel (`ipmgan.functional.mmd`); any
    other function of squared distances is a kernel too, and takes the matrix.

    Raises `UsageError` for a name that is not in `KERNELS`, and for no widths.

    >>> Mixture("imq", (2.0,))(torch.tensor([0.0, 2.0]))
    tensor([1.0000, 0.5000])
    """

    name: str
    widths: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.name not in _TERMS:
            raise UsageError(choose_from("kernel", self.name, _TERMS))
        if not self.widths:
            raise UsageError(f"the kernel {self.name} needs a width")

    def __call__(self, squared: Tensor) -> Tensor:
        """The values at squared distances of any shape."""
        if torch.compiler.is_compiling():  # the compiler itself chooses what is kept
            return self.with_slope(squared)[0]
        values: Tensor = _Sum.apply(squared, self)[0]
        return values

    def with_slope(self, squared: Tensor) -> tuple[Tensor, Tensor]:
        """The values φ and the derivatives φ' with respect to the squared distances."""
        return _TERMS[self.name](squared, self.widths)

    @property
    def at_zero(self) -> float:
        """φ(0), a sample with itself.

        >>> Mixture("rbf", (1.0, 2.0)).at_zero
        2.0
        """
        return 0.0 if self.name == "energy" else float(len(self.widths))


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All squared Euclidean distances between the rows of x and of y, or among the rows of x.

        D_ij = ‖x_i - c‖² + ‖y_j - c‖² - 2 (x_i - c)ᵀ(y_j - c)

    One matrix product in float64 about the mean c of the samples (halfway between the two means for x and y), clamped
    at 0 and rounded once to the type of the samples (at least float32); among the rows of x the diagonal is exactly 0.
    So D_ij is right to half a unit in its last place and a few 1e-16 · max‖x_i - c‖²: in float32 nothing cancels
    between samples that are more than 1e-4 of the sample's radius apart. On mps, which has no float64, the product is
    in float32, and the error a few 1e-7 · max‖x_i - c‖². Autocast does not apply.

    Arguments: `x` (N, K); `y` (M, K). Returns (N, M), in squared data units. Raises `UsageError` on other shapes.

    >>> squared_distances(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]))
    tensor([[0., 4.],
            [1., 1.]])
    """
    other = x if y is None else y
    check_samples(x, other)
    narrow = torch.promote_types(torch.promote_types(x.dtype, other.dtype), torch.float32)
    wide = widest(x.device)
    with torch.autocast(x.device.type, enabled=False):
        x, other = x.to(wide), other.to(wide)
        centre = (x.detach().mean(0) + other.detach().mean(0)) / 2
        left = x - centre
        right = left if y is None else other - centre
        norms = left.square().sum(1)[:, None] + right.square().sum(1)
        distances = torch.addmm(norms, left, right.T, alpha=-2).clamp_min(0).to(narrow)
    if y is None:
        distances = distances.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), 0)
    return distances


def rbf(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Gaussian kernels, widths σ in data units: Σ_σ exp(-‖d‖² / 2σ²).

    >>> rbf(torch.tensor([0.0, 2.0]), (1.0,))
    tensor([1.0000, 0.3679])
    """
    return Mixture("rbf", widths)(squared)


def gmmn(squared: Tensor, widths: tuple[float, ...] = GMMN_WIDTHS) -> Tensor:
    """Gaussian kernels, widths s in squared data units: Σ_s exp(-‖d‖² / 2s).

    >>> gmmn(torch.tensor([0.0]))
    tensor([6.])

    Source: Li et al. (2015), section 3, with the widths of the authors' experiments.
    """
    return Mixture("gmmn", widths)(squared)


def imq(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Inverse multiquadrics, widths C in squared data units: Σ_C C / (C + ‖d‖²).

    >>> imq(torch.tensor([0.0, 2.0]), (2.0,))
    tensor([1.0000, 0.5000])

    Source: Tolstikhin et al. (2018), section 4, with C = 2·K·σ² for a prior N(0, σ² I) in K dimensions.
    """
    return Mixture("imq", widths)(squared)


def rational_quadratic(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Rational quadratics, exponents α: Σ_α (1 + ‖d‖² / 2α)^(-α).

    >>> rational_quadratic(torch.tensor([0.0, 2.0]), (1.0,))
    tensor([1.0000, 0.5000])
    """
    return Mixture("rq", widths)(squared)


def laplace(squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """Laplace kernels, widths σ in data units: Σ_σ exp(-‖d‖ / σ).

    >>> laplace(torch.tensor([0.0, 1.0]), (1.0,))
    tensor([1.0000, 0.3679])
    """
    return Mixture("laplace", widths)(squared)


def energy(squared: Tensor, widths: tuple[float, ...] = (1.0,)) -> Tensor:
    """The distance kernel -Σ_σ ‖d‖ / σ; with it MMD² is the energy distance 2E‖X-Y‖ - E‖X-X'‖ - E‖Y-Y'‖ (for σ = 1).

    It is positive definite only conditionally, which is all that a difference of laws needs.

    >>> energy(torch.tensor([0.0, 4.0]))
    tensor([-0., -2.])
    """
    return Mixture("energy", widths)(squared)


KERNELS: Mapping[str, Callable[[Tensor, tuple[float, ...]], Tensor]] = {
    "rbf": rbf,
    "imq": imq,
    "gmmn": gmmn,
    "rq": rational_quadratic,
    "laplace": laplace,
    "energy": energy,
}


def _inverse(d2: Tensor, widths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    total, slope = torch.zeros_like(d2), torch.zeros_like(d2)
    for c in widths:
        value = c / (c + d2)
        total = total + value
        slope = torch.addcmul(slope, value, value, value=-1 / c)
    return total, slope


def _rational(d2: Tensor, widths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    total, slope = torch.zeros_like(d2), torch.zeros_like(d2)
    for alpha in widths:
        base = 1 + d2 / (2 * alpha)
        value = base**-alpha
        total = total + value
        slope = torch.addcdiv(slope, value, base, value=-0.5)
    return total, slope


def _laplace(d2: Tensor, widths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    distance, inverse = _root(d2)
    total, slope = _exponentials(distance, [1 / sigma for sigma in widths])
    return total, slope * inverse * 0.5


def _distance(d2: Tensor, widths: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    distance, inverse = _root(d2)
    rate = sum(1 / sigma for sigma in widths)
    return distance * -rate, inverse * (-0.5 * rate)


def _root(d2: Tensor) -> tuple[Tensor, Tensor]:
    """√d² and its inverse, both 0 at 0: a sample takes no force from its own copy."""
    inverse = torch.where(d2 > 0, torch.where(d2 > 0, d2, 1).rsqrt(), 0)
    return d2 * inverse, inverse


def _exponentials(t: Tensor, rates: list[float]) -> tuple[Tensor, Tensor]:
    """Σ_r exp(-r t) and its derivative, the slowest first, by squaring wherever that leads to the next."""
    total, slope = torch.zeros_like(t), torch.zeros_like(t)
    value, rooted, last = total, math.inf, math.inf
    for rate in sorted(rates):
        doublings = round(math.log2(rate / last)) if math.isfinite(last) else 0
        if rate <= _POWER * rooted and math.isfinite(last) and math.isclose(rate, last * 2**doublings, rel_tol=1e-15):
            for _ in range(doublings):
                value = value * value
        else:
            value, rooted = torch.exp(t * -rate), rate
        last = rate
        total = total + value
        slope = torch.add(slope, value, alpha=-rate)
    return total, slope


_TERMS: Mapping[str, _Terms] = {
    "rbf": lambda d2, widths: _exponentials(d2, [0.5 / sigma**2 for sigma in widths]),
    "gmmn": lambda d2, widths: _exponentials(d2, [0.5 / s for s in widths]),
    "imq": _inverse,
    "rq": _rational,
    "laplace": _laplace,
    "energy": _distance,
}


class _Sum(torch.autograd.Function):
    """The values of a mixture and its slope, kept for the backward pass instead of every term."""

    generate_vmap_rule = True

    @staticmethod
    def forward(squared: Tensor, kernel: Mixture) -> tuple[Tensor, Tensor]:
        return kernel.with_slope(squared)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Mixture], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(inputs[0], output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # no zeros for that
        ctx.kernel = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        if grads[0] is None:
            return None, None
        squared, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will differentiate this gradient: the slope needs its own graph
            slope = ctx.kernel.with_slope(squared)[1]
        return grads[0] * slope, None
