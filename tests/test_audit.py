"""How steep a critic is, from above and from below: linear critics, ReLU nets by enumeration, boxes, kinks, runs."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from typer.testing import CliRunner

import ipmgan
from ipmgan.cli.app import app
from ipmgan.data.base import SampleSpec
from ipmgan.engine.audit import audit_run
from ipmgan.errors import CheckpointError, PairingError, UsageError
from ipmgan.lipschitz.audit import audit
from ipmgan.networks import DCGAN, MLP, AutoEncoder
from ipmgan.objectives.base import CriticKind


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: nn.Module, seed: int) -> nn.Module:
    """The module in float64, with weights from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * p[0].numel() ** -0.5)
    return module


class Function(nn.Module):
    """Some function of a sample, of which no certificate knows."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize("dim", [1, 2, 50])
def test_of_a_linear_critic_both_bounds_are_its_slope(dim: int) -> None:
    critic = drawn(nn.Sequential(nn.Linear(dim, 1), nn.Flatten(0)), dim)
    found = audit(critic, normal(0, 8, dim), normal(1, 8, dim), steps=2)
    slope = torch.linalg.vector_norm(critic[0].weight).item()  # type: ignore[index]
    assert found.empirical == pytest.approx(slope, rel=1e-12)
    assert found.certificate.bound == pytest.approx(slope, rel=1e-12)
    assert found.tightness == pytest.approx(1, rel=1e-12)


BOX = (-4.0, 4.0)


def steepest(first: nn.Linear, last: nn.Linear) -> float:
    """The Lipschitz constant over the box of a ReLU net with one hidden layer: the steepest of its linear pieces.

    A pattern of units that are on is a piece where some point has all pre-activations on the right side with room.
    """
    weight, bias = first.weight.detach().numpy(), first.bias.detach().numpy()
    largest = 0.0
    for pattern in itertools.product([1.0, -1.0], repeat=len(weight)):
        signs = np.array(pattern)
        # Find x and the largest t <= 1 with signs (W x + b) >= t.
        rows = np.column_stack([-signs[:, None] * weight, np.ones(len(signs))])
        cost = np.zeros(rows.shape[1])
        cost[-1] = -1
        limits = [BOX] * weight.shape[1] + [(None, 1)]
        solved = linprog(cost, A_ub=rows, b_ub=signs * bias, bounds=limits)
        if solved.status == 0 and -solved.fun > 1e-9:
            jacobian = last.weight.detach().numpy() @ (weight * (signs > 0)[:, None])
            largest = max(largest, float(np.linalg.norm(jacobian)))
    return largest


@pytest.mark.parametrize("seed", range(8))
def test_the_ascent_finds_the_steepest_piece_of_a_small_relu_net(seed: int) -> None:
    critic = drawn(nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1), nn.Flatten(0)), seed)
    found = audit(critic, normal(10 + seed, 32, 2), normal(20 + seed, 32, 2), bounds=BOX, steps=40)
    exact = steepest(critic[0], critic[2])  # type: ignore[index]
    assert found.empirical == pytest.approx(exact, rel=1e-9)
    assert exact <= found.certificate.bound * (1 + 1e-12)


def test_the_ascent_is_needed() -> None:
    """Few points seldom lie on the steepest piece, and as a rule lead there."""
    missed = {0: 0, 60: 0}
    for seed in range(8):
        critic = drawn(nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 1), nn.Flatten(0)), seed)
        exact = steepest(critic[0], critic[2])  # type: ignore[index]
        for steps in missed:
            found = audit(critic, normal(seed, 6, 2), bounds=BOX, steps=steps)
            missed[steps] += found.empirical < exact * (1 - 1e-9)
    assert missed[60] < missed[0] / 2


SPEC = SampleSpec(shape=(3,))
IMAGES = SampleSpec(shape=(1, 28, 28), bounds=(-1.0, 1.0))
CRITICS = {
    "mlp": (MLP(width=16, depth=3).critic, SPEC, CriticKind.SCORE),
    "tanh": (MLP(width=16, activation="tanh").critic, SPEC, CriticKind.SCORE),
    "leaky": (MLP(width=16, activation="leaky-relu").critic, SPEC, CriticKind.LOGIT),
    "features": (MLP(width=16, features=5).critic, SPEC, CriticKind.FEATURES),
    "dcgan": (DCGAN(nf=4, norm="none").critic, IMAGES, CriticKind.SCORE),
    "energy": (AutoEncoder(code=4, hidden=8).critic, SPEC, CriticKind.ENERGY),
}


@pytest.mark.parametrize("name", CRITICS)
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_found_is_never_above_what_is_proven(name: str, seed: int) -> None:
    make, spec, kind = CRITICS[name]
    critic = drawn(make(spec, kind, per_sample=True), seed)
    found = audit(critic, normal(seed, 6, *spec.shape), normal(seed + 1, 6, *spec.shape), steps=5)
    assert 0 < found.empirical <= found.certificate.bound * (1 + 1e-9)
    for slope in found.slopes.values():
        assert slope.start <= slope.found <= found.empirical
    assert list(found.slopes) == ["real", "between real", "generated", "interpolates"]


def test_the_ascent_finds_the_steepest_point_of_a_smooth_net() -> None:
    """As steep as the steepest point of a fine grid."""
    critic = drawn(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)), 5)
    found = audit(critic, normal(0, 16, 2), bounds=BOX, steps=60)
    points = torch.cartesian_prod(*[torch.linspace(*BOX, 600, dtype=torch.float64)] * 2)
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points)
    exact = torch.linalg.vector_norm(gradient, dim=1).max().item()
    assert found.empirical == pytest.approx(exact, rel=2e-3)


def test_points_stay_in_the_box() -> None:
    critic = Function(lambda x: x.square().sum(1) / 2)
    inside = audit(critic, 0.3 * normal(0, 16, 2), bounds=(-1.0, 1.0), steps=60)
    assert inside.empirical == pytest.approx(2**0.5, rel=1e-9)
    assert audit(critic, 0.3 * normal(0, 16, 2), steps=60).empirical > 2
    assert inside.certificate.unbounded
    assert inside.tightness == 0
    assert inside.table()["lipschitz_bound"] is None


def test_a_gradient_at_a_kink_is_no_slope() -> None:
    """a x - relu(a x) + relu(-a x) = 0 everywhere; autograd takes the slope of relu at 0 as 0, and finds a there."""
    critic = Function(lambda x: (3 * x - (3 * x).relu() + (-3 * x).relu()).sum(1))
    zeros = torch.zeros(4, 2, dtype=torch.float64)
    points = zeros.clone().requires_grad_()
    (naive,) = torch.autograd.grad(critic(points).sum(), points)
    assert torch.linalg.vector_norm(naive, dim=1).max() > 4
    assert audit(critic, zeros, zeros, steps=5).empirical == pytest.approx(0, abs=1e-12)


def test_several_outputs_are_looked_at_along_one_direction() -> None:
    critic = drawn(nn.Linear(4, 3), 0)
    real, fake = normal(0, 8, 4), normal(1, 8, 4)
    found = audit(critic, real, fake, steps=1)
    along = critic(real).mean(0) - critic(fake).mean(0)
    slope = torch.linalg.vector_norm(critic.weight.T @ along / along.norm())  # type: ignore[operator, union-attr]
    assert found.empirical == pytest.approx(slope.item(), rel=1e-9)
    assert found.empirical < found.certificate.bound


def test_weights_at_the_edge_and_norms_by_layer() -> None:
    critic = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    with torch.no_grad():
        critic[0].weight.copy_(torch.tensor([[0.01, -0.01], [0.003, 0.0]]))  # type: ignore[operator]
        critic[0].bias.copy_(torch.tensor([0.01, 0.0]))  # type: ignore[operator]
        critic[2].weight.copy_(torch.tensor([[0.006, 0.008]]))  # type: ignore[operator]
        critic[2].bias.zero_()  # type: ignore[operator]
    found = audit(critic, torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), clip=0.01, steps=1)
    assert found.at_edge == pytest.approx(3 / 9)
    assert [layer.at_edge for layer in found.layers] == [pytest.approx(3 / 6), 0.0]
    assert [layer.name for layer in found.layers] == ["0", "2"]
    assert found.layers[1].frobenius == pytest.approx(0.01)
    assert found.layers[1].bound == pytest.approx(0.01, rel=1e-5)
    assert found.layers[0].largest == pytest.approx(0.01)
    assert audit(critic, torch.zeros(4, 2)).at_edge is None


def test_the_critic_is_left_as_it_was_and_the_seed_decides() -> None:
    layers = (nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
    critic = drawn(nn.Sequential(*layers), 0)
    before = copy.deepcopy(critic.state_dict())
    state = torch.random.get_rng_state()
    first, second, other = (audit(critic, normal(0, 8, 2), normal(1, 8, 2), seed=seed, steps=3) for seed in (0, 0, 1))
    assert first == second != other
    assert critic.training
    assert all(torch.equal(before[key], value) for key, value in critic.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.empirical <= first.certificate.bound < float("inf")


def test_a_single_sample_is_enough_and_none_is_not() -> None:
    critic = drawn(nn.Linear(2, 1), 0)
    assert audit(critic, normal(0, 1, 2)).empirical > 0
    for real, fake in ((normal(0, 0, 2), None), (normal(0, 4, 2), normal(0, 3, 2)), (normal(0, 4), None)):
        with pytest.raises(UsageError, match="an audit needs"):
            audit(critic, real, fake)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "run"
    settings = {"generator": "mlp:width=8,depth=1", "steps": 4, "checkpoint_every": 2, "batch": 16, "device": "cpu"}
    ipmgan.train(objective="wgan", lipschitz="clip", source="ring8", out=path, **settings)
    return path


def test_audit_of_a_run(run: Path) -> None:
    result = CliRunner().invoke(app, ["audit", str(run), "--json", "--samples", "8", "--steps", "2"])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    found = audit_run(run, samples=8, steps=2)
    assert table == json.loads(json.dumps(found.table()))
    assert 0 < table["empirical"] <= table["lipschitz_bound"]
    assert table["lipschitz_bound"] == pytest.approx(ipmgan.load(run).metrics[-1]["lipschitz_bound"], rel=1e-6)
    assert 0 < table["at_edge"] <= 1
    earlier = audit_run(run, checkpoint=2, samples=8, steps=2)
    assert earlier.certificate != found.certificate
    printed = CliRunner().invoke(app, ["audit", str(run), "--samples", "8", "--steps", "0"])
    assert "<=  Lipschitz constant  <=" in printed.stdout
    assert "edge of the clipping box" in printed.stdout


def test_an_audit_refuses_what_is_not_there(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Allowed: 2, 4"):
        audit_run(run, checkpoint=3)
    with pytest.raises(CheckpointError, match="not a run"):
        audit_run(tmp_path)
    with pytest.raises(UsageError, match="samples = 0"):
        audit_run(run, samples=0)
    settings = {"generator": "mlp:width=8,depth=1", "steps": 1, "batch": 16, "device": "cpu"}
    critic_free = ipmgan.train(objective="mmd", source="ring8", out=tmp_path / "mmd", **settings)
    with pytest.raises(PairingError, match="has no critic to audit"):
        audit_run(critic_free)


def test_an_audit_in_training_changes_nothing(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"generator": "mlp:width=8,depth=1,norm=batch", "critic": "mlp:width=8", "batch": 16}
    settings |= {"steps": 4, "log_every": 1, "device": "cpu", "metrics": [], "source": "ring8"}
    runs = [
        ipmgan.train(objective="wgan", lipschitz="clip", out=tmp_path / str(every), audit_every=every, **settings)
        for every in (0, 2)
    ]
    timed = ("steps_per_second", "samples_per_second")
    plain, audited = ([{k: v for k, v in m.items() if k not in timed} for m in run.metrics] for run in runs)
    for step, (without, with_audit) in enumerate(zip(plain, audited, strict=True), 1):
        found = with_audit.pop("lipschitz_found", None), with_audit.pop("weights_at_edge", None)
        assert without == with_audit
        assert (found == (None, None)) == (step % 2 == 1)
        assert step % 2 or 0 < found[0] <= without["lipschitz_bound"] * (1 + 1e-6)
    assert ipmgan.resume(runs[0].path, steps=5).metrics[-1]["step"] == 5
