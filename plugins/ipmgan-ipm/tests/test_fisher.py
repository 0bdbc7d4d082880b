"""Fisher GAN: its closed form, the saddle point that the multiplier settles at, and its signs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from ipmgan_ipm import Fisher

COUNTS = [torch.tensor([[5, 3, 2], [1, 4, 5]])] + [
    torch.randint(0, 9, (2, 6), generator=torch.Generator().manual_seed(seed)) for seed in range(4)
]


def outputs(table: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What a tabular critic puts out on batches that hold each point as often as the counts say."""
    return table.repeat_interleave(counts[0]), table.repeat_interleave(counts[1])


def fisher(counts: Tensor) -> float:
    """√∫ (p - q)² / m, summed point by point."""
    p, q = (side.double() / side.sum() for side in counts)
    pairs = zip(p.tolist(), q.tolist(), strict=True)
    return math.sqrt(math.fsum((a - b) ** 2 / ((a + b) / 2) for a, b in pairs if a + b))


def best(counts: Tensor) -> Tensor:
    """The critic of unit second moment that reaches it."""
    p, q = (side.double() / side.sum() for side in counts)
    return torch.where(p + q > 0, 2 * (p - q) / (p + q), 0) / fisher(counts)


def second_moment(table: Tensor, counts: Tensor) -> float:
    real, fake = outputs(table, counts)
    return float(real.square().mean() + fake.square().mean()) / 2


def state(multiplier: float) -> dict[str, Tensor]:
    return {"multiplier": torch.tensor(multiplier, dtype=torch.float64)}


def gradient(objective: Fisher, table: Tensor, counts: Tensor, multiplier: float) -> Tensor:
    leaf = table.clone().requires_grad_()
    loss, _ = objective.critic_loss_and_state(*outputs(leaf, counts), state(multiplier))
    return torch.autograd.grad(loss, leaf)[0]


def ascend(counts: Tensor, *, sign: float = 1.0, steps: int = 200) -> tuple[Tensor, float]:
    """A tabular critic trained from zero, and its multiplier; `sign` turns the multiplier's steps round.

    Each number's step is divided by its point's mass, so that rare points learn as fast as frequent ones.
    """
    objective, table, kept = Fisher(rho=0.1), torch.zeros(counts.shape[1], dtype=torch.float64), state(0.0)
    mass = (counts / counts.sum(1, keepdim=True)).double().mean(0).clamp_min(1e-3)
    for _ in range(steps):
        table.requires_grad_()
        loss, after = objective.critic_loss_and_state(*outputs(table, counts), kept)
        (slope,) = torch.autograd.grad(loss, table)
        table = (table - 0.2 * slope / mass).detach()
        kept = {"multiplier": kept["multiplier"] + sign * (after["multiplier"] - kept["multiplier"])}
    return table, float(kept["multiplier"])


def test_known_value() -> None:
    """F² of p = (.5, .3, .2) and q = (.1, .4, .5) is .16/.3 + .01/.35 + .09/.35 = 86/105, four times χ² to m."""
    assert fisher(COUNTS[0]) ** 2 == pytest.approx(86 / 105, abs=1e-15)
    p, q = (side.double() / side.sum() for side in COUNTS[0])
    m = (p + q) / 2
    assert 4 * float(((p - m).square() / m).sum()) == pytest.approx(86 / 105, abs=1e-15)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_best_critic_reads_the_closed_form_at_any_scale(counts: Tensor) -> None:
    table = best(counts)
    assert second_moment(table, counts) == pytest.approx(1.0, abs=1e-14)
    for scale in (1e-6, 1.0, 1e6):
        assert float(Fisher().estimate(*outputs(scale * table, counts))) == pytest.approx(fisher(counts), abs=1e-13)
    assert float(Fisher().estimate(*outputs(-table, counts))) == pytest.approx(-fisher(counts), abs=1e-13)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_no_critic_reads_more(counts: Tensor) -> None:
    generator = torch.Generator().manual_seed(5)
    for scale in (1e-3, 1e-1, 1.0, 10.0):
        for _ in range(20):
            table = best(counts) + scale * torch.randn(counts.shape[1], generator=generator, dtype=torch.float64)
            assert float(Fisher().estimate(*outputs(table, counts))) <= fisher(counts) + 1e-13


