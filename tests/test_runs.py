"""Runs: resumed to the bit for every pair, reproduced from their configuration, and never lost or mixed up."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch import Tensor, nn

import ipmgan
from ipmgan import (
    CheckpointError,
    CriticKind,
    DataError,
    DivergedError,
    Network,
    Objective,
    Quantity,
    Trainer,
)
from ipmgan.config import configure, presets
from ipmgan.data import Resident, Sampler, SampleSpec
from ipmgan.engine import checkpoint
from ipmgan.engine.checkpoint import Snapshot
from ipmgan.engine.feed import Feed
from ipmgan.engine.rundir import RunDir
from ipmgan.engine.state import capture
from ipmgan.engine.streams import Streams
from ipmgan.errors import PluginError, UsageError
from ipmgan.hookspecs import hookimpl
from ipmgan.networks import MLP
from ipmgan.registry import registry
from ipmgan.settings import WAYS, Optimizer, optimizers

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "source": "digits",
    "generator": "mlp:width=16,depth=1",
    "latent": "normal:dim=4",
    "batch": 16,
    "n_critic": 2,
    "steps": 4,
    "device": "cpu",
    "workers": 0,
    "log_every": 1,
    "sample_every": 1000,
    "held_out_batches": 1,
    "metrics": ["sliced-wasserstein:directions=4"],
}
CLIPPED = TINY | {"objective": "wgan", "lipschitz": "clip"}
GAN = TINY | {"objective": "nonsaturating", "lipschitz": "none"}
RATES = ("steps_per_second", "samples_per_second")


def state(trainer: Trainer) -> Snapshot:
    return capture(trainer._parts, trainer._step)


def assert_same(a: Snapshot, b: Snapshot) -> None:
    """Equal to the bit: networks, average, optimisers, counters."""
    assert a.tensors.keys() == b.tensors.keys()
    different = [key for key in a.tensors if not torch.equal(a.tensors[key], b.tensors[key])]
    assert not different
    assert (a.step, a.scalars) == (b.step, b.scalars)


def lines(path: Path, *, without: Sequence[str] = RATES) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in without} for line in ipmgan.load(path).metrics]


def trained(path: Path, *, stop_at: int | None = None, **settings: Any) -> Trainer:
    trainer = Trainer(out=path, **settings)
    return go_on(trainer, stop_at)


def go_on(trainer: Trainer, stop_at: int | None = None) -> Trainer:
    for _ in trainer:
        if trainer.step == stop_at:
            trainer.stop()
    return trainer


def assert_resumes(
    tmp_path: Path, *, at: int | None = None, more: dict[str, Any] | None = None, **settings: Any
) -> None:
    """A run that was stopped half-way and resumed equals one that was not, to the bit, metrics included."""
    whole = trained(tmp_path / "whole", **settings)
    half = trained(tmp_path / "half", stop_at=at or settings["steps"] // 2, **settings | (more or {}))
    assert half.step < whole.step
    resumed = go_on(Trainer.resume(tmp_path / "half"))
    assert resumed.finished
    assert_same(state(whole), state(resumed))
    assert lines(tmp_path / "whole") == lines(tmp_path / "half")
    assert len(lines(tmp_path / "whole")) == settings["steps"]


@attrs.frozen(kw_only=True)
class Drifting(Objective):
    """A gap of means whose weight drifts from step to step: state that a run must not forget."""

    name = "drifting"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="none")

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        weight = 0.9 * state["weight"]
        return weight * self.critic_loss(real, fake), {"weight": weight}

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()

    def state(self) -> dict[str, Tensor]:
        return {"weight": torch.ones(())}


@attrs.frozen(kw_only=True)
class Exploding(Drifting):
    """Not finite once the weight has drifted far enough."""

    name = "exploding"

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, state = super().critic_loss_and_state(real, fake, state)
        return loss / (state["weight"] > 0.9**4.5).float(), state


class Odd(nn.Module):
    """Tied weights, a frozen one, one never used, and dropout, which draws from the global generator."""

    def __init__(self, inputs: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, inputs), nn.Linear(inputs, inputs)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.ones(inputs), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.last = nn.Linear(inputs, math.prod(shape))
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.second(self.first(x).relu()) * self.frozen, 0.3, self.training)
        return self.last(hidden).view(-1, *self.shape)


@attrs.frozen(kw_only=True)
class OddNetwork(Network):
    name = "odd"

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        return Odd(latent, sample.shape)


class Offered:
    @hookimpl
    def ipmgan_objectives(self) -> list[type[Objective]]:
        return [Drifting, Exploding]

    @hookimpl
    def ipmgan_networks(self) -> list[type[Network]]:
        return [OddNetwork]


@pytest.fixture(autouse=True, scope="module")
def digits_once() -> Iterator[None]:
    """Reading the digits takes longer than training on them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sklearn.datasets, "load_digits", functools.cache(sklearn.datasets.load_digits))
        yield


