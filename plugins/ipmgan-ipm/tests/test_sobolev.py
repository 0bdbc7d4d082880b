"""Sobolev GAN's constraint: the closed form in one dimension, the saddle point, signs and second derivatives."""

from __future__ import annotations

import itertools
import math

import ipmgan
import pytest
import torch
from torch import Tensor, nn

from ipmgan_ipm import Sobolev

WGAN = ipmgan.WGAN()


class Broken(nn.Module):
    """A function of one number whose slope is constant between knots: every one of them, up to a constant."""

    def __init__(self, knots: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(len(knots) - 1, dtype=knots.dtype))
        self.knots = knots

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.knots[:-1]).minimum(self.knots.diff()).relu() @ self.slopes


def share_above(samples: Tensor, knots: Tensor, cell: int) -> float:
    """∫ over a cell of 1 - F, F the distribution function of the samples, by its jumps."""
    low, high = float(knots[cell]), float(knots[cell + 1])
    inside = sorted(x for x in samples.flatten().tolist() if low < x < high)
    edges = [low, *inside, high]
    above = [sum(x > a for x in samples.flatten().tolist()) / len(samples) for a in edges[:-1]]
    return math.fsum(share * (b - a) for share, (a, b) in zip(above, itertools.pairwise(edges), strict=True))


