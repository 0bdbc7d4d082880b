"""Replicates: several seeds by one vectorised step are the runs that each seed alone gives."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import ipmgan
from ipmgan.cli.app import main
from ipmgan.config import RunConfig, configure
from ipmgan.data import SampleSpec
from ipmgan.engine import checkpoint, ways
from ipmgan.engine.build import build
from ipmgan.engine.checks import check
from ipmgan.engine.draws import Draws, StackedDraws
from ipmgan.engine.loop import Trainer
from ipmgan.engine.replicates import Replicates, summary
from ipmgan.engine.state import capture
from ipmgan.engine.step import Step
from ipmgan.engine.vector import ELEMENTWISE, VectorStep, check_vectorised
from ipmgan.errors import CheckpointError, DivergedError, PairingError, UsageError
from ipmgan.networks import Network
from ipmgan.objectives import CriticKind, Objective
from ipmgan.plugin import Quantity
from ipmgan.registry import registry

SEEDS, STEPS, TOLERANCE = (4, 5, 6), 4, 5e-6
"""How far numbers of order 1 may lie apart, by rounding, after four steps."""
CRITICS = {"ebgan": ["autoencoder:hidden=8,code=2"], "mmd": ["none", "mlp:width=8,depth=1,features=3"]}
TINY: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "gp",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=2",
    "latent": "normal:dim=3",
    "device": "cpu",
    "batch": 6,
    "n_critic": 2,
    "seed": SEEDS[0],
    "steps": 6,
    "log_every": 2,
    "sample_every": 4,
    "checkpoint_every": 2,
    "held_out_batches": 1,
    "metrics": ["sliced-wasserstein:directions=4"],
    "compile": "off",
}
STEADY = {"generator_optimizer": "SGD:lr=0.05", "critic_optimizer": "SGD:lr=0.05"}
"""Where gradients vanish but for rounding, as of a bias that the loss does not see, Adam would blow that up."""
SMOOTH = {"generator": "mlp:width=8,depth=1,activation=tanh", "critic": "mlp:width=8,activation=tanh,norm=batch"}
"""Without kinks, across which normalising by batches would carry rounding."""
RATES = ("steps_per_second", "samples_per_second")


def pairs() -> list[dict[str, str]]:
    """Every objective with every enforcer that goes with it, and with each kind of critic."""
    objectives, enforcers = (
        [entry.plugin.name for entry in registry().entries(kind) if entry.distribution == "ipmgan"]
        for kind in ("objective", "lipschitz")
    )
    found = []
    for objective, enforcer in itertools.product(objectives, enforcers):
        for critic in CRITICS.get(objective, ["mlp:width=8,depth=2"]):
            chosen = {"objective": objective, "lipschitz": enforcer, "critic": critic}
            try:
                check(configure(**{**TINY, **chosen}))
            except PairingError:
                continue
            found.append(chosen)
    return found


def configs(**settings: Any) -> list[RunConfig]:
    return [configure(**{**TINY, **settings, "seed": seed}) for seed in SEEDS]


def together(several: Sequence[RunConfig], steps: int = STEPS, *, compile: bool = False) -> list[Step]:
    vector = VectorStep([Step(build(config)) for config in several], compile=compile)
    for _ in range(steps):
        vector.run()
    vector.show()
    assert not vector.diverged
    return vector.runs


def alone(config: RunConfig, steps: int = STEPS) -> Step:
    step = Step(build(config))
    for _ in range(steps):
        step.run()
    return step


def state(step: Step) -> dict[str, Tensor]:
    """Networks, average and optimisers, as a checkpoint has them, with the last losses."""
    seen = {name: value for name, value in attrs.asdict(step.last).items() if value is not None}
    return capture(step.parts, step).tensors | seen


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(
            tensor, other[name], atol=tolerance, rtol=10 * tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def compare(steps: int = STEPS, *, tolerance: float = TOLERANCE, compile: bool = False, **settings: Any) -> None:
    several = configs(**settings)
    found = [state(step) for step in together(several, steps, compile=compile)]
    for config, mine in zip(several, found, strict=True):
        assert_close(mine, state(alone(config, steps)), tolerance)
    assert not torch.allclose(found[0]["generator.0.weight"], found[1]["generator.0.weight"], atol=1e-4)


def lines(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in RATES} for line in ipmgan.load(path).metrics]


def saved(path: Path) -> dict[str, Tensor]:
    folder = path / "checkpoints"
    return load_file(checkpoint.path_of(folder, checkpoint.steps(folder)[-1]) / checkpoint.STATE)


def spoil(monkeypatch: pytest.MonkeyPatch, seeds: Sequence[int], at: int) -> None:
    """From step `at` on, let the latents of these seeds be no numbers, and so everything that comes of them."""
    whole = Draws.latents

    def latents(self: Draws, stream: str, number: int) -> Tensor:
        if isinstance(self, StackedDraws):
            return torch.stack([latents(run, stream, number) for run in self.runs])
        drawn, schedule = whole(self, stream, number), self.parts.config.schedule
        step = number // (schedule.n_critic if stream == "critic-latents" else 1)
        return drawn * math.nan if schedule.seed in seeds and step + 1 >= at else drawn

    monkeypatch.setattr(Draws, "latents", latents)


@pytest.fixture(scope="module", autouse=True)
def pictures_cost_nothing() -> Iterator[None]:
    """Drawing them takes ten times as long as all else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipmgan.engine.loop.draw_samples", lambda path, *_: path.touch())
        yield