@attrs.frozen(eq=False)
class Point:
    """An entry point of a distribution that is not really installed."""

    dist: Any
    name: str = "all"

    def load(self) -> Offered:
        return Offered()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str | None], None]]:
    """Puts a version of a distribution with the plugins above in place; None takes it away."""

    def put(version: str | None) -> None:
        point = Point(dist=SimpleNamespace(name="others", version=version))
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [point] if version else [])
        monkeypatch.delenv("IPMGAN_PLUGINS", raising=False)
        registry.cache_clear()

    yield put
    monkeypatch.undo()
    registry.cache_clear()


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """A folder of 40 grey pictures that streams."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return f"folder:root={folder},size=8,channels=1,memory=0"


# Resuming


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"batch": 500, "steps": 6}, id="across epochs"),
        pytest.param({"average": 0.9}, id="average"),
        pytest.param({"generator": "mlp:width=16,depth=1,norm=batch", "average": 0.9}, id="batch norm"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"source": "ring8"}, id="a law"),
        pytest.param({"critic_warmup": True, "batch": 4}, id="warm-up"),
        pytest.param({"latent": "uniform:dim=3"}, id="uniform"),
        pytest.param({"sample_every": 2, "checkpoint_every": 1, "keep": 1}, id="pictures"),
        pytest.param(
            {
                "generator_optimizer": {
                    "name": "SGD", "lr": 0.1, "momentum": 0.9,
                    "milestones": [{"step": 1, "lr": 0.01}, {"step": 3, "momentum": 0.5}],
                }
            },
            id="milestones",
        ),
    ],
)  # fmt: skip
def test_whatever_else_is_chosen_resumes_to_the_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    assert_resumes(tmp_path, **GAN | more)


@pytest.mark.parametrize("name", optimizers())
def test_every_optimiser_resumes_to_the_bit(tmp_path: Path, name: str) -> None:
    chosen = {"generator_optimizer": f"{name}:lr=0.01", "critic_optimizer": f"{name}:lr=0.01"}
    if name == "Muon":
        with pytest.raises(UsageError, match="Muon refuses"):
            Trainer(out=tmp_path, **GAN | chosen)
        return
    assert_resumes(tmp_path, **GAN | chosen)


@pytest.mark.parametrize(
    ("name", "before", "after"), [("Adam", {}, {"fused": True}), ("RMSprop", {"foreach": True}, {})]
)
def test_a_run_goes_on_by_the_way_of_stepping_that_is_quickest_where_it_is(
    tmp_path: Path, name: str, before: dict[str, bool], after: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run moves to another device."""
    chosen = {"generator_optimizer": f"{name}:lr=0.01,eps=1e-4", "critic_optimizer": f"{name}:lr=0.01,eps=1e-4"}
    whole = trained(tmp_path / "whole", **GAN | chosen)
    monkeypatch.setattr("ipmgan.settings.quickest", lambda *_: before)
    trained(tmp_path / "half", stop_at=2, **GAN | chosen)
    monkeypatch.setattr("ipmgan.settings.quickest", lambda *_: after)
    resumed = Trainer.resume(tmp_path / "half")
    (group,) = resumed._parts.generator_optimizer.param_groups
    assert {way: group.get(way) or None for way in WAYS} == dict.fromkeys(WAYS) | after
    one, other = state(whole), state(go_on(resumed))
    torch.testing.assert_close(one.tensors, other.tensors, rtol=1e-4, atol=1e-5)
    assert one.step == other.step