def parts(real: Tensor, fake: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
    """For each cell, ∫ F_g - F_r over it, and its mass under the half-and-half mixture."""
    gaps = [share_above(real, knots, k) - share_above(fake, knots, k) for k in range(len(knots) - 1)]
    masses = [
        sum(float(((side > low) & (side < high)).double().mean()) for side in (real, fake)) / 2
        for low, high in itertools.pairwise(knots.tolist())
    ]
    return torch.tensor(gaps, dtype=torch.float64), torch.tensor(masses, dtype=torch.float64)


def instance(seed: int, cells: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Knots and samples of two laws, with a real one at least in every cell."""
    generator = torch.Generator().manual_seed(seed)
    knots = torch.cat([torch.zeros(1), torch.rand(cells, generator=generator) + 0.2]).cumsum(0).double()
    places = torch.cat([torch.arange(cells), torch.randint(cells, (2 * cells,), generator=generator)])
    real, fake = (
        (knots[:-1][at] + knots.diff()[at] * (0.05 + 0.9 * torch.rand(len(at), generator=generator)))[:, None]
        for at in (places, places.flip(0) // 2)
    )
    return knots, real, fake


def state(multiplier: float) -> dict[str, Tensor]:
    return {"multiplier": torch.tensor(multiplier, dtype=torch.float64)}


@torch.no_grad()
def gap_of(critic: nn.Module, real: Tensor, fake: Tensor) -> float:
    return float(WGAN.estimate(critic(real), critic(fake)))


@torch.no_grad()
def mean_squared_slope(critic: Broken, masses: Tensor) -> float:
    return float((critic.slopes.square() * masses).sum())


def loss_of(critic: nn.Module, real: Tensor, fake: Tensor, multiplier: float, rho: float) -> tuple[Tensor, Tensor]:
    term, after = Sobolev(rho=rho).penalty_and_state(critic, real, fake, None, state(multiplier))
    return WGAN.critic_loss(critic(real), critic(fake)) + term, after["multiplier"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rho", [1e-3, 1.0])
def test_the_saddle_point_is_the_closed_form(seed: int, rho: float) -> None:
    """f' = (F_g - F_r) / (S μ), λ = S/2, S² = ∫ (F_g - F_r)² / μ: the gap is S, the loss is flat, and λ stays."""
    knots, real, fake = instance(seed)
    gaps, masses = parts(real, fake, knots)
    distance = math.sqrt(float((gaps.square() / masses).sum()))
    critic = Broken(knots)
    critic.slopes.data = gaps / masses / distance
    assert mean_squared_slope(critic, masses) == pytest.approx(1, abs=1e-12)
    assert gap_of(critic, real, fake) == pytest.approx(distance, abs=1e-12)
    loss, multiplier = loss_of(critic, real, fake, distance / 2, rho)
    assert float(multiplier) == pytest.approx(distance / 2, abs=1e-12)
    assert float(torch.autograd.grad(loss, critic.slopes)[0].norm()) < 1e-12
    wrong, _ = loss_of(critic, real, fake, -distance / 2, rho)
    assert float(torch.autograd.grad(wrong, critic.slopes)[0].norm()) > 1e-2


@pytest.mark.parametrize("seed", range(2))
def test_training_from_nothing_finds_it(seed: int) -> None:
    knots, real, fake = instance(seed)
    gaps, masses = parts(real, fake, knots)
    distance, critic, multiplier = math.sqrt(float((gaps.square() / masses).sum())), Broken(knots), 0.0
    for _ in range(200):
        loss, after = loss_of(critic, real, fake, multiplier, rho=0.1)
        (slope,) = torch.autograd.grad(loss, critic.slopes)
        critic.slopes.data -= 0.2 * slope / masses
        multiplier = float(after)
    assert gap_of(critic, real, fake) == pytest.approx(distance, abs=1e-6)
    assert mean_squared_slope(critic, masses) == pytest.approx(1, abs=1e-6)
    assert multiplier == pytest.approx(distance / 2, abs=1e-6)


def test_two_uniform_laws() -> None:
    """U[0, 1] and U[0, 2]: S² = ∫_0^1 (x/2)² / ¾ dx + ∫_1^2 (1 - x/2)² / ¼ dx = 1/9 + 1/3, so S = 2/3."""
    grid = (torch.arange(400, dtype=torch.float64)[:, None] + 0.5) / 400
    knots = torch.linspace(0, 2, 41, dtype=torch.float64)
    gaps, masses = parts(grid, 2 * grid, knots)
    distance = math.sqrt(float((gaps.square() / masses).sum()))
    assert distance == pytest.approx(2 / 3, abs=1e-3)
    critic = Broken(knots)
    critic.slopes.data = gaps / masses / distance
    loss, multiplier = loss_of(critic, grid, 2 * grid, 1 / 3, 1.0)
    assert float(loss.detach()) == pytest.approx(-2 / 3, abs=2e-3)
    assert float(multiplier) == pytest.approx(1 / 3, abs=1e-3)


def test_steps_have_the_paper_s_sign_and_size() -> None:
    """A slope of (3, 4) has Ω = 25: -.5 (1 - 25) + 2/2 (1 - 25)² = 588, and λ = .5 - 2 (1 - 25) = 48.5."""
    linear = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    linear.weight.data = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    critic = nn.Sequential(linear, nn.Flatten(0))
    samples = torch.zeros(3, 2, dtype=torch.float64)
    term, after = Sobolev(rho=2.0).penalty_and_state(critic, samples, samples, None, state(0.5))
    assert float(term.detach()) == 588
    assert float(after["multiplier"]) == 48.5
    assert not after["multiplier"].requires_grad
    assert float(Sobolev(rho=2.0).penalty(critic, samples, samples).detach()) == 576


def test_both_laws_count_half_whatever_their_numbers() -> None:
    """Slope 1 at three real samples and 3 at one generated one: ½ 1 + ½ 9, neither 12/4 nor the square of a mean."""
    knots = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    critic = Broken(knots)
    critic.slopes.data = torch.tensor([1.0, 3.0], dtype=torch.float64)
    real = torch.tensor([[0.2], [0.4], [0.6]], dtype=torch.float64)
    fake = torch.tensor([[1.5]], dtype=torch.float64)
    _, after = Sobolev(rho=1.0).penalty_and_state(critic, real, fake, None, state(0.0))
    assert float(after["multiplier"]) == pytest.approx(5 - 1, abs=1e-14)


def test_second_derivatives_are_those_of_differences() -> None:
    generator = torch.Generator().manual_seed(7)
    shapes = ((6, 3), (6,), (1, 6))
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    real, fake = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))

    def penalty(first: Tensor, bias: Tensor, last: Tensor) -> Tensor:
        class Critic(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (torch.tanh(x @ first.T + bias) @ last.T).flatten()

        return Sobolev(rho=0.5).penalty_and_state(Critic(), real, fake, None, state(0.4))[0]

    torch.autograd.gradcheck(penalty, tuple(weights))


def test_a_flat_critic_is_charged_and_not_broken() -> None:
    critic = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    nn.init.zeros_(critic[0].weight)
    term = Sobolev(rho=0.5).penalty(critic, torch.ones(3, 2), torch.zeros(3, 2))
    assert float(term.detach()) == 0.25
    (slope,) = torch.autograd.grad(term, critic[0].weight)
    assert torch.isfinite(slope).all()


def test_refuses_batch_norm() -> None:
    with pytest.raises(ipmgan.PairingError, match="batch"):
        ipmgan.plan(ipmgan.configure(objective="wgan", lipschitz="sobolev", critic="mlp:norm=batch", source="ring8"))


def test_refuses_a_critic_of_features() -> None:
    with pytest.raises(ipmgan.PairingError, match="one number a sample"):
        ipmgan.plan(ipmgan.configure(objective="mmd", lipschitz="sobolev", critic="mlp", source="ring8"))
