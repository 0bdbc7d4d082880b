"""Distances between Gaussian laws in closed form: what estimates from samples are held to.

Means and standard deviations are tensors of one number (or of one shape, element by element) unless a docstring says
otherwise; distances are in data units, divergences in nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ipmgan.functional.tensors import safe_sqrt


def gaussian_kl(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """KL(N(μ_p, σ_p²) ‖ N(μ_q, σ_q²)) = log(σ_q / σ_p) + (σ_p² + (μ_p - μ_q)²) / 2σ_q² - ½.

    >>> gaussian_kl(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(2.0))
    tensor(0.4431)
    """
    return torch.log(std_q / std_p) + (std_p**2 + (mean_p - mean_q) ** 2) / (2 * std_q**2) - 0.5


def gaussian_tv(mean_p: Tensor, mean_q: Tensor, std: Tensor) -> Tensor:
    """The total variation between N(μ_p, σ²) and N(μ_q, σ²): erf(|μ_p - μ_q| / 2√2 σ), in [0, 1].

    >>> gaussian_tv(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0))
    tensor(0.3829)
    """
    return torch.erf((mean_p - mean_q).abs() / (2 * math.sqrt(2) * std))


def gaussian_w1(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """The W1 distance between Gaussians on the line, E|Δμ + Δσ Z| for a standard normal Z.

        Δσ √(2/π) exp(-Δμ² / 2Δσ²) + Δμ erf(Δμ / √2 Δσ),   and |Δμ| at Δσ = 0

    >>> gaussian_w1(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(1.0), torch.tensor(2.0))
    tensor(1.1666)
    """
    return _mean_abs(mean_q - mean_p, (std_q - std_p).abs())


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


def _mean_abs(mean: Tensor, std: Tensor) -> Tensor:
    """E|X| of X ~ N(mean, std²), also at std = 0."""
    spread = torch.where(std > 0, std, 1)
    value = spread * math.sqrt(2 / math.pi) * torch.exp(-(mean**2) / (2 * spread**2))
    value = value + mean * torch.erf(mean / (math.sqrt(2) * spread))
    return torch.where(std > 0, value, mean.abs())
