"""The consistency term: where its dropout goes, its value for known masks, and whose random numbers it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipmgan
import pytest
import torch
from ipmgan import GradientPenalty, PairingError, lipschitz_bound
from torch import Tensor, nn

from ipmgan_classic import Consistency
from ipmgan_classic.consistency import Halves

SMALL: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "consistency",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=2",
    "device": "cpu",
    "batch": 8,
    "n_critic": 2,
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Masked(nn.Dropout):
    """Dropout by known masks (2N, K), of zeros and twos."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__(0.5)
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        return x * self.masks[: len(x)]


def critic(dropout: nn.Module | None = None) -> nn.Sequential:
    middle = [nn.ReLU()] if dropout is None else [nn.ReLU(), dropout]
    made = nn.Sequential(nn.Linear(3, 4), *middle, nn.Linear(4, 1), nn.Flatten(0)).double()
    for place, parameter in enumerate(made.parameters()):
        parameter.data = normal(*parameter.shape, seed=place + 1)
    return made


def masks(n: int) -> Tensor:
    return 2 * torch.randint(0, 2, (2 * n, 4), generator=torch.Generator().manual_seed(7)).double()


# Where the dropout goes


def test_dropout_follows_hidden_activations_and_the_last_layer_is_set_apart() -> None:
    plain = nn.Sequential(
        *(nn.Flatten(1), nn.Linear(4, 8), nn.LayerNorm(8), nn.LeakyReLU(0.2), nn.Linear(8, 8), nn.Tanh()),
        *(nn.Linear(8, 1), nn.Softplus(), nn.Flatten(0)),
    )
    prepared = Consistency(dropout=0.3).prepare(plain)
    assert isinstance(prepared, Halves)
    body, head = ([type(layer).__name__ for layer in part] for part in prepared)
    assert body == ["Flatten", "Linear", "LayerNorm", "LeakyReLU", "Dropout", "Linear", "Tanh", "Dropout"]
    assert head == ["Linear", "Softplus", "Flatten"]
    assert [module.p for module in prepared.modules() if isinstance(module, nn.Dropout)] == [0.3, 0.3]
    assert list(prepared.parameters()) == list(plain.parameters())
    x = torch.rand(5, 4)
    assert torch.equal(prepared.eval()(x), plain.eval()(x))


