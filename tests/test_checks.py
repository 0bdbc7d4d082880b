"""What is checked before the first step: which parts go together, and what is said about those that do not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig, configure
from ipmgan.data import SampleSpec
from ipmgan.engine.build import build, choose_device, make_networks
from ipmgan.engine.checks import check
from ipmgan.engine.plan import plan
from ipmgan.engine.step import Step
from ipmgan.errors import PairingError, PluginError, UsageError
from ipmgan.networks import Network
from ipmgan.objectives import CriticKind

SMALL = "mlp:width=8,depth=1"
CODED = "autoencoder:hidden=8,code=2,with_code=true"


def settings(objective: str, lipschitz: str = "none", **more: Any) -> RunConfig:
    common = {"source": "ring8", "generator": SMALL, "device": "cpu", "batch": 4}
    return configure(objective=objective, lipschitz=lipschitz, **{**common, **more})


def train(config: RunConfig) -> Step:
    check(config)
    step = Step(build(config))
    for _ in range(3):
        step.run()
    step.check_finite()
    return step


# --- every pair ------------------------------------------------------------------------------------------------------

TRAINS = None
MEANINGLESS = "wgan means nothing over all functions"
NOTHING_TO_HOLD = "mmd without one has nothing to constrain"
NOT_SCALAR = "gp needs one number a sample"
MATRIX: dict[tuple[str, str | None], dict[str, str | None]] = {
    ("wgan", None): {"none": MEANINGLESS, "clip": TRAINS, "sphere": TRAINS, "gp": TRAINS},
    ("minimax", None): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": TRAINS},
    ("nonsaturating", None): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": TRAINS},
    ("ebgan", None): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": TRAINS},
    ("ebgan", SMALL): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": TRAINS},
    ("ebgan:pulling_away=0.1", CODED): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": "gp needs one number"},
    ("mmd", None): {"none": TRAINS, "clip": NOTHING_TO_HOLD, "sphere": NOTHING_TO_HOLD, "gp": NOTHING_TO_HOLD},
    ("mmd", SMALL): {"none": TRAINS, "clip": TRAINS, "sphere": TRAINS, "gp": NOT_SCALAR},
}
CELLS = [(*row, enforcer, says) for row, cells in MATRIX.items() for enforcer, says in cells.items()]


@pytest.mark.parametrize(("objective", "critic", "enforcer", "refusal"), CELLS)
def test_every_pair_trains_or_says_why_not(
    objective: str, critic: str | None, enforcer: str, refusal: str | None
) -> None:
    config = settings(objective, enforcer, critic=critic)
    if refusal is None:
        assert train(config).steps == 3
        return
    with pytest.raises(PairingError, match=refusal) as caught:
        check(config)
    assert caught.value.exit_code == 2
    assert "--" in str(caught.value)


def test_the_matrix_covers_what_is_built_in() -> None:
    from ipmgan import lipschitz, objectives

    assert {objective.split(":")[0] for objective, _ in MATRIX} == {kind.name for kind in objectives.BUILTIN}
    assert all(set(cells) == {kind.name for kind in lipschitz.BUILTIN} for cells in MATRIX.values())


# --- each rule, with reason and remedy -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reason", "remedy"),
    [
        (lambda: settings("mmd", "clip"), "nothing to constrain", "--lipschitz none"),
        (lambda: settings("mmd", "gp"), "nothing to constrain", "--critic"),
        (lambda: settings("wgan"), "must be kept Lipschitz", "--lipschitz clip or --lipschitz gp"),
        (lambda: settings("wgan", "gp", critic="mlp:norm=batch"), "mixes the samples of a batch", "norm=layer"),
        (lambda: settings("minimax", "gp", critic="mlp:norm=batch"), "mixes the samples of a batch", "norm=none"),
        (
            lambda: settings("wgan", "gp", source="mnist", critic="dcgan:nf=4,norm=batch"),
            "mixes the samples of a batch",
            "norm=layer",
        ),
        (lambda: settings("ebgan", critic="mlp:output=identity"), "puts out a energy", "--critic"),
        (lambda: settings("ebgan", critic="mlp:output=tanh"), "ebgan needs a critic", "change its options"),
        (lambda: settings("minimax", critic="mlp:output=sigmoid"), "minimax needs a critic", "change its options"),
        (lambda: settings("ebgan:pulling_away=0.1"), "compares the codes", "put out its code"),
        (lambda: settings("ebgan:pulling_away=0.1", critic=SMALL), "compares the codes", "switch the term off"),
        (lambda: settings("mmd", "gp", critic=SMALL), "one number a sample", "--lipschitz clip"),
        (lambda: settings("ebgan", "gp", critic=CODED), "one number a sample", "another enforcer"),
        (lambda: settings("wgan", "clip", critic="autoencoder"), "autoencoder, as configured, puts out", "--critic"),
        (lambda: settings("mmd", critic="autoencoder"), "mmd needs a critic that puts out a features", "--critic"),
        (lambda: settings("wgan", "clip", n_critic=0), "n_critic = 0", "--n-critic 1 or more"),
        (lambda: settings("mmd", batch=1), "batch = 1: mmd needs batches", "at least 2"),
        (lambda: settings("ebgan", batch=1), "batch = 1: ebgan needs batches", "at least 2"),
        (lambda: settings("wgan", "clip", batch=1, generator="mlp:norm=batch"), "batch norm needs", "raise --batch"),
        (lambda: settings("wgan", "clip", batch=1, critic="mlp:norm=batch"), "batch norm needs", "norm=none"),
        (lambda: settings("wgan", "clip", generator="autoencoder", critic=SMALL), "no generator", "--generator"),
        (lambda: settings("wgan", "clip", generator="dcgan", critic=SMALL), "for square images", "take mlp"),
    ],
)
def test_a_refusal_gives_reason_and_remedy(config: Any, reason: str, remedy: str) -> None:
    with pytest.raises(PairingError) as caught:
        check(config())
    assert reason in str(caught.value)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 2


def test_what_is_no_obstacle_is_let_through() -> None:
    """The neighbours of the rules above."""
    for config in (
        settings("wgan", "gp", critic="mlp:norm=layer"),
        settings("wgan", "gp", source="mnist", critic="dcgan:nf=4", generator="dcgan:nf=4"),
        settings("wgan", "clip", critic="mlp:norm=batch"),
        settings("wgan", "gp", generator="mlp:norm=batch", critic=SMALL),
        settings("wgan", "clip", batch=1),
        settings("mmd", batch=2),
        settings("ebgan", critic=CODED),
        settings("ebgan", critic="mlp:output=sigmoid"),
    ):
        check(config)


def test_momentum_under_a_projection_is_a_warning() -> None:
    for enforcer in ("clip", "sphere"):
        (warning,) = check(settings("wgan", enforcer, critic_optimizer="Adam:lr=1e-4"))
        assert "momentum 0.9" in warning
        assert enforcer in warning
        assert "--critic-optimizer RMSprop" in warning
        assert check(settings("wgan", enforcer)) == []
        assert check(settings("wgan", enforcer, critic_optimizer="Adam:lr=1e-4,betas=[0,0.9]")) == []
        assert check(settings("wgan", enforcer, generator_optimizer="Adam:lr=1e-4")) == []
        assert len(check(settings("wgan", enforcer, critic_optimizer="SGD:lr=1e-4,momentum=0.5"))) == 1
    assert check(settings("wgan", "gp", critic_optimizer="Adam:lr=1e-4")) == []
    assert check(settings("mmd", critic_optimizer="Adam:lr=1e-4")) == []


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta", "cpu:1", "", "cuda:-1"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"device"):
        choose_device(name)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


# --- networks of others ----------------------------------------------------------------------------------------------


class Once(torch.autograd.Function):
    """The identity, whose gradient cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.clone()


