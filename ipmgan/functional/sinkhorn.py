"""Transport with entropy: smoother, and quicker on large problems, than the linear programme."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.programmes import Transport, check_masses
from ipmgan.functional.tensors import at_least_float32

ITERATIONS = 10_000
PRECISION = 1e-10
"""By how much the plan's column sums may be off, as one vector, or a potential may still move, when iterations stop."""
STUCK = "epsilon = {epsilon}: iterations do not converge; take one nearer the costs, or exact transport"


def sinkhorn(cost: Tensor, p: Tensor, q: Tensor, epsilon: float) -> Transport:
    """The plan that is cheapest with entropy counted in, and what it costs without, by POT in the log domain.

        P_ε = argmin <C, P> + ε KL(P ‖ p ⊗ q),   cost <C, P_ε>,   P_ε = p_i q_j exp((u_i + v_j - C_ij) / ε)

    The cost falls to that of `optimal_transport` for ε → 0 and rises to Σ p_i C_ij q_j for ε = ∞. The potentials give
    the minimum with its entropy, Σ p_i u_i + Σ q_j v_j.

    Arguments: `cost` C (N, M), `p` (N,), `q` (M,), `epsilon` in C's unit, above 0. Raises `UsageError` where shapes or
    masses do not fit, or where iterations do not converge, as for an ε that is far below the costs.

    >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> half = torch.tensor([0.5, 0.5])
    >>> sinkhorn(cost, half, half, epsilon=math.inf).cost
    tensor(0.5000)

    Source: Cuturi (2013), Sinkhorn Distances; Peyré and Cuturi (2019), section 4.4.
    """
    if not epsilon > 0:
        raise UsageError(f"epsilon = {epsilon}: must be above 0")
    a, b = (law.to(cost.device) for law in check_masses(cost, p, q))
    wide = cost.detach().double()
    v = _potential(wide, a, b, epsilon)
    u = softmin(wide, v, b, epsilon)
    plan = a[:, None] * b * torch.exp((u[:, None] + v - wide) / epsilon)
    value = (cost.double() * plan).sum()
    plan, u, v, value = (part.to(at_least_float32(cost).dtype) for part in (plan, u, v, value))
    return Transport(cost=value, plan=plan, u=u, v=v)


def sinkhorn_divergence(
    across: Tensor, within_p: Tensor, within_q: Tensor, p: Tensor, q: Tensor, epsilon: float
) -> Tensor:
    """Transport with entropy, rid of its bias: never negative, 0 for equal laws.

        S_ε = OT_ε(p, q) - ½ OT_ε(p, p) - ½ OT_ε(q, q),   OT_ε = min <C, P> + ε KL(P ‖ p ⊗ q)

    It lies between W1 (ε → 0) and half the energy distance (ε = ∞) of costs that are distances.

    Arguments: costs `across` (N, M), `within_p` (N, N), `within_q` (M, M); `p` (N,), `q` (M,); `epsilon` in the costs'
    unit. Returns a scalar in that unit. Raises as `sinkhorn` does.

    >>> apart, near = torch.tensor([[1.0]]), torch.tensor([[0.0]])
    >>> sinkhorn_divergence(apart, near, near, torch.ones(1), torch.ones(1), epsilon=0.5)
    tensor(1.)

    Source: Feydy et al. (2019), Interpolating between Optimal Transport and MMD using Sinkhorn Divergences, equation 3.
    """

    solved = sinkhorn(across.double(), p, q, epsilon)
    u = solved.u - symmetric_potential(within_p.double(), p, epsilon)
    v = solved.v - symmetric_potential(within_q.double(), q, epsilon)
    return (p.to(u) @ u + q.to(v) @ v).to(at_least_float32(across).dtype)


def symmetric_potential(cost: Tensor, p: Tensor, epsilon: float) -> Tensor:
    """The one potential of a law and itself, u (N,), with OT_ε(p, p) = 2 Σ p_i u_i.

        u_i = -ε log Σ_j p_j exp((u_j - C_ij) / ε)

    Averaged with what it was, each round of this converges where alternating between two potentials hardly does.
    Arguments: `cost` C (N, N), symmetric; `p` (N,); `epsilon`. Raises as `sinkhorn` does.

    >>> symmetric_potential(torch.zeros(2, 2), torch.tensor([0.5, 0.5]), epsilon=1.0)
    tensor([0., 0.])

    Source: Feydy et al. (2019), section 3.1.
    """
    a = check_masses(cost, p, p)[0].to(cost.device)
    wide = cost.detach().double()
    if math.isinf(epsilon):
        u = wide @ a - a @ wide @ a / 2
        return u.to(at_least_float32(cost).dtype)
    u = torch.zeros_like(a)
    for _ in range(ITERATIONS):
        after = (u + softmin(wide, u, a, epsilon)) / 2
        moved, u = float((after - u).abs().max()), after
        if moved <= PRECISION * epsilon:
            return u.to(at_least_float32(cost).dtype)
    raise UsageError(STUCK.format(epsilon=epsilon))


def _potential(cost: Tensor, p: Tensor, q: Tensor, epsilon: float) -> Tensor:
    """v (M,) at the optimum, also where q has no mass."""
    if math.isinf(epsilon):
        return p @ cost - p @ cost @ q / 2
    rows, columns = p > 0, q > 0
    import ot

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, log = ot.bregman.sinkhorn_log(
            *(p[rows], q[columns], cost[rows][:, columns], epsilon), numItermax=ITERATIONS, stopThr=PRECISION, log=True
        )
    if any("did not converge" in str(warning.message) for warning in caught):
        raise UsageError(STUCK.format(epsilon=epsilon))
    u = epsilon * (log["log_u"] - p[rows].log())
    return softmin(cost[rows].T, u, p[rows], epsilon)


def softmin(cost: Tensor, potential: Tensor, masses: Tensor, epsilon: float) -> Tensor:
    """-ε log Σ_j m_j exp((potential_j - C_ij) / ε): the other side's potential; the mean of C - potential for ε = ∞."""
    if math.isinf(epsilon):
        return (cost - potential) @ masses
    return -epsilon * torch.logsumexp((potential - cost) / epsilon + masses.log(), dim=1)
