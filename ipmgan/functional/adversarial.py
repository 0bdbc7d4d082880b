"""The losses of the adversarial games, from critic outputs: logits for GANs, energies for EBGANs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.tensors import at_least_float32


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The cross-entropy of a discriminator, to be minimised, from logits.

        -L = -E_r[log D] - E_g[log(1 - D)],   D = sigmoid(logit)

    Written as softplus(-real) and softplus(fake), so that value and gradient survive any logit.

    Arguments: `real` (N,) and `fake` (M,), log-odds of being real. Returns a scalar in nats, at least 0.

    >>> discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 0.5]))
    tensor(1.0537)

    Source: Goodfellow et al. (2014), equation 1.
    """
    return F.softplus(-at_least_float32(real)).mean() + F.softplus(at_least_float32(fake)).mean()


def minimax_generator_loss(fake: Tensor) -> Tensor:
    """The generator's side of the minimax game, from logits (M,).

        E_g[log(1 - D)] = -E_g[softplus(logit)]

    Returns a scalar in nats, at most 0; its gradient vanishes as the discriminator wins.

    >>> minimax_generator_loss(torch.tensor([-1.0, 0.5]))
    tensor(-0.6437)

    Source: Goodfellow et al. (2014), equation 1.
    """
    return -F.softplus(at_least_float32(fake)).mean()


def nonsaturating_generator_loss(fake: Tensor) -> Tensor:
    """The -log D trick, from logits (M,).

        E_g[-log D] = E_g[softplus(-logit)]

    Returns a scalar in nats, at least 0; at a logit of -30 its gradient is still -1.

    >>> nonsaturating_generator_loss(torch.tensor([-1.0, 0.5]))
    tensor(0.8937)

    Source: Goodfellow et al. (2014), section 3; Arjovsky and Bottou (2017), theorem 2.5.
    """
    return F.softplus(-at_least_float32(fake)).mean()


def nonsaturating_gradient_scale(jacobian: Tensor, slope_std: float, output_std: float) -> Tensor:
    """How widely -log D's gradient scatters when a discriminator is perfect but for white noise.

        mean_i -J_i r_i / ε_i,   r_i ~ N(0, σ_r² I),  ε_i ~ N(0, σ_ε²);   coordinate k ~ Cauchy(0, γ_k),
        γ_k = mean_i ‖J_ik‖₂ σ_r / σ_ε

    D is then off by ε from 0 on the generated samples, and its slope by r. The law has no mean and no variance: γ is
    the median size of a coordinate, half of its values lie in [-γ, γ], and a larger batch does not shrink it.

    Args:
        jacobian: J, (N, P, D): how each of D coordinates of N samples moves with each of P weights of the generator.
        slope_std: σ_r, per data unit.
        output_std: σ_ε, a probability.

    Returns:
        γ, (P,), in nats per unit of the weight.

    Raises:
        UsageError: for a Jacobian of another shape, or a standard deviation that is not above 0.

    >>> nonsaturating_gradient_scale(torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]]), slope_std=2.0, output_std=0.5)
    tensor([12.])

    Source: Arjovsky and Bottou (2017), theorem 2.6, whose proof has the ratio; its scale is ours.
    """
    if jacobian.ndim != 3 or len(jacobian) < 1:
        raise UsageError(f"a Jacobian of shape {tuple(jacobian.shape)}: must be (samples, weights, coordinates)")
    if not min(slope_std, output_std) > 0:
        raise UsageError(f"slope_std = {slope_std}, output_std = {output_std}: must be above 0")
    norms: Tensor = torch.linalg.vector_norm(at_least_float32(jacobian), dim=2)
    return norms.mean(0) * (slope_std / output_std)


def jsd_lower_bound(real: Tensor, fake: Tensor) -> Tensor:
    """The Jensen-Shannon divergence that a discriminator proves, in nats, from logits (N,) and (M,).

        L / 2 + log 2  <=  JSD(P_r, P_g)  <=  log 2,   L = E_r[log D] + E_g[log(1 - D)]

    with equality on the left for the optimal discriminator D = p_r / (p_r + p_g). Nothing is clamped: a discriminator
    worse than a coin reads negative.

    >>> jsd_lower_bound(torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 0.5]))
    tensor(0.1663)

    Source: Arjovsky and Bottou (2017), section 2; JSD here is ½ KL + ½ KL.
    """
    return math.log(2) - discriminator_loss(real, fake) / 2


def margin_loss(real: Tensor, fake: Tensor, margin: float) -> Tensor:
    """The loss of an energy critic, to be minimised: low energy on real samples, at least the margin on fakes.

        L_D = E_r[E(x)] + E_g[max(0, m - E(x))]

    The hinge is on each sample, not on the mean of the batch.

    Arguments: `real` (N,) and `fake` (M,), non-negative energies; `margin` m, in the energy's unit. Returns a scalar
    in that unit; the best critic reaches m - m·TV.

    >>> margin_loss(torch.tensor([1.0]), torch.tensor([4.0, 16.0]), margin=10)
    tensor(4.)

    Source: Zhao et al. (2017), equation 1.
    """
    return at_least_float32(real).mean() + F.relu(margin - at_least_float32(fake)).mean()


def pulling_away(codes: Tensor) -> Tensor:
    """How much the codes of a batch point the same way, in [0, 1].

        1 / (N (N - 1)) · Σ_{i≠j} (s_iᵀ s_j / ‖s_i‖‖s_j‖)²

    A zero code is orthogonal to all others. Arguments: `codes` (N, K). Returns a scalar without unit. Raises
    `UsageError` for fewer than two codes.

    >>> pulling_away(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]]))
    tensor(0.3333)

    Source: Zhao et al. (2017), equation 4.
    """
    if codes.ndim != 2 or len(codes) < 2:
        raise UsageError(f"codes of shape {tuple(codes.shape)}: pulling away needs (N, K) with N at least 2")
    with torch.autocast(codes.device.type, enabled=False):
        codes = at_least_float32(codes)
        squared = codes.square().sum(1, keepdim=True)
        unit = codes * torch.where(squared > 0, squared, 1).rsqrt()
        cosines = (unit @ unit.T).fill_diagonal_(0)
        return cosines.square().sum() / (len(codes) * (len(codes) - 1))
