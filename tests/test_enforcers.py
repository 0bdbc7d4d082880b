from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ipmgan.errors import PairingError, UsageError
from ipmgan.functional.penalties import gradient_norms, interpolates, slope_penalty
from ipmgan.lipschitz import (
    BUILTIN,
    Clip,
    GradientPenalty,
    LipschitzEnforcer,
    Sphere,
    clip_bound,
    lipschitz_bound,
)

SHIFT = torch.tensor([3.0, 4.0], dtype=torch.float64)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def number(x: Tensor) -> float:
    return x.item()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def linear(*weights: float) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([weights], dtype=torch.float64))
    return layer


def mlp(*widths: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, dtype=dtype), nn.ReLU()]
        for parameter in layers[-2].parameters():
            nn.init.uniform_(parameter, -(fan_in**-0.5), fan_in**-0.5, generator=rng(len(layers)))
    return nn.Sequential(*layers[:-1])


def penalise(
    enforcer: LipschitzEnforcer, critic: nn.Module, real: Tensor, fake: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """The penalty with the random numbers that it asks for, if there is a generator to draw them from."""
    drawn = None if generator is None else enforcer.draw(real, generator)
    penalty = enforcer.penalty(critic, real, fake, drawn)
    assert penalty is not None
    return penalty


def half_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).sum(1) / 2


class Critic(nn.Module):
    """Wraps a function, and remembers the points it was called with."""

    def __init__(self, function: object = half_square) -> None:
        super().__init__()
        self.function = function
        self.points = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.points = x.detach()
        return self.function(x)


# --- what the classes say of themselves


def test_the_builtins_are_named_and_trained_as_their_papers() -> None:
    assert [cls.name for cls in BUILTIN] == ["clip", "sphere", "gp", "none"]
    assert [cls.enforces for cls in BUILTIN] == [True, True, True, False]
    assert [cls.momentum_free for cls in BUILTIN] == [True, True, False, False]
    assert Clip.defaults.critic_optimizer == "RMSprop:lr=5e-5"
    adam = "Adam:lr=1e-4,betas=[0.0,0.9]"
    assert (GradientPenalty.defaults.critic_optimizer, GradientPenalty.defaults.generator_optimizer) == (adam, adam)
    assert (GradientPenalty().weight, GradientPenalty().target, Clip().c) == (10.0, 1.0, 0.01)
    assert GradientPenalty.needs_double_backward
    assert GradientPenalty.per_sample
    assert GradientPenalty.scalar_critic


@pytest.mark.parametrize("cls", BUILTIN)
def test_only_the_penalty_penalises_and_only_the_projections_project(cls: type[LipschitzEnforcer]) -> None:
    critic, enforcer = mlp(2, 8, 1), cls()
    before = copy.deepcopy(critic.state_dict())
    assert enforcer.prepare(critic) is critic
    real, fake = torch.ones(4, 2), torch.zeros(4, 2)
    penalty = enforcer.penalty(critic, real, fake, enforcer.draw(real, rng()))
    assert (penalty is not None) == (cls is GradientPenalty)
    enforcer.after_step(critic)
    moved = any(not torch.equal(before[key], value) for key, value in critic.state_dict().items())
    assert moved == (cls in (Clip, Sphere))


# --- clipping


def train_linear(enforcer: LipschitzEnforcer) -> float:
    """The gap that a linear critic reaches on a mean shift of (3, 4)."""
    critic = nn.Linear(2, 1, dtype=torch.float64)
    fake = normal(16, 2)
    real = fake + SHIFT
    optimizer = torch.optim.SGD(critic.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        (critic(fake).mean() - critic(real).mean()).backward()
        optimizer.step()
        enforcer.after_step(critic)
    return number(critic(real).mean() - critic(fake).mean())


def test_a_linear_critic_reaches_the_one_norm_in_a_box_and_the_two_norm_on_a_sphere() -> None:
    assert train_linear(Clip(c=0.01)) == pytest.approx(0.07, abs=1e-12)
    assert train_linear(Sphere(radius=0.01)) == pytest.approx(0.05, abs=1e-9)
    assert train_linear(Sphere(radius=0.01, scope="whole", shape="ball")) == pytest.approx(0.05, abs=1e-9)


def test_clip_moves_weights_and_biases_and_leaves_normalisation_alone() -> None:
    critic = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.Flatten()
    )
    critic.extend([nn.LayerNorm(4), nn.Linear(4, 1)])
    other = nn.Linear(2, 2)
    for parameter in [*critic.parameters(), *other.parameters()]:
        nn.init.constant_(parameter, 5.0)
    Clip(c=0.1).after_step(critic)
    for name, parameter in critic.named_parameters():
        inside = name.split(".")[0] in ("0", "6")
        assert torch.all(parameter == torch.tensor(0.1 if inside else 5.0)), name
    assert torch.all(other.weight == 5.0)


