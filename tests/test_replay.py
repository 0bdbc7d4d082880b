"""A recorded step that is replayed does what the step does; on the CPU, with a recorder that calls again."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ipmgan.config import configure
from ipmgan.engine.build import build
from ipmgan.engine.checks import check
from ipmgan.engine.replay import BEFORE, Replay
from ipmgan.engine.state import capture, restore
from ipmgan.engine.step import Step
from ipmgan.engine.vector import VectorStep
from ipmgan.errors import PairingError, UsageError
from ipmgan.registry import registry

SETTINGS = {
    "objective": "wgan",
    "lipschitz": "gp",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1,norm=batch",
    "critic": "mlp:width=8,depth=2",
    "device": "cpu",
    "batch": 6,
    "n_critic": 2,
    "average": 0.9,
    "steps": 20,
    "generator_optimizer": "SGD:lr=0.05,momentum=0.5",
    "critic_optimizer": "SGD:lr=0.05",
}
CRITICS = {"ebgan": ["autoencoder:hidden=8,code=2"], "mmd": ["none", "mlp:width=8,depth=1,features=3"]}
TAKEN = 3 + BEFORE


class Again:
    """Records on the host: the recording calls the function again, which reads the same tensors."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    def aside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            launch()

        return replay


class Unable(Again):
    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def start(**settings: Any) -> Step:
    config = configure(**{**SETTINGS, **settings})
    check(config)
    return Step(build(config))


def advance(run: Callable[[], None], steps: int, step: Step) -> Step:
    for _ in range(steps):
        with step.parts.streams.global_draws("layers", step.steps):
            run()
    return step


def tensors(step: Step) -> dict[str, Tensor]:
    return capture(step.parts, step).tensors


def assert_equal(one: Step, other: Step) -> None:
    assert (one.steps, one.critic_steps) == (other.steps, other.critic_steps)
    mine, theirs = tensors(one), tensors(other)
    assert mine.keys() == theirs.keys()
    assert [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])] == []


def pairs() -> list[tuple[str, str, str]]:
    objectives, enforcers = (
        [entry.plugin.name for entry in registry().entries(kind) if entry.distribution == "ipmgan"]
        for kind in ("objective", "lipschitz")
    )
    return [
        (one, other, critic)
        for one in objectives
        for other in enforcers
        for critic in CRITICS.get(one, ["mlp:width=8,depth=2"])
    ]


@pytest.mark.parametrize(("objective", "lipschitz", "critic"), pairs())
def test_replayed_steps_are_the_steps(objective: str, lipschitz: str, critic: str) -> None:
    settings = {"objective": objective, "lipschitz": lipschitz, "critic": critic}
    try:
        plain, replayed = start(**settings), start(**settings)
    except PairingError as error:
        pytest.skip(f"refused: {error}")
    recorder = Again()
    advance(plain.run, TAKEN, plain)
    advance(Replay(replayed, recorder).run, TAKEN, replayed)
    assert (recorder.recordings, recorder.replays) == (1, 3)
    assert_equal(plain, replayed)
    assert replayed.last.generator_loss is not None
    assert torch.equal(replayed.last.generator_loss, plain.last.generator_loss or torch.empty(0))


def test_a_perturbed_and_a_resumed_run_are_replayed_alike() -> None:
    settings = {"perturbation": "noise:sd=0.5"}
    plain = start(**settings)
    advance(plain.run, 10, plain)
    half = start(**settings)
    advance(Replay(half, Again()).run, 5, half)
    again = start(**settings)
    restore(again.parts, again, capture(half.parts, half))
    advance(Replay(again, Again()).run, 5, again)
    assert_equal(plain, again)


def test_other_critic_steps_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmgan.engine.step.WARMUP_CRITIC_STEPS", 3)
    plain, replayed = start(critic_warmup=True), start(critic_warmup=True)
    recorder = Again()
    advance(plain.run, 27, plain)
    advance(Replay(replayed, recorder).run, 27, replayed)
    assert (recorder.recordings, recorder.replays) == (1, 2)
    assert_equal(plain, replayed)


def test_a_milestone_is_recorded_anew() -> None:
    rates = {"name": "SGD", "lr": 0.05, "milestones": [{"step": BEFORE + 2, "lr": 0.1}]}
    plain, replayed = start(critic_optimizer=rates), start(critic_optimizer=rates)
    recorder = Again()
    advance(plain.run, TAKEN + 2, plain)
    advance(Replay(replayed, recorder).run, TAKEN + 2, replayed)
    assert recorder.recordings == 2
    assert_equal(plain, replayed)


@pytest.mark.parametrize("lipschitz", ["clip", "sphere", "gp"])
def test_replicates_are_replayed_too(lipschitz: str) -> None:
    def several() -> VectorStep:
        return VectorStep([start(lipschitz=lipschitz, seed=seed) for seed in (3, 4)])

    plain, replayed, recorder = several(), several(), Again()
    run = Replay(replayed, recorder).run
    for _ in range(TAKEN):
        plain.run()
        run()
    assert (recorder.recordings, recorder.replays) == (1, 3)
    for vector in (plain, replayed):
        vector.show()
    for one, other in zip(plain.runs, replayed.runs, strict=True):
        assert_equal(one, other)
        assert torch.equal(one.last.generator_loss or torch.empty(0), other.last.generator_loss or torch.empty(1))


def test_inputs_that_a_source_keeps_are_left_alone() -> None:
    step = start()
    kept = torch.zeros(6, 2)
    step.parts.train.batch = lambda number: kept  # type: ignore[method-assign]
    advance(Replay(step, Again()).run, BEFORE + 1, step)
    kept.fill_(7)
    assert float(step.parts.train.batch(0).sum()) == 84
    step.parts.train.batch = lambda number: torch.ones(6, 2)  # type: ignore[method-assign]
    advance(Replay(step, Again()).run, BEFORE + 2, step)
    assert float(kept.sum()) == 84


def test_what_cannot_be_recorded_runs_as_it_is_and_says_so_once() -> None:
    plain, replayed = start(), start()
    advance(plain.run, TAKEN, plain)
    run = Replay(replayed, Unable()).run
    with pytest.warns(
        UserWarning, match="^steps are not replayed: operation not permitted when stream is capturing$"
    ) as told:
        advance(run, TAKEN, replayed)
    assert len(told) == 1
    assert_equal(plain, replayed)


def test_an_optimiser_that_counts_on_the_host_is_not_recorded() -> None:
    step = start(critic_optimizer="Adagrad:lr=0.01")
    with pytest.warns(UserWarning, match="steps are not replayed: torch's Adagrad counts its steps on the host"):
        run = Replay(step, recorder := Again()).run
    advance(run, TAKEN, step)
    assert recorder.recordings == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = start(critic_optimizer="Adam:lr=0.01,fused=false", generator_optimizer="RMSprop:lr=0.01")
        Replay(moved, Again())
    for optimizer in (moved.parts.critic_optimizer, moved.parts.generator_optimizer):
        assert optimizer is not None
        assert optimizer.param_groups[0]["capturable"]


def test_replaying_needs_a_device_that_records() -> None:
    with pytest.raises(UsageError, match="compile = graph needs a CUDA device, and this is cpu: use --compile on"):
        start(compile="graph")
