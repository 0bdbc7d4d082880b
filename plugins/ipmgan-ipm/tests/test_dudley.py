"""Dudley's metric: the linear programme, two points in closed form, and that the ratio of a critic never exceeds it."""

from __future__ import annotations

import itertools

import ipmgan
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from ipmgan_ipm import Dudley

SEEDS = range(4)


def instance(seed: int) -> tuple[Tensor, Tensor]:
    """Points of the plane, and how often each is real and generated."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(6, 2, generator=generator, dtype=torch.float64) * (0.3, 1.0, 3.0, 10.0)[seed]
    return points, torch.randint(1, 9, (2, 6), generator=generator)


def solve(points: Tensor, counts: Tensor) -> tuple[float, Tensor]:
    """max Σ (p - q) f over |f_i| <= B, |f_i - f_j| <= L d_ij, B + L <= 1, with the best f."""
    n, distances = len(points), torch.cdist(points, points).numpy()
    p, q = ((side.double() / side.sum()).numpy() for side in counts)
    rows = []
    for i in range(n):
        for sign in (1, -1):
            rows.append([*(sign * (j == i) for j in range(n)), -1, 0])
    for i, j in itertools.permutations(range(n), 2):
        rows.append([*((k == i) - (k == j) for k in range(n)), 0, -distances[i, j]])
    rows.append([*[0] * n, 1, 1])
    found = linprog(
        [*(q - p), 0, 0],
        A_ub=np.array(rows, dtype=float),
        b_ub=[*[0] * (len(rows) - 1), 1],
        bounds=[(None, None)] * n + [(0, None)] * 2,
        method="highs",
    )
    return -float(found.fun), torch.tensor(found.x[:n])


def slope_of(table: Tensor, points: Tensor) -> float:
    """The Lipschitz constant of a function on the points."""
    away = ~torch.eye(len(points), dtype=torch.bool)
    return float(((table[:, None] - table).abs()[away] / torch.cdist(points, points)[away]).max())


def outputs(table: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    return table.repeat_interleave(counts[0]), table.repeat_interleave(counts[1])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slope", [0.25, 1.0, 7.0])
def test_the_best_critic_of_any_slope_reads_the_linear_programme(seed: int, slope: float) -> None:
    points, counts = instance(seed)
    truth, table = solve(points, counts)
    critic = table * slope / slope_of(table, points) + 5.0
    assert float(Dudley(slope=slope).estimate(*outputs(critic, counts))) == pytest.approx(truth, abs=1e-8)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_critic_of_that_slope_reads_more(seed: int) -> None:
    points, counts = instance(seed)
    truth, best = solve(points, counts)
    generator = torch.Generator().manual_seed(seed)
    for scale in (0.01, 0.1, 1.0, 10.0):
        for _ in range(20):
            table = best + scale * torch.randn(6, generator=generator, dtype=torch.float64)
            table = table / slope_of(table, points)
            assert float(Dudley().estimate(*outputs(table, counts))) <= truth + 1e-8


@pytest.mark.parametrize("seed", SEEDS)
def test_the_truth_is_below_w1_and_twice_the_total_variation(seed: int) -> None:
    points, counts = instance(seed)
    truth, _ = solve(points, counts)
    p, q = (side.double() / side.sum() for side in counts)
    assert truth <= float((p - q).abs().sum()) + 1e-9
    steepest = float((p - q).abs().sum()) / 2 * float(torch.cdist(points, points).max())
    assert truth <= steepest + 1e-9


@pytest.mark.parametrize("distance", [0.01, 1.0, 3.0, 1000.0])
def test_two_points(distance: float) -> None:
    """The slope-one critic of δ_d and δ_0 is x: d / (d/2 + 1) = 2d / (2 + d), however far below 2."""
    real, fake = torch.full((3,), distance, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    found = float(Dudley().estimate(real, fake))
    assert found == pytest.approx(2 * distance / (2 + distance), rel=1e-14)
    assert found < min(2, distance)


def test_only_the_ratio_counts() -> None:
    """A shift changes nothing; a scale does what the same scale of K undoes. B without centring would be larger."""
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    found = float(Dudley().estimate(real, fake))
    assert float(Dudley().estimate(real + 100, fake + 100)) == pytest.approx(found, abs=1e-12)
    assert float(Dudley(slope=3.0).estimate(3 * real, 3 * fake)) == pytest.approx(found, abs=1e-12)
    assert abs(float(real.mean() - fake.mean()) / (float(torch.cat([real, fake]).abs().max()) + 1)) < abs(found)


def test_the_generator_descends_the_metric_with_the_critic_held() -> None:
    """Envelope theorem: its gradient is along that of -E_g f* of the fixed best f* = f / (B + K), outliers' too."""
    real, fake = torch.tensor([2.0, 1.0]).double(), torch.tensor([-9.0, -8.0]).double().requires_grad_()
    loss = Dudley().generator_loss(real, fake)
    assert float(loss.detach()) == pytest.approx(10 / 1.5)
    (slope,) = torch.autograd.grad(loss, fake)
    assert torch.allclose(slope, torch.full((2,), -0.5 / 1.5, dtype=torch.float64))
    steeper = torch.autograd.grad(Dudley().estimate(real, fake), fake)[0]
    assert float(steeper[0]) > 0  # With B over both, the outlier would be driven away, to make the norm large.


def test_gradients_are_those_of_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    leaves = tuple(torch.randn(n, generator=generator, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    torch.autograd.gradcheck(Dudley(slope=0.5).critic_loss, leaves)


def test_a_constant_critic_learns() -> None:
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    up, down = torch.autograd.grad(Dudley().critic_loss(real, fake), (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()


def test_means_nothing_without_an_enforcer() -> None:
    with pytest.raises(ipmgan.PairingError, match="Lipschitz"):
        ipmgan.plan(ipmgan.configure(objective="dudley", source="ring8", lipschitz="none"))
