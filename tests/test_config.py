"""The layers of a run's configuration, the defaults of each pair, and the way to a file and back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import attrs
import pytest

from ipmgan.config import RunConfig, Schedule, configure, load_preset, merge, presets, read_toml, resolve
from ipmgan.data import Ring8
from ipmgan.errors import PairingError, UsageError
from ipmgan.lipschitz import Clip, GradientPenalty, NoEnforcer
from ipmgan.networks import DCGAN, MLP, AutoEncoder
from ipmgan.objectives import EBGAN, WGAN
from ipmgan.registry import registry
from ipmgan.settings import Latent, Optimizer, optimizers

OBJECTIVES = ("wgan", "minimax", "nonsaturating", "ebgan", "mmd")
ENFORCERS = ("none", "clip", "sphere", "gp")
PENALISED = {"name": "Adam", "lr": 1e-4, "betas": [0.0, 0.9]}
PROJECTED = {"name": "RMSprop", "lr": 5e-5}
DCGANS = {"name": "Adam", "lr": 2e-4, "betas": [0.5, 0.999]}


def rates(config: RunConfig) -> tuple[float, float]:
    return config.generator_optimizer.lr, config.critic_optimizer.lr


# --- defaults --------------------------------------------------------------------------------------------------------


def test_wgan_with_clipping_is_algorithm_1() -> None:
    config = configure(objective="wgan", lipschitz="clip")
    assert config.objective == WGAN()
    assert config.lipschitz == Clip(c=0.01)
    assert (config.schedule.batch, config.schedule.n_critic) == (64, 5)
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == PROJECTED
    assert config.critic_optimizer.momentum == 0
    assert not config.schedule.critic_warmup
    assert config.schedule.average == 0


def test_wgan_with_a_penalty_is_its_algorithm() -> None:
    config = configure(objective="wgan", lipschitz="gp")
    assert config.lipschitz == GradientPenalty(weight=10.0, target=1.0, sides="two", points="between")
    assert config.schedule.n_critic == 5
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == PENALISED


@pytest.mark.parametrize("objective", ["minimax", "nonsaturating"])
def test_the_gans_follow_dcgan(objective: str) -> None:
    config = configure(objective=objective)
    assert config.lipschitz == NoEnforcer()
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == DCGANS
    assert (config.schedule.n_critic, config.schedule.batch) == (1, 64)


def test_ebgan_has_its_auto_encoder_and_its_own_optimiser() -> None:
    config = configure(objective="ebgan")
    assert config.objective == EBGAN(margin=10.0, pulling_away=0.0)
    assert config.critic == AutoEncoder()
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == {"name": "Adam", "lr": 1e-3}
    assert config.schedule.n_critic == 1


def test_mmd_goes_without_a_critic_unless_given_one() -> None:
    alone, adversarial = configure(objective="mmd"), configure(objective="mmd", critic="mlp", lipschitz="clip")
    assert (alone.critic, alone.schedule.n_critic) == (None, 0)
    assert (adversarial.critic, adversarial.schedule.n_critic) == (MLP(), 5)


@pytest.mark.parametrize(("objective", "enforcer"), list(itertools.product(OBJECTIVES, ("clip", "sphere", "gp"))))
def test_an_enforcers_optimiser_goes_before_the_objectives(objective: str, enforcer: str) -> None:
    config = configure(objective=objective, lipschitz=enforcer, critic="mlp")
    expected = PENALISED if enforcer == "gp" else PROJECTED
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == expected


# --- layers ----------------------------------------------------------------------------------------------------------


def test_every_layer_gives_way_to_the_next(tmp_path: Path) -> None:
    """Built-in < source < objective < enforcer < preset < file < flags, one boundary at a time."""
    built_in = configure(objective="minimax", source="folder:root=x,size=28,channels=1")
    assert built_in.latent == Latent(dim=100)
    assert built_in.schedule.steps == 10_000
    source = configure(objective="minimax", source="ring8")
    assert source.latent == Latent(dim=2)
    assert source.generator == MLP()
    objective = configure(objective="ebgan", source="ring8")
    assert (objective.critic, rates(objective)) == (AutoEncoder(), (1e-3, 1e-3))
    enforcer = configure(objective="ebgan", source="ring8", lipschitz="gp")
    assert rates(enforcer) == (1e-4, 1e-4)
    preset = configure(preset="wgan-gp-toy")
    assert preset.critic_optimizer.table() == {"name": "Adam", "lr": 1e-4, "betas": [0.5, 0.9], "fused": True}
    assert (preset.schedule.batch, preset.lipschitz) == (256, GradientPenalty(weight=0.1))
    file = tmp_path / "run.toml"
    file.write_text("batch = 32\nseed = 5\n[lipschitz]\nweight = 2\n[critic_optimizer]\nlr = 3e-4\n")
    mixed = configure(preset="wgan-gp-toy", config=file)
    assert (mixed.schedule.batch, mixed.schedule.n_critic, mixed.schedule.seed) == (32, 5, 5)
    assert mixed.lipschitz == GradientPenalty(weight=2.0)
    assert mixed.critic_optimizer.table() == {"name": "Adam", "lr": 3e-4, "betas": [0.5, 0.9], "fused": True}
    assert mixed.generator_optimizer == preset.generator_optimizer
    flagged = configure(preset="wgan-gp-toy", config=file, batch=16, lipschitz="gp:weight=7", seed=None)
    assert (flagged.schedule.batch, flagged.schedule.seed) == (16, 5)
    assert flagged.lipschitz == GradientPenalty(weight=7.0)


def test_another_objective_brings_its_own_defaults_under_the_same_flags() -> None:
    flags = {"source": "ring8", "batch": 32, "generator_optimizer": ":lr=1e-2"}
    first, second = (configure(objective=name, **flags) for name in ("ebgan", "nonsaturating"))
    assert (first.critic, second.critic) == (AutoEncoder(), MLP())
    assert first.generator_optimizer.table() == {"name": "Adam", "lr": 1e-2}
    assert second.generator_optimizer.table() == {"name": "Adam", "lr": 1e-2, "betas": [0.5, 0.999]}


def test_a_table_of_another_name_replaces_and_one_of_the_same_name_is_merged() -> None:
    below = {"lipschitz": {"name": "gp", "weight": 3}, "batch": 4}
    assert merge(below, {"lipschitz": {"name": "gp", "target": 0}})["lipschitz"] == {
        "name": "gp",
        "weight": 3,
        "target": 0,
    }
    assert merge(below, {"lipschitz": {"weight": 5}})["lipschitz"] == {"name": "gp", "weight": 5}
    assert merge(below, {"lipschitz": {"name": "clip"}}) == {"lipschitz": {"name": "clip"}, "batch": 4}
    assert below == {"lipschitz": {"name": "gp", "weight": 3}, "batch": 4}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_lr_flag_reaches_both_optimisers(objective: str) -> None:
    config = configure(objective=objective, lipschitz="clip", critic="mlp", lr=7e-4)
    assert rates(config) == (7e-4, 7e-4)
    assert config.critic_optimizer.name == "RMSprop"
    split = configure(objective=objective, lipschitz="clip", critic="mlp", lr=7e-4, critic_optimizer="SGD:lr=0.1")
    assert rates(split) == (7e-4, 0.1)
    over_preset = configure(preset="wgan-gp-toy", lr=7e-4)
    assert rates(over_preset) == (7e-4, 7e-4)
    assert over_preset.critic_optimizer.table()["betas"] == [0.5, 0.9]


def test_capitals_do_not_change_what_an_optimiser_inherits() -> None:
    one, other = (configure(objective="minimax", critic_optimizer=f"{name}:lr=1e-3") for name in ("adam", "ADAM"))
    assert one == other == configure(objective="minimax", critic_optimizer="Adam:lr=1e-3")
    assert one.critic_optimizer.table() == {"name": "Adam", "lr": 1e-3, "betas": [0.5, 0.999]}


def test_the_critic_is_of_the_generators_family_where_that_has_one() -> None:
    assert configure(objective="wgan", lipschitz="clip", source="mnist", generator="dcgan:nf=8").critic == DCGAN(nf=8)
    apart = configure(objective="wgan", lipschitz="clip", source="mnist", generator="mlp", critic="dcgan")
    assert (apart.generator, apart.critic) == (MLP(), DCGAN())
    with pytest.raises(PairingError, match="choose one with --critic"):
        configure(objective="wgan", lipschitz="clip", generator="mlp", critic="none")
    with pytest.raises(PairingError, match="mlp has none: choose one with --critic"):
        configure(objective="minimax", generator="mlp:output=tanh")


def test_objects_tables_and_words_say_the_same() -> None:
    words = configure(objective="wgan", lipschitz="clip:c=0.02", source="ring8", latent="normal:dim=2", metrics=[])
    objects = configure(
        objective=WGAN(),
        lipschitz=Clip(c=0.02),
        source=Ring8(),
        latent=Latent(dim=2),
        critic_optimizer=Optimizer(name="RMSprop", lr=5e-5),
        metrics=(),
    )
    tables = configure(
        objective={"name": "wgan"},
        lipschitz={"name": "clip", "c": 0.02},
        source={"name": "ring8"},
        latent={"dim": 2},
        metrics=[],
    )
    assert words == objects == tables


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -1.0, -1, 0, 0.0, 1e400, 10**400, True, "1e-3", [1e-3]])
def test_a_rate_must_be_a_positive_number(rate: Any) -> None:
    for flags in ({"lr": rate}, {"critic_optimizer": {"name": "SGD", "lr": rate}}):
        with pytest.raises(UsageError, match="lr = ") as caught:
            configure(objective="wgan", lipschitz="clip", **flags)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps = 0: must be at least 1"),
        ({"steps": 1.0}, "steps"),
        ({"steps": "10"}, "steps"),
        ({"steps": True}, "steps"),
        ({"batch": 0}, "batch = 0: must be at least 1"),
        ({"n_critic": -1}, "n_critic = -1: must be at least 0"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"average": 1.0}, "average"),
        ({"average": float("nan")}, "average"),
        ({"precision": "fp16"}, "no precision 'fp16'"),
        ({"critic_warmup": 1}, "critic_warmup"),
        ({"keep": 0}, "keep"),
        ({"latent": "normal:dim=0"}, "dim"),
        ({"latent": "norml:dim=2"}, "did you mean 'normal'"),
        ({"latent": "normal:dims=2"}, "did you mean 'dim'"),
        ({"lipschitz": "clipp"}, "did you mean 'clip'"),
        ({"lipschitz": "clip:d=1"}, "no option of lipschitz clip named 'd'"),
        ({"lipschitz": 3}, "lipschitz = 3: must be name:key=value"),
        ({"lipschitz": {"name": 3}}, "no lipschitz '3'"),
        ({"lipschitz": ["clip"]}, "must be name:key=value"),
        ({"metrics": "sliced-wasserstein"}, "must be a list of metrics"),
        ({"metrics": 3}, "must be a list of metrics"),
        ({"metrics": ["slicd-wasserstein"]}, "did you mean 'sliced-wasserstein'"),
        ({"metrics": [3]}, "metrics"),
        ({"critic_optimizer": "Adm:lr=1"}, "did you mean 'Adam'"),
        ({"critic_optimizer": "LBFGS:lr=1"}, "no optimiser 'LBFGS'"),
        ({"critic_optimizer": "SparseAdam:lr=1"}, "no optimiser 'SparseAdam'"),
        ({"critic_optimizer": "Adam"}, "critic_optimizer Adam needs a learning rate"),
        ({"critic_optimizer": "Adam:lr=1,beta=[0.5,0.9]"}, "did you mean 'betas'"),
        ({"critic_optimizer": "Adam:lr=1,maximize=true"}, "named 'maximize'"),
        ({"critic_optimizer": "Adam:lr=1,params=[]"}, "named 'params'"),
        ({"critic_optimizer": "Adam:lr=1,betas=0.5"}, "betas"),
        ({"critic_optimizer": "Adam:lr=1,betas=[0.5]"}, "betas"),
        ({"critic_optimizer": "Adam:lr=1,betas=[0.5,2.0]"}, "refuses these settings"),
        ({"critic_optimizer": "Adam:lr=1,amsgrad=1"}, "amsgrad"),
        ({"critic_optimizer": "Adam:lr=1,weight_decay=nan"}, "weight_decay"),
        ({"critic_optimizer": "SGD:lr=1,momentum=-1"}, "refuses these settings"),
        ({"critic_optimizer": "SGD:lr=1,milestones=3"}, "a milestone is a table"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{lr=1}]"}, "a milestone is a table"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{step=true,lr=1}]"}, "a milestone is a table"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{step=2,lr=1},{step=2,lr=2}]"}, "a milestone is a table"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{step=2,lr=0}]"}, "lr = 0"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{step=2,momentun=0.5}]"}, "did you mean 'momentum'"),
        ({"critic_optimizer": "SGD:lr=1,milestones=[{step=2,momentum=-0.5}]"}, "from step 2"),
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"lipshitz": "gp"}, "did you mean 'lipschitz'"),
        ({"preset": "wgan-papr"}, "did you mean 'wgan-paper'"),
        ({"critic": {}}, "needs a name"),
        ({"critic": "none:width=3"}, "none"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(**{"objective": "wgan", "lipschitz": "clip", **settings})
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 2


def test_a_run_needs_an_objective() -> None:
    with pytest.raises(UsageError, match=r"choose an objective: --objective, one of .*ebgan, "):
        configure()
    with pytest.raises(UsageError, match="did you mean 'objective'"):
        configure(objectiv="wgan")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('objective = "wgan"\nlipschitz = "clip"\nbtach = 3\n', "did you mean 'batch'"),
        ('objective = "wgan"\n[lipschitz]\nname = "clip"\nd = 3\n', "named 'd'"),
        ('objective = "wgan"\nlipschitz = "clip"\n[critic_optimizer]\nname = "Adam"\nlr = 1\nbeta = 1\n', "'betas'"),
        ('objective = "wgan"\nlipschitz = "clip"\n[latent]\ndimm = 3\n', "did you mean 'dim'"),
        ('objective = "wgan"\nlipschitz = "clip"\n[schedule]\nsteps = 3\n', "no setting of a run named 'schedule'"),
        ('objective = "wgan"\nlipschitz = "clip"\n[batch]\nsize = 3\n', "batch"),
        ('objective = "wgan"\nlipschitz = "clip"\nbatch = 2024-01-01\n', "batch"),
        ("objective = wgan\n", "not TOML"),
        ("x = " + "9" * 5000, "not TOML"),
        ("x = " + "[" * 5000, "not TOML"),
        ("\udcff", "cannot be read"),
    ],
)
def test_a_file_is_read_whole_or_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "run.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as caught:
        configure(config=file)
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            configure(config=path)


# --- there and back --------------------------------------------------------------------------------------------------


def through_a_file(config: RunConfig, folder: Path) -> RunConfig:
    file = folder / "config.toml"
    file.write_text(config.toml())
    assert resolve(config.table()) == config
    return resolve(read_toml(file))


@pytest.mark.parametrize(("objective", "enforcer"), list(itertools.product(OBJECTIVES, ENFORCERS)))
@pytest.mark.parametrize("critic", [None, "mlp:width=[8,4],features=3"])
def test_every_pair_comes_back_from_its_file(tmp_path: Path, objective: str, enforcer: str, critic: str | None) -> None:
    for source in ("digits", "ring8"):
        config = configure(objective=objective, lipschitz=enforcer, critic=critic, source=source, average=0.5, seed=9)
        assert through_a_file(config, tmp_path) == config


@pytest.mark.parametrize("name", presets())
def test_every_preset_comes_back_from_its_file(tmp_path: Path, name: str) -> None:
    config = configure(preset=name)
    assert through_a_file(config, tmp_path) == config
    text, table = load_preset(name)
    assert text.startswith("#")
    assert config == resolve(table)


def test_settings_far_from_the_defaults_come_back(tmp_path: Path) -> None:
    config = configure(
        objective="mmd:kernel=rq,widths=[0.1,2],estimator=linear",
        lipschitz="sphere:radius=0.3,shape=ball",
        critic="mlp:width=[3,4]",
        latent="uniform:dim=3",
        metrics=["sliced-wasserstein:directions=8"],
        generator_optimizer="SGD:lr=1,momentum=0.9,milestones=[{step=30,momentum=0.5},{step=20,lr=0.1}]",
        critic_optimizer="AdamW:lr=1e-3,betas=[0,0.9],amsgrad=true",
        **attrs.asdict(Schedule(steps=7, batch=5, n_critic=3, critic_warmup=True, average=0.9, seed=2**62)),
    )
    assert through_a_file(config, tmp_path) == config
    assert [step for step, _ in config.generator_optimizer.milestones] == [20, 30]


def test_a_critic_left_out_stays_out(tmp_path: Path) -> None:
    config = configure(objective="mmd", critic="none", source="ring8")
    assert config.critic is None
    assert config.table()["critic"] == {"name": "none"}
    assert through_a_file(config, tmp_path).critic is None


def test_the_presets_of_the_papers_are_there() -> None:
    wanted = {"wgan-paper", "wgan-gp-toy", "wgan-gp", "dcgan", "gmmn-mnist", "ebgan-mnist"}
    assert wanted <= set(presets())


def test_the_paper_preset_is_the_paper() -> None:
    config = configure(preset="wgan-paper")
    assert (config.objective, config.lipschitz) == (WGAN(), Clip(c=0.01))
    assert (config.schedule.batch, config.schedule.n_critic, config.schedule.critic_warmup) == (64, 5, True)
    assert config.critic_optimizer.table() == config.generator_optimizer.table() == PROJECTED


# --- optimisers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "momentum"),
    [
        ("RMSprop:lr=1", 0),
        ("RMSprop:lr=1,momentum=0.5", 0.5),
        ("SGD:lr=1", 0),
        ("SGD:lr=1,momentum=0.9", 0.9),
        ("Adam:lr=1", 0.9),
        ("Adam:lr=1,betas=[0,0.9]", 0),
        ("NAdam:lr=1,betas=[0.5,0.9]", 0.5),
        ("Muon:lr=1", 0.95),
        ("Muon:lr=1,momentum=0.1", 0.1),
        ("Adagrad:lr=1", 0),
        ("Rprop:lr=1", 0),
    ],
)
def test_momentum_is_what_the_optimiser_keeps(selection: str, momentum: float) -> None:
    config = configure(objective="wgan", lipschitz="clip", critic_optimizer=selection)
    assert config.critic_optimizer.momentum == momentum


def test_every_optimiser_that_a_step_can_drive_can_be_chosen() -> None:
    for name in optimizers():
        made = Optimizer.from_table({"name": name.lower(), "lr": 1e-3}, what="it")
        assert made == Optimizer(name=name, lr=1e-3)
        assert Optimizer.from_table(made.table(), what="it") == made
    assert {"Adam", "AdamW", "RMSprop", "SGD"} <= set(optimizers())
    assert not {"LBFGS", "SparseAdam"} & set(optimizers())


def test_aliases_are_found() -> None:
    assert configure(objective="nsgan") == configure(objective="nonsaturating")
    assert registry().find("objective", "nsgan").plugin is registry().find("objective", "nonsaturating").plugin