def test_a_convolutional_pair_with_batch_norm_resumes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (64, 1, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    networks = {"generator": "dcgan:nf=4", "critic": "dcgan:nf=4,norm=batch", "average": 0.5, "batch": 8}
    assert_resumes(tmp_path, **GAN | networks | {"source": f"tensor:path={tmp_path / 'images.npy'}"})


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_stream_resumes_with_another_number_of_loaders(tmp_path: Path, pictures: str) -> None:
    settings = GAN | {"source": pictures, "batch": 16}
    assert_resumes(tmp_path, more={"workers": 2}, **settings)


def test_ten_random_interruptions_leave_no_trace(tmp_path: Path) -> None:
    draw = random.Random(0)
    settings = CLIPPED | {"steps": 20, "log_every": 3, "checkpoint_every": 4, "average": 0.9}
    whole = trained(tmp_path / "whole", **settings)
    broken = trained(tmp_path / "broken", stop_at=1, **settings)
    for _ in range(10):
        broken = Trainer.resume(tmp_path / "broken")
        ahead = draw.randrange(1, 6)
        for _ in itertools.islice(broken, ahead):
            pass
        if broken.finished:
            break
    else:
        broken = go_on(Trainer.resume(tmp_path / "broken"))
    assert broken.finished
    assert_same(state(whole), state(broken))
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")


def test_state_tied_weights_and_dropout_of_others_resume(tmp_path: Path, install: Callable[[str | None], None]) -> None:
    install("1.0")
    settings = TINY | {"objective": "drifting", "generator": "odd", "critic": "mlp:width=16,depth=1"}
    assert_resumes(tmp_path, **settings)
    weight = state(Trainer.resume(tmp_path / "half")).tensors["objective_state.weight"]
    assert weight == pytest.approx(0.9**8, rel=1e-6)


def test_a_finished_run_goes_on_elsewhere(tmp_path: Path) -> None:
    settings = GAN | {"average": 0.9}
    whole = trained(tmp_path / "whole", **settings | {"steps": 8})
    trained(tmp_path / "first", **settings)
    shutil.copytree(tmp_path / "first", tmp_path / "elsewhere" / "copy")
    shutil.rmtree(tmp_path / "first")
    shutil.rmtree(tmp_path / "elsewhere" / "copy" / "samples")
    moved = go_on(Trainer.resume(tmp_path / "elsewhere" / "copy", steps=8))
    assert_same(state(whole), state(moved))
    extra = (*RATES, "sliced-wasserstein")
    assert lines(tmp_path / "whole", without=extra) == lines(tmp_path / "elsewhere" / "copy", without=extra)
    assert RunDir(tmp_path / "elsewhere" / "copy").config().schedule.steps == 8
    with pytest.raises(UsageError, match="is at step 8 already"):
        Trainer.resume(tmp_path / "elsewhere" / "copy", steps=7)


def test_a_finished_run_that_is_resumed_is_left_alone(tmp_path: Path) -> None:
    whole = trained(tmp_path / "run", **CLIPPED)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = go_on(Trainer.resume(tmp_path / "run"))
    assert_same(state(whole), state(again))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# Configuration


def test_the_saved_configuration_reproduces_the_run(tmp_path: Path) -> None:
    settings = GAN | {"lipschitz": "sphere:radius=2.0", "average": 0.9, "critic_optimizer": "Adam:lr=1e-3", "seed": 7}
    first = trained(tmp_path / "first", **settings)
    second = trained(tmp_path / "second", config=tmp_path / "first" / "config.toml")
    assert_same(state(first), state(second))
    assert lines(tmp_path / "first") == lines(tmp_path / "second")
    other = trained(tmp_path / "other", config=tmp_path / "first" / "config.toml", seed=8)
    assert not torch.equal(state(first).tensors["generator.0.weight"], state(other).tensors["generator.0.weight"])


@pytest.mark.parametrize("name", presets())
def test_every_preset_round_trips(tmp_path: Path, name: str) -> None:
    config = configure(preset=name)
    (tmp_path / "config.toml").write_text(config.toml())
    assert configure(config=tmp_path / "config.toml") == config


def test_objects_resume_as_they_were_whatever_the_defaults_say(tmp_path: Path) -> None:
    config = attrs.evolve(
        configure(**GAN), critic_optimizer=Optimizer(name="Adam", lr=1e-3), critic=MLP(width=8, depth=1)
    )
    assert configure(**GAN).critic_optimizer.options
    trained(tmp_path / "run", config=config)
    resumed = Trainer.resume(tmp_path / "run")
    assert resumed.config == config
    assert resumed._parts.critic_optimizer is not None
    assert resumed._parts.critic_optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_plugin_that_no_resumed_run_would_find_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no objective 'drifting'"):
        Trainer(attrs.evolve(configure(**GAN), objective=Drifting()), out=tmp_path / "run")

    @attrs.frozen(kw_only=True)
    class Impostor(ipmgan.WGAN.__mro__[1]):  # type: ignore[misc]
        name = "wgan"
        critic = CriticKind.SCORE
        estimates = Quantity(name="gap", unit="none")
        critic_loss = generator_loss = estimate = Drifting.estimate

    with pytest.raises(PluginError, match=r"is WGAN of ipmgan, not .*Impostor"):
        Trainer(attrs.evolve(configure(**GAN), objective=Impostor()), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What must not change between two parts of a run


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    file = tmp_path / "run" / "config.toml"
    text = file.read_text()
    file.write_text(text.replace("batch = 16", "batch = 32").replace("log_every = 1", "log_every = 2"))
    with pytest.raises(CheckpointError, match=r"other settings \(batch: 16 -> 32\)"):
        Trainer.resume(tmp_path / "run")
    file.write_text(text.replace("log_every = 1\n", "log_every = 2\n"))
    assert Trainer.resume(tmp_path / "run").config.schedule.log_every == 2


def test_other_data_is_refused(tmp_path: Path, pictures: str) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(100, 3)))
    for number, source in enumerate([f"tensor:path={tmp_path / 'rows.npy'}", pictures]):
        run = tmp_path / f"run{number}"
        trained(run, stop_at=2, **CLIPPED | {"source": source})
        Trainer.resume(run)
    np.save(tmp_path / "rows.npy", np.random.default_rng(1).normal(size=(100, 3)))
    for path in (tmp_path / "pictures").glob("*.png"):
        Image.new("L", (8, 8), 7).save(path)
    for number in range(2):
        with pytest.raises(CheckpointError, match="training data is not what"):
            Trainer.resume(tmp_path / f"run{number}")


