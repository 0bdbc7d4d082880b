"""The discrete transport problem and its duals, as linear programmes and by the network simplex, with its potentials.

Laws are vectors of masses p (N,) and q (M,) that sum to 1, costs a matrix C (N, M) in data units. Everything is solved
in float64 on the CPU, by SciPy's HiGHS and by POT, and comes back in the costs' type and on their device.
"""

from __future__ import annotations

import warnings
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.kernels import squared_distances
from ipmgan.functional.tensors import at_least_float32, check_samples, safe_sqrt

PIVOTS = 50_000_000
"""What the network simplex may take before it counts as stuck."""
TOLERANCE = 1e-6
"""How far masses may be from summing to 1."""


@attrs.frozen(kw_only=True, eq=False)
class Transport:
    """A solved transport problem: the least `cost`, a `plan` (N, M) that has it, and potentials `u` (N,), `v` (M,).

        cost = Σ C_ij plan_ij = Σ p_i u_i + Σ q_j v_j,   u_i + v_j <= C_ij, with equality wherever mass is moved

    The potentials are determined up to a constant that u gains and v loses, at best. Where C are distances, f = u on
    one side and -v on the other is the best 1-Lipschitz critic.
    """

    cost: Tensor
    plan: Tensor
    u: Tensor
    v: Tensor


def optimal_transport(cost: Tensor, p: Tensor, q: Tensor) -> Transport:
    """The cheapest plan that turns p into q, by POT's network simplex: exact up to rounding.

        min Σ C_ij plan_ij   over plan >= 0 with row sums p and column sums q

    Its `cost` can be differentiated with respect to C: the gradient is the plan. Raises `UsageError` where shapes or
    masses do not fit.

    >>> line = torch.tensor([[1.0, 3.0], [1.0, 1.0]])
    >>> optimal_transport(line, torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])).cost
    tensor(1.)

    Source: Peyré and Cuturi (2019), Computational Optimal Transport, section 3.5.
    """
    p, q = check_masses(cost, p, q)
    import ot  # POT takes longer to load than torch does.

    plan, log = ot.emd(p.numpy(), q.numpy(), _table(cost), numItermax=PIVOTS, log=True)
    if log["warning"] is not None:
        raise UsageError(f"the transport problem could not be solved: {log['warning']}")
    return _transport(cost, plan, log["u"], log["v"])


def transport_primal(cost: Tensor, p: Tensor, q: Tensor) -> Transport:
    """The same as a linear programme over plans, by SciPy: for small problems, N M variables.

        min Σ C_ij plan_ij   over plan >= 0 with row sums p and column sums q

    >>> transport_primal(torch.eye(2), torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).cost
    tensor(0.2500)

    Source: Peyré and Cuturi (2019), equation 2.11.
    """
    p, q = check_masses(cost, p, q)
    n, m = cost.shape
    import scipy.sparse

    sums = scipy.sparse.vstack(
        [
            scipy.sparse.kron(scipy.sparse.eye(n), np.ones((1, m))),
            scipy.sparse.kron(np.ones((1, n)), scipy.sparse.eye(m)),
        ]
    )
    masses = torch.cat([p, q]).numpy()
    solved = _solve(_table(cost).ravel(), A_eq=sums, b_eq=masses, bounds=(0, None))
    prices = solved.eqlin.marginals
    return _transport(cost, solved.x.reshape(n, m), prices[:n], prices[n:])


def transport_dual(cost: Tensor, p: Tensor, q: Tensor) -> Transport:
    """The same as a linear programme over prices, by SciPy: N + M variables, N M constraints.

        max Σ p_i u_i + Σ q_j v_j   over u_i + v_j <= C_ij

    A carrier who charges u where goods are fetched and v where they are brought earns at most what moving them costs.

    >>> transport_dual(torch.eye(2), torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])).cost
    tensor(0.2500)

    Source: Peyré and Cuturi (2019), equation 2.20.
    """
    p, q = check_masses(cost, p, q)
    n, m = cost.shape
    import scipy.sparse

    pairs = scipy.sparse.hstack(
        [
            scipy.sparse.kron(scipy.sparse.eye(n), np.ones((m, 1))),
            scipy.sparse.kron(np.ones((n, 1)), scipy.sparse.eye(m)),
        ]
    )
    income = -torch.cat([p, q]).numpy()
    solved = _solve(income, A_ub=pairs, b_ub=_table(cost).ravel(), bounds=(None, None))
    return _transport(cost, -solved.ineqlin.marginals.reshape(n, m), solved.x[:n], solved.x[n:])


