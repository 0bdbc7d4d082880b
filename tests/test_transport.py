"""Wasserstein distances on the line and by slices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import ot
import pytest
import torch
from scipy import stats
from torch import Tensor

from ipmgan.data import Grid25, Ring8, SwissRoll
from ipmgan.errors import UsageError
from ipmgan.functional import (
    Transport,
    discrete_energy_distance,
    distance_matrix,
    energy_distance_1d,
    exact_wasserstein,
    gaussian_w1,
    kantorovich_rubinstein,
    optimal_transport,
    sinkhorn,
    sinkhorn_divergence,
    sliced_wasserstein,
    sliced_witness,
    transport_dual,
    transport_primal,
    wasserstein_1d,
)

SOLVERS = (optimal_transport, transport_primal, transport_dual)
BAKERIES = torch.tensor([[0, 0], [2, 0], [1, 2]], dtype=torch.float64)
CAFES = torch.tensor([[1, 0], [0, 2]], dtype=torch.float64)
BREAD = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
NEED = torch.tensor([0.6, 0.4], dtype=torch.float64)
ROADS = distance_matrix(BAKERIES, CAFES)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sorted_samples() -> None:
    assert wasserstein_1d(torch.tensor([3.0, 0, 1]), torch.tensor([6.0, 8, 5])) == 5


def test_quantiles_of_uniform_laws() -> None:
    x = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert wasserstein_1d(x, 2 * x).item() == pytest.approx(0.5, abs=1e-12)
    assert wasserstein_1d(x, 2 * ((torch.arange(777, dtype=torch.float64) + 0.5) / 777)).item() == pytest.approx(
        0.5, abs=1e-3
    )


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 8), (6, 4), (1, 9), (12, 3)])
def test_any_counts_against_independent_solvers(n: int, m: int) -> None:
    x, y = normal(n, n), 2 * normal(m + 100, m) + 1
    assert wasserstein_1d(x, y).item() == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)
    cost = (x[:, None] - y).square().numpy()
    exact = math.sqrt(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost))
    assert wasserstein_1d(x, y, p=2).item() == pytest.approx(exact, rel=1e-10)


def test_columns_are_separate_problems() -> None:
    x, y = normal(0, 9, 4), normal(1, 6, 4)
    columns = torch.stack([wasserstein_1d(x[:, i], y[:, i]) for i in range(4)])
    torch.testing.assert_close(wasserstein_1d(x, y), columns)


@pytest.mark.parametrize("m", [8, 5])
@pytest.mark.parametrize("p", [1, 2])
def test_sliced_against_an_independent_one(m: int, p: int) -> None:
    x, y = normal(0, 8, 3), normal(1, m, 3) + 1
    lines = torch.randn(3, 40, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    lines /= lines.norm(dim=0)
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=lines.numpy(), p=p)
    value = sliced_wasserstein(x, y, directions=40, p=p, generator=torch.Generator().manual_seed(7))
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_sliced_translation() -> None:
    """SW1 = ‖Δ‖ E|θ₁| = 5·2/π in the plane; 20,000 directions have a standard error of .011, so 6 of them."""
    x = normal(0, 10, 2)
    shifted = x + torch.tensor([3.0, 4.0], dtype=torch.float64)
    value = sliced_wasserstein(x, shifted, directions=20_000, generator=torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(10 / math.pi, abs=0.066)


def test_sliced_on_the_line_is_exact() -> None:
    x, y = normal(0, 20, 1), normal(1, 13, 1)
    value = sliced_wasserstein(x, y, directions=3, generator=torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(wasserstein_1d(x[:, 0], y[:, 0]).item(), rel=1e-12)


def test_sliced_draws_from_the_given_generator_only() -> None:
    x, y = normal(0, 6, 3), normal(1, 6, 3)
    before = torch.random.get_rng_state()
    first, second = (sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1))
    assert first == second
    assert first != sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("p", [1, 2])
def test_gradients(p: int) -> None:
    x, y = normal(0, 5, 2).requires_grad_(), normal(1, 7, 2)
    generator = torch.Generator()
    assert torch.autograd.gradcheck(
        lambda z: sliced_wasserstein(z, y, directions=8, p=p, generator=generator.manual_seed(3)), x
    )
    same = normal(0, 5, 2).requires_grad_()
    sliced_wasserstein(same, same.detach().clone(), p=p, generator=generator.manual_seed(3)).backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="p = 3"):
        wasserstein_1d(torch.zeros(2), torch.zeros(2), p=3)
    with pytest.raises(UsageError, match="shapes"):
        wasserstein_1d(torch.zeros(2, 1), torch.zeros(2, 2))
    with pytest.raises(UsageError, match="at least 1"):
        wasserstein_1d(torch.zeros(0), torch.zeros(2))


@pytest.mark.parametrize("solver", SOLVERS)
def test_bakeries_and_cafes(solver: Callable[..., Transport]) -> None:
    """1.2, with potentials that are unique up to a constant."""
    solved = solver(ROADS, BREAD, NEED)
    assert solved.cost.item() == pytest.approx(1.2, abs=1e-12)
    torch.testing.assert_close(solved.plan.sum(1), BREAD, atol=1e-12, rtol=0)
    torch.testing.assert_close(solved.plan.sum(0), NEED, atol=1e-12, rtol=0)
    shift = solved.u[0] - 0.8
    expected = torch.tensor([0.8, 0.8, -0.2], dtype=torch.float64)
    torch.testing.assert_close(solved.u - shift, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(-solved.v - shift, torch.tensor([-0.2, -1.2], dtype=torch.float64), atol=1e-9, rtol=0)


def test_bakeries_and_cafes_by_one_function_on_all_points() -> None:
    points = torch.cat([BAKERIES, CAFES])
    p, q = torch.cat([BREAD, 0 * NEED]), torch.cat([0 * BREAD, NEED])
    f = kantorovich_rubinstein(distance_matrix(points, points), p, q)
    assert (p - q) @ f == pytest.approx(1.2, abs=1e-12)
    expected = torch.tensor([0.8, 0.8, -0.2, -0.2, -1.2], dtype=torch.float64)
    torch.testing.assert_close(f - f[0] + 0.8, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_three_programmes_and_the_simplex_agree_on_random_problems(seed: int) -> None:
    x, y = normal(seed, 6, 2), normal(seed + 9, 4, 2)
    p, q = (torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for n in (6, 4))
    p, q, cost = p / p.sum(), q / q.sum(), distance_matrix(x, y)
    found = [solver(cost, p, q) for solver in SOLVERS]
    everywhere = torch.cat([x, y])
    f = kantorovich_rubinstein(distance_matrix(everywhere, everywhere), torch.cat([p, 0 * q]), torch.cat([0 * p, q]))
    assert (p @ f[:6] - q @ f[6:]).item() == pytest.approx(found[0].cost.item(), abs=1e-9)
    for solved in found:
        assert solved.cost.item() == pytest.approx(found[0].cost.item(), abs=1e-9)
        assert (p @ solved.u + q @ solved.v).item() == pytest.approx(found[0].cost.item(), abs=1e-9)
        assert (solved.u[:, None] + solved.v <= cost + 1e-9).all()


def test_zero_masses_and_the_gradient_of_the_cost() -> None:
    cost = ROADS.clone().requires_grad_()
    p = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    solved = optimal_transport(cost, p, NEED)
    solved.cost.backward()
    assert cost.grad is not None
    torch.testing.assert_close(cost.grad, solved.plan)
    assert solved.cost.item() == pytest.approx(transport_primal(ROADS, p, NEED).cost.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("epsilon", "cost", "debiased"),
    [(0.1, 1.2000418, 1.1485123), (1, 1.3266331, 0.7249565), (10, 1.5156367, 0.3850082)],
)
def test_sinkhorn_values(epsilon: float, cost: float, debiased: float) -> None:
    assert sinkhorn(ROADS, BREAD, NEED, epsilon).cost.item() == pytest.approx(cost, abs=1e-7)
    within = distance_matrix(BAKERIES, BAKERIES), distance_matrix(CAFES, CAFES)
    found = sinkhorn_divergence(ROADS, *within, BREAD, NEED, epsilon)
    assert found.item() == pytest.approx(debiased, abs=1e-7)


def test_sinkhorn_without_limit_is_half_the_energy_distance() -> None:
    assert sinkhorn(ROADS, BREAD, NEED, math.inf).cost.item() == pytest.approx(1.5394112550, abs=1e-9)
    within = distance_matrix(BAKERIES, BAKERIES), distance_matrix(CAFES, CAFES)
    found = sinkhorn_divergence(ROADS, *within, BREAD, NEED, math.inf).item()
    assert found == pytest.approx(0.3449840640, abs=1e-9)
    points = torch.cat([BAKERIES, CAFES])
    p, q = torch.cat([BREAD, 0 * NEED]), torch.cat([0 * BREAD, NEED])
    assert found == pytest.approx(discrete_energy_distance(p, q, distance_matrix(points, points)).item() / 2, abs=1e-12)


def test_sinkhorn_divergence_of_equal_laws_is_zero_and_masses_may_be() -> None:
    within = distance_matrix(BAKERIES, BAKERIES)
    assert sinkhorn_divergence(within, within, within, BREAD, BREAD, 1.0).item() == pytest.approx(0, abs=1e-9)
    p = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    kept = sinkhorn(ROADS[[0, 2]], p[[0, 2]], NEED, 0.3).cost
    torch.testing.assert_close(sinkhorn(ROADS, p, NEED, 0.3).cost, kept)


def test_exact_values() -> None:
    """A translation moves everything by ‖Δ‖; parallel lines are |θ| apart."""
    x = normal(0, 30, 2)
    shift = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert exact_wasserstein(x, x + shift).item() == pytest.approx(5, abs=1e-9)
    assert exact_wasserstein(x, x + shift, p=2).item() == pytest.approx(5, abs=1e-9)
    z = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lines = [torch.stack([torch.full_like(z, theta), z], dim=1) for theta in (0.0, 0.7)]
    assert exact_wasserstein(*lines).item() == pytest.approx(0.7, abs=1e-9)
    assert exact_wasserstein(x, x).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("p", [1, 2])
def test_exact_on_the_line_is_by_quantiles(p: int) -> None:
    x, y = normal(0, 20), 2 * normal(1, 13)
    assert exact_wasserstein(x[:, None], y[:, None], p=p).item() == pytest.approx(
        wasserstein_1d(x, y, p=p).item(), rel=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "value", "error"),
    [(Ring8(), 0.827, 0.006), (Grid25(), 0.575, 0.005), (SwissRoll(), 0.611, 0.006)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_toys_against_their_noised_selves(source: Any, value: float, error: float) -> None:
    """Of 4,000 samples; the published spread is one standard deviation, and so is ours: four of their hypotenuse."""
    generator = torch.Generator().manual_seed(1)
    x, y = (source.open("train").draw(4000, generator) for _ in range(2))
    y = y + torch.randn(y.shape, generator=generator)
    assert exact_wasserstein(x, y).item() == pytest.approx(value, abs=4 * error * math.sqrt(2))


@pytest.mark.parametrize(("n", "m"), [(8, 8), (5, 9)])
def test_energy_distance_on_the_line(n: int, m: int) -> None:
    x, y = normal(0, n), normal(1, m) + 0.5
    across, within = (x[:, None] - y).abs().mean(), [(z[:, None] - z).abs().mean() for z in (x, y)]
    assert energy_distance_1d(x, y).item() == pytest.approx((2 * across - within[0] - within[1]).item(), rel=1e-12)
    assert energy_distance_1d(x, y).item() == pytest.approx(stats.energy_distance(x, y) ** 2, rel=1e-9)


@pytest.mark.parametrize("m", [9, 14])
def test_sliced_witness_proves_the_sliced_distance(m: int) -> None:
    x, y = normal(0, 9, 3), normal(1, m, 3) + 0.4
    generator = torch.Generator()
    witness = sliced_witness(x, y, directions=50, generator=generator.manual_seed(3))
    value = sliced_wasserstein(x, y, directions=50, generator=generator.manual_seed(3))
    assert (witness(x).mean() - witness(y).mean()).item() == pytest.approx(value.item(), rel=1e-9)
    points = 2 * normal(5, 60, 3)
    rises = (witness(points)[:, None] - witness(points)).abs()
    assert (rises <= distance_matrix(points, points) + 1e-9).all()


def test_sliced_witness_is_unbiased_on_other_samples() -> None:
    """At equal laws the plug-in distance is above 0, and the gap of the witness on fresh samples is not."""
    x, y, u, v = (normal(seed, 400, 2) for seed in range(4))
    witness = sliced_witness(x, y, generator=torch.Generator().manual_seed(0))
    own, fresh = witness(x).mean() - witness(y).mean(), witness(u).mean() - witness(v).mean()
    spread = math.sqrt((witness(u).var() + witness(v).var()) / 400)
    assert own > 0
    assert abs(fresh) < 4 * spread
    line = sliced_witness(x[:, :1], 1 + 2 * y[:, :1], generator=torch.Generator().manual_seed(0))
    gap = line(u[:, :1]).mean() - line(1 + 2 * v[:, :1]).mean()
    truth = gaussian_w1(*(torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 1.0, 2.0)))
    assert gap.item() == pytest.approx(truth.item(), abs=4 * math.sqrt(5 / 400))


@pytest.mark.parametrize("solver", SOLVERS)
def test_refused_problems(solver: Callable[..., Transport]) -> None:
    with pytest.raises(UsageError, match="must be"):
        solver(ROADS, NEED, BREAD)
    with pytest.raises(UsageError, match="sum to 1"):
        solver(ROADS, BREAD, 2 * NEED)
    with pytest.raises(UsageError, match="sum to 1"):
        solver(ROADS, torch.tensor([1.5, -0.5, 0.0]), NEED)


def test_refused_regularisation() -> None:
    with pytest.raises(UsageError, match="above 0"):
        sinkhorn(ROADS, BREAD, NEED, 0.0)
    with pytest.raises(UsageError, match="p = 3"):
        exact_wasserstein(BAKERIES, CAFES, p=3)