def test_another_law_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED | {"source": "ring8"})
    file = tmp_path / "run" / "config.toml"
    file.write_text(file.read_text().replace("radius = 2.0", "radius = 2.5"))
    with pytest.raises(CheckpointError, match="training data is not what"):
        Trainer.resume(tmp_path / "run")


def test_a_plugin_missing_or_of_another_version_is_refused(
    tmp_path: Path, install: Callable[[str | None], None]
) -> None:
    install("1.0")
    trained(tmp_path / "run", stop_at=2, **TINY | {"objective": "drifting"})
    install("1.1")
    with pytest.raises(CheckpointError, match=r"saved with others 1\.0, here 1\.1"):
        Trainer.resume(tmp_path / "run")
    install(None)
    with pytest.raises(CheckpointError, match=r"no objective 'drifting'(.|\n)*others 1\.0, which is not installed"):
        Trainer.resume(tmp_path / "run")
    install("1.0")
    assert go_on(Trainer.resume(tmp_path / "run")).finished


def test_another_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9" if name == "torch" else real(name))
    with pytest.warns(UserWarning, match=r"differ in the last bits: saved with torch .*, here 9\.9"):
        assert Trainer.resume(tmp_path / "run").step == 2


def test_damage_goes_back_to_the_checkpoint_before_and_ends_the_same(tmp_path: Path) -> None:
    settings = CLIPPED | {"steps": 6, "checkpoint_every": 2}
    whole = trained(tmp_path / "run", **settings)
    before = lines(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "000000006" / "state.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="going back to step 4"):
        resumed = Trainer.resume(tmp_path / "run")
    assert_same(state(whole), state(go_on(resumed)))
    assert lines(tmp_path / "run") == before
    for path in (tmp_path / "run" / "checkpoints").glob("*/state.json"):
        path.unlink()
    with pytest.raises(CheckpointError, match="no valid checkpoint is left"):
        Trainer.resume(tmp_path / "run")
    with pytest.raises(CheckpointError, match="no valid checkpoint is left"):
        ipmgan.load(tmp_path / "run").sample(1)


# The run directory


def test_a_second_trainer_is_refused_and_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    holding = (
        "import sys, time; from ipmgan.engine.rundir import RunDir\n"
        "with RunDir(sys.argv[1]).locked(): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holding, str(tmp_path / "run")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="trained by another process"):
            Trainer.resume(tmp_path / "run")
        other.kill()
    trainer = Trainer.resume(tmp_path / "run")
    with RunDir(tmp_path / "run").locked(), pytest.raises(CheckpointError, match="trained by another process"):
        trainer.train()
    assert go_on(trainer).finished


def test_a_trainer_that_others_have_overtaken_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    late = Trainer.resume(tmp_path / "run")
    go_on(Trainer.resume(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="gone on beyond step 2"):
        late.train()
    assert Trainer.resume(tmp_path / "run").finished


def test_runs_of_the_same_second_get_directories_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = configure(**CLIPPED)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: RunDir.create(config).path, range(16)))
    assert len(set(made)) == 16
    assert sorted(path.name for path in made) == sorted(path.name for path in (tmp_path / "runs").iterdir())


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        Trainer(out=tmp_path, **CLIPPED)
    with pytest.raises(UsageError, match="not empty"):
        Trainer(out=tmp_path / "note", **CLIPPED)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    with pytest.raises(CheckpointError, match="is not a run"):
        Trainer.resume(tmp_path)


def read_only(*arguments: Any, **options: Any) -> None:
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize(("where", "name"), [(os, "open"), (Path, "open"), (Path, "replace"), (Path, "mkdir")])
def test_a_read_only_run_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    trainer = Trainer.resume(tmp_path / "run")
    with monkeypatch.context() as patch:
        if name == "open" and where is Path:
            plain = Path.open
            patch.setattr(
                Path, name, lambda self, mode="r", **more: (plain if "r" in mode else read_only)(self, mode, **more)
            )
        else:
            patch.setattr(where, name, read_only)
        with pytest.raises(CheckpointError, match="Read-only"):
            trainer.train() if name != "replace" else Trainer.resume(tmp_path / "run")
        with pytest.raises(CheckpointError, match="Read-only"):
            RunDir.create(trainer.config, tmp_path / "new")


# Metrics


def test_what_a_line_of_metrics_says(tmp_path: Path) -> None:
    trained(tmp_path / "run", **CLIPPED)
    found = ipmgan.load(tmp_path / "run").metrics
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    assert [line["critic_steps"] for line in found] == [2, 4, 6, 8]
    names = {"estimate", "held_out_estimate", "critic_loss", "generator_loss", "critic_gradient_norm"}
    names |= {"generator_gradient_norm", "lipschitz_bound", *RATES}
    assert all(names <= line.keys() and all(math.isfinite(line[name]) for name in names) for line in found)
    assert all(line["estimate"] == -line["critic_loss"] != line["held_out_estimate"] for line in found)
    assert "sliced-wasserstein" in found[-1]


def test_lines_beyond_the_checkpoint_and_torn_ones_are_dropped(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", **CLIPPED)
    trained(tmp_path / "run", stop_at=2, **CLIPPED)
    file = tmp_path / "run" / "metrics.jsonl"
    (tmp_path / "run" / "samples" / "000000003.png").write_bytes(b"")
    with file.open("ab") as out:
        out.write(b'\x00\xff\n[1]\n{"a": 1}\n{"step": 3, "estimate": 1.0}\n{"step": 4, "estim')
    assert [line["step"] for line in ipmgan.load(tmp_path / "run").metrics] == [1, 2, 3]
    resumed = Trainer.resume(tmp_path / "run")
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    assert not (tmp_path / "run" / "samples" / "000000003.png").exists()
    assert_same(state(whole), state(go_on(resumed)))
    assert lines(tmp_path / "whole") == lines(tmp_path / "run")


def test_measuring_moves_nothing(tmp_path: Path, install: Callable[[str | None], None]) -> None:
    install("1.0")
    batch_norm = {"generator": "mlp:width=16,depth=1,norm=batch", "average": 0.9}
    for name, settings in {
        "norm": GAN | batch_norm,
        "dropout": GAN | {"generator": "odd", "critic": "mlp:width=8"},
    }.items():
        often = trained(tmp_path / f"{name}-often", **settings | {"sample_every": 1, "checkpoint_every": 1})
        never = trained(tmp_path / f"{name}-never", **settings | {"log_every": 1000})
        seldom = state(never).tensors
        assert all(torch.equal(value, seldom[key]) for key, value in state(often).tensors.items())


def test_a_run_neither_heeds_nor_disturbs_global_generators(
    tmp_path: Path, install: Callable[[str | None], None]
) -> None:
    install("1.0")
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        trainer = trained(tmp_path / str(seed), **GAN | {"generator": "odd", "critic": "mlp:width=8", "average": 0.5})
        states.append(state(Trainer.resume(tmp_path / str(seed))))
        ipmgan.load(tmp_path / str(seed)).sample(3)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
        assert before[2] == np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        assert_same(states[-1], state(trainer))
    assert_same(*states)


# Stopping, diverging, sampling


def test_stop_saves_and_the_same_trainer_can_go_on(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", **CLIPPED)
    trainer = trained(tmp_path / "run", stop_at=3, **CLIPPED)
    assert trainer.step == 3
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [3]
    trainer.train()
    assert_same(state(whole), state(trainer))


def test_three_lines_train_and_three_load(tmp_path: Path) -> None:
    run = ipmgan.train(**CLIPPED, out=tmp_path / "run")
    assert run.path == tmp_path / "run"
    again = ipmgan.load(tmp_path / "run")
    assert torch.equal(again.sample(5), run.sample(5))
    assert again.sample(5).shape == (5, 1, 8, 8)
    assert not torch.equal(again.sample(5), again.sample(5, seed=1))
    assert ipmgan.resume(tmp_path / "run", steps=5).metrics[-1]["step"] == 5


def test_samples_come_from_the_average_unless_asked_otherwise(tmp_path: Path) -> None:
    trainer = trained(tmp_path / "run", **GAN | {"average": 0.9, "generator": "mlp:width=16,depth=1,norm=batch"})
    run = ipmgan.load(tmp_path / "run")
    assert trainer._parts.average is not None
    for average, module in ((True, trainer._parts.average.module), (False, trainer._parts.generator)):
        latents = run.config.latent.draw(4, Streams(2, CPU).at("sample", 0))
        with torch.no_grad():
            assert torch.equal(run.sample(4, seed=2, average=average, device="cpu"), module.eval()(latents))
    assert not torch.equal(run.sample(4), run.sample(4, average=False))


@pytest.mark.parametrize("how", ["objective", "rate"])
def test_a_diverged_run_keeps_its_last_finite_checkpoint(
    tmp_path: Path, install: Callable[[str | None], None], how: str
) -> None:
    install("1.0")
    settings = TINY | {"objective": "exploding", "checkpoint_every": 1, "n_critic": 1, "steps": 20}
    if how == "rate":
        rates = {"name": "SGD", "lr": 1e-3, "milestones": [{"step": 3, "lr": 1e38}]}
        settings |= {"objective": "wgan", "lipschitz": "none", "generator_optimizer": rates, "critic_optimizer": rates}
        settings |= {"objective": "nonsaturating", "generator": "mlp:width=16,depth=1,output=identity", "steps": 20}
    with pytest.raises(DivergedError, match="not finite at step") as caught:
        trained(tmp_path / "run", **settings)
    assert caught.value.exit_code == 5
    last = checkpoint.load_latest(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert 3 <= last.step <= 6
    assert all(value.isfinite().all() for value in last.tensors.values())
    with pytest.raises(DivergedError):
        Trainer.resume(tmp_path / "run").train()


# Feeds


def feed(samples: Any, batch: int, seed: int = 0) -> Feed:
    return Feed(samples, batch, Streams(seed, CPU), "train")


def test_an_epoch_has_each_sample_once_and_batches_do_not_depend_on_history() -> None:
    numbered = Resident(samples=torch.arange(50.0)[:, None])
    straight = feed(numbered, 8)
    batches = [straight.batch(number) for number in range(25)]
    flat = torch.cat(batches).flatten()
    for epoch in range(4):
        assert torch.equal(flat[50 * epoch : 50 * (epoch + 1)].sort().values, torch.arange(50.0))
    assert not torch.equal(flat[:50], flat[50:100])
    jumping = feed(numbered, 8)
    for number in random.Random(0).sample(range(25), 25):
        assert torch.equal(jumping.batch(number), batches[number])
    assert not torch.equal(feed(numbered, 8, seed=1).batch(0), batches[0])


def test_laws_are_drawn_afresh_for_every_batch() -> None:
    normal = Sampler(draw=lambda count, generator: torch.randn(count, 2, generator=generator))
    straight, again = feed(normal, 4), feed(normal, 4)
    first, second = straight.batch(0), straight.batch(1)
    assert not torch.equal(first, second)
    assert torch.equal(again.batch(1), second)
    assert torch.equal(again.batch(0), first)


def test_every_critic_step_has_a_fresh_batch_and_fresh_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(out=tmp_path / "run", **CLIPPED | {"n_critic": 5})
    asked, given = [], []
    plain, critic = Feed.batch, trainer._parts.critic
    monkeypatch.setattr(Feed, "batch", lambda self, number: asked.append((self._stream, number)) or plain(self, number))
    assert critic is not None
    critic.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].detach().clone()))
    trainer._step.run()
    trainer._step.run()
    assert asked == [("train", number) for number in range(10)]
    assert len(given) == 22
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(given, 2))


