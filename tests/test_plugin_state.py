"""What a plugin keeps between steps: each run has its own, and it moves alike in every way to run a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig, configure
from ipmgan.engine import ways
from ipmgan.engine.build import build
from ipmgan.engine.checks import check
from ipmgan.engine.state import _modules
from ipmgan.engine.step import Step
from ipmgan.engine.vector import VectorStep, check_vectorised
from ipmgan.errors import DivergedError, PluginError
from ipmgan.lipschitz import LipschitzEnforcer
from ipmgan.objectives import CriticKind, Objective
from ipmgan.plugin import Quantity

STEPS = 4
SETTINGS: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "clip",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=1",
    "device": "cpu",
    "batch": 8,
    "n_critic": 2,
    "steps": 10,
    "generator_optimizer": "SGD:lr=0.05,foreach=true",
    "critic_optimizer": "SGD:lr=0.05,foreach=true",
}


@attrs.frozen(kw_only=True)
class Multiplied(Objective):
    """The gap of means, with a multiplier that holds the critic's mean square at 1."""

    name = "multiplied"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="1")
    rate: float = 0.5

    def state(self) -> Mapping[str, Tensor]:
        return {"multiplier": torch.zeros(())}

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        excess = real.square().mean() / 2 + fake.square().mean() / 2 - 1
        loss = fake.mean() - real.mean() + state["multiplier"] * excess
        return loss, {"multiplier": state["multiplier"] + self.rate * excess.detach()}

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.critic_loss_and_state(real, fake, self.state())[0]

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()


@attrs.frozen(kw_only=True)
class Counting(LipschitzEnforcer):
    """Decays weights by a strength that grows from step to step."""

    name = "counting"

    def state(self) -> Mapping[str, Tensor]:
        return {"strength": torch.tensor([0.0, 1.0])}

    def penalty_and_state(
        self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        size = sum((p.square().sum() for p in critic.parameters()), torch.zeros(()))
        return 0.01 * state["strength"][0] * size, {"strength": state["strength"] + 1}


@attrs.frozen(kw_only=True)
class Forgetful(Multiplied):
    name = "forgetful"

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        return super().critic_loss_and_state(real, fake, state)[0], {}


def config(objective: Objective | None = None, **settings: Any) -> RunConfig:
    made = configure(**{**SETTINGS, **settings})
    made = attrs.evolve(made, objective=objective or Multiplied(), lipschitz=Counting())
    check(made)
    return made


def run(steps: int = STEPS, *, compile: bool = False, **settings: Any) -> Step:
    step = Step(build(config(**settings)), compile=compile)
    for _ in range(steps):
        step.run()
    return step


def state(step: Step) -> dict[str, Tensor]:
    modules = _modules(step.parts)
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def assert_close(one: Step, other: Step) -> None:
    mine, its = state(one), state(other)
    assert mine.keys() == its.keys()
    for name, value in mine.items():
        torch.testing.assert_close(value, its[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def aot(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return torch.compile(ways.own_code(function), backend="aot_eager", fullgraph=True, dynamic=False)


def test_it_moves_once_a_critic_step_from_that_steps_outputs() -> None:
    step, expected = Step(build(config())), torch.zeros(())
    for _ in range(3):
        for ahead in range(2):
            step.train_critic([step.critic_draws(ahead)])
            assert step.last.real is not None
            assert step.last.fake is not None
            expected = expected + 0.5 * (step.last.real.square().mean() / 2 + step.last.fake.square().mean() / 2 - 1)
        step.count(2)
    assert torch.equal(state(step)["objective_state.multiplier"], expected)
    assert torch.equal(state(step)["enforcer_state.strength"], torch.tensor([6.0, 7.0]))


def test_the_loss_is_that_of_the_state_before_it_moves() -> None:
    step = run(1)
    before = state(step)
    multiplier, strength = before["objective_state.multiplier"].clone(), before["enforcer_state.strength"].clone()
    assert step.parts.critic is not None
    size = sum(p.detach().square().sum() for p in step.parts.critic.parameters())
    step.train_critic([step.critic_draws()])
    real, fake, loss, penalty = step.last.real, step.last.fake, step.last.critic_loss, step.last.penalty
    assert real is not None
    assert fake is not None
    excess = real.square().mean() / 2 + fake.square().mean() / 2 - 1
    torch.testing.assert_close(loss, fake.mean() - real.mean() + multiplier * excess)
    torch.testing.assert_close(penalty, 0.01 * strength[0] * size)


def test_two_runs_of_one_configuration_share_nothing() -> None:
    shared = config()
    one, other = Step(build(shared)), Step(build(shared))
    one.run()
    assert float(state(other)["objective_state.multiplier"]) == 0
    other.run()
    assert all(torch.equal(value, state(other)[name]) for name, value in state(one).items())


def test_it_moves_alike_in_a_compiled_step(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(ways, "compiled", aot)
    assert_close(run(), run(compile=True))
    assert not list(recwarn)


def test_every_replicate_has_its_own() -> None:
    seeds = range(3)
    check_vectorised(Step(build(config())))
    vector = VectorStep([Step(build(config(seed=seed))) for seed in seeds])
    for _ in range(STEPS):
        vector.run()
    vector.show()
    assert not vector.diverged
    for seed in seeds:
        assert_close(run(seed=seed), vector.runs[seed])
    multipliers = {float(state(step)["objective_state.multiplier"]) for step in vector.runs}
    assert len(multipliers) == len(seeds)


def test_one_that_is_not_finite_stops_the_run() -> None:
    step = run()
    step.check_finite()
    step.parts.objective_state.multiplier.fill_(float("inf"))
    with pytest.raises(DivergedError, match="the multiplier that multiplied keeps is not finite at step 4"):
        step.check_finite()


def test_other_state_than_was_declared_names_the_plugin() -> None:
    with pytest.raises(
        PluginError, match=r"forgetful declared the state \{'multiplier': \(\)\}, and after a step returns \{\}"
    ):
        run(1, objective=Forgetful())
