"""The training step against loops written out by hand, against games whose optimum is known, and against its order."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ipmgan.config import RunConfig, configure
from ipmgan.data.base import Resident, Sampler, SampleSpec, Source, Split
from ipmgan.engine.build import Parts, build
from ipmgan.engine.checks import check
from ipmgan.engine.guard import Guard, Guards
from ipmgan.engine.losses import scalar
from ipmgan.engine.measure import held_out_estimate, measure
from ipmgan.engine.state import capture, restore
from ipmgan.engine.step import Step, update_average
from ipmgan.engine.streams import Streams
from ipmgan.engine.ways import frozen
from ipmgan.errors import DivergedError, IpmganError, PluginError
from ipmgan.lipschitz import LipschitzEnforcer
from ipmgan.networks import Network
from ipmgan.objectives import CriticKind, Objective
from ipmgan.plugin import Quantity
from ipmgan.settings import Optimizer, optimizers

BATCH = 6
PAIRS = [
    ("wgan", "clip", None),
    ("wgan", "sphere", None),
    ("wgan", "gp", None),
    ("minimax", "none", None),
    ("minimax", "clip", None),
    ("nonsaturating", "gp", None),
    ("ebgan", "none", "autoencoder:hidden=8,code=2"),
    ("ebgan", "gp", "mlp:width=8,depth=1"),
    ("mmd", "none", None),
    ("mmd", "none", "mlp:width=8,depth=1,features=3"),
    ("mmd", "sphere", "mlp:width=8,depth=1,features=3"),
]


def settings(objective: str = "wgan", lipschitz: str = "clip", **more: Any) -> RunConfig:
    net = "mlp:width=8,depth=2"
    common = {"source": "ring8", "generator": net, "device": "cpu", "batch": BATCH}
    return configure(objective=objective, lipschitz=lipschitz, **{**common, **more})


def start(config: RunConfig) -> Step:
    check(config)
    return Step(build(config))


def critic_of(step: Step) -> nn.Module:
    assert step.parts.critic is not None
    return step.parts.critic


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def distance(one: nn.Module, other: nn.Module) -> float:
    return float((weights(one) - weights(other)).abs().max())


# --- by hand ---------------------------------------------------------------------------------------------------------


class ByHand:
    """Algorithm 1 of Wasserstein GAN, written out, on the initial weights and the draws of a run; `wrong` bends it."""

    def __init__(self, step: Step, wrong: str = "") -> None:
        parts = step.parts
        self.config, self.wrong = parts.config, wrong
        self.generator, self.critic = copy.deepcopy(parts.generator), copy.deepcopy(critic_of(step))
        self.streams = Streams(parts.config.schedule.seed, torch.device("cpu"))
        law = parts.config.source.open("train")
        assert isinstance(law, Sampler)
        self.draw = law.draw
        self.batches = self.critic_steps = 0

    def real(self) -> Tensor:
        self.batches += 1
        return self.drawn(self.draw, "train", self.batches - 1)

    def fake(self, stream: str, number: int) -> Tensor:
        latents = self.drawn(lambda n, generator: torch.randn(n, 2, generator=generator), stream, number)
        made: Tensor = self.generator(latents)
        return made

    def drawn(self, draw: Any, stream: str, number: int) -> Tensor:
        """Batch `number` of two numbers a sample: blocks hold 65,536 numbers."""
        block, place = divmod(number, 65536 // (2 * BATCH))
        rows: Tensor = draw(65536 // (2 * BATCH) * BATCH, self.streams.at(stream, block))
        return rows[place * BATCH : (place + 1) * BATCH]

    def train(self, steps: int, n_critic: int, game: Any, critic_optimizer: Any, generator_optimizer: Any) -> None:
        for step in range(steps):
            for _ in range(n_critic):
                self.critic_step(game, critic_optimizer)
            number = self.critic_steps - 1 if self.wrong == "critic's latents" else step
            stream = "critic-latents" if self.wrong == "critic's latents" else "generator-latents"
            real = self.real() if game.generator_uses_real else None
            loss = game.generator(self, real, self.fake(stream, number))
            generator_optimizer.zero_grad()
            loss.backward()
            generator_optimizer.step()

    def critic_step(self, game: Any, optimizer: Any) -> None:
        number = self.critic_steps - self.critic_steps % 5 if self.wrong == "same latents" else self.critic_steps
        with torch.no_grad():
            fake = self.fake("critic-latents", number)
        real = self.real()
        loss = game.critic(self, real, fake)
        optimizer.zero_grad()
        loss.backward()
        if self.wrong == "clip before":
            game.project(self.critic)
        optimizer.step()
        if self.wrong not in ("clip before", "no projection"):
            game.project(self.critic)
        self.critic_steps += 1


class Game:
    generator_uses_real = False

    def project(self, critic: nn.Module) -> None:
        pass


class ClippedGame(Game):
    def critic(self, hand: ByHand, real: Tensor, fake: Tensor) -> Tensor:
        return -(hand.critic(real).mean() - hand.critic(fake).mean())

    def generator(self, hand: ByHand, real: Tensor | None, fake: Tensor) -> Tensor:
        return -hand.critic(fake).mean()

    @torch.no_grad()
    def project(self, critic: nn.Module) -> None:
        for p in critic.parameters():
            p.clamp_(-0.01, 0.01)


class PenalisedGame(ClippedGame):
    def critic(self, hand: ByHand, real: Tensor, fake: Tensor) -> Tensor:
        epsilon = torch.rand(BATCH, generator=hand.streams.at("penalty", hand.critic_steps)).unsqueeze(1)
        if hand.wrong == "one epsilon":
            epsilon = epsilon[:1]
        points = (epsilon * real + (1 - epsilon) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(hand.critic(points).sum(), points, create_graph=True)
        penalty = ((slope.square().sum(1).sqrt() - 1) ** 2).mean()
        return super().critic(hand, real, fake) + 10 * penalty

    def project(self, critic: nn.Module) -> None:
        pass


class LogitGame(Game):
    def critic(self, hand: ByHand, real: Tensor, fake: Tensor) -> Tensor:
        bce = nn.functional.binary_cross_entropy_with_logits
        if hand.wrong == "one joint batch":
            on_real, on_fake = hand.critic(torch.cat([real, fake])).chunk(2)
        else:
            on_real, on_fake = hand.critic(real), hand.critic(fake)
        return bce(on_real, torch.ones(BATCH)) + bce(on_fake, torch.zeros(BATCH))

    def generator(self, hand: ByHand, real: Tensor | None, fake: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(hand.critic(fake), torch.ones(BATCH))


class KernelGame(Game):
    generator_uses_real = True

    def mmd(self, hand: ByHand, real: Tensor, fake: Tensor) -> Tensor:
        def kernel(x: Tensor, y: Tensor) -> Tensor:
            squared = (x[:, None] - y[None]).square().sum(2)
            return sum(torch.exp(-squared / (2 * w * w)) for w in (1, 2, 4, 8, 16))  # type: ignore[return-value]

        x, y = hand.critic(real), hand.critic(fake)
        others = 1 - torch.eye(BATCH)
        pairs = BATCH * (BATCH - 1)
        return (kernel(x, x) * others).sum() / pairs + (kernel(y, y) * others).sum() / pairs - 2 * kernel(x, y).mean()

    def critic(self, hand: ByHand, real: Tensor, fake: Tensor) -> Tensor:
        return -self.mmd(hand, real, fake)

    def generator(self, hand: ByHand, real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None
        return self.mmd(hand, real, fake)


def gaps(config: RunConfig, game: Game, optimizer: Callable[[Any], torch.optim.Optimizer], *wrong: str) -> list[float]:
    """How far engine and loop are apart after twenty steps: for the right loop, then for each wrong one."""
    step = start(config)
    hands = [ByHand(step, way) for way in ("", *wrong)]
    before = copy.deepcopy(step.parts.generator)
    for _ in range(20):
        step.run()
    assert distance(step.parts.generator, before) > 1e-4
    found = []
    for hand in hands:
        hand.train(20, config.schedule.n_critic, game, optimizer(hand.critic), optimizer(hand.generator))
        nets = ((critic_of(step), hand.critic), (step.parts.generator, hand.generator))
        found.append(max(itertools.starmap(distance, nets)))
    return found


def test_wgan_with_clipping_is_algorithm_1() -> None:
    config = settings("wgan", "clip")
    wrong = ("same latents", "critic's latents", "clip before", "no projection")
    right, *others = gaps(config, ClippedGame(), lambda net: torch.optim.RMSprop(net.parameters(), lr=5e-5), *wrong)
    assert config.schedule.n_critic == 5
    assert right <= 1e-7
    assert min(others) > 1e-5


def test_wgan_with_a_gradient_penalty_is_its_algorithm() -> None:
    def adam(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.0, 0.9))

    wrong = ("same latents", "critic's latents", "one epsilon")
    right, *others = gaps(settings("wgan", "gp"), PenalisedGame(), adam, *wrong)
    assert right <= 2e-6
    assert min(others) > 1e-4


# Where a loss does not depend on a bias (before a batch norm, or under a kernel of differences), adaptive optimisers
# blow its rounding up to full steps: so these two compare under plain descent.


def descent(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05)


PLAIN = {"generator_optimizer": "SGD:lr=0.05", "critic_optimizer": "SGD:lr=0.05"}


def test_nonsaturating_with_batch_norm_sees_real_and_fake_as_batches_of_their_own() -> None:
    config = settings("nonsaturating", "none", generator="mlp:width=8,depth=2,norm=batch", **PLAIN)
    right, joint = gaps(config, LogitGame(), descent, "one joint batch")
    assert right <= 2e-5
    assert joint > 1e-3


def test_mmd_with_a_critic_draws_a_batch_for_the_generator_too() -> None:
    config = settings("mmd", "none", critic="mlp:width=8,depth=1,features=3", **PLAIN)
    right, same = gaps(config, KernelGame(), descent, "same latents")
    assert right <= 2e-6
    assert same > 1e-3


# --- plugins of the tests --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Recorder(LipschitzEnforcer):
    """Notes when it is called; its penalty is `weight` times the sum of the critic's squared weights."""

    name = "recorder"
    weight: float = 0.0
    log: list[str] = attrs.field(factory=list, eq=False)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor | None:
        self.log.append("penalty")
        if not self.weight:
            return None
        return self.weight * sum((p.square().sum() for p in critic.parameters()), start=torch.zeros(()))

    def after_step(self, critic: nn.Module) -> None:
        assert not torch.is_grad_enabled()
        self.log.append("project")


