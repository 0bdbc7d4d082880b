"""The library as a program uses it: three lines train, three lines load and sample, and all of it typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ipmgan

TINY: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "clip",
    "generator": "mlp:width=8,depth=1",
    "batch": 16,
    "device": "cpu",
    "steps": 6,
    "log_every": 2,
}

PROGRAM = '''
"""What a user's program may say, and what a type checker must know about it."""

from pathlib import Path

import attrs
import torch

import ipmgan
from ipmgan import MLP, WGAN, Clip, CriticKind, Objective, Optimizer, Quantity, hookimpl, option

run: ipmgan.Run = ipmgan.train(objective="wgan", lipschitz="clip", source="ring8", steps=3, out="typed")
samples: torch.Tensor = ipmgan.load("typed").sample(100, seed=1)
generator: torch.nn.Module = run.generator()
place: Path = run.path
config: ipmgan.RunConfig = ipmgan.configure(objective=WGAN(), lipschitz=Clip(c=0.05), critic=MLP(width=8, depth=1))
optimizer: Optimizer = config.critic_optimizer
parameters: int = ipmgan.plan(config).critic_parameters
trainer = ipmgan.Trainer(config, out=Path("again"))
for record in trainer:
    if record is not None:
        value: float = record["estimate"]
    trainer.stop()
again: ipmgan.Run = ipmgan.resume("again", steps=3)
certificate: ipmgan.Certificate = ipmgan.lipschitz_bound(generator)


@attrs.frozen(kw_only=True)
class Mine(Objective):
    """Mine."""

    name = "mine"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="data units")
    scale: float = option(1.0, help="a factor", above=0)

    def critic_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return self.scale * (fake.mean() - real.mean())

    def generator_loss(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return -fake.mean()

    def estimate(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        return real.mean() - fake.mean()


@hookimpl
def ipmgan_objectives() -> list[type[Objective]]:
    return [Mine]
'''
WRONG = """
import ipmgan

number: int = ipmgan.load("typed").sample(100)
ipmgan.Clip(width=3)
ipmgan.no_such_name
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_three_lines_train() -> None:
    run = ipmgan.train(**TINY, out="run")
    assert run.path == Path("run")
    assert [record["step"] for record in run.metrics] == [2, 4, 6]


def test_three_lines_load_and_sample() -> None:
    ipmgan.train(**TINY, out="run")
    state = torch.random.get_rng_state()
    run = ipmgan.load("run")
    samples = run.sample(1000, seed=1)
    assert (samples.shape, samples.dtype, samples.device.type) == ((1000, 1, 8, 8), torch.float32, "cpu")
    assert torch.isfinite(samples).all()
    assert torch.equal(samples, ipmgan.load("run").sample(1000, seed=1))
    assert not torch.equal(samples, run.sample(1000, seed=2))
    assert torch.equal(samples[:10], run.sample(10, seed=1))
    assert not samples.requires_grad
    assert not run.generator().training
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_directory_is_named_unless_told() -> None:
    assert ipmgan.train(**TINY).path == Path("runs/wgan-clip-digits")
    assert ipmgan.train(**TINY).path == Path("runs/wgan-clip-digits-2")


def test_objects_and_strings_are_the_same_run() -> None:
    texts = ipmgan.configure(
        objective="wgan", lipschitz="clip:c=0.02", source="ring8:std=0.1", critic_optimizer="SGD:lr=0.1"
    )
    objects = ipmgan.configure(
        objective=ipmgan.WGAN(),
        lipschitz=ipmgan.Clip(c=0.02),
        source=ipmgan.Ring8(std=0.1),
        critic_optimizer=ipmgan.Optimizer(name="SGD", lr=0.1),
    )
    assert texts == objects
    assert texts != ipmgan.configure(objective="wgan", lipschitz="clip", source="ring8:std=0.1")


def test_iterating_yields_a_record_where_one_is_due() -> None:
    trainer = ipmgan.Trainer(**TINY, out="run")
    records = list(trainer)
    assert [record and record["step"] for record in records] == [None, 2, None, 4, None, 6]
    assert (trainer.step, trainer.finished) == (6, True)
    assert [record for record in records if record] == ipmgan.load("run").metrics
    assert list(trainer) == []


def test_stop_then_resume_is_one_run() -> None:
    whole = ipmgan.train(**TINY, out="whole")
    trainer = ipmgan.Trainer(**TINY, out="parts")
    for _ in trainer:
        if trainer.step == 3:
            trainer.stop()
    assert trainer.step == 3
    parts = ipmgan.resume("parts")
    assert torch.equal(whole.sample(20), parts.sample(20))


def test_a_config_or_settings_not_both() -> None:
    config = ipmgan.configure(**TINY)
    with pytest.raises(ipmgan.UsageError, match="steps cannot be given beside it"):
        ipmgan.Trainer(config, steps=3)
    with pytest.raises(ipmgan.UsageError, match=r"'stesp'.*did you mean 'steps'"):
        ipmgan.configure(objective="wgan", lipschitz="clip", stesp=3)
    assert not Path("runs").exists()


def test_errors_have_one_parent() -> None:
    for name in ("UsageError", "PairingError", "PluginError", "DataError", "CheckpointError", "DivergedError"):
        assert issubclass(getattr(ipmgan, name), ipmgan.IpmganError)


def test_names_that_do_not_exist_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'ipmgan' has no attribute 'wgan'"):
        _ = ipmgan.wgan  # type: ignore[attr-defined]
    assert {"train", "load", "WGAN", "functional"} <= {*dir(ipmgan), "functional"}
    from ipmgan import functional

    assert functional.js is not None


def check(source: str) -> subprocess.CompletedProcess[str]:
    Path("program.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(Path(__file__).parents[1] / ".mypy_cache")]
    return subprocess.run([*command, "program.py"], capture_output=True, text=True, check=False)


def test_types_are_known_to_a_checker() -> None:
    done = check(PROGRAM)
    assert done.returncode == 0, done.stdout


def test_a_checker_finds_mistakes() -> None:
    done = check(WRONG)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if "error" in line and ":" in line] == [
        "4",
        "5",
        "6",
    ]
