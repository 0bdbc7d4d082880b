"""The relativistic average losses: as printed, at their exact optima on finite laws, and where they saturate."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ipmgan import UsageError
from ipmgan.functional import js, total_variation
from scipy.optimize import brentq, linprog, minimize
from torch import Tensor

from ipmgan_classic import RelativisticAverage

STANDARD, SQUARES, HINGE = (RelativisticAverage(variant=variant) for variant in ("standard", "least-squares", "hinge"))
ALL = pytest.mark.parametrize("objective", [STANDARD, SQUARES, HINGE], ids=lambda objective: objective.variant)
COUNTS = [torch.tensor([[5, 3, 2], [1, 4, 5]])] + [
    torch.randint(1, 9, (2, 6), generator=torch.Generator().manual_seed(seed)) for seed in range(3)
]
"""Laws by how often each point comes; every point has mass in both."""
WITH_GAPS = [torch.randint(0, 5, (2, 6), generator=torch.Generator().manual_seed(seed)) for seed in range(10, 13)]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(table: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What a tabular critic puts out on batches that hold each point as often as the counts say."""
    return table.repeat_interleave(counts[0]), table.repeat_interleave(counts[1])


def laws(counts: Tensor) -> tuple[Tensor, Tensor]:
    p, q = (side.double() / side.sum() for side in counts)
    return p, q


def chi_square(counts: Tensor) -> float:
    """∫ (q - m)² / m, summed point by point."""
    pairs = zip(*(law.tolist() for law in laws(counts)), strict=True)
    return math.fsum((q - (p + q) / 2) ** 2 / ((p + q) / 2) for p, q in pairs if p + q)


def estimate(objective: RelativisticAverage, table: Tensor, counts: Tensor) -> float:
    return float(objective.estimate(*outputs(table, counts)))


def slope(objective: RelativisticAverage, table: Tensor, counts: Tensor) -> Tensor:
    """The gradient of the critic's loss by the table."""
    table = table.clone().requires_grad_()
    torch.autograd.backward(objective.critic_loss(*outputs(table, counts)))
    assert table.grad is not None
    return table.grad


# As printed: D(x) = sigmoid(C(x) - E C(other side)), and the squares and hinges of the same differences


def printed_standard(real: list[float], fake: list[float]) -> float:
    means = math.fsum(real) / len(real), math.fsum(fake) / len(fake)
    first = [-math.log(1 / (1 + math.exp(-(c - means[1])))) for c in real]
    second = [-math.log(1 - 1 / (1 + math.exp(-(c - means[0])))) for c in fake]
    return math.fsum(first) / len(first) + math.fsum(second) / len(second)


def printed_squares(real: list[float], fake: list[float]) -> float:
    means = math.fsum(real) / len(real), math.fsum(fake) / len(fake)
    first, second = [(c - means[1] - 1) ** 2 for c in real], [(c - means[0] + 1) ** 2 for c in fake]
    return math.fsum(first) / len(first) + math.fsum(second) / len(second)


def printed_hinge(real: list[float], fake: list[float]) -> float:
    means = math.fsum(real) / len(real), math.fsum(fake) / len(fake)
    first, second = [max(0, 1 - (c - means[1])) for c in real], [max(0, 1 + (c - means[0])) for c in fake]
    return math.fsum(first) / len(first) + math.fsum(second) / len(second)


@pytest.mark.parametrize(
    ("objective", "printed"), [(STANDARD, printed_standard), (SQUARES, printed_squares), (HINGE, printed_hinge)]
)
def test_losses_are_the_papers(
    objective: RelativisticAverage, printed: Callable[[list[float], list[float]], float]
) -> None:
    real, fake = 2 * random(7, seed=1), 2 * random(5, seed=2) + 0.3
    lists = real.tolist(), fake.tolist()
    assert float(objective.critic_loss(real, fake)) == pytest.approx(printed(*lists), rel=1e-12)
    assert float(objective.generator_loss(real, fake)) == pytest.approx(printed(*reversed(lists)), rel=1e-12)


@ALL
def test_the_second_term_is_of_the_generated_samples(objective: RelativisticAverage) -> None:
    """Code that circulates has the real samples' distance in both terms."""
    real, fake = random(7, seed=3), random(7, seed=4)
    circulating = 2 * objective._cost(real - fake.mean()).mean()
    assert not torch.isclose(objective.critic_loss(real, fake), circulating)


def test_standard_survives_any_distance() -> None:
    far = torch.tensor([1e4, 2e4], dtype=torch.float64, requires_grad=True)
    loss = STANDARD.critic_loss(-far, far)
    torch.autograd.backward(loss)
    assert loss.item() == pytest.approx(6e4)
    assert far.grad is not None
    assert far.grad.tolist() == [2.0, 2.0]


# The best critics: the losses are convex in the table, so that a table without slope is the best


@pytest.mark.parametrize("counts", [*COUNTS, *WITH_GAPS], ids=str)
def test_best_least_squares_critic_reads_a_function_of_chi_square(counts: Tensor) -> None:
    p, q = laws(counts)
    chi = chi_square(counts)
    ratio = torch.where(p + q > 0, (p - q) / (p + q), 0)
    table = 2 * chi / (1 + 3 * chi) * (1 + ratio / chi)
    assert slope(SQUARES, table, counts).abs().max() < 1e-14
    assert estimate(SQUARES, table, counts) == pytest.approx(4 * chi / (1 + 3 * chi), abs=1e-12)
    assert estimate(SQUARES, 1.01 * table, counts) < estimate(SQUARES, table, counts)