@attrs.frozen(kw_only=True)
class Tabular(Network):
    """A critic with one free number a point of a finite support, given as one-hot vectors; linear on other samples."""

    name = "tabular"
    start: float = 0.0
    positive: bool = False

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        return frozenset(CriticKind)

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        table = nn.Linear(sample.shape[0], 1, bias=False)
        nn.init.constant_(table.weight, self.start)
        return nn.Sequential(table, *[nn.ReLU()] * self.positive, nn.Flatten(0))


class Rows(nn.Module):
    """Puts out fixed rows, whatever the latents; its parameter has no effect."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows, self.idle = nn.Buffer(rows), nn.Parameter(torch.zeros(()))

    def forward(self, latents: Tensor) -> Tensor:
        return self.rows.repeat(-(-len(latents) // len(self.rows)), 1)[: len(latents)] + 0 * self.idle


@attrs.frozen(kw_only=True)
class Fixed(Network):
    """A generator of fixed rows."""

    name = "fixed"
    rows: tuple[tuple[float, ...], ...]

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        return Rows(torch.tensor(self.rows))


@attrs.frozen(kw_only=True)
class Points(Source):
    """The same rows in every batch of as many; others in the held-out split if given."""

    name = "points"
    rows: tuple[tuple[float, ...], ...]
    held_out: tuple[tuple[float, ...], ...] = ()

    def spec(self) -> SampleSpec:
        return SampleSpec(shape=(len(self.rows[0]),))

    def open(self, split: Split) -> Sampler:
        rows = self.held_out if split == "held-out" and self.held_out else self.rows
        return Sampler(draw=lambda n, generator: torch.tensor(rows).repeat(-(-n // len(rows)), 1)[:n])


P, Q = (5, 3, 2), (1, 4, 5)


def one_hot(counts: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return tuple(tuple(float(label == k) for k in range(len(counts))) for label in labels)


def critic_game(objective: str, lipschitz: str, real: Any, fake: Any, critic: Network, optimizer: Any) -> Step:
    """A run on fixed real and fake rows, so that only the critic learns."""
    config = settings(
        objective,
        lipschitz,
        critic="mlp",
        batch=len(real),
        critic_optimizer=optimizer,
        generator_optimizer="SGD:lr=1e-30",
        n_critic=150,
    )
    return start(attrs.evolve(config, source=Points(rows=real), generator=Fixed(rows=fake), critic=critic))


def estimate(step: Step, runs: int) -> float:
    for _ in range(runs):
        step.run()
    return float(measure(step.parts, step)["estimate"])


# --- games at their optimum ------------------------------------------------------------------------------------------


def test_a_tabular_critic_reaches_the_jensen_shannon_divergence() -> None:
    step = critic_game("minimax", "none", one_hot(P), one_hot(Q), Tabular(), "SGD:lr=4.0")
    assert estimate(step, 3) == pytest.approx(0.1095666253, abs=2e-7)
    logits = weights(critic_of(step)).tolist()
    assert logits == pytest.approx([1.6094379, -0.2876821, -0.9162907], abs=1e-5)
    assert held_out_estimate(step.parts, 0) == pytest.approx(0.1095666253, abs=2e-7)


def test_a_tabular_energy_reaches_the_total_variation() -> None:
    optimizer = {"name": "SGD", "lr": 0.1, "milestones": [{"step": 4, "lr": 5e-3}]}
    step = critic_game("ebgan", "none", one_hot(P), one_hot(Q), Tabular(start=5.0, positive=True), optimizer)
    assert estimate(step, 6) == pytest.approx(0.4, abs=1e-4)
    assert step.last.critic_loss is not None
    assert float(step.last.critic_loss) == pytest.approx(6, abs=1e-3)


@pytest.mark.parametrize(("enforcer", "value"), [("clip:c=0.01", 0.07), ("sphere:radius=0.01", 0.05)])
def test_clipping_and_the_sphere_reach_their_own_norms_of_a_mean_shift(enforcer: str, value: float) -> None:
    step = critic_game("wgan", enforcer, ((3.0, 4.0),) * 4, ((0.0, 0.0),) * 4, Tabular(start=0.3), "SGD:lr=0.1")
    assert estimate(step, 1) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("weight", "rate", "slope", "gap", "loss"), [(10.0, 0.04, 1.1, 2.2, -2.1), (0.1, 2.0, 11, 22, -12)]
)
def test_a_penalised_critic_is_too_steep_by_what_theory_says(
    weight: float, rate: float, slope: float, gap: float, loss: float
) -> None:
    real, fake = ((2.0, 0.0),) * 4, ((0.0, 0.0),) * 4
    step = critic_game("wgan", f"gp:weight={weight}", real, fake, Tabular(start=0.3), f"SGD:lr={rate}")
    assert estimate(step, 3) == pytest.approx(gap, rel=1e-4)
    assert float(weights(critic_of(step)).norm()) == pytest.approx(slope, rel=1e-4)
    assert step.last.critic_loss is not None
    assert step.last.penalty is not None
    assert float(step.last.critic_loss + step.last.penalty) == pytest.approx(loss, rel=1e-4)


# --- order and freshness ---------------------------------------------------------------------------------------------


class Witness:
    """Notes what a run does: its order, the real batches, the latents, and what the critic is given."""

    def __init__(self, step: Step) -> None:
        parts = step.parts
        self.events: list[str] = []
        self.real: list[Tensor] = []
        self.latents: list[Tensor] = []
        self.calls: list[tuple[Tensor, bool]] = []
        self.trainable: list[bool] = []
        self.weights: list[Tensor] = []
        batch = parts.train.batch
        parts.train.batch = lambda number: self.note(batch(number))  # type: ignore[method-assign]
        parts.generator.register_forward_pre_hook(lambda _, args: self.latents.append(args[0].clone()))
        parts.generator_optimizer.register_step_post_hook(lambda *_: self.events.append("g"))
        if parts.critic is not None and parts.critic_optimizer is not None:
            parts.critic_optimizer.register_step_post_hook(lambda *_: self.events.append("c"))
            parts.critic.register_forward_pre_hook(self.on_critic)

    def note(self, real: Tensor) -> Tensor:
        self.real.append(real.clone())
        return real

    def on_critic(self, critic: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.calls.append((args[0].detach().clone(), args[0].requires_grad))
        self.trainable.append(any(p.requires_grad for p in critic.parameters()))
        self.weights.append(weights(critic).clone())


def all_different(tensors: list[Tensor]) -> bool:
    return len({tuple(tensor.flatten().tolist()) for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize("n_critic", [1, 3])
def test_each_generator_step_has_n_critic_critic_steps(n_critic: int) -> None:
    step = start(settings(n_critic=n_critic))
    witness = Witness(step)
    for _ in range(4):
        step.run()
    assert "".join(witness.events) == ("c" * n_critic + "g") * 4
    assert (step.steps, step.critic_steps) == (4, 4 * n_critic)


def test_the_warm_up_is_that_of_the_authors() -> None:
    step = start(settings(critic_warmup=True))
    counts = {}
    for number in (0, 1, 24, 25, 26, 499, 500, 501, 1000, 1001):
        step.steps = number
        counts[number] = step.critic_steps_now()
    assert counts == {0: 100, 1: 100, 24: 100, 25: 5, 26: 5, 499: 5, 500: 100, 501: 5, 1000: 100, 1001: 5}
    step.steps = 24
    witness = Witness(step)
    step.run()
    step.run()
    assert "".join(witness.events) == "c" * 100 + "g" + "c" * 5 + "g"
    assert all_different(witness.real)


@pytest.mark.parametrize(("objective", "critic"), [("wgan", None), ("mmd", "mlp:width=8,depth=1")])
@pytest.mark.parametrize("source", ["ring8", "digits"])
def test_every_critic_step_has_a_fresh_batch_and_fresh_latents(objective: str, critic: str | None, source: str) -> None:
    step = start(settings(objective, "clip", critic=critic, n_critic=5, source=source))
    witness = Witness(step)
    for _ in range(4):
        step.run()
    uses_real = objective == "mmd"
    assert len(witness.real) == 4 * (5 + uses_real)
    assert len(witness.latents) == 4 * (5 + 1)
    assert all_different(witness.real)
    assert all_different(witness.latents)


def test_an_epoch_shows_each_sample_once_over_critic_steps() -> None:
    step = start(settings(source="digits", n_critic=7, batch=64))
    witness = Witness(step)
    for _ in range(4):
        step.run()
    data = step.parts.config.source.open("train")
    assert isinstance(data, Resident)
    seen = torch.cat(witness.real)[: len(data)].flatten(1)
    assert sorted(map(tuple, seen.tolist())) == sorted(
        map(tuple, data.take(torch.arange(len(data))).flatten(1).tolist())
    )


def test_the_critic_sees_real_and_fake_apart_and_fakes_without_graph() -> None:
    step = start(settings(n_critic=2))
    witness = Witness(step)
    step.run()
    assert [tuple(sample.shape) for sample, _ in witness.calls] == [(BATCH, 2)] * 5
    assert [has_graph for _, has_graph in witness.calls] == [False] * 4 + [True]
    assert [torch.equal(sample, real) for (sample, _), real in zip(witness.calls[:4:2], witness.real, strict=True)]
    assert witness.trainable == [True] * 4 + [False]


def test_the_generator_learns_from_the_projected_critic_as_it_is_now() -> None:
    step = start(settings(n_critic=2, critic_optimizer="SGD:lr=10.0"))
    witness = Witness(step)
    for _ in range(3):
        step.run()
        critic = critic_of(step)
        assert torch.equal(witness.weights[-1], weights(critic))
        assert not torch.equal(witness.weights[-1], witness.weights[-2])
        assert float(witness.weights[-1].abs().max()) <= 0.01
        with torch.no_grad():
            loss = -critic(witness.calls[-1][0]).mean()
        assert step.last.generator_loss is not None
        assert torch.equal(step.last.generator_loss, loss)


def test_the_generator_step_leaves_the_critic_alone() -> None:
    step = start(settings())
    critic, optimizer = critic_of(step), step.parts.critic_optimizer
    assert optimizer is not None
    critic[0].bias.requires_grad_(False)
    after: list[list[Tensor | None]] = []
    note = [None if p.grad is None else p.grad for p in critic.parameters()]
    assert all(grad is None for grad in note)
    optimizer.register_step_post_hook(
        lambda *_: after.append([None if p.grad is None else p.grad.clone() for p in critic.parameters()])
    )
    step.run()
    now = [p.grad for p in critic.parameters()]
    assert len(after) == 5
    for (name, p), old, new in zip(critic.named_parameters(), after[-1], now, strict=True):
        if name == "0.bias":
            assert old is new is None
            assert not p.requires_grad
        else:
            assert old is not None
            assert new is not None
            assert torch.equal(old, new)
            assert p.requires_grad


def test_a_failure_leaves_nothing_frozen() -> None:
    critic = nn.Linear(2, 1)
    critic.bias.requires_grad_(False)
    with frozen(critic):
        assert not critic.weight.requires_grad
    with pytest.raises(KeyError), frozen(critic):
        critic.state_dict()["none"]
    assert critic.weight.requires_grad
    assert not critic.bias.requires_grad
    with frozen(None):
        pass


def test_critic_steps_leave_the_generator_alone() -> None:
    step = start(settings(generator="mlp:width=8,depth=1,norm=batch", critic="mlp:width=8"))
    step.run()
    before = weights(step.parts.generator)
    gradients = [p.grad.clone() for p in step.parts.generator.parameters() if p.grad is not None]
    assert len(gradients) == len(list(step.parts.generator.parameters()))
    step.train_critic([step.critic_draws()])
    assert torch.equal(weights(step.parts.generator), before)
    for p, old in zip(step.parts.generator.parameters(), gradients, strict=True):
        assert p.grad is not None
        assert torch.equal(p.grad, old)


def test_the_penalty_joins_the_same_backward_and_projection_follows_the_update() -> None:
    enforcer = Recorder(weight=0.5)
    step = start(attrs.evolve(settings(n_critic=2), lipschitz=enforcer))
    assert step.parts.critic_optimizer is not None
    witness = Witness(step)
    step.parts.critic_optimizer.register_step_pre_hook(lambda *_: enforcer.log.append("update"))
    critic = copy.deepcopy(critic_of(step))
    step.train_critic([step.critic_draws()])
    assert enforcer.log == ["penalty", "update", "project"]
    real, fake = (sample for sample, _ in witness.calls)
    loss = critic(fake).mean() - critic(real).mean() + 0.5 * sum(p.square().sum() for p in critic.parameters())
    loss.backward()
    for p, expected in zip(critic_of(step).parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(p.grad, expected.grad, atol=1e-7, rtol=1e-5)
    step.run()
    assert enforcer.log == ["penalty", "update", "project"] * 3


def test_two_objectives_start_alike_and_see_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(objective: str, lipschitz: str, seed: int, **more: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        step = start(settings(objective, lipschitz, seed=seed, source="digits", n_critic=2, **more))
        initial = weights(step.parts.generator)
        witness = Witness(step)
        for _ in range(2):
            step.run()
        return initial, witness.real[:4], witness.latents

    torch.manual_seed(1)
    first = run("wgan", "clip", 3)
    torch.manual_seed(2)
    others = [
        run("wgan", "gp", 3),
        run("minimax", "none", 3),
        run("ebgan", "none", 3),
        run("mmd", "none", 3, critic="mlp:width=9,features=2"),
    ]
    for initial, real, latents in others:
        assert torch.equal(initial, first[0])
        assert all(map(torch.equal, real, first[1]))
        assert all(map(torch.equal, latents, first[2]))
    initial, real, latents = run("wgan", "clip", 4)
    assert not torch.equal(initial, first[0])
    assert not any(map(torch.equal, real, first[1]))
    assert not any(map(torch.equal, latents, first[2]))


# --- what must not happen --------------------------------------------------------------------------------------------


class Reads(TorchDispatchMode):
    """Counts how often a tensor becomes a Python number, which makes a device wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("source", ["ring8", "digits"])
