"""Distances between Gaussian laws in closed form: what estimates from samples are held to.

Means and standard deviations are tensors of one number (or of one shape, element by element) unless a docstring says
otherwise; distances are in data units, divergences in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ipmgan.errors import UsageError, choose_from
from ipmgan.functional.discrete import F_DIVERGENCES
from ipmgan.functional.tensors import safe_sqrt


def gaussian_kl(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """KL(N(μ_p, σ_p²) ‖ N(μ_q, σ_q²)) = log(σ_q / σ_p) + (σ_p² + (μ_p - μ_q)²) / 2σ_q² - ½.

    >>> gaussian_kl(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(2.0))
    tensor(0.4431)
    """
    return torch.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5


def gaussian_js(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2, between Gaussians on the line.

        log 2 - ½ E_p[softplus(-ℓ)] - ½ E_q[softplus(ℓ)],   ℓ = log(p / q)

    There is no closed form: the trapezoid rule gives about 1e-13 in float64, for widths within a factor 100 of each
    other. In nats, at most log 2.

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> gaussian_js(zero, one, one, one)
    tensor(0.1114)
    """
    shaped = torch.zeros_like(mean_p + std_p + mean_q + std_q)
    laws = mean_p, std_p, mean_q, std_q = [part + shaped for part in (mean_p, std_p, mean_q, std_q)]
    of_p = _expectation(mean_p, std_p, lambda x: F.softplus(-_log_ratio(x, *laws)))
    of_q = _expectation(mean_q, std_q, lambda x: F.softplus(_log_ratio(x, *laws)))
    return math.log(2) - (of_p + of_q) / 2