@pytest.fixture(scope="module")
def singles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run of each seed alone."""
    folder = tmp_path_factory.mktemp("alone")
    return {seed: ipmgan.train(**{**TINY, "seed": seed}, out=folder / str(seed)).path for seed in SEEDS}


def assert_runs_alike(runs: Path, singles: dict[int, Path], seeds: Sequence[int] = SEEDS) -> None:
    for seed in seeds:
        one, other = runs / f"seed-{seed}", singles[seed]
        assert_close(saved(one), saved(other))
        for mine, its in zip(lines(one), lines(other), strict=True):
            assert mine == {key: pytest.approx(value, rel=1e-4, abs=1e-6) for key, value in its.items()}


# The numbers


@pytest.mark.parametrize("chosen", pairs(), ids=lambda chosen: "-".join(chosen.values()))
def test_every_pair_gives_what_each_seed_alone_gives(chosen: dict[str, str]) -> None:
    check_vectorised(Step(build(configure(**{**TINY, **chosen}))))
    compare(**chosen, **STEADY)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_every_elementwise_optimiser(name: str) -> None:
    chosen = f"{name}:lr=0.01"
    compare(generator_optimizer=chosen, critic_optimizer=chosen)


@pytest.mark.parametrize(
    "settings",
    [
        {"generator": "mlp:width=8,norm=batch", "average": 0.9},
        {"objective": "nonsaturating", "lipschitz": "none", "batch": 16, **SMOOTH, **STEADY},
        {"critic": "mlp:width=8,activation=tanh,norm=layer", "average": 0.9, **STEADY},
        {"generator_optimizer": "RMSprop:lr=1e-3,momentum=0.9,centered=true"},
        {"critic_optimizer": "AdamW:lr=1e-3,amsgrad=true,weight_decay=0.1"},
        {"critic_optimizer": "SGD:lr=0.01,momentum=0.9,nesterov=true"},
        {"latent": "uniform:dim=3", "batch": 5},
    ],
    ids=str,
)
def test_layers_averages_and_settings(settings: dict[str, Any]) -> None:
    compare(**settings, tolerance=2e-5 if "norm=layer" in settings.get("critic", "") else TOLERANCE)


def test_bf16_within_its_rounding() -> None:
    compare(2, tolerance=5e-3, precision="bf16", **STEADY)


def test_a_warm_up_of_the_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipmgan.engine.step.WARMUP_CRITIC_STEPS", 7)
    assert together(configs(lipschitz="clip", critic_warmup=True), 2)[0].critic_steps == 14
    compare(2, lipschitz="clip", critic_warmup=True, **STEADY)


def test_milestones_reach_the_stack() -> None:
    milestones = [{"step": 2, "lr": 0.5}, {"step": 3, "lr": 1e-4}]
    table = {"name": "SGD", "lr": 1e-3, "milestones": milestones}
    compare(generator_optimizer=table, critic_optimizer=table)
    early = together(configs(generator_optimizer=table), 4)[0]
    never = together(configs(generator_optimizer={"name": "SGD", "lr": 1e-3}), 4)[0]
    assert not torch.allclose(state(early)["generator_loss"], state(never)["generator_loss"])


def test_compiled_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    def aot(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        return torch.compile(ways.own_code(function), backend="aot_eager", fullgraph=True, dynamic=False)

    for module in ("ways", "stack", "vector"):
        monkeypatch.setattr(f"ipmgan.engine.{module}.compiled", aot)
    steady = "Adam:lr=1e-3,eps=1e-3"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # A step that falls back is no longer compiled.
        small = {"critic": "mlp:width=8,depth=1", "n_critic": 1}
        compare(2, compile=True, tolerance=2e-5, **small, generator_optimizer=steady, critic_optimizer=steady)


# The runs


def test_each_seed_lies_in_a_run_of_its_own(singles: dict[int, Path], tmp_path: Path) -> None:
    runs = ipmgan.train(**TINY, replicates=3, out=tmp_path / "runs")
    assert [run.path.name for run in runs] == ["seed-4", "seed-5", "seed-6"]
    assert [run.config.schedule.seed for run in runs] == list(SEEDS)
    assert_runs_alike(tmp_path / "runs", singles)
    for seed, run in zip(SEEDS, runs, strict=True):
        assert [p.name for p in sorted((run.path / "samples").iterdir())] == ["000000004.png", "000000006.png"]
        assert torch.equal(run.sample(5), ipmgan.load(run.path).sample(5))
        assert torch.allclose(run.sample(5), ipmgan.load(singles[seed]).sample(5), atol=1e-5)


def test_a_seed_resumes_alone(tmp_path: Path) -> None:
    runs = ipmgan.train(**TINY, replicates=2, out=tmp_path / "runs")
    again = ipmgan.resume(runs[1].path, steps=9)
    through = ipmgan.train(**{**TINY, "seed": SEEDS[1], "steps": 9}, out=tmp_path / "through")
    assert_close(saved(again.path), saved(through.path))


def test_interrupted_replicates_end_like_uninterrupted_ones(singles: dict[int, Path], tmp_path: Path) -> None:
    trainer = Replicates(**TINY, replicates=3, out=tmp_path / "runs")
    for _ in trainer:
        if trainer.step == 3:
            trainer.stop()
    assert (trainer.step, trainer.finished) == (3, False)
    assert all(checkpoint.steps(tmp_path / "runs" / f"seed-{seed}" / "checkpoints")[-1] == 3 for seed in SEEDS)
    runs = ipmgan.resume(tmp_path / "runs")
    assert [run.path.name for run in runs] == ["seed-4", "seed-5", "seed-6"]
    assert_runs_alike(tmp_path / "runs", singles)
    assert [line["step"] for line in trainer.run_dir.metrics()] == [2, 4, 6]


def test_replicates_go_on_to_a_new_total(singles: dict[int, Path], tmp_path: Path) -> None:
    ipmgan.train(**{**TINY, "steps": 4}, replicates=3, out=tmp_path / "runs")
    (tmp_path / "runs" / "seed-4-of-old").mkdir()  # No seed's own.
    ipmgan.resume(tmp_path / "runs", steps=6)
    for seed in SEEDS:
        assert_close(saved(tmp_path / "runs" / f"seed-{seed}"), saved(singles[seed]))
    with pytest.raises(UsageError, match="--steps must be at least that"):
        ipmgan.resume(tmp_path / "runs", steps=3)


def test_runs_saved_less_far_catch_up(singles: dict[int, Path], tmp_path: Path) -> None:
    trainer = Replicates(**TINY, replicates=3, out=tmp_path / "runs")
    for _ in trainer:
        if trainer.step == 5:
            trainer.stop()
    folder = tmp_path / "runs" / "seed-5" / "checkpoints"
    for step in (5, 4):
        shutil.rmtree(checkpoint.path_of(folder, step))
    resumed = Replicates.resume(tmp_path / "runs")
    assert (resumed.step, [one.step for one in resumed.trainers]) == (2, [5, 2, 5])
    resumed.train()
    assert_runs_alike(tmp_path / "runs", singles)


def test_means_of_steps_that_are_lost_are_made_again(tmp_path: Path) -> None:
    trainer = Replicates(**TINY, replicates=2, out=tmp_path / "runs")
    trainer.train()
    first = trainer.run_dir.metrics()
    for seed in SEEDS[:2]:
        for step in (4, 6):
            shutil.rmtree(checkpoint.path_of(tmp_path / "runs" / f"seed-{seed}" / "checkpoints", step))
    ipmgan.resume(tmp_path / "runs")
    again = trainer.run_dir.metrics()
    assert [line["step"] for line in again] == [2, 4, 6]
    assert [line["held_out_estimate"] for line in again] == pytest.approx(
        [line["held_out_estimate"] for line in first], rel=1e-4, abs=1e-6
    )
    assert not (tmp_path / "runs" / "samples").exists()


def test_data_is_opened_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, whole = [], ipmgan.Ring8.open

    def counting(self: ipmgan.Ring8, split: Any) -> Any:
        opened.append(split)
        return whole(self, split)

    monkeypatch.setattr(ipmgan.Ring8, "open", counting)
    trainer = Replicates(**TINY, replicates=3, out=tmp_path / "runs")
    trainer.train()
    assert opened == ["train", "held-out"]
    opened.clear()
    Replicates.resume(tmp_path / "runs")
    assert opened == ["train", "held-out"]


def test_means_spreads_and_the_worst(tmp_path: Path) -> None:
    runs = ipmgan.train(**TINY, replicates=3, out=tmp_path / "runs")
    found = [json.loads(line) for line in (tmp_path / "runs" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [2, 4, 6]
    for number, line in enumerate(found):
        each = [run.metrics[number] for run in runs]
        names = each[0].keys() - {"step", "critic_steps", *RATES}
        assert {"held_out_estimate", "critic_loss", "penalty"} <= names
        assert line["sd"].keys() == line["worst"].keys() == names
        assert line["diverged"] == []
        for name in names:
            values = np.array([one[name] for one in each])
            assert line[name] == pytest.approx(values.mean(), rel=1e-9)
            assert line["sd"][name] == pytest.approx(values.std(ddof=1), rel=1e-6)
            assert line["worst"][name] == {"seed": SEEDS[values.argmax()], "value": values.max()}
    assert "sliced-wasserstein" in found[-1]["worst"]


def test_what_is_no_number_counts_for_nothing() -> None:
    line = summary({1: {"step": 1, "a": 2.0, "b": None}, 2: {"step": 1, "a": math.inf, "b": None}})
    assert line == {"step": 1, "a": 2.0, "sd": {"a": 0.0}, "worst": {"a": {"seed": 1, "value": 2.0}}}


# Divergence


@pytest.mark.parametrize(("at", "seed"), [(1, 4), (3, 5)])
def test_a_run_that_diverges_is_given_up(
    at: int, seed: int, singles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, [seed], at)
    trainer = Replicates(**TINY, replicates=3, out=tmp_path / "runs")
    trainer.train()
    assert trainer.finished
    assert list(trainer.diverged) == [seed]
    assert f"is not finite at step {at}" in str(trainer.diverged[seed])
    assert_runs_alike(tmp_path / "runs", singles, [other for other in SEEDS if other != seed])
    assert checkpoint.steps(tmp_path / "runs" / f"seed-{seed}" / "checkpoints") == [2][: at // 2]
    assert [line["diverged"] for line in trainer.run_dir.metrics()] == [[seed] if at <= n else [] for n in (2, 4, 6)]


def test_a_run_that_diverged_goes_on_from_its_checkpoint(
    singles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        spoil(patch, [5], 3)
        Replicates(**TINY, replicates=3, out=tmp_path / "runs").train()
    resumed = Replicates.resume(tmp_path / "runs")
    resumed.train()
    assert not resumed.diverged
    assert_runs_alike(tmp_path / "runs", singles)


def test_the_first_run_diverges_again_and_moves_nobody(
    singles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimiser has done fewer steps than those of the others, which go by theirs."""
    spoil(monkeypatch, [4], 3)
    Replicates(**{**TINY, "steps": 4}, replicates=3, out=tmp_path / "runs").train()
    resumed = Replicates.resume(tmp_path / "runs", steps=6)
    resumed.train()
    assert list(resumed.diverged) == [4]
    assert [checkpoint.steps(one.run_dir.checkpoints)[-1] for one in resumed.trainers] == [2, 6, 6]
    for seed in (5, 6):
        assert_close(saved(tmp_path / "runs" / f"seed-{seed}"), saved(singles[seed]))


