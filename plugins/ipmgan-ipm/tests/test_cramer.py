"""The energy distance, the Cramér GAN's surrogate of it and that surrogate's flaw, and its gradient penalty."""

from __future__ import annotations

import itertools
import math

import ipmgan
import pytest
import torch
from ipmgan.functional import gaussian_energy_distance
from torch import Tensor, nn

from ipmgan_ipm import Cramer, CramerPenalty

REAL, FAKE = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [2.0]]).double()


def batches(seed: int, features: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(6, features, generator=generator, dtype=torch.float64),
        torch.randn(5, features, generator=generator, dtype=torch.float64) * 2 + 0.5,
    )


def mean_distance(a: Tensor, b: Tensor) -> float:
    """Over pairs, without those of a row with itself where both are one batch."""
    pairs = itertools.permutations(a.tolist(), 2) if a is b else itertools.product(a.tolist(), b.tolist())
    distances = [math.dist(x, y) for x, y in pairs]
    return math.fsum(distances) / len(distances)


def mean_norm(a: Tensor) -> float:
    return math.fsum(math.hypot(*row) for row in a.tolist()) / len(a)


def test_known_values() -> None:
    """{0, 1} and {0, 2}: 2·1 - 1 - 2 = -1; the surrogate 1 - 2 - ½ + 1 = -½, of which the critic pays the negative."""
    assert float(Cramer().estimate(REAL, FAKE)) == -1.0
    assert float(Cramer().generator_loss(REAL, FAKE)) == -1.0
    assert float(Cramer().critic_loss(REAL, FAKE)) == 0.5
    assert float(Cramer(surrogate=False).critic_loss(REAL, FAKE)) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_values_pair_by_pair(seed: int) -> None:
    real, fake = batches(seed)
    across, within = mean_distance(real, fake), mean_distance(fake, fake)
    distance = 2 * across - within - mean_distance(real, real)
    surrogate = across - mean_norm(real) - (within - mean_norm(fake))
    assert float(Cramer().estimate(real, fake)) == pytest.approx(distance, abs=1e-12)
    assert float(Cramer().critic_loss(real, fake)) == pytest.approx(-surrogate, abs=1e-12)
    assert float(ipmgan.MMD(kernel="energy").estimate(real, fake)) == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_in_one_dimension_it_is_twice_the_squared_distance_of_distribution_functions(seed: int) -> None:
    """2 ∫ (F_r - F_g)² of the two empirical laws, less what pairs of a sample with itself take off."""
    real, fake = batches(seed, features=1)
    jumps = sorted(torch.cat([real, fake]).flatten().tolist())
    shares = [[float((side <= a).double().mean()) for side in (real, fake)] for a in jumps]
    steps = zip(shares[:-1], itertools.pairwise(jumps), strict=True)
    whole = 2 * math.fsum((f - g) ** 2 * (b - a) for (f, g), (a, b) in steps)
    loss = sum(mean_distance(side, side) / len(side) for side in (real, fake))
    assert float(Cramer().estimate(real, fake)) == pytest.approx(whole - loss, abs=1e-12)


def test_unit_gaussians_a_unit_apart() -> None:
    grid = torch.special.ndtri((torch.arange(500, dtype=torch.float64)[:, None] + 0.5) / 500)
    truth = float(gaussian_energy_distance(*map(torch.tensor, (0.0, 1.0, 1.0, 1.0))))
    assert truth == pytest.approx(0.5418065793, abs=1e-6)
    assert float(Cramer().estimate(grid, grid + 1)) == pytest.approx(truth, abs=1e-2)


def test_the_surrogate_is_blind_where_generated_features_lie_at_the_origin() -> None:
    """Its published flaw: no real law can be told from that one, while the energy distance tells it."""
    real, fake = batches(3)[0], torch.zeros(4, 3, dtype=torch.float64)
    assert float(Cramer().critic_loss(real, fake)) == pytest.approx(0, abs=1e-12)
    assert float(Cramer(surrogate=False).critic_loss(real, fake)) < -0.5


