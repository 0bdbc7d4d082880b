"""Random Fourier features: kernels as averages over random waves, and MMD² in linear time.

k(x, y) = Σ_w E cos(ω_w·(x - y)),     ω_w drawn from the spectral law of the kernel of width w

rbf      N(0, I/w²)                       gmmn   N(0, I/w)
imq      √(2t/w) N(0, I), t ~ Exp(1)      rq     √t N(0, I), t ~ Gamma(w) / w
laplace  N(0, I) / (w |N(0, 1)|)          energy has none: it is no positive definite kernel
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ipmgan.errors import UsageError, choose_from
from ipmgan.functional.kernels import Mixture
from ipmgan.functional.tensors import at_least_float32, check_samples

SPECTRAL = ("rbf", "gmmn", "imq", "rq", "laplace")
"""The kernels with a spectral law."""


def frequencies(kernel: Mixture, dimension: int, count: int, *, generator: torch.Generator) -> Tensor:
    """Draw `count` frequencies for each width of a kernel from its spectral law, in float32 on the generator's device.

    Arguments: `kernel` one of `SPECTRAL`; `dimension` K, the numbers a sample. Returns (widths, count, K), in inverse
    data units. Raises `UsageError` for a kernel without a spectral law and for a count below 1.

    >>> kernel = Mixture("rbf", (1.0, 2.0))
    >>> frequencies(kernel, 3, 100, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 100, 3])

    Source: Rahimi and Recht (2007), algorithm 1.
    """
    if kernel.name not in SPECTRAL:
        raise UsageError(f"random features: {choose_from('kernel', kernel.name, SPECTRAL)}")
    if count < 1:
        raise UsageError(f"{count} random features: must be at least 1")
    shape = len(kernel.widths), count, 1
    device = generator.device
    widths = torch.tensor(kernel.widths, device=device)[:, None, None]
    waves = torch.randn(*shape[:2], dimension, generator=generator, device=device)
    if kernel.name in ("rbf", "gmmn"):
        return waves / (widths if kernel.name == "rbf" else widths.sqrt())
    if kernel.name == "laplace":
        return waves / (widths * torch.randn(shape, generator=generator, device=device).abs())
    if kernel.name == "imq":
        return waves * (2 * torch.empty(shape, device=device).exponential_(generator=generator) / widths).sqrt()
    return waves * (torch._standard_gamma(widths.expand(shape), generator=generator) / widths).sqrt()


def mmd2_features(x: Tensor, y: Tensor, frequencies: Tensor, *, unbiased: bool = True) -> Tensor:
    """MMD² under the kernel that random frequencies stand for, in O((N + M) F K) time and O((N + M) F) memory.

        φ_X(ω) = Σ_j exp(i ω·x_j) / N,      V = Σ_w mean over ω_w of |φ_X(ω) - φ_Y(ω)|²

    V is the V-statistic under the approximate kernel; the U-statistic (`unbiased`) follows from k(x, x), which is
    exact. For given samples V is right on average over the frequencies, with a standard deviation of at most 2·MMD/√F
    for F frequencies a width, whatever the dimension; that of the U-statistic is at most √(W/F)/(N-1) more, for W
    widths and N = M.

    Arguments: `x` (N, K), `y` (M, K), `frequencies` (widths, F, K) from `frequencies`. Returns a scalar, in the
    kernel's unit. Raises `UsageError` on other shapes, and for fewer than two samples a side where unbiased.

    >>> kernel = Mixture("rbf", (1.0,))
    >>> waves = frequencies(kernel, 1, 100_000, generator=torch.Generator().manual_seed(0))
    >>> mmd2_features(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]), waves, unbiased=False)
    tensor(0.19...)

    Source: Rahimi and Recht (2007); Sutherland and Schneider (2015), section 4.
    """
    check_samples(x, y, 2 if unbiased else 1)
    if frequencies.ndim != 3 or frequencies.shape[2] != x.shape[1]:
        raise UsageError(f"frequencies of shape {tuple(frequencies.shape)}: must be (widths, F, {x.shape[1]})")
    widths, count, _ = frequencies.shape
    with torch.autocast(x.device.type, enabled=False):
        x, y = at_least_float32(x), at_least_float32(y)
        waves = frequencies.to(x).flatten(0, 1).T
        centre = x.detach().mean(0)
        (x_cos, x_sin), (y_cos, y_sin) = _means((x - centre) @ waves), _means((y - centre) @ waves)
    gap = ((x_cos - y_cos).square() + (x_sin - y_sin).square()).sum() / count
    if not unbiased:
        return gap
    x_self = (x_cos.square() + x_sin.square()).sum() / count
    y_self = (y_cos.square() + y_sin.square()).sum() / count
    return gap - (widths - x_self) / (len(x) - 1) - (widths - y_self) / (len(y) - 1)


def fixed_frequencies(kernel: Mixture, dimension: int, count: int, *, seed: int) -> Tensor:
    """The frequencies that a generator of this seed draws on the CPU: the same at every call.

    They come from an operator that transforms and compilers take whole.

    >>> torch.equal(*[fixed_frequencies(Mixture("imq", (1.0,)), 2, 5, seed=3) for _ in range(2)])
    True
    """
    waves: Tensor = _draw(kernel.name, kernel.widths, dimension, count, seed)
    return waves


@torch.library.custom_op("ipmgan::frequencies", mutates_args=())
def _draw(name: str, widths: Sequence[float], dimension: int, count: int, seed: int) -> Tensor:
    return _remembered(Mixture(name, tuple(widths)), dimension, count, seed).clone()


@_draw.register_fake
def _shape(name: str, widths: Sequence[float], dimension: int, count: int, seed: int) -> Tensor:
    return torch.empty(len(widths), count, dimension)


@functools.lru_cache(maxsize=2)
def _remembered(kernel: Mixture, dimension: int, count: int, seed: int) -> Tensor:
    return frequencies(kernel, dimension, count, generator=torch.Generator().manual_seed(seed))


def _means(phases: Tensor) -> tuple[Tensor, Tensor]:
    return phases.cos().mean(0), phases.sin().mean(0)