def test_clip_keeps_what_is_inside_and_bounds_both_sides() -> None:
    layer = linear(-3.0, 0.004, 3.0)
    Clip(c=0.01).after_step(layer)
    assert layer.weight.tolist() == [[-0.01, 0.004, 0.01]]


@pytest.mark.parametrize("enforcer", [Clip(), Sphere()])
def test_projection_refuses_weights_that_are_computed_from_others(enforcer: LipschitzEnforcer) -> None:
    critic = nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 1)))
    with pytest.raises(PairingError, match="layer '0'"):
        enforcer.prepare(critic)


def test_the_clip_bound_is_the_product_and_is_attained() -> None:
    critic = mlp(2, 512, 512, 512, 1, dtype=torch.float64)
    for parameter in critic.parameters():
        nn.init.constant_(parameter, 1.0)
    Clip(c=0.01).after_step(critic)
    assert clip_bound(critic, 0.01).bound == pytest.approx(1.8981253125, abs=5e-10)
    slope = gradient_norms(critic, torch.ones(1, 2, dtype=torch.float64))
    assert number(slope) == pytest.approx(1.8981253125, abs=5e-10)


@pytest.mark.parametrize(("c", "bound"), [(0.1, 8.96e17), (0.01, 8.96e5), (0.001, 8.96e-7)])
def test_the_clip_bound_of_twelve_layers(c: float, bound: float) -> None:
    assert clip_bound(mlp(2, *[512] * 11, 1), c).bound == pytest.approx(bound, rel=1e-3)


def test_the_clip_bound_of_a_small_network_and_of_random_ones_inside_the_box() -> None:
    assert clip_bound(mlp(2, 128, 1), 0.01).bound == pytest.approx(0.0181019, abs=5e-8)
    critic = nn.Sequential(nn.Conv2d(2, 3, 4, 2, 1), nn.LeakyReLU(0.2), nn.ConvTranspose2d(3, 2, 3, 2))
    limit = clip_bound(critic, 0.5)
    generator = rng()
    for _ in range(5):
        for parameter in critic.parameters():
            nn.init.uniform_(parameter, -3, 3, generator=generator)
        Clip(c=0.5).after_step(critic)
        assert lipschitz_bound(critic).bound < limit.bound


def test_the_clip_bound_of_dcgan_and_none_across_batch_norm() -> None:
    channels = (3, 64, 128, 256, 512)
    layers = [nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in itertools.pairwise(channels)]
    critic = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, bias=False))
    certificate = clip_bound(critic, 0.01, shape=(3, 64, 64))
    assert [factor.bound for factor in certificate.factors] == pytest.approx(
        [1.1085, 7.2408, 14.4815, 28.963, 0.9051], rel=1e-4
    )
    assert certificate.bound == pytest.approx(3047.06, abs=0.005)
    for mode in (True, False):
        normed = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).train(mode)
        across = clip_bound(normed, 0.01)
        assert math.isinf(across.bound)
        assert "1 (BatchNorm1d)" in str(across)


# --- spheres


def norms(critic: nn.Module) -> list[float]:
    return [number(p.norm()) for p in critic.parameters() if p.dim() > 1]


def test_a_sphere_rescales_each_tensor_always_and_a_ball_from_outside() -> None:
    for scale, in_ball in ((100.0, 0.5), (1e-3, None)):
        critic = mlp(3, 4, 2, dtype=torch.float64)
        for parameter in critic.parameters():
            parameter.data.mul_(scale)
        before = norms(critic)
        other = copy.deepcopy(critic)
        Sphere(radius=0.5).after_step(critic)
        assert norms(critic) == pytest.approx([0.5, 0.5])
        Sphere(radius=0.5, shape="ball").after_step(other)
        assert norms(other) == pytest.approx([in_ball, in_ball] if in_ball else before)
        ratio = critic[0].weight / other[0].weight
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))