@pytest.mark.parametrize(("objective", "enforcer", "critic"), PAIRS)
def test_nothing_is_read_back_between_logging_points(
    objective: str, enforcer: str, critic: str | None, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiles of a CPU look at the samples, which costs nothing there; a GPU has others.
    monkeypatch.setattr("ipmgan.functional.mmd.tiles_pay", lambda x, y: False)
    plain = {"generator_optimizer": "RMSprop:lr=1e-4", "critic_optimizer": "RMSprop:lr=1e-4"}
    step = start(settings(objective, enforcer, critic=critic, source=source, **plain))
    with Reads() as immediate:
        step.run()
    assert immediate.count > 0
    step._guard = Guard(torch.device("cuda"))
    with Reads() as deferred:
        step.run()
        step.run()
    assert deferred.count == 0
    with Reads() as checked:
        step.check_finite()
    assert checked.count > 0


def loss_of(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def test_the_guard_of_a_device_names_the_first_bad_step() -> None:
    guard = Guard(torch.device("cuda"))
    for step, (critic, generator) in enumerate([(1.0, 1.0), (1.0, math.inf), (math.nan,) * 2, (1.0, 1.0)], start=1):
        guard.begin(step)
        guard.watch("wgan", "critic loss", loss_of(critic))
        guard.watch("wgan", "generator loss", loss_of(generator))
    with pytest.raises(DivergedError, match="the generator loss of wgan is not finite at step 2"):
        guard.check()


def test_the_guard_lets_finite_losses_pass_and_stops_the_cpu_at_once() -> None:
    late, at_once = Guard(torch.device("cuda")), Guard(torch.device("cpu"))
    late.check()
    for guard in (late, at_once):
        guard.begin(7)
        guard.watch("gp", "penalty", loss_of(1e30))
        guard.check()
    with pytest.raises(DivergedError, match="the penalty of gp is not finite at step 7") as caught:
        at_once.watch("gp", "penalty", loss_of(math.nan))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_guards_of_several_runs_note_each_ones_first_bad_step(device: str) -> None:
    guards = Guards(torch.device(device))
    for step, losses in enumerate([[1.0, 2.0, 3.0], [1.0, math.nan, 3.0], [math.inf, math.nan, 3.0]], 7):
        guards.begin(step)
        guards.watch("wgan", "critic loss", torch.tensor(losses))
        guards.watch("gp", "penalty", torch.tensor([0.0, 0.0, 0.0]))
    assert bool(guards.diverged) == (device == "cpu")  # Elsewhere, nothing is read before the check.
    guards.check()
    assert {place: str(error).partition(":")[0] for place, error in guards.diverged.items()} == {
        0: "the critic loss of wgan is not finite at step 9",
        1: "the critic loss of wgan is not finite at step 8",
    }


@pytest.mark.parametrize(
    "loss", [1.0, torch.ones(3, requires_grad=True), torch.ones(()), torch.ones((), dtype=torch.int64)]
)
def test_what_is_no_loss_is_refused_with_the_plugin_that_made_it(loss: Any) -> None:
    with pytest.raises(PluginError, match="the critic loss of odd must be a scalar"):
        scalar("odd", "critic loss", loss)


@attrs.frozen(kw_only=True)
class Odd(Objective):
    """An objective whose losses keep a batch axis, or lose their graph."""

    name = "odd"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="none")
    spoil: Callable[[Tensor], Any]

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        spoilt: Tensor = self.spoil(fake)
        return spoilt

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()


@pytest.mark.parametrize("spoil", [lambda x: -x, lambda x: -x.mean().detach(), lambda x: 1.0])
def test_an_objective_that_breaks_its_contract_is_named(spoil: Callable[[Tensor], Any]) -> None:
    step = start(attrs.evolve(settings("wgan", "clip"), objective=Odd(spoil=spoil)))
    with pytest.raises(PluginError, match="the generator loss of odd must be a scalar"):
        step.run()
    assert all(p.requires_grad for p in critic_of(step).parameters())


def test_weights_that_are_not_finite_are_found() -> None:
    step = start(settings())
    step.run()
    step.check_finite()
    with torch.no_grad():
        step.parts.generator[0].weight[0, 0] = math.nan
    with pytest.raises(DivergedError, match=r"the generator's weight 0\.weight is not finite at step 1"):
        step.check_finite()


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "enforcer", "critic"), PAIRS)
def test_bf16_keeps_weights_losses_and_penalties_in_float32(objective: str, enforcer: str, critic: str | None) -> None:
    step = start(settings(objective, enforcer, critic=critic, precision="bf16"))
    inside: list[torch.dtype] = []
    step.parts.generator[0].register_forward_hook(lambda _, args, out: inside.append(out.dtype))
    for _ in range(3):
        step.run()
    step.check_finite()
    assert set(inside) == {torch.bfloat16}
    nets = [net for net in (step.parts.generator, step.parts.critic) if net is not None]
    assert {p.dtype for net in nets for p in net.parameters()} == {torch.float32}
    assert {p.grad.dtype for net in nets for p in net.parameters() if p.grad is not None} == {torch.float32}
    last = [value for value in attrs.asdict(step.last, recurse=False).values() if value is not None]
    assert {value.dtype for value in last} == {torch.float32}