def kantorovich_rubinstein(distances: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The best critic of two laws on the same points: the f that is 1-Lipschitz and largest in W1 = Σ (p_i - q_i) f_i.

        max Σ (p_i - q_i) f_i   over f_i - f_j <= d_ij

    Arguments: `distances` d (S, S), a metric; `p` and `q` (S,). Returns f (S,), in data units, with Σ p_i f_i = 0.

    >>> first, second = torch.eye(2)
    >>> kantorovich_rubinstein(torch.tensor([[0.0, 2.0], [2.0, 0.0]]), first, second)
    tensor([ 0., -2.])

    Source: Villani (2009), Optimal Transport, theorem 5.10 and its case 5.16.
    """
    a, b = check_masses(distances, p, q)
    if distances.shape[0] != distances.shape[1]:
        raise UsageError(f"distances {tuple(distances.shape)}: must be (S, S)")
    import scipy.sparse

    size = len(a)
    first, second = np.divmod(np.arange(size * size), size)
    rows, ones = np.arange(size * size), np.ones(size * size)
    slopes = scipy.sparse.coo_array((ones, (rows, first))) - scipy.sparse.coo_array((ones, (rows, second)))
    solved = _solve((b - a).numpy(), A_ub=slopes, b_ub=_table(distances).ravel(), bounds=(None, None))
    f = torch.from_numpy(solved.x)
    return (f - a @ f).to(distances)


def exact_wasserstein(x: Tensor, y: Tensor, p: int = 1) -> Tensor:
    """The Wasserstein distance of two samples in any dimension, exactly: a transport problem with N M costs.

        W_p = (min over plans of Σ plan_ij ‖x_i - y_j‖₂^p)^(1/p)

    Arguments: `x` (N, K), `y` (M, K), each sample of equal mass; `p` 1 or 2. Returns a scalar, in data units, that can
    be differentiated. Takes 8 N M bytes several times over, and time that grows a little faster than N M. Above the
    distance of the laws on average, by an amount that may fall as slowly as N^(-1/K). Raises `UsageError` on other
    shapes or powers.

    >>> exact_wasserstein(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[4.0, 4.0], [3.0, 4.0]]))
    tensor(5.)

    Source: Peyré and Cuturi (2019), proposition 2.2.
    """
    check_samples(x, y)
    if p not in (1, 2):
        raise UsageError(f"p = {p}: must be 1 or 2")
    cost = distance_matrix(x, y) if p == 1 else squared_distances(x.double(), y.double())
    masses = (torch.full((len(side),), 1 / len(side), dtype=torch.float64) for side in (x, y))
    value = optimal_transport(cost, *masses).cost.to(at_least_float32(x))
    return value if p == 1 else safe_sqrt(value)


def distance_matrix(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances between samples `x` (N, K) and `y` (M, K): (N, M), float64, with gradient 0 at 0.

    >>> distance_matrix(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]], dtype=torch.float64)
    """
    return safe_sqrt(squared_distances(x.double(), y.double()))


def check_masses(cost: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """The masses in float64 on the CPU; raises `UsageError` where they do not fit the costs or do not sum to 1."""
    if cost.ndim != 2 or p.shape != cost.shape[:1] or q.shape != cost.shape[1:]:
        raise UsageError(
            f"costs {tuple(cost.shape)} between laws {tuple(p.shape)} and {tuple(q.shape)}: must be (N, M), (N,), (M,)"
        )
    a, b = (law.detach().double().cpu() for law in (p, q))
    for law in (a, b):
        if not bool((law >= 0).all()) or abs(float(law.sum()) - 1) > TOLERANCE:
            raise UsageError(f"masses must be non-negative and sum to 1, not to {float(law.sum()):.6g}")
    return a / a.sum(), b / b.sum()


def _table(cost: Tensor) -> Any:
    return cost.detach().double().cpu().numpy()


def _solve(objective: Any, **programme: Any) -> Any:
    """SciPy's solution of a linear programme."""
    from scipy.optimize import linprog

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        solved = linprog(objective, method="highs", **programme)
    if solved.status != 0:
        raise UsageError(f"the linear programme could not be solved: {solved.message}")
    return solved


def _transport(cost: Tensor, plan: Any, u: Any, v: Any) -> Transport:
    plan, u, v = (torch.as_tensor(np.asarray(part)).to(cost.device) for part in (plan, u, v))
    value = (cost.double() * plan).sum()
    plan, u, v, value = (part.to(at_least_float32(cost).dtype) for part in (plan, u, v, value))
    return Transport(cost=value, plan=plan, u=u, v=v)