class Layer(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@attrs.frozen(kw_only=True)
class Foreign(Network):
    """Any function behind a linear layer, as generator and critic."""

    name = "foreign"
    function: Any
    outputs: int = 1
    inner: Any = torch.relu
    norm: bool = False

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        return frozenset(CriticKind)

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        return nn.Sequential(nn.Linear(latent, self.outputs), Layer(self.function))

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        norm = [nn.BatchNorm1d(2)] * self.norm
        first = (nn.Linear(2, 2), *norm, Layer(self.inner))
        return nn.Sequential(*first, nn.Linear(2, self.outputs), Layer(self.function))


def flat(x: Tensor) -> Tensor:
    return x.flatten()


@pytest.mark.parametrize(
    ("outputs", "function", "says"),
    [
        (1, lambda x: x, r"the critic foreign puts out \(2, 1\) for N = 2; must be \(N,\)"),
        (1, lambda x: x.mean(), r"puts out \(\) for N = 2"),
        (2, lambda x: x, r"puts out \(2, 2\)"),
        (2, lambda x: x.flatten(), r"puts out \(4,\)"),
        (1, lambda x: (x,), "puts out a tuple, not a tensor"),
        (1, lambda x: x @ x, "the network foreign fails on an input of shape"),
    ],
)
def test_a_critic_of_the_wrong_shape_is_named(outputs: int, function: Any, says: str) -> None:
    config = attrs.evolve(settings("wgan", "clip"), critic=Foreign(function=function, outputs=outputs))
    with pytest.raises(PluginError, match=says):
        check(config)


@pytest.mark.parametrize(
    ("outputs", "function"), [(3, lambda x: x), (2, lambda x: x[0]), (2, lambda x: x[:1]), (4, lambda x: x.view(-1, 2))]
)
def test_a_generator_of_the_wrong_shape_is_named(outputs: int, function: Any) -> None:
    config = attrs.evolve(settings("wgan", "clip"), generator=Foreign(function=function, outputs=outputs))
    with pytest.raises(PluginError, match=r"the generator foreign makes .* of 2 latents, but 2 samples are \(2, 2\)"):
        check(config)
    check(attrs.evolve(config, generator=Foreign(function=torch.tanh, outputs=2)))


def test_batch_norm_in_a_foreign_critic_is_found_under_a_penalty() -> None:
    config = attrs.evolve(settings("wgan", "gp"), critic=Foreign(function=flat, norm=True))
    with pytest.raises(PairingError, match=r"depends on that sample alone, and foreign has batch norm \(1\): choose"):
        check(config)
    check(attrs.evolve(config, critic=Foreign(function=flat)))


def test_a_critic_that_cannot_be_differentiated_twice_is_refused_before_the_first_step() -> None:
    critic = Foreign(function=flat, inner=Once.apply)
    config = attrs.evolve(settings("wgan", "gp"), critic=critic)
    check(config)
    with pytest.raises(PairingError, match="gp differentiates the critic twice, and foreign cannot be"):
        build(config)
    train(attrs.evolve(settings("wgan", "clip"), critic=critic))
    train(attrs.evolve(config, critic=Foreign(function=flat, inner=torch.tanh)))


def test_a_penalty_that_reaches_no_weight_is_refused() -> None:
    class Stop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square().sum(1) + 0 * x.detach().sum(1)

    @attrs.frozen(kw_only=True)
    class Idle(Foreign):
        def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
            net = Stop()
            net.idle = nn.Parameter(torch.zeros(()))
            return net

    with pytest.raises(PairingError, match="its gradient depends on none of its weights"):
        build(attrs.evolve(settings("wgan", "gp"), critic=Idle(function=flat)))


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_counts_and_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "__init__", None)
    before = torch.get_rng_state()
    made = plan(settings("wgan", "clip", batch=64, critic_optimizer="Adam:lr=1e-4", average=0.9))
    assert torch.equal(torch.get_rng_state(), before)
    assert made.generator_parameters == (2 * 8 + 8) + (8 * 2 + 2)
    assert made.critic_parameters == (2 * 8 + 8) + (8 + 1)
    assert len(made.warnings) == 1
    assert made.device == "cpu"
    total = 4 * (made.generator_parameters + made.critic_parameters)
    assert made.memory["weights and gradients"] == 2 * total
    assert made.memory["optimiser state"] == 4 * (made.generator_parameters + 2 * made.critic_parameters)
    assert made.memory["averaged generator"] == 4 * made.generator_parameters
    assert made.total_memory == sum(made.memory.values())
    assert made.table()["config"] == made.config.table()


def test_the_plan_of_a_run_without_a_critic() -> None:
    made = plan(settings("mmd", source="digits"))
    assert made.critic_parameters == 0
    assert made.memory["averaged generator"] == 0
    assert made.memory["data"] == 1438 * 64 * 4
    assert made.warnings == ()


def test_the_plan_of_the_paper_counts_what_the_paper_has() -> None:
    config = configure(objective="wgan", lipschitz="clip", source="lsun", generator="dcgan", device="cpu")
    generator, critic = make_networks(config)
    assert sum(p.numel() for p in generator.parameters()) == 3_576_704
    assert critic is not None
    assert {p.device.type for p in [*generator.parameters(), *critic.parameters()]} == {"meta"}


def test_a_plan_refuses_what_a_run_would() -> None:
    with pytest.raises(PairingError, match="must be kept Lipschitz"):
        plan(settings("wgan"))