def test_too_little_data_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((20, 3)))
    settings = CLIPPED | {"source": f"tensor:path={tmp_path / 'rows.npy'}"}
    with pytest.raises(DataError, match="18 samples, fewer than one batch of 19") as caught:
        Trainer(out=tmp_path / "run", **settings | {"batch": 19})
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run").exists()
    trainer = trained(tmp_path / "run", **settings | {"batch": 18})
    assert len(trainer._parts.held_out.batch(0)) == 2
    assert all(line["held_out_estimate"] is not None for line in lines(tmp_path / "run"))
    np.save(tmp_path / "rows.npy", np.zeros((11, 3)))
    with pytest.raises(DataError, match="1 held-out samples are too few"):
        Trainer(out=tmp_path / "few", **settings | {"objective": "mmd", "lipschitz": "none", "batch": 4})


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_loader_process_cannot_read_is_told_in_one_line(tmp_path: Path, pictures: str) -> None:
    settings = {key: value for key, value in CLIPPED.items() if key != "workers"} | {"source": pictures}
    trainers = [Trainer(out=tmp_path / f"run{workers}", **settings, workers=workers) for workers in (0, 1)]
    for path in sorted((tmp_path / "pictures").glob("0*.png")):
        path.write_bytes(b"no picture")
    for trainer in trainers:
        with pytest.raises(DataError, match=r"the train split could not be read: cannot read the image .*0\d\.png"):
            trainer.train()