def test_the_penalty_is_computed_in_float32_under_bf16() -> None:
    step = start(settings("wgan", "gp", precision="bf16", n_critic=1))
    dtypes: list[torch.dtype] = []
    critic_of(step)[0].register_forward_hook(lambda _, args, out: dtypes.append(out.dtype))
    step.run()
    assert dtypes == [torch.bfloat16, torch.bfloat16, torch.float32, torch.bfloat16]


# --- averaging and optimisers ----------------------------------------------------------------------------------------


def test_the_averaged_generator_is_an_exponential_average_that_begins_with_the_first() -> None:
    step = start(settings(average=0.75, generator="mlp:width=8,depth=1,norm=batch", critic="mlp:width=8"))
    average = step.parts.average
    assert average is not None
    assert step.parts.best_generator is average.module
    expected: dict[str, Tensor] = {}
    for number in range(5):
        step.run()
        for name, p in step.parts.generator.named_parameters():
            expected[name] = p.detach().clone() if number == 0 else 0.75 * expected[name] + 0.25 * p.detach()
        for name, p in average.module.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], atol=1e-7, rtol=1e-5)
        assert distance(average.module, step.parts.generator) > 0 or number == 0
        for mean, buffer in zip(average.module.buffers(), step.parts.generator.buffers(), strict=True):
            assert torch.equal(mean, buffer)
    assert int(average.n_averaged) == 5