def test_a_convolutional_critic_gets_its_dropout_too() -> None:
    spec = ipmgan.SampleSpec(shape=(1, 28, 28), bounds=(-1.0, 1.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ipmgan.DCGAN(nf=4).critic(spec, ipmgan.CriticKind.SCORE, per_sample=True)
        prepared, real = Consistency().prepare(made), torch.randn(4, 1, 28, 28)
        assert sum(isinstance(module, nn.Dropout) for module in prepared.modules()) == 2
        penalty = Consistency().penalty(prepared, real, real + 1, torch.rand(4))
    torch.autograd.backward(penalty)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in prepared.parameters())


def test_dropout_that_is_there_stays_the_only_one() -> None:
    own = nn.Dropout(0.1)
    prepared = Consistency().prepare(critic(own))
    assert [module for module in prepared.modules() if isinstance(module, nn.Dropout)] == [own]


class Other(nn.Module):
    """A critic that is no stack of layers."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.net = critic(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


@pytest.mark.parametrize(
    "bare",
    [nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), nn.Linear(3, 1), Other(nn.Dropout(0.0))],
    ids=["0", "1", "2"],
)
def test_a_critic_without_a_place_for_dropout_is_refused(bare: nn.Module) -> None:
    with pytest.raises(PairingError, match="has neither dropout nor"):
        Consistency().prepare(bare)


def test_a_prepared_critic_has_a_bound_for_every_draw() -> None:
    plain = critic()
    bound = lipschitz_bound(plain).bound
    assert lipschitz_bound(Consistency(dropout=0.5).prepare(plain).train()).bound == pytest.approx(2 * bound)


# Values


@pytest.mark.parametrize(("margin", "features"), [(0.0, 0.0), (0.0, 0.1), (0.5, 2.0)])
def test_value_for_known_masks(margin: float, features: float) -> None:
    """Each sample's squared difference of outputs, and the features' mean one, above the margin, averaged."""
    real, known = normal(6, 3), masks(6)
    prepared = Consistency().prepare(critic(Masked(known)))
    enforcer = Consistency(weight=3.0, margin=margin, features=features, gradient=0.0)
    assert enforcer.draw(real, torch.Generator()) is None
    first, _, last, _ = critic().requires_grad_(False)
    hidden = first(real).relu()
    expected = 0.0
    for row, h in enumerate(hidden):
        one, other = h * known[row], h * known[row + 6]
        apart = float(((one - other) @ last.weight[0]) ** 2) + features * float(((one - other) ** 2).sum() / 4)
        expected += max(0.0, apart - margin) / 6
    penalty = enforcer.penalty(prepared, real, normal(6, 3, seed=9))
    assert penalty.item() == pytest.approx(3 * expected, rel=1e-12)


def test_gradient_for_known_masks() -> None:
    """By the last layer's weights w: 2 λ mean_i (w·δ_i) δ_i."""
    real, known = normal(6, 3), masks(6)
    stack = critic(Masked(known))
    penalty = Consistency(weight=3.0, features=0.0, gradient=0.0).penalty(Consistency().prepare(stack), real, real)
    torch.autograd.backward(penalty)
    hidden = stack[0](real).relu()
    apart = hidden * known[:6] - hidden * known[6:]
    last = stack[3]
    assert last.weight.grad is not None
    assert torch.allclose(last.weight.grad[0], 6 * ((apart @ last.weight[0])[:, None] * apart).mean(0), rtol=1e-12)
    assert last.bias.grad is None or float(last.bias.grad) == 0


def test_a_critic_that_is_no_stack_counts_by_its_outputs() -> None:
    real, known = normal(6, 3), masks(6)
    enforcer = Consistency(features=5.0, gradient=0.0)
    other = enforcer.prepare(Other(Masked(known)))
    outputs = Consistency(features=0.0, gradient=0.0)
    assert torch.equal(
        enforcer.penalty(other, real, real), outputs.penalty(outputs.prepare(critic(Masked(known))), real, real)
    )


def test_without_dropout_at_work_the_gradient_penalty_is_left() -> None:
    real, fake, enforcer = normal(6, 3), normal(6, 3, seed=1), Consistency(gradient=7.0)
    drawn = enforcer.draw(real, torch.Generator().manual_seed(3))
    prepared = enforcer.prepare(critic()).eval()
    expected = GradientPenalty(weight=7.0).penalty(critic(), real, fake, drawn)
    assert torch.isclose(enforcer.penalty(prepared, real, fake, drawn), expected, rtol=1e-14)


def test_expected_value_under_dropout() -> None:
    """E d = 2p/(1-p) · (Σ w² h² + features · mean h²); the mean of 40,000 draws, 6 standard errors wide (p < 1e-8)."""
    prepared = Consistency(dropout=0.2).prepare(critic())
    one = normal(1, 3, seed=5)
    first, _, last, _ = critic().requires_grad_(False)
    squares = first(one).relu()[0].square()
    expected = 2 * 0.2 / 0.8 * float(squares @ last.weight[0].square() + 0.5 * squares.mean())
    enforcer = Consistency(weight=1.0, features=0.5, gradient=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        each = enforcer._distances(prepared, one.expand(40_000, 3)).detach()
    assert abs(float(each.mean()) - expected) < 6 * float(each.std()) / 200


# Randomness, compiled and vectorised


def test_runs_repeat_and_leave_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    runs = [ipmgan.train(**SMALL, steps=3, out=tmp_path / name) for name in ("a", "b")]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(runs[0].sample(8), runs[1].sample(8))
    assert runs[0].metrics[-1]["penalty"] == runs[1].metrics[-1]["penalty"] > 0


def test_compiled_steps_draw_their_dropout_anew_and_from_the_streams() -> None:
    enforcer, real = Consistency(), normal(6, 3)
    prepared = enforcer.prepare(critic())
    compiled = torch.compile(enforcer.penalty, fullgraph=True, dynamic=False, backend="eager")
    drawn = enforcer.draw(real, torch.Generator().manual_seed(3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = [enforcer.penalty(prepared, real, real + 1, drawn) for _ in range(2)]
        torch.manual_seed(0)
        fast = [compiled(prepared, real, real + 1, drawn) for _ in range(2)]
    assert torch.allclose(torch.stack(plain), torch.stack(fast), rtol=1e-12)
    assert not torch.isclose(plain[0], plain[1])


def test_several_seeds_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PairingError, match=r"consistency cannot be vectorised"):
        ipmgan.train(**SMALL, steps=2, replicates=2, out=tmp_path / "runs")