def test_a_stopped_run_with_bad_weights_is_given_up_alone(tmp_path: Path) -> None:
    trainer = Replicates(**TINY, replicates=3, out=tmp_path / "runs")
    for _ in trainer:
        if trainer.step == 3:
            with torch.no_grad():
                next(trainer.trainers[0]._parts.generator.parameters()).fill_(math.nan)
            trainer.stop()
    assert list(trainer.diverged) == [4]
    assert [checkpoint.steps(one.run_dir.checkpoints)[-1] for one in trainer.trainers] == [2, 3, 3]


@pytest.mark.parametrize("at", [1, 3])
def test_that_all_diverge_is_an_error(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, [4, 5], at)
    with pytest.raises(DivergedError, match=f"is not finite at step {at}"):
        ipmgan.train(**TINY, replicates=2, out=tmp_path / "runs")


# Refusals


class Dropping(nn.Module):
    """Draws from torch's global generator."""

    def __init__(self, latent: int, sample: SampleSpec) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(latent, 8), nn.Dropout(0.5), nn.Linear(8, math.prod(sample.shape)))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z)
        return out


@attrs.frozen(kw_only=True)
class DroppingNetwork(Network):
    name = "dropping"

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        return Dropping(latent, sample)


@attrs.frozen(kw_only=True)
class Gap(Objective):
    """The gap of means."""

    name = "gap"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="none")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()