def test_laws_that_never_meet_are_two_apart() -> None:
    real, fake = torch.ones(7, dtype=torch.float64), -torch.ones(5, dtype=torch.float64)
    assert float(Fisher().estimate(real, fake)) == 2.0


@pytest.mark.parametrize(("counts", "rho"), list(itertools.product(COUNTS, (1e-6, 1.0))), ids=str)
def test_the_saddle_point_is_half_the_distance(counts: Tensor, rho: float) -> None:
    """At f = (p - q) / (F m) and λ = F/2 the loss is -F, its slope 0, and λ stays; with another λ it does not."""
    objective, table, distance = Fisher(rho=rho), best(counts), fisher(counts)
    loss, after = objective.critic_loss_and_state(*outputs(table, counts), state(distance / 2))
    assert float(loss) == pytest.approx(-distance, abs=1e-12)
    assert float(after["multiplier"]) == pytest.approx(distance / 2, abs=1e-12)
    assert float(gradient(objective, table, counts, distance / 2).norm()) < 1e-12
    assert float(gradient(objective, table, counts, -distance / 2).norm()) > 1e-2


def test_steps_of_the_multiplier_have_the_paper_s_sign_and_size() -> None:
    """E = 2, Ω = 4: -2 - .5 (1 - 4) + .25/2 (1 - 4)² = .625, and λ = .5 - .25 (1 - 4) = 1.25."""
    real, fake = torch.tensor([2.0, 2.0]), torch.tensor([-2.0, 2.0])
    loss, after = Fisher(rho=0.25).critic_loss_and_state(real, fake, {"multiplier": torch.tensor(0.5)})
    assert float(loss) == 0.625
    assert float(after["multiplier"]) == 1.25
    assert not after["multiplier"].requires_grad


@pytest.mark.parametrize("counts", COUNTS[:2], ids=str)
def test_training_from_nothing_finds_it(counts: Tensor) -> None:
    table, multiplier = ascend(counts)
    assert float(Fisher().estimate(*outputs(table, counts))) == pytest.approx(fisher(counts), abs=1e-6)
    assert second_moment(table, counts) == pytest.approx(1.0, abs=1e-6)
    assert multiplier == pytest.approx(fisher(counts) / 2, abs=1e-6)


def test_the_other_sign_of_the_multiplier_does_not() -> None:
    table, _ = ascend(COUNTS[0], sign=-1.0, steps=60)
    assert not abs(second_moment(table, COUNTS[0]) - 1) < 0.1


def test_state_keeps_its_type_and_starts_anew() -> None:
    objective = Fisher(rho=1.0)
    start = objective.state()
    real, fake = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    _, after = objective.critic_loss_and_state(real, fake, start)
    assert after["multiplier"].dtype == start["multiplier"].dtype
    assert after["multiplier"].shape == start["multiplier"].shape
    assert float(start["multiplier"]) == float(objective.state()["multiplier"]) == 0.0
    assert float(after["multiplier"]) == -0.5
    assert float(objective.critic_loss(real, fake)) == -1.0 + 0.125


def test_a_critic_of_zeros_reads_zero_and_still_learns() -> None:
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    assert float(Fisher().estimate(real, fake).detach()) == 0.0
    loss = Fisher().critic_loss(real, fake)
    up, down = torch.autograd.grad(loss, (real, fake))
    assert (up < 0).all()
    assert (down > 0).all()
    (better,) = torch.autograd.grad(Fisher().generator_loss(torch.empty(0), fake), fake)
    assert (better < 0).all()


def test_gradients_are_those_of_differences() -> None:
    generator = torch.Generator().manual_seed(6)
    real, fake = (torch.randn(n, generator=generator, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    objective = Fisher(rho=0.7)
    torch.autograd.gradcheck(lambda r, f: objective.critic_loss_and_state(r, f, state(0.3))[0], (real, fake))
    torch.autograd.gradcheck(objective.estimate, (real, fake))