def test_the_natural_radius_gives_the_bound_of_the_box() -> None:
    critic = mlp(2, 512, 512, 512, 1, dtype=torch.float64)
    Sphere().after_step(critic)
    assert norms(critic) == pytest.approx([0.32, 5.12, 5.12, 0.01 * math.sqrt(512)])
    assert math.prod(norms(critic)) == pytest.approx(1.8981253125, rel=1e-9)
    Sphere(c=0.1).after_step(critic)
    assert norms(critic)[0] == pytest.approx(3.2)
    assert lipschitz_bound(critic).bound <= math.prod(norms(critic)) * (1 + 1e-9)


def test_the_whole_vector_has_one_norm_and_natural_bound_one() -> None:
    critic = mlp(2, 7, 5, 3, 1, dtype=torch.float64)
    Sphere(scope="whole").after_step(critic)
    assert math.hypot(*norms(critic)) == pytest.approx(2.0)
    assert math.prod(norms(critic)) < 1
    assert lipschitz_bound(critic).bound < 1
    ratio = [norm / math.hypot(*norms(critic)) for norm in norms(critic)]
    Sphere(scope="whole", radius=3.0).after_step(critic)
    assert [norm / 3 for norm in norms(critic)] == pytest.approx(ratio)
    Sphere(scope="whole", shape="ball", radius=9.0).after_step(critic)
    assert math.hypot(*norms(critic)) == pytest.approx(3.0)


@pytest.mark.parametrize("scope", ["tensor", "whole"])
def test_a_sphere_leaves_biases_normalisation_and_zeros_alone(scope: str) -> None:
    critic = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    for parameter in critic.parameters():
        nn.init.constant_(parameter, 7.0)
    nn.init.zeros_(critic[2].weight)
    Sphere(scope=scope, radius=1.0).after_step(critic)
    assert torch.all(critic[0].weight == 0.5)
    assert torch.all(critic[2].weight == 0)
    rest = (critic[0].bias, critic[1].weight, critic[1].bias, critic[2].bias)
    assert all(torch.all(parameter == 7.0) for parameter in rest)


def test_an_option_without_effect_is_refused() -> None:
    for options in ({"radius": 1.0}, {"scope": "whole"}):
        with pytest.raises(UsageError, match="no effect"):
            Sphere(c=0.02, **options)
    for enforcer, options in ((Clip, {"c": 0.0}), (Sphere, {"shape": "cube"}), (GradientPenalty, {"sides": "both"})):
        with pytest.raises(UsageError):
            enforcer(**options)


# --- the gradient penalty: values


@pytest.mark.parametrize(("a", "two", "one"), [((3.0, 4.0), 16.0, 16.0), ((0.3, 0.4), 0.25, 0.0)])
def test_the_penalty_of_a_linear_critic(a: tuple[float, float], two: float, one: float) -> None:
    real, fake = normal(5, 2), normal(5, 2, seed=1)
    for sides, value in (("two", two), ("one", one)):
        for points in ("between", "real", "fake"):
            penalty = GradientPenalty(weight=1.0, sides=sides, points=points)
            got = penalise(penalty, linear(*a), real, fake, generator=rng())
            assert number(got) == pytest.approx(value, abs=1e-12)


def test_the_gradient_of_the_penalty_reaches_the_weights() -> None:
    critic = linear(3.0, 4.0)
    penalty = penalise(GradientPenalty(weight=1.0), critic, normal(4, 2), normal(4, 2, seed=1), generator=rng())
    penalty.backward()
    assert critic.weight.grad is not None
    assert critic.weight.grad.flatten().tolist() == pytest.approx([4.8, 6.4])


def test_the_penalty_of_a_paraboloid_with_given_weights_on_real() -> None:
    real = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64)
    points = interpolates(real, torch.zeros_like(real), torch.tensor([0.5, 0.25], dtype=torch.float64))
    slopes = gradient_norms(half_square, points)
    assert number(slope_penalty(slopes)) == pytest.approx(1.40625, abs=1e-12)
    assert number(slope_penalty(slopes, one_sided=True)) == pytest.approx(1.125, abs=1e-12)
    assert number(slope_penalty(slopes, target=2.0)) == pytest.approx((0.5**2 + 1.75**2) / 2, abs=1e-12)