@contextlib.contextmanager
def streaming(tmp_path: Path, pictures: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A run with two loader processes in a process group of its own, past its first line of metrics."""
    config = tmp_path / "run.toml"
    config.write_text(configure(**CLIPPED | {"source": pictures, "steps": 1_000_000, "workers": 2}).toml())
    command = [sys.executable, "-c", "from ipmgan.cli.app import main; main()", "train"]
    with subprocess.Popen(
        [*command, f"--config={config}", f"--out={out}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step "):
            assert process.poll() is None
        yield process


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the loader processes through /proc")
def test_a_loader_process_that_is_killed_is_an_error(tmp_path: Path, pictures: str) -> None:
    with streaming(tmp_path, pictures, tmp_path / "run") as process:
        children = [path.read_text().split() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
        os.kill(max(int(child) for some in children for child in some), signal.SIGKILL)
        assert process.stdout is not None
        rest = process.stdout.read()
        assert process.wait() == 3, rest
    assert "Traceback" not in rest
    assert re.search(r"error: .*(loader process died|could not be read)", rest), rest


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_signal_to_the_whole_group_saves_and_says_so(tmp_path: Path, pictures: str, times: int) -> None:
    for number in range(times):
        out = tmp_path / f"run{number}"
        with streaming(tmp_path, pictures, out) as process:
            os.killpg(process.pid, signal.SIGTERM)
            assert process.stdout is not None
            rest = process.stdout.read()
            assert process.wait() == 143, rest
        assert Trainer.resume(out).step > 0