def gaussian_tv(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The total variation sup_A |p(A) - q(A)| between Gaussians on the line, in [0, 1].

        |P(A) - Q(A)|,  A between the two points at which p = q;   erf(|Δμ| / 2√2 σ) for equal widths

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> gaussian_tv(zero, one, one, one)
    tensor(0.3829)
    """
    first, second = _crossings(mean_p, std_p, mean_q, std_q)

    def mass(mean: Tensor, std: Tensor) -> Tensor:
        low, high = (torch.erf((x - mean) / (std * math.sqrt(2))) for x in (first, second))
        return (high - low) / 2

    same = (mean_p == mean_q) & (std_p == std_q)
    return torch.where(same, 0, (mass(mean_p, std_p) - mass(mean_q, std_q)).abs())


def gaussian_f_divergence(name: str, mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """An f-divergence of `F_DIVERGENCES`, ∫ q f(p / q), between Gaussians on the line; infinite where it is.

        kl                 log(σ_q / σ_p) + (σ_p² + Δμ²) / 2σ_q² - ½;   reverse-kl: with p and q exchanged
        pearson            σ_q² / (σ_p √s) exp(Δμ² / s) - 1,  s = 2σ_q² - σ_p²,  ∞ for s <= 0;   neyman: exchanged
        squared-hellinger  2 - 2 √(2σ_pσ_q / (σ_p² + σ_q²)) exp(-Δμ² / 4(σ_p² + σ_q²))
        js, gan            2 JSD, 2 JSD - 2 log 2;   tv: `gaussian_tv`

    Arguments: the `name`, and the laws as above. Raises `UsageError` for another name.

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> gaussian_f_divergence("pearson", zero, one, one, one)
    tensor(1.7183)

    Source: the integrals done; f as in Nowozin, Cseke and Tomioka (2016), table 1.
    """
    forward, backward = (mean_p, std_p, mean_q, std_q), (mean_q, std_q, mean_p, std_p)
    match name:
        case "kl":
            return gaussian_kl(*forward)
        case "reverse-kl":
            return gaussian_kl(*backward)
        case "pearson":
            return _chi_squared(*forward)
        case "neyman":
            return _chi_squared(*backward)
        case "squared-hellinger":
            total = std_p**2 + std_q**2
            overlap = torch.sqrt(2 * std_p * std_q / total) * torch.exp(-((mean_p - mean_q) ** 2) / (4 * total))
            return 2 - 2 * overlap
        case "js":
            return 2 * gaussian_js(*forward)
        case "gan":
            return 2 * gaussian_js(*forward) - 2 * math.log(2)
        case "tv":
            return gaussian_tv(*forward)
    raise UsageError(choose_from("f-divergence", name, F_DIVERGENCES))


def gaussian_w1(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The W1 distance between Gaussians on the line, E|Δμ + Δσ Z| for a standard normal Z.

        Δσ √(2/π) exp(-Δμ² / 2Δσ²) + Δμ erf(Δμ / √2 Δσ),   and |Δμ| at Δσ = 0

    >>> gaussian_w1(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(2.0))
    tensor(1.1666)
    """
    return _mean_abs(mean_q - mean_p, (std_q - std_p).abs())


def gaussian_w2(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The W2 distance between Gaussians on the line, √(Δμ² + Δσ²); in more dimensions, the root of `frechet`.

    >>> gaussian_w2(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(3.0), torch.tensor(5.0))
    tensor(5.)
    """
    return torch.hypot(mean_p - mean_q, std_p - std_q)


def gaussian_norm(dim: int, std: Tensor) -> Tensor:
    """The mean norm of noise, E‖ε‖₂ for ε ~ N(0, σ² I): the W1 distance between a point and itself blurred.

        σ √2 Γ((d + 1) / 2) / Γ(d / 2)  <=  σ √d

    For any law P of vectors, W1(P, P * N(0, σ² I)) is at most that.

    Arguments: `dim` d; `std` σ. Returns the shape of σ, in data units.

    >>> gaussian_norm(2, torch.tensor(1.0))
    tensor(1.2533)

    Source: Arjovsky and Bottou (2017), lemma 4.
    """
    return std * math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))


def gaussian_energy_distance(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| between Gaussians on the line, in data units.

    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> gaussian_energy_distance(zero, one, one, one)
    tensor(0.5418)
    """
    across = _mean_abs(mean_q - mean_p, torch.hypot(std_p, std_q))
    return 2 * across - (std_p + std_q) * (2 / math.sqrt(math.pi))


def frechet(mean_p: Tensor, cov_p: Tensor, mean_q: Tensor, cov_q: Tensor) -> Tensor:
    """The Fréchet distance, the squared W2 of Gaussians.

        ‖μ_p - μ_q‖² + tr(Σ_p + Σ_q - 2 (Σ_p^½ Σ_q Σ_p^½)^½)

    Arguments: means (K,), symmetric non-negative covariances (K, K). Returns a scalar, in squared data units.

    >>> frechet(torch.zeros(2), torch.eye(2), torch.ones(2), 4 * torch.eye(2))
    tensor(4.)
    """
    values, vectors = torch.linalg.eigh(cov_p)
    root = (vectors * safe_sqrt(values)) @ vectors.T
    product = root @ cov_q @ root
    cross = safe_sqrt(torch.linalg.eigvalsh((product + product.T) / 2)).sum()
    return (mean_p - mean_q).square().sum() + cov_p.trace() + cov_q.trace() - 2 * cross


def gaussian_mmd2_rbf(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor, width: float) -> Tensor:
    """MMD² between N(μ_p, s_p² I) and N(μ_q, s_q² I) under exp(-‖d‖² / 2σ²).

        E k = (σ² / (σ² + v))^(K/2) exp(-‖Δ‖² / 2(σ² + v)),   v the sum of the two variances

    Arguments: means (K,), standard deviations scalars, `width` σ. Returns a scalar.

    >>> one = torch.tensor(1.0)
    >>> gaussian_mmd2_rbf(torch.zeros(1), one, torch.ones(1), one, width=1.0)
    tensor(0.1773)
    """

    def mean_kernel(delta: Tensor, variance: Tensor) -> Tensor:
        total = width**2 + variance
        return (width**2 / total) ** (len(delta) / 2) * torch.exp(-delta.square().sum() / (2 * total))

    none = torch.zeros_like(mean_p)
    same = mean_kernel(none, 2 * std_p**2) + mean_kernel(none, 2 * std_q**2)
    return same - 2 * mean_kernel(mean_p - mean_q, std_p**2 + std_q**2)


def gaussian_mmd2_imq(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor, width: float) -> Tensor:
    """MMD² between N(μ_p, s_p² I) and N(μ_q, s_q² I) under C / (C + ‖d‖²).

        E k = ∫₀^∞ e^(-t) (1 + 2tv/C)^(-K/2) exp[-(t/C) ‖Δ‖² / (1 + 2tv/C)] dt,   v the sum of the two variances

    by the trapezoid rule in log t, to about 1e-13 in float64. Arguments: means (K,), standard deviations scalars,
    `width` C. Returns a scalar.

    >>> one = torch.tensor(1.0)
    >>> gaussian_mmd2_imq(torch.zeros(1), one, torch.ones(1), one, width=2.0)
    tensor(0.1447)
    """
    step = 1 / 64
    t = torch.exp(torch.arange(-36.0, 4.5, step, dtype=mean_p.dtype, device=mean_p.device))
    weight = step * t * torch.exp(-t)

    def mean_kernel(delta: Tensor, variance: Tensor) -> Tensor:
        spread = 1 + 2 * t * variance / width
        return (weight * spread ** (-len(delta) / 2) * torch.exp(-t / width * delta.square().sum() / spread)).sum()

    none = torch.zeros_like(mean_p)
    same = mean_kernel(none, 2 * std_p**2) + mean_kernel(none, 2 * std_q**2)
    return same - 2 * mean_kernel(mean_p - mean_q, std_p**2 + std_q**2)


def _log_ratio(x: Tensor, mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """log p(x) - log q(x) at x (G, ...)."""
    return torch.log(std_q / std_p) - ((x - mean_p) / std_p) ** 2 / 2 + ((x - mean_q) / std_q) ** 2 / 2


def _expectation(mean: Tensor, std: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """E f(X) for X ~ N(mean, std²), by the trapezoid rule out to twelve standard deviations."""
    step = 1 / 256
    z = torch.arange(-12.0, 12.0 + step, step, dtype=mean.dtype, device=mean.device)
    weight = step / math.sqrt(2 * math.pi) * torch.exp(-(z**2) / 2)
    shape = (-1, *[1] * mean.ndim)
    return (weight.reshape(shape) * function(mean + std * z.reshape(shape))).sum(0)


def _crossings(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> tuple[Tensor, Tensor]:
    """The two points at which the densities are equal, one of them infinite for equal widths."""
    s, t = std_p**2, std_q**2
    log = 2 * torch.log(std_q / std_p)
    a, half_b = t - s, s * mean_q - t * mean_p
    c = t * mean_p**2 - s * mean_q**2 - s * t * log
    root = safe_sqrt(s * t * ((mean_p - mean_q) ** 2 + a * log))
    larger = -(half_b + torch.where(half_b < 0, -root, root))  # nothing cancels in this one
    return larger / a, c / larger


def _chi_squared(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """∫ p² / q - 1."""
    spread = 2 * std_q**2 - std_p**2
    finite = spread > 0
    safe = torch.where(finite, spread, 1)
    value = std_q**2 / (std_p * torch.sqrt(safe)) * torch.exp((mean_p - mean_q) ** 2 / safe) - 1
    return torch.where(finite, value, math.inf)


def _mean_abs(mean: Tensor, std: Tensor) -> Tensor:
    """E|X| of X ~ N(mean, std²), also at std = 0."""
    spread = torch.where(std > 0, std, 1)
    value = spread * math.sqrt(2 / math.pi) * torch.exp(-(mean**2) / (2 * spread**2))
    value = value + mean * torch.erf(mean / (math.sqrt(2) * spread))
    return torch.where(std > 0, value, mean.abs())
