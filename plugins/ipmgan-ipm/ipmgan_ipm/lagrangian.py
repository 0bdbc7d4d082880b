"""The augmented Lagrangian by which Fisher and Sobolev GAN hold a moment of the critic at one."""

from __future__ import annotations

from torch import Tensor


def augmented(omega: Tensor, multiplier: Tensor, rho: float) -> tuple[Tensor, Tensor]:
    """What a critic that minimises pays for Ω ≠ 1, and the multiplier after its step.

        -λ (1 - Ω) + ρ/2 (1 - Ω)²,    λ <- λ - ρ (1 - Ω)

    The papers ascend E + λ (1 - Ω) - ρ/2 (1 - Ω)² in the critic and descend it in λ; this is that with its sign turned
    in front of the critic, so that λ moves as theirs: up while Ω > 1, which makes the next steps charge more for it.

    Arguments: `omega` Ω and `multiplier` λ, scalars; `rho` ρ. Returns the term, with graph, and the next λ, without.

    >>> import torch
    >>> augmented(torch.tensor(3.0), torch.tensor(0.5), 0.5)
    (tensor(2.), tensor(1.5000))

    Source: Mroueh and Sercu (2017), algorithm 1; Mroueh et al. (2018), algorithm 1.
    """
    slack = 1 - omega
    term = rho / 2 * slack.square() - multiplier * slack
    return term, (multiplier - rho * slack).detach().to(multiplier.dtype)
