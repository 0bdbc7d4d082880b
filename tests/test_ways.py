"""The ways to run a step give the same numbers: as it stands, as a pure function, and compiled."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from ipmgan.config import configure
from ipmgan.engine import ways
from ipmgan.engine.build import build
from ipmgan.engine.checks import check
from ipmgan.engine.loop import Trainer
from ipmgan.engine.state import capture, restore
from ipmgan.engine.step import Step
from ipmgan.errors import PairingError
from ipmgan.lipschitz import LipschitzEnforcer
from ipmgan.registry import registry

STEPS, TOLERANCE = 3, 2e-5
"""Generator steps, and how far weights and losses of order 1 may then lie apart, by rounding."""
CRITICS = {"ebgan": "autoencoder:hidden=8,code=2"}
KINDS = ("objective", "lipschitz")
SETTINGS = {
    "source": "ring8",
    "generator": "mlp:width=8,depth=1,norm=batch",
    "critic": "mlp:width=8,depth=2",
    "device": "cpu",
    "batch": 6,
    "n_critic": 2,
    "average": 0.9,
    "steps": 10,
    # Not fused, which would not be compiled.
    "generator_optimizer": "SGD:lr=0.05,foreach=true",
    "critic_optimizer": "SGD:lr=0.05,foreach=true",
}


def pairs() -> list[tuple[str, str, str]]:
    """Every objective with every enforcer, and the one that needs no critic both without and with one."""
    objectives, enforcers = (
        [entry.plugin.name for entry in registry().entries(kind) if entry.distribution == "ipmgan"] for kind in KINDS
    )
    critics = {"ebgan": ["autoencoder:hidden=8,code=2"], "mmd": ["none", "mlp:width=8,depth=1,features=3"]}
    found = itertools.product(objectives, enforcers)
    return [(one, other, critic) for one, other in found for critic in critics.get(one, ["mlp:width=8,depth=2"])]


def aot(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """Captures and differentiates the whole graph as the compiler does, without generating code for it."""
    return torch.compile(ways.own_code(function), backend="aot_eager", fullgraph=True, dynamic=False)


def run(compile: bool, steps: int = STEPS, **settings: Any) -> Step:
    config = configure(**{**SETTINGS, **settings})
    check(config)
    step = Step(build(config), compile=compile)
    for _ in range(steps):
        step.run()
    return step


def state(step: Step) -> dict[str, Tensor]:
    nets = {"generator": step.parts.generator, "critic": step.parts.critic, "average": step.parts.average}
    return {f"{name}.{key}": t for name, net in nets.items() if net is not None for key, t in net.state_dict().items()}


def assert_alike(one: Step, other: Step) -> None:
    for name, tensor in state(one).items():
        torch.testing.assert_close(
            tensor, state(other)[name], atol=TOLERANCE, rtol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert one.last.generator_loss is not None
    torch.testing.assert_close(one.last.generator_loss, other.last.generator_loss, atol=TOLERANCE, rtol=TOLERANCE)


def compare(**settings: Any) -> None:
    try:
        eager = run(False, **settings)
    except PairingError as error:
        pytest.skip(f"refused: {error}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # A step that falls back is no longer compiled.
        assert_alike(eager, run(True, **settings))


@pytest.mark.parametrize(("objective", "lipschitz", "critic"), pairs())
def test_every_pair_is_one_graph_with_the_same_numbers(
    objective: str, lipschitz: str, critic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    compare(objective=objective, lipschitz=lipschitz, critic=critic)


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "lipschitz", "critic"), pairs())
def test_every_pair_compiled_gives_the_same_numbers(objective: str, lipschitz: str, critic: str) -> None:
    compare(objective=objective, lipschitz=lipschitz, critic=critic)


def test_the_penalised_step_compiled_gives_the_same_numbers() -> None:
    compare(objective="wgan", lipschitz="gp")


@pytest.mark.parametrize(
    "optimizer",
    [
        "Adam:lr=1e-3,fused=false",
        "RMSprop:lr=1e-3",
        "AdamW:lr=1e-3,amsgrad=true,foreach=true",
        "Adagrad:lr=0.01,fused=false",
        "Adam:lr=1e-3,fused=true",
        "Adagrad:lr=0.01",
    ],
)
def test_optimisers_are_compiled_with_the_same_numbers(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    steady = f"{optimizer},eps=1e-3"  # With a smaller one the rounding of gradients near 0 decides their updates.
    compare(objective="wgan", lipschitz="sphere", generator_optimizer=steady, critic_optimizer=steady)


@pytest.mark.parametrize("critic", ["mlp:width=8,norm=batch", "mlp:width=8,norm=layer"])
def test_batch_statistics_move_alike(critic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    compare(objective="wgan", lipschitz="clip", critic=critic)


def test_a_pure_function_gives_the_gradients_of_a_backward_pass() -> None:
    step = run(False, steps=1, objective="wgan", lipschitz="gp")
    parts, loss = step.parts, step.critic_loss
    real = parts.train.batch(7)
    inputs = (real, torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), None, torch.linspace(0, 1, 6))
    seen = ways.Backward(loss)(*inputs)
    expected = {name: p.grad.clone() for name, p in loss.weights().items() if p.grad is not None}
    assert len(expected) == len(loss.weights())
    way = ways.Functional(ways.pure(loss), loss.weights(), loss.held(), dict(loss.named_buffers()))
    again = way(*inputs)
    for name, p in loss.weights().items():
        torch.testing.assert_close(p.grad, expected[name], atol=1e-6, rtol=1e-5)
    assert seen.keys() == again.keys() == {"loss", "penalty", "real", "fake"}
    assert not any(value.requires_grad for value in again.values())


@pytest.mark.parametrize(("critic", "apart"), [("mlp:width=8,norm=layer", False), ("mlp:width=8,norm=batch", True)])
@pytest.mark.parametrize("batch", [8, 6])
def test_both_batches_go_through_the_critic_as_one_where_nothing_tells(critic: str, apart: bool, batch: int) -> None:
    step = run(False, steps=1, objective="wgan", lipschitz="clip", critic=critic, batch=batch)
    net, loss = step.parts.critic, step.critic_loss
    assert net is not None
    sizes: list[int] = []
    net[0].register_forward_hook(lambda _, args, out: sizes.append(len(out)))
    (inputs,) = step.critic_inputs([step.critic_draws()])
    _, together = loss(*inputs)
    assert sizes == ([batch] * 2 if apart or batch == 6 else [2 * batch])
    net.register_forward_hook(lambda *_: None)  # A hook is to see real and generated samples apart.
    _, one_by_one = loss(*inputs)
    assert sizes[-2:] == [batch] * 2
    for name, value in one_by_one.items():
        torch.testing.assert_close(together[name], value, atol=1e-6, rtol=1e-5)


def test_what_cancels_between_the_batches_leaves_no_rounding() -> None:
    for batch in (8, 6):
        step = run(False, steps=3, objective="wgan", lipschitz="clip", critic="mlp:width=8", batch=batch)
        assert step.parts.critic is not None
        last = [p for p in step.parts.critic.parameters() if p.shape == (1,)]
        assert len(last) == 1
        assert last[0].grad is not None
        assert float(last[0].grad) == 0


def test_a_run_goes_on_across_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    settings = {"objective": "wgan", "lipschitz": "gp"}
    through = run(False, steps=6, **settings)
    half = run(True, steps=3, **settings)
    snapshot = capture(half.parts, half)
    for compile in (False, True):
        config = configure(**{**SETTINGS, **settings, "compile": "on" if compile else "off"})
        step = Step(build(config), compile=compile)
        restore(step.parts, step, snapshot)
        for _ in range(3):
            step.run()
        assert_alike(through, step)


def test_a_compiled_run_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    settings = {"objective": "wgan", "lipschitz": "gp"}
    through, half = run(True, steps=5, **settings), run(True, steps=3, **settings)
    rest = Step(build(configure(**{**SETTINGS, **settings})), compile=True)
    restore(rest.parts, rest, capture(half.parts, half))
    rest.run()
    rest.run()
    assert all(torch.equal(tensor, state(rest)[name]) for name, tensor in state(through).items())


@attrs.frozen(kw_only=True)
class Talkative(LipschitzEnforcer):
    """Reads a number back in its penalty and its projection, which no graph can hold."""

    name = "talkative"

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor | None:
        total = sum((p.square().sum() for p in critic.parameters()), torch.zeros(()))
        return total * 0.1 if total.item() > 0 else None

    def after_step(self, critic: nn.Module) -> None:
        for p in critic.parameters():
            p.mul_(0.99 if p.norm().item() > 0.1 else 1.0)


def test_what_cannot_be_compiled_falls_back_with_one_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "compiled", aot)

    def start(compile: bool) -> Step:
        return Step(
            build(attrs.evolve(configure(objective="wgan", lipschitz="clip", **SETTINGS), lipschitz=Talkative())),
            compile=compile,
        )

    eager, step = start(False), start(True)
    for _ in range(3):
        eager.run()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            step.run()
    lines = [str(warning.message) for warning in caught]
    assert len(lines) == 2
    assert lines[0].startswith("the critic step runs uncompiled: ")
    assert lines[1].startswith("the update by SGD runs uncompiled: ")
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert_alike(eager, step)


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({"steps": 1000}, "off"),
        ({"steps": 100_000}, "on"),
        ({"steps": 100_000, "compile": "off"}, "off"),
        ({"steps": 10, "compile": "on"}, "on"),
        ({"steps": 3000, "generator": "mlp:width=512,depth=3", "critic": "mlp:width=512,depth=3", "batch": 256}, "on"),
    ],
)
def test_a_long_run_is_compiled_unless_told_otherwise(settings: dict[str, Any], way: str, tmp_path: Path) -> None:
    common = {"objective": "wgan", "lipschitz": "clip", "source": "ring8", "device": "cpu"}
    assert Trainer(out=tmp_path / "run", **{**common, **settings}).way == way
