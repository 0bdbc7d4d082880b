"""Scores of samples: class probabilities, sharpness, modes, polynomial kernels, n-grams."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from ipmgan.errors import UsageError
from ipmgan.functional.discrete import js
from ipmgan.functional.tensors import at_least_float32, check_samples, widest

LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in a grey level (ITU-R BT.601)."""
STRIP = 4096
"""Samples whose moments are taken at a time."""


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the unbiased covariance of samples, in the widest type of the device.

        μ = Σ x_i / N,    Σ = Σ (x_i - μ)(x_i - μ)ᵀ / (N - 1)

    Arguments: `x` (N, K), N at least 2. Returns (K,) and (K, K). Raises `UsageError` for fewer samples.

    >>> moments(torch.tensor([[0.0], [2.0]]))[1]
    tensor([[2.]], dtype=torch.float64)
    """
    check_samples(x, x, 2)
    wide = widest(x.device)
    mean = x.mean(0, dtype=wide)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=wide, device=x.device)
    for part in torch.split(x, STRIP):
        centred = part.to(wide) - mean
        covariance.addmm_(centred.T, centred)
    return mean, covariance / (len(x) - 1)


def inception_score(logits: Tensor) -> Tensor:
    """How sure a classifier is of each sample, and how varied its answers are over all.

        exp(mean over x of KL(p(y|x) ‖ p(y))),    p(y) = mean over x of p(y|x)

    Arguments: `logits` (N, C). Returns a scalar from 1 to C, in the widest type of the device.

    >>> inception_score(torch.tensor([[100.0, 0.0], [0.0, 100.0]]))
    tensor(2., dtype=torch.float64)

    Source: Salimans et al. (2016), section 4.
    """
    log_p = F.log_softmax(logits.to(widest(logits.device)), dim=1)
    p = log_p.exp()
    marginal = p.mean(0)
    information: Tensor = torch.special.entr(marginal).sum() - torch.special.entr(p).sum(1).mean()
    return information.exp()


def laplacian_variance(images: Tensor) -> Tensor:
    """The sharpness of each image: the variance of its Laplacian, in squared grey levels.

        Var over pixels of L * x,    L = [[0, 1, 0], [1, -4, 1], [0, 1, 0]], inside the borders

    Arguments: `images` (N, 1, H, W), or (N, 3, H, W), which are made grey; H and W at least 3. Returns (N,). Raises
    `UsageError` on other shapes.

    >>> delta = torch.zeros(1, 1, 5, 5)
    >>> delta[..., 2, 2] = 1
    >>> laplacian_variance(delta)
    tensor([2.2222])

    Source: Tolstikhin et al. (2018), appendix B.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 3:
        raise UsageError(f"images of shape {tuple(images.shape)}: must be (N, 1 or 3, H, W), with H and W at least 3")
    x = at_least_float32(images)
    grey = torch.tensordot(x, x.new_tensor(LUMA), dims=([1], [0])) if x.shape[1] == 3 else x[:, 0]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return (around - 4 * grey[:, 1:-1, 1:-1]).flatten(1).var(dim=1, correction=0)


@attrs.frozen(kw_only=True)
class ModeCount:
    """How many modes are covered, of how many, and the share of samples near any."""

    covered: int
    modes: int
    near: float


def count_modes(x: Tensor, centres: Tensor, std: float, *, within: float = 3.0, least: float = 0.01) -> ModeCount:
    """Which modes of a mixture samples reach: a mode is covered by a share `least` of all samples near it.

        near:  ‖x - c‖ ≤ within · σ, for the nearest centre c

    Arguments: `x` (N, K); `centres` (L, K); `std` σ, in data units.

    >>> count_modes(torch.tensor([[0.0], [0.1], [7.0]]), torch.tensor([[0.0], [5.0]]), 0.1)
    ModeCount(covered=1, modes=2, near=0.666...)
    """
    check_samples(x, centres)
    distance, mode = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    near = distance <= within * std
    counts = torch.bincount(mode[near], minlength=len(centres))
    covered = (counts >= max(least * len(x), 1)).sum()
    return ModeCount(covered=int(covered), modes=len(centres), near=float(near.double().mean()))


def polynomial_mmd2(x: Tensor, y: Tensor, *, degree: int = 3) -> Tensor:
    """The U-statistic of MMD² under a polynomial kernel, right on average, negative at times.

        k(x, y) = (xᵀy / K + 1)^degree

    Arguments: `x` (N, K), `y` (M, K), at least 2 a side. Returns a scalar in the widest type of the device. It holds
    the matrices of kernel values: N and M are a few thousand.

    >>> polynomial_mmd2(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]))
    tensor(-3.5000, dtype=torch.float64)

    Source: Bińkowski et al. (2018), section 4.
    """
    check_samples(x, y, 2)
    wide = widest(x.device)
    x, y = x.to(wide), y.to(wide)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.pow(a @ b.T / a.shape[1] + 1, degree)

    def within(a: Tensor) -> Tensor:
        values = kernel(a, a)
        return (values.sum() - values.diagonal().sum()) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * kernel(x, y).mean()


def ngram_jsd(x: Tensor, y: Tensor, *, n: int) -> Tensor:
    """The Jensen-Shannon divergence between the n-grams of two sets of sequences, in bits, from 0 to 1.

    It is that of the empirical laws, and too high for few sequences. Arguments: `x` (N, L) and `y` (M, L) whole
    numbers; `n` at most L. Returns a scalar in float64. Raises `UsageError` on other shapes, and for more than 2^62
    possible n-grams.

    >>> ngram_jsd(torch.tensor([[0, 1]]), torch.tensor([[2, 3]]), n=1)
    tensor(1., dtype=torch.float64)

    Source: Gulrajani et al. (2017), section 5.5.
    """
    check_samples(x, y)
    if not 1 <= n <= x.shape[1]:
        raise UsageError(f"n = {n}: must be from 1 to the length of the sequences, {x.shape[1]}")
    tokens, ranks = torch.unique(torch.cat([x.flatten(), y.flatten()]), return_inverse=True)
    if len(tokens) ** n >= 2**62:
        raise UsageError(f"n = {n}: {len(tokens)} different tokens make more than 2^62 n-grams; choose a smaller n")
    place = len(tokens) ** torch.arange(n, device=x.device)
    grams = (ranks.reshape(-1, x.shape[1]).unfold(1, n, 1) * place).sum(-1).flatten()
    _, ranks = torch.unique(grams, return_inverse=True)
    first = len(x) * (x.shape[1] - n + 1)
    laws = [torch.bincount(part, minlength=int(ranks.max()) + 1).double() for part in (ranks[:first], ranks[first:])]
    p, q = (law / law.sum() for law in laws)
    return js(p, q) / torch.tensor(2.0, dtype=torch.float64).log()
