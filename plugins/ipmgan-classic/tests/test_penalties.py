"""Penalties on slopes: values and gradients in closed form, what they do to games, and how they may be computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ipmgan import GradientPenalty, LipschitzEnforcer, NonSaturating, UsageError
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ipmgan_classic import DRAGAN, R1, R2, OneCentred, ZeroCentred

PENALTIES: list[LipschitzEnforcer] = [
    R1(gamma=3.0),
    R2(gamma=3.0),
    *(OneCentred(weight=3.0, points=points, noise=0.3) for points in ("between", "real", "fake", "noisy")),
    *(ZeroCentred(weight=3.0, points=points, noise=0.3) for points in ("between", "real", "fake", "noisy")),
    DRAGAN(weight=3.0, target=1.5),
    DRAGAN(weight=3.0, noise="gaussian", c=0.04),
]
EACH = pytest.mark.parametrize("enforcer", PENALTIES, ids=str)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def penalise(enforcer: LipschitzEnforcer, critic: nn.Module, real: Tensor, fake: Tensor, seed: int = 0) -> Tensor:
    penalty = enforcer.penalty(critic, real, fake, enforcer.draw(real, rng(seed)))
    assert penalty is not None
    return penalty


class Bowl(nn.Module):
    """f(x) = s ‖x‖² / 2, whose slope at x is s ‖x‖."""

    def __init__(self, s: float = 1.0) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.tensor(s, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.s * x.flatten(1).square().sum(1) / 2


def linear(*weights: float) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights], dtype=torch.float64))
    return layer


def points_of(enforcer: Any, real: Tensor, fake: Tensor, seed: int) -> np.ndarray:
    """Where the slope should be taken, from the same draws."""
    x, y = real.numpy(), fake.numpy()
    where = {"r1": "real", "r2": "fake", "dragan": "around"}.get(enforcer.name) or enforcer.points
    if where in ("real", "fake"):
        return x if where == "real" else y
    if where == "between":
        eps = torch.rand(len(x), generator=rng(seed), dtype=torch.float64).numpy()
        return np.stack([e * a + (1 - e) * b for e, a, b in zip(eps, x, y, strict=True)])
    if where == "noisy" or enforcer.noise == "gaussian":
        sd = enforcer.noise if where == "noisy" else math.sqrt(enforcer.c)
        return x + sd * torch.randn(x.shape, generator=rng(seed), dtype=torch.float64).numpy()
    u = torch.rand(x.shape, generator=rng(seed), dtype=torch.float64).numpy()
    return x + enforcer.c * x.std() * u


def cost(enforcer: Any, slopes: np.ndarray) -> tuple[float, np.ndarray]:
    """The penalty, and its derivative by each slope."""
    if enforcer.name in ("r1", "r2", "zero-centred"):
        weight = enforcer.weight if enforcer.name == "zero-centred" else enforcer.gamma / 2
        return weight * (slopes**2).mean(), 2 * weight * slopes / len(slopes)
    over = slopes - (enforcer.target if enforcer.name == "dragan" else 1.0)
    return enforcer.weight * (over**2).mean(), 2 * enforcer.weight * over / len(slopes)


# Closed forms


@EACH
@pytest.mark.parametrize("shape", [(2,), (2, 3, 3)], ids=str)
def test_value_and_gradient_on_a_bowl(enforcer: LipschitzEnforcer, shape: tuple[int, ...]) -> None:
    real, fake, critic = normal(5, *shape, seed=1), 1 + normal(5, *shape, seed=2), Bowl(0.7)
    lengths = np.sqrt((points_of(enforcer, real, fake, seed=3).reshape(5, -1) ** 2).sum(1))
    value, by_slope = cost(enforcer, 0.7 * lengths)
    penalty = penalise(enforcer, critic, real, fake, seed=3)
    assert penalty.item() == pytest.approx(value, rel=1e-12)
    torch.autograd.backward(penalty)
    assert critic.s.grad is not None
    assert float(critic.s.grad) == pytest.approx(by_slope @ lengths, rel=1e-12)


@EACH
def test_value_and_gradient_on_a_plane(enforcer: LipschitzEnforcer) -> None:
    """The slope of a·x is ‖a‖ everywhere, and its gradient a / ‖a‖."""
    critic = linear(3.0, 4.0)
    value, by_slope = cost(enforcer, np.full(4, 5.0))
    penalty = penalise(enforcer, critic, normal(4, 2), normal(4, 2, seed=1))
    assert penalty.item() == pytest.approx(value, rel=1e-12)
    torch.autograd.backward(penalty)
    assert critic.weight.grad is not None
    expected = [[by_slope.sum() * 0.6, by_slope.sum() * 0.8]]
    assert torch.allclose(critic.weight.grad, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)


@EACH
def test_flat_critic_has_a_finite_gradient(enforcer: LipschitzEnforcer) -> None:
    critic = linear(0.0, 0.0)
    penalty = penalise(enforcer, critic, normal(4, 2), normal(4, 2, seed=1))
    assert penalty.item() == pytest.approx(cost(enforcer, np.zeros(4))[0])
    torch.autograd.backward(penalty)
    assert critic.weight.grad is not None
    assert critic.weight.grad.tolist() == [[0.0, 0.0]]


def test_known_values_between_samples() -> None:
    """Slopes 2.5 and .25."""
    real, fake = torch.tensor([[3.0, 4.0], [1.0, 0.0]], dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    eps = torch.tensor([0.5, 0.25], dtype=torch.float64)
    assert OneCentred(weight=1.0).penalty(Bowl(), real, fake, eps).item() == 1.40625
    assert ZeroCentred(weight=1.0).penalty(Bowl(), real, fake, eps).item() == 3.15625
    assert R1(gamma=1.0).penalty(Bowl(), real, fake).item() == 6.5
    assert R2(gamma=1.0).penalty(Bowl(), real, fake).item() == 0


def test_the_same_penalty_under_another_name() -> None:
    real, fake, critic = normal(6, 3), normal(6, 3, seed=1), Bowl(0.4)
    for points in ("between", "real", "fake"):
        one, core = OneCentred(points=points), GradientPenalty(points=points)
        assert torch.equal(penalise(one, critic, real, fake), penalise(core, critic, real, fake))
    for gamma, points in ((R1(gamma=8.0), "real"), (R2(gamma=8.0), "fake")):
        assert torch.equal(
            penalise(gamma, critic, real, fake), penalise(ZeroCentred(weight=4.0, points=points), critic, real, fake)
        )


# What becomes of a critic


@pytest.mark.parametrize(
    ("enforcer", "best"),
    [
        (R1(gamma=8.0), 5 / 8),
        (R2(gamma=8.0), 5 / 8),
        (ZeroCentred(weight=4.0), 5 / 8),
        (OneCentred(weight=4.0), 1 + 5 / 8),
        (DRAGAN(weight=4.0), 1 + 5 / 8),
    ],
    ids=str,
)
def test_best_plane_between_means_apart(enforcer: LipschitzEnforcer, best: float) -> None:
    """Means (3, 4) apart: the gap minus the penalty is at rest at the slope that the pages say, towards the shift."""
    critic = linear(0.6 * best, 0.8 * best)
    fake = normal(8, 2)
    real = fake + torch.tensor([3.0, 4.0], dtype=torch.float64)
    loss = critic(fake).mean() - critic(real).mean() + penalise(enforcer, critic, real, fake)
    torch.autograd.backward(loss)
    assert critic.weight.grad is not None
    assert critic.weight.grad.abs().max() < 1e-12


def dirac_eigenvalues(enforcer: LipschitzEnforcer | None) -> np.ndarray:
    """Those of the gradient steps at the equilibrium: real samples at 0, generated ones at theta, critic psi x."""
    real = torch.zeros(1, 1, dtype=torch.float64)

    def step(theta: float, psi: float) -> tuple[float, float]:
        critic, fake = linear(psi), torch.tensor([[theta]], dtype=torch.float64, requires_grad=True)
        generator_loss = NonSaturating().generator_loss(torch.empty(0), critic(fake)[:, 0])
        (by_theta,) = torch.autograd.grad(generator_loss, fake)
        critic_loss = NonSaturating().critic_loss(critic(real)[:, 0], critic(fake.detach())[:, 0])
        if enforcer is not None:
            critic_loss = critic_loss + penalise(enforcer, critic, real, fake.detach())
        (by_psi,) = torch.autograd.grad(critic_loss, critic.weight)
        return -float(by_theta), -float(by_psi)

    h = 1e-5
    columns = [
        (np.subtract(step(h, 0), step(-h, 0))) / (2 * h),
        (np.subtract(step(0, h), step(0, -h))) / (2 * h),
    ]
    return np.sort_complex(np.linalg.eigvals(np.stack(columns, axis=1)))


@pytest.mark.parametrize("gamma", [0.3, 0.8, 4.0])
@pytest.mark.parametrize("kind", [R1, R2])
def test_the_smallest_game_settles(kind: Callable[..., LipschitzEnforcer], gamma: float) -> None:
    root = np.sqrt(complex(gamma**2 / 4 - 1 / 4))
    expected = np.sort_complex(np.array([-gamma / 2 - root, -gamma / 2 + root]))
    found = dirac_eigenvalues(kind(gamma=gamma))
    assert np.allclose(found, expected, atol=1e-8)
    assert (found.real < 0).all()


def test_the_smallest_game_circles_without() -> None:
    assert np.allclose(dirac_eigenvalues(None), [-0.5j, 0.5j], atol=1e-8)


# Draws


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_draws_come_from_the_generator_alone(enforcer: LipschitzEnforcer, dtype: torch.dtype) -> None:
    real, before = normal(4, 2, 3).to(dtype), torch.random.get_rng_state()
    drawn, again, other = (enforcer.draw(real, rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    if drawn is None or again is None or other is None:
        assert drawn is again is other is None
        return
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert drawn.dtype == torch.promote_types(dtype, torch.float32)
    assert drawn.shape in ((4,), (4, 2, 3))


def test_dragan_moves_each_number_by_itself_upwards_and_with_the_data() -> None:
    seen: list[Tensor] = []

    class Looking(Bowl):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.detach())
            return super().forward(x)

    real = 10 * normal(64, 5)
    penalise(DRAGAN(), Looking(), real, real, seed=1)
    moved = (seen[0] - real) / (0.5 * float(real.numpy().std()))
    assert 0 <= float(moved.min()) < 0.05 < 0.95 < float(moved.max()) <= 1
    assert len(moved.unique()) == moved.numel()


@pytest.mark.parametrize("enforcer", [OneCentred(), ZeroCentred(points="noisy"), DRAGAN()], ids=str)
def test_numbers_that_were_not_drawn_are_asked_for(enforcer: LipschitzEnforcer) -> None:
    with pytest.raises(UsageError, match="draw"):
        enforcer.penalty(Bowl(), normal(4, 2), normal(4, 2))


@EACH
def test_inputs_stay_as_they_are(enforcer: LipschitzEnforcer) -> None:
    real, fake = normal(4, 2), normal(4, 2, seed=1)
    penalise(enforcer, Bowl(), real, fake)
    assert torch.equal(real, normal(4, 2))
    assert torch.equal(fake, normal(4, 2, seed=1))
    assert not real.requires_grad
    assert not fake.requires_grad


# Compiled and vectorised


class Penalised(nn.Module):
    """The penalty as a function of the critic's weights."""

    def __init__(self, enforcer: LipschitzEnforcer) -> None:
        super().__init__()
        self.enforcer = enforcer
        self.critic = nn.Sequential(nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Flatten(0)).double()
        for place, parameter in enumerate(self.critic.parameters()):
            parameter.data = normal(*parameter.shape, seed=place)

    def forward(self, real: Tensor, fake: Tensor, drawn: Tensor | None) -> Tensor:
        penalty = self.enforcer.penalty(self.critic, real, fake, drawn)
        assert penalty is not None
        return penalty

    def gradients(self, weights: dict[str, Tensor], *inputs: Tensor | None) -> dict[str, Tensor]:
        found: dict[str, Tensor] = grad(lambda w: functional_call(self, w, inputs))(weights)
        return found