def test_the_average_over_batches_is_the_distance_of_the_laws() -> None:
    """All ordered pairs of samples of {0, 1, 3} and of {0, 2}, each as likely: exactly unbiased."""
    real, fake = torch.tensor([0.0, 1.0, 3.0]).double(), torch.tensor([0.0, 2.0]).double()
    batches_of_real = torch.cartesian_prod(real, real)[..., None]
    batches_of_fake = torch.cartesian_prod(fake, fake)[..., None]
    found = [float(Cramer().estimate(x, y)) for x in batches_of_real for y in batches_of_fake]
    means = [float((a[:, None] - b).abs().mean()) for a, b in ((real, fake), (real, real), (fake, fake))]
    assert math.fsum(found) / len(found) == pytest.approx(2 * means[0] - means[1] - means[2], abs=1e-12)


@pytest.mark.parametrize("objective", [Cramer(), Cramer(surrogate=False)], ids=str)
def test_gradients_are_those_of_differences(objective: Cramer) -> None:
    leaves = tuple(side.requires_grad_() for side in batches(4))
    torch.autograd.gradcheck(objective.critic_loss, leaves)
    torch.autograd.gradcheck(objective.generator_loss, leaves)


def test_equal_features_have_gradients() -> None:
    """Distances of 0 have no direction: no force, and no NaN."""
    real, fake = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    for objective in (Cramer(), Cramer(surrogate=False)):
        for slope in torch.autograd.grad(objective.critic_loss(real, fake), (real, fake)):
            assert torch.equal(slope, torch.zeros(3, 2))


def affine(weight: Tensor, bias: Tensor) -> nn.Module:
    critic = nn.Linear(*reversed(weight.shape), dtype=torch.float64)
    critic.weight.data, critic.bias.data = weight, bias
    return critic


def test_penalty_of_an_affine_critic_is_as_by_hand() -> None:
    """h(x) = A x + b: ∇f_i(x) = Aᵀ (d_i/‖d_i‖ - h/‖h‖), d_i = h(x) - h(y'_i), y'_i the generated sample before."""
    generator = torch.Generator().manual_seed(8)
    real, fake = (torch.randn(5, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (3,)))
    drawn = torch.rand(5, generator=generator, dtype=torch.float64)
    charges = []
    for i in range(5):
        point = drawn[i] * real[i] + (1 - drawn[i]) * fake[i]
        here, other = weight @ point + bias, weight @ fake[i - 1] + bias
        slope = weight.T @ ((here - other) / (here - other).norm() - here / here.norm())
        charges.append((float(slope.norm()) - 1) ** 2)
    found = CramerPenalty(weight=7.0).penalty(affine(weight, bias), real, fake, drawn)
    assert float(found.detach()) == pytest.approx(7 * math.fsum(charges) / 5, abs=1e-10)


def test_penalty_s_derivative_is_that_of_differences() -> None:
    generator = torch.Generator().manual_seed(9)
    real, fake = (torch.randn(4, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    first = torch.randn(5, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    last = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    drawn = torch.rand(4, generator=generator, dtype=torch.float64)

    def penalty(first: Tensor, last: Tensor) -> Tensor:
        class Critic(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.tanh(x @ first.T) @ last.T

        return CramerPenalty().penalty(Critic(), real, fake, drawn)

    torch.autograd.gradcheck(penalty, (first, last))


def test_penalty_of_one_number_a_sample_is_the_gradient_penalty() -> None:
    generator = torch.Generator().manual_seed(10)
    real, fake = (torch.randn(4, 2, generator=generator) for _ in range(2))
    critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))
    drawn = CramerPenalty().draw(real, generator)
    found = CramerPenalty(weight=3.0).penalty(critic, real, fake, drawn)
    assert torch.equal(found, ipmgan.GradientPenalty(weight=3.0).penalty(critic, real, fake, drawn))


def test_penalty_of_features_that_do_not_differ_is_finite() -> None:
    critic = nn.Linear(2, 3)
    nn.init.zeros_(critic.weight)
    nn.init.zeros_(critic.bias)
    samples = torch.ones(3, 2)
    found = CramerPenalty(weight=2.0).penalty(critic, samples, -samples, torch.full((3,), 0.5))
    assert float(found.detach()) == 2.0
    assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(found, [*critic.parameters()]))


def test_penalty_wants_its_draws() -> None:
    samples = torch.ones(3, 2)
    with pytest.raises(ipmgan.UsageError, match="drawn"):
        CramerPenalty().penalty(nn.Linear(2, 2), samples, samples)
    drawn = CramerPenalty().draw(samples, torch.Generator().manual_seed(0))
    assert drawn.shape == (3,)
    assert len(drawn.unique()) == 3