@attrs.frozen(kw_only=True)
class Declared(Gap):
    """Says that it is not for stacks of weights."""

    name = "declared"
    vectorises = False


@attrs.frozen(kw_only=True)
class Reading(Gap):
    """Reads a number back, which no vectorised computation can."""

    name = "reading"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake.mean() - real.mean()) * (2 if fake.mean().item() > 0 else 1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"generator": DroppingNetwork()}, r"the generator step of wgan with gp cannot be vectorised: .*random"),
        ({"objective": Reading()}, r"the critic step of reading with gp cannot be vectorised: "),
        ({"objective": Declared()}, "declared cannot be vectorised, as it says: train the seeds one by one"),
        ({"critic_optimizer": "Adafactor:lr=1e-3"}, "Adafactor looks at whole weights: replicates need one of .*Adam"),
        ({"generator_optimizer": "Adafactor:lr=1e-3"}, "Adafactor looks at whole weights"),
        ({"lipschitz": "none"}, "its critic must be kept Lipschitz"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_be_vectorised_says_so(
    settings: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipmgan.engine.replicates.versions", lambda plugins: {})
    named = {key: value for key, value in settings.items() if isinstance(value, str)}
    config = attrs.evolve(configure(**{**TINY, **named}), **{k: v for k, v in settings.items() if k not in named})
    with pytest.raises(PairingError, match=reason) as caught:
        Replicates(config, replicates=2, out=tmp_path / "runs")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("count", [0, 1, -2])
def test_so_few_are_no_replicates(count: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"replicates = {count}: must be at least 2"):
        Replicates(**TINY, replicates=count, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_is_not_registered_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = attrs.evolve(configure(**TINY), objective=Gap())
    with pytest.raises(UsageError, match="no objective 'gap'"):
        Replicates(config, replicates=2, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_taken_directory_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").touch()
    monkeypatch.setattr(ipmgan.Ring8, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(UsageError, match="exists and is not empty"):
        Replicates(**TINY, replicates=2, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_no_replicates_to_resume(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no replicates"):
        Replicates.resume(tmp_path)
    with pytest.raises(CheckpointError, match="is not a run"):
        ipmgan.resume(tmp_path)


# The library and the command line


def test_a_trainer_of_several_is_replicates(tmp_path: Path) -> None:
    assert isinstance(Trainer(**TINY, replicates=2, out=tmp_path / "two"), ipmgan.Replicates)
    assert isinstance(Trainer(**TINY, replicates=1, out=tmp_path / "one"), Trainer)
    with pytest.raises(UsageError, match="replicates = 0"):
        Trainer(**TINY, replicates=0, out=tmp_path / "none")


def test_train_gives_a_list_where_replicates_are_asked_for(tmp_path: Path) -> None:
    short = {**TINY, "steps": 1}
    assert isinstance(ipmgan.train(**short, out=tmp_path / "run"), ipmgan.Run)
    assert [run.path for run in ipmgan.train(**short, replicates=1, out=tmp_path / "one")] == [tmp_path / "one"]
    assert len(ipmgan.train(**short, replicates=2, out=tmp_path / "two")) == 2


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    networks = ["--generator", "mlp:width=8,depth=1", "--critic", "mlp:width=8,depth=1"]
    small = ["--batch", "6", "--device", "cpu", "--log-every", "2", "--steps", "4", "--seed", "3"]
    chosen = ["--objective", "wgan", "--lipschitz", "clip", "--source", "ring8", *networks, *small]
    out = call("train", *chosen, "--replicates", "2", "--out", "runs")
    assert "4 steps of 2 seeds, run directory runs" in out
    assert "step 2/4" in out
    last = json.loads(Path("runs/metrics.jsonl").read_text().splitlines()[-1])
    worst = last["worst"]["held_out_estimate"]
    assert (
        f"held_out_estimate mean {last['held_out_estimate']:.4g}, standard deviation "
        f"{last['sd']['held_out_estimate']:.4g}, worst {worst['value']:.4g} (seed {worst['seed']})"
    ) in out
    assert "sliced-wasserstein mean" in out
    assert sorted(path.name for path in Path("runs").iterdir()) == ["metrics.jsonl", "seed-3", "seed-4"]
    assert "from step 4 of 2 seeds" in call("resume", "runs", "--steps", "6")
    assert [ipmgan.load(f"runs/seed-{seed}").metrics[-1]["step"] for seed in (3, 4)] == [6, 6]
    assert len(ipmgan.load("runs/seed-4").sample(7)) == 7