def gradients_one_by_one(module: Penalised, inputs: list[tuple[Tensor | None, ...]]) -> list[dict[str, Tensor]]:
    found = []
    for each in inputs:
        module.zero_grad()
        torch.autograd.backward(module(*each))
        found.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    assert found[0]
    return found


def prepared(enforcer: LipschitzEnforcer) -> tuple[Penalised, dict[str, Tensor], list[tuple[Tensor | None, ...]]]:
    module = Penalised(enforcer)
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    batches = [(normal(4, 3, seed=seed), normal(4, 3, seed=seed + 10)) for seed in (1, 2)]
    return module, weights, [(real, fake, enforcer.draw(real, rng(5))) for real, fake in batches]


@EACH
def test_gradients_of_several_seeds_at_once(enforcer: LipschitzEnforcer) -> None:
    module, weights, inputs = prepared(enforcer)
    stacked = [None if values[0] is None else torch.stack(values) for values in zip(*inputs, strict=True)]
    dims = (None, *(None if values is None else 0 for values in stacked))
    at_once = vmap(module.gradients, in_dims=dims)(weights, *stacked)
    for place, gradients in enumerate(gradients_one_by_one(module, inputs)):
        for name, gradient in gradients.items():
            assert torch.allclose(at_once[name][place], gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("enforcer", [R1(), OneCentred(points="noisy"), ZeroCentred(), DRAGAN()], ids=str)
def test_gradients_compiled(enforcer: LipschitzEnforcer) -> None:
    module, weights, inputs = prepared(enforcer)
    torch.compiler.reset()
    compiled = torch.compile(module.gradients, fullgraph=True, dynamic=False, backend="eager")(weights, *inputs[1])
    for name, gradient in gradients_one_by_one(module, inputs)[1].items():
        assert torch.allclose(compiled[name], gradient, rtol=1e-10, atol=1e-12)