def test_the_penalty_averaged_over_the_segment() -> None:
    epsilon = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    real = SHIFT.expand(2000, 2)
    slopes = gradient_norms(half_square, interpolates(real, torch.zeros_like(real), epsilon))
    assert number(slope_penalty(slopes)) == pytest.approx(13 / 3, abs=1e-5)


def test_the_drawn_penalty_agrees_with_its_mean() -> None:
    """Its standard error is 5 / sqrt(40000) at most: six of them, a false alarm in 1e8 runs."""
    real = SHIFT.expand(40_000, 2)
    drawn = penalise(GradientPenalty(weight=1.0), Critic(), real, torch.zeros_like(real), generator=rng())
    assert number(drawn) == pytest.approx(13 / 3, abs=0.15)


@pytest.mark.parametrize(
    ("separation", "weight", "slope", "gap", "loss"),
    [(2.0, 10.0, 1.1, 2.2, -2.1), (2.0, 0.1, 11.0, 22.0, -12.0), (3.7, 2.5, 1.74, 6.438, -5.069)],
)
def test_the_optimum_of_a_penalised_linear_critic(
    separation: float, weight: float, slope: float, gap: float, loss: float
) -> None:
    direction = torch.tensor([0.6, -0.8], dtype=torch.float64)
    fake = normal(8, 2)
    real, critic, penalty = fake + separation * direction, linear(0.3, 0.2), GradientPenalty(weight=weight)
    optimizer = torch.optim.LBFGS(critic.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = critic(fake).mean() - critic(real).mean()
        value = value + penalise(penalty, critic, real, fake, generator=rng())
        value.backward()
        return value

    for _ in range(5):
        optimizer.step(closure)
    assert number(critic.weight.norm()) == pytest.approx(slope, abs=1e-6)
    assert number(critic(real).mean() - critic(fake).mean()) == pytest.approx(gap, abs=1e-6)
    assert number(closure()) == pytest.approx(loss, abs=1e-9)


# --- the gradient penalty: traps


def test_the_norm_is_over_all_axes_of_each_sample() -> None:
    a = normal(3, 4, 5)
    scale = torch.tensor([1.0, 2.0], dtype=torch.float64)
    points = scale.reshape(2, 1, 1, 1) * a
    slopes = gradient_norms(half_square, points)
    assert torch.allclose(slopes, scale * a.norm())
    for wrong in (points.norm(dim=1), points.norm(dim=(2, 3)), points.norm()):
        assert not math.isclose(number((wrong - 1).square().mean()), number(slope_penalty(slopes)), rel_tol=1e-3)


def test_each_sample_has_its_own_weight_and_one_for_all_its_numbers() -> None:
    critic, real = Critic(), torch.ones(64, 3, 4)
    penalise(GradientPenalty(), critic, real, torch.zeros_like(real), generator=rng())
    weights = critic.points.flatten(1)
    assert torch.equal(weights, weights[:, :1].expand_as(weights))
    assert len(weights[:, 0].unique()) == 64
    assert 0 <= weights.min() < 0.2
    assert 0.8 < weights.max() <= 1


def test_the_given_generator_is_drawn_from_and_the_global_one_is_not() -> None:
    critic, real, state = Critic(), torch.ones(8, 2), torch.get_rng_state()
    seen = []
    for seed in (1, 1, 2):
        penalise(GradientPenalty(), critic, real, -real, generator=rng(seed))
        seen.append(critic.points)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(UsageError, match="drawn"):
        penalise(GradientPenalty(), critic, real, -real)


def test_the_points_follow_the_option() -> None:
    critic, real, fake = Critic(), torch.ones(3, 2), torch.zeros(3, 2)
    for points, expected in (("real", real), ("fake", fake)):
        penalise(GradientPenalty(points=points), critic, real, fake)
        assert torch.equal(critic.points, expected)


@pytest.mark.parametrize("points", ["between", "real", "fake"])
def test_no_graph_leads_to_the_samples(points: str) -> None:
    real, fake = normal(4, 2).requires_grad_(), normal(4, 2, seed=1).requires_grad_()
    critic = mlp(2, 8, 1, dtype=torch.float64)
    penalise(GradientPenalty(points=points), critic, real, fake * 2, generator=rng()).backward()
    assert not interpolates(real, fake, torch.ones(4)).requires_grad
    assert real.grad is None
    assert fake.grad is None
    assert critic[0].weight.grad is not None


def test_a_slope_of_zero_has_a_finite_gradient() -> None:
    critic = linear(0.0, 0.0)
    penalty = penalise(GradientPenalty(weight=3.0), critic, normal(4, 2), normal(4, 2, seed=1), generator=rng())
    penalty.backward()
    assert number(penalty) == 3.0
    assert critic.weight.grad is not None
    assert torch.all(critic.weight.grad == 0)
    naive = torch.zeros(2, requires_grad=True)
    naive.square().sum().sqrt().backward()
    assert naive.grad is not None
    assert naive.grad.isnan().all()


def test_a_critic_that_ignores_its_input_has_slope_zero() -> None:
    flat = Critic(lambda x: nn.functional.relu(x - 100).sum(1))
    assert gradient_norms(flat, torch.zeros(3, 2)).tolist() == [0, 0, 0]


def test_batch_norm_makes_the_penalty_blind_which_is_why_it_is_refused() -> None:
    critic = nn.Sequential(nn.BatchNorm1d(2, dtype=torch.float64), linear(30.0, 40.0))
    real, fake = normal(64, 2), normal(64, 2, seed=1)
    blind = penalise(GradientPenalty(weight=1.0), critic, real, fake, generator=rng())
    assert number(blind) == pytest.approx(1.0, abs=1e-6)
    assert number(penalise(GradientPenalty(weight=1.0), critic.eval(), real, fake, generator=rng())) > 100
    assert GradientPenalty.per_sample


def test_the_batch_size_does_not_change_the_weight() -> None:
    points = normal(6, 2)
    small = slope_penalty(gradient_norms(half_square, points))
    large = slope_penalty(gradient_norms(half_square, points.repeat(7, 1)))
    assert number(small) == pytest.approx(number(large), rel=1e-12)


def test_the_penalty_stays_in_float32_under_autocast() -> None:
    critic = mlp(16, 64, 64, 1)
    real, fake = normal(8, 16).float(), normal(8, 16, seed=1).float()
    outside = penalise(GradientPenalty(), critic, real, fake, generator=rng())
    with torch.autocast("cpu", torch.bfloat16):
        inside = penalise(GradientPenalty(), critic, real, fake, generator=rng())
        low = critic(real)
    assert low.dtype == torch.bfloat16
    assert inside.dtype == torch.float32
    assert number(inside) == number(outside)
    wide = penalise(GradientPenalty(), copy.deepcopy(critic).double(), real.double(), fake.double(), generator=rng())
    assert number(outside) == pytest.approx(number(wide), rel=0.01)
    assert gradient_norms(critic, real.bfloat16()).dtype == torch.float32
    mixed = penalise(GradientPenalty(), critic, real, fake.bfloat16(), generator=rng())
    assert number(mixed) == pytest.approx(number(outside), rel=0.01)


def test_the_penalty_can_be_evaluated_without_grad() -> None:
    with torch.no_grad():
        assert number(gradient_norms(linear(3.0, 4.0), normal(1, 2))) == pytest.approx(5.0)


@pytest.mark.parametrize(
    "function", [lambda x: x, lambda x: x.sum(), lambda x: x.sum(1).mean(0, keepdim=True), lambda x: x[:2].sum(1)]
)
def test_a_critic_must_put_out_one_number_a_sample(function: object) -> None:
    with pytest.raises(PairingError, match="one number a sample"):
        penalise(GradientPenalty(), Critic(function), torch.ones(3, 2), torch.ones(3, 2), generator=rng())


def test_a_column_of_outputs_is_the_same_as_a_vector() -> None:
    points = normal(3, 2)
    column = gradient_norms(lambda x: half_square(x).unsqueeze(1), points)
    assert torch.equal(column, gradient_norms(half_square, points))


def test_samples_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(UsageError, match="as many"):
        penalise(GradientPenalty(), Critic(), torch.ones(3, 2), torch.ones(4, 2), generator=rng())
    with pytest.raises(UsageError, match="one a sample"):
        interpolates(torch.ones(3, 2), torch.ones(3, 2), torch.ones(1))