def test_averaging_is_that_of_torch() -> None:
    generator, steps = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), 4
    ours, theirs = (
        torch.optim.swa_utils.AveragedModel(generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
        for _ in range(2)
    )
    draws = torch.Generator().manual_seed(0)
    for _ in range(steps):
        with torch.no_grad():
            for p in generator.parameters():
                p.add_(torch.randn(p.shape, generator=draws))
        update_average(ours, generator)
        ours.n_averaged += 1
        theirs.update_parameters(generator)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


def test_the_average_and_its_counter_survive_a_checkpoint() -> None:
    config = settings(average=0.75)
    whole, half = start(config), start(config)
    for _ in range(2):
        half.run()
    snapshot = capture(half.parts, half)
    again = start(config)
    restore(again.parts, again, snapshot)
    for _ in range(4):
        whole.run()
    for _ in range(2):
        again.run()
    assert distance(whole.parts.best_generator, again.parts.best_generator) == 0
    assert distance(whole.parts.best_generator, whole.parts.generator) > 0


def test_every_optimiser_trains_or_is_refused_in_one_line() -> None:
    refused = {}
    for name in optimizers():
        selection = f"{name}:lr=0.1"
        try:
            step = start(settings(generator_optimizer=selection, critic_optimizer=selection, n_critic=1))
        except IpmganError as error:
            refused[name] = error
            continue
        before = weights(step.parts.generator)
        step.run()
        step.run()
        step.check_finite()
        assert not torch.equal(weights(step.parts.generator), before), name
    assert set(refused) == {"Muon"}
    assert "Muon" in str(refused["Muon"])
    assert "\n" not in str(refused["Muon"])
    assert refused["Muon"].exit_code == 2


def test_rmsprop_is_that_of_torch() -> None:
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    optimizer = Optimizer(name="RMSprop", lr=5e-5).make([weight])
    weight.grad = torch.tensor(0.3, dtype=torch.float64)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(-5.0e-4, rel=1e-6)
    assert float(weight.detach()) != pytest.approx(-1.573e-5, rel=0.1)


def test_milestones_change_the_settings_at_their_generator_step() -> None:
    optimizer = {
        "name": "SGD",
        "lr": 0.5,
        "momentum": 0.5,
        "milestones": [{"step": 3, "lr": 0.05}, {"step": 2, "momentum": 0.9}],
    }
    step = start(settings(generator_optimizer=optimizer, critic_optimizer=optimizer, n_critic=1))
    assert step.parts.critic_optimizer is not None
    seen = []
    for _ in range(4):
        step.run()
        seen.append([(o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for o in both(step.parts)])
    assert seen == [[(0.5, 0.5)] * 2, [(0.5, 0.5)] * 2, [(0.5, 0.9)] * 2, [(0.05, 0.9)] * 2]


def both(parts: Parts) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    assert parts.critic_optimizer is not None
    return parts.generator_optimizer, parts.critic_optimizer


# --- held-out estimates ----------------------------------------------------------------------------------------------


def test_the_held_out_estimate_is_on_held_out_data() -> None:
    config = settings("wgan", "clip", critic_optimizer="SGD:lr=1.0", batch=4)
    real, held, fake = ((1.0, 0.0),) * 4, ((-2.0, 0.0),) * 4, ((0.0, 0.0),) * 4
    source = Points(rows=real, held_out=held)
    step = start(attrs.evolve(config, source=source, generator=Fixed(rows=fake), critic=Tabular()))
    step.run()
    record = measure(step.parts, step)
    assert record["estimate"] == pytest.approx(0.01)
    assert record["held_out_estimate"] == pytest.approx(-0.02)


def test_the_held_out_estimate_is_the_objectives_on_batches_as_large_as_trainings() -> None:
    config = settings("nonsaturating", "none", source="digits", generator="mlp:width=8,norm=batch", held_out_batches=3)
    step = start(config)
    for _ in range(3):
        step.run()
    parts, critic = step.parts, critic_of(step)
    calls: list[Tensor] = []
    handle = critic.register_forward_pre_hook(lambda _, args: calls.append(args[0].clone()))
    state = {key: value.clone() for net in (parts.generator, critic) for key, value in net.state_dict().items()}
    gradients = [p.grad.clone() for p in critic.parameters() if p.grad is not None]
    value = held_out_estimate(parts, step.steps)
    handle.remove()
    for net in (parts.generator, critic):
        assert net.training
    assert all(map(torch.equal, gradients, [p.grad for p in critic.parameters() if p.grad is not None]))
    before = copy.deepcopy(critic.state_dict())
    assert all(torch.equal(value, state[key]) for key, value in critic.state_dict().items())
    assert [len(call) for call in calls] == [BATCH] * 6
    with torch.no_grad():
        expected = [
            config.objective.estimate(critic(real), critic(fake))
            for real, fake in zip(calls[::2], calls[1::2], strict=True)
        ]
    assert value == pytest.approx(float(torch.stack(expected).mean()), abs=1e-6)
    assert not all(torch.equal(value, before[key]) for key, value in critic.state_dict().items())
    held = config.source.open("held-out")
    assert isinstance(held, Resident)
    known = set(map(tuple, held.take(torch.arange(len(held))).flatten(1).tolist()))
    assert {tuple(row) for call in calls[::2] for row in call.flatten(1).tolist()} <= known


def test_measuring_does_not_change_the_training() -> None:
    config = settings("nonsaturating", "none", generator="mlp:width=8,norm=batch", average=0.9)
    watched, alone = start(config), start(config)
    for _ in range(4):
        watched.run()
        measure(watched.parts, watched)
        alone.run()
    for one, other in ((watched.parts.generator, alone.parts.generator), (critic_of(watched), critic_of(alone))):
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