@pytest.mark.parametrize("counts", [*COUNTS, *WITH_GAPS], ids=str)
def test_best_hinge_critic_is_that_of_the_linear_program(counts: Tensor) -> None:
    p, q = (law.numpy() for law in laws(counts))
    points, one = len(p), np.eye(len(p))
    above = np.hstack([-(one - q), -one, 0 * one])  # 1 - (f - E_g f) <= slack
    below = np.hstack([one - p, 0 * one, -one])  # 1 - (E_r f - f) <= slack
    bounds = [(None, None)] * points + [(0, None)] * (2 * points)
    best = linprog(np.concatenate([0 * p, p, q]), np.vstack([above, below]), [-1.0] * (2 * points), bounds=bounds)
    assert best.status == 0
    table = torch.from_numpy(best.x[:points])
    assert float(HINGE.critic_loss(*outputs(table, counts))) == pytest.approx(best.fun, abs=1e-9)
    read = estimate(HINGE, table, counts)
    assert float(total_variation(*laws(counts))) - 1e-12 <= read <= 1 + 1e-12


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_best_standard_critic_reads_at_least_jsd(counts: Tensor) -> None:
    p, q = (law.numpy() for law in laws(counts))

    def loss(f: np.ndarray) -> float:
        return float(p @ np.logaddexp(0, q @ f - f) + q @ np.logaddexp(0, f - p @ f))

    best = minimize(loss, np.zeros(len(p)), method="BFGS", options={"gtol": 1e-9})
    table = torch.from_numpy(best.x)
    assert slope(STANDARD, table, counts).abs().max() < 1e-5
    read = estimate(STANDARD, table, counts)
    assert read == pytest.approx(1 - best.fun / (2 * math.log(2)), abs=1e-12)
    assert float(js(*laws(counts))) / math.log(2) <= read < 1


@pytest.mark.parametrize("heads", [6, 7, 9])
def test_two_points_in_closed_form(heads: int) -> None:
    """p = (π, 1 - π), q = (1 - π, π): the best critic is ± s/2, and TV = 2π - 1."""
    counts, share, tv = torch.tensor([[heads, 10 - heads], [10 - heads, heads]]), heads / 10, heads / 5 - 1
    half = torch.tensor([0.5, -0.5], dtype=torch.float64)
    assert estimate(HINGE, half / share, counts) == pytest.approx(2 * tv / (1 + tv), abs=1e-12)
    s = 4 * tv / (1 + 3 * tv**2)
    assert slope(SQUARES, s * half, counts).abs().max() < 1e-14
    assert estimate(SQUARES, s * half, counts) == pytest.approx(4 * tv**2 / (1 + 3 * tv**2), abs=1e-12)

    def at_rest(s: float) -> float:
        return share**2 / (1 + math.exp(share * s)) - (1 - share) ** 2 / (1 + math.exp((share - 1) * s))

    s = brentq(at_rest, 0, 100, xtol=1e-14)
    assert slope(STANDARD, s * half, counts).abs().max() < 1e-12
    costs = share * math.log1p(math.exp(-share * s)) + (1 - share) * math.log1p(math.exp((1 - share) * s))
    assert estimate(STANDARD, s * half, counts) == pytest.approx(1 - costs / math.log(2), abs=1e-12)


@ALL
def test_equal_laws_read_zero(objective: RelativisticAverage) -> None:
    counts = torch.tensor([[5, 3, 2], [5, 3, 2]])
    table = torch.full((3,), 0.7, dtype=torch.float64)
    assert slope(objective, table, counts).abs().max() < 1e-15
    assert estimate(objective, table, counts) == pytest.approx(0, abs=1e-15)
    assert estimate(objective, 50 * random(3, seed=5), counts) < 0


def test_a_hundredth_of_mass_apart_saturates_all_but_least_squares() -> None:
    """Each law has 1 % where the other has none, and the rest in common: TV = .01."""
    counts = torch.tensor([[1, 99, 0], [0, 99, 1]])
    table = torch.tensor([100.0, 0.0, -100.0], dtype=torch.float64)
    assert estimate(HINGE, table, counts) == 1
    assert estimate(STANDARD, 40 * table, counts) == pytest.approx(1, abs=1e-15)
    assert chi_square(counts) == pytest.approx(0.01)
    assert 4 * chi_square(counts) / (1 + 3 * chi_square(counts)) < 0.04


# Orientation and contract


@ALL
def test_orientation(objective: RelativisticAverage) -> None:
    real = torch.full((4,), 0.2, requires_grad=True)
    fake = torch.full((4,), 0.2, requires_grad=True)
    torch.autograd.backward(objective.critic_loss(real, fake))
    assert real.grad is not None
    assert (real.grad < 0).all()
    assert fake.grad is not None
    assert (fake.grad > 0).all()
    real, fake = torch.full((4,), 0.5), torch.full((4,), -0.2, requires_grad=True)
    torch.autograd.backward(objective.generator_loss(real, fake))
    assert fake.grad is not None
    assert (fake.grad < 0).all()


@ALL
def test_only_differences_count(objective: RelativisticAverage) -> None:
    real, fake = random(6, seed=6), random(6, seed=7)
    assert torch.isclose(objective.critic_loss(real, fake), objective.critic_loss(real + 5, fake + 5))


@ALL
def test_a_mean_but_of_the_whole_batch(objective: RelativisticAverage) -> None:
    real, fake = torch.tensor([3.0, 3.0, -3.0, -3.0]), torch.zeros(4)
    whole = objective.critic_loss(real, fake)
    assert torch.isclose(whole, objective.critic_loss(real.repeat(3), fake.repeat(3)))
    halves = (objective.critic_loss(real[:2], fake[:2]) + objective.critic_loss(real[2:], fake[2:])) / 2
    assert not torch.isclose(whole, halves)
    assert objective.whole_batch
    assert objective.generator_uses_real


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'hinge'"):
        RelativisticAverage(variant="hinges")
