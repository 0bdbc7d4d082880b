"""The conformance suite: every plugin passes it, and every property of it can fail."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from ipmgan.cli.app import app
from ipmgan.data import Resident, Sampler, Samples, SampleSpec, Source, Split
from ipmgan.errors import PluginError, UsageError
from ipmgan.lipschitz import LipschitzEnforcer
from ipmgan.metrics import Metric
from ipmgan.networks import Network
from ipmgan.objectives import CriticKind, Objective
from ipmgan.perturbations import Perturbation
from ipmgan.plugin import Plugin, Quantity, option
from ipmgan.registry import Broken, Entry, registry
from ipmgan.testing import Case, ConformanceError, NotApplicable, cases, conformance, properties
from ipmgan.testing.common import variants
from ipmgan.trackers import Tracker, Tracking

KINDS = ("objective", "lipschitz", "network", "source", "metric", "perturbation", "tracker")

test_conformance = conformance()
test_other_options = conformance(
    "ebgan:pulling_away=0.1",
    "mmd:features=32",
    "gp:target=0,points=real",
    "mlp:norm=layer",
    "autoencoder:with_code=true",
)


@pytest.fixture(scope="module", autouse=True)
def pictures_cost_nothing() -> Iterator[None]:
    """Drawing them takes as long as the runs here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipmgan.engine.loop.draw_samples", lambda path, *_: Image.new("L", (2, 2)).save(path))
        yield


# --- plugins that pass, to be broken one way each


@attrs.frozen(kw_only=True)
class Gap(Objective):
    """The gap between the means of a critic's outputs.

        critic:  minimise  E_g[f(x)] - E_r[f(x)]

    Source: nowhere.
    """

    name = "gap"
    critic = CriticKind.SCORE
    needs_lipschitz = True
    estimates = Quantity(name="K·W1", unit="data units times K", bound="lower bound of K·W1")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake.mean()

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()


@attrs.frozen(kw_only=True)
class Kept(Gap):
    """The gap with a weight that is kept between steps.

        critic:  minimise  w (E_g[f(x)] - E_r[f(x)])

    Source: nowhere.
    """

    name = "kept"

    def state(self) -> Mapping[str, Tensor]:
        return {"w": torch.ones(())}

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.critic_loss_and_state(real, fake, self.state())[0]

    def critic_loss_and_state(
        self, real: Tensor, fake: Tensor, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        return state["w"] * (fake.mean() - real.mean()), {"w": 0.9 * state["w"]}


@attrs.frozen(kw_only=True)
class Slope(LipschitzEnforcer):
    """Charges the squares of the critic's differences.

        mean_i (f(real_i) - f(fake_i))^2

    Source: nowhere.
    """

    name = "slope"

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor | None:
        return (critic(real) - critic(fake)).square().mean()


@attrs.frozen(kw_only=True)
class Flat(Network):
    """One linear layer.

    On either side.
    """

    name = "flat"

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        return frozenset({CriticKind.SCORE, CriticKind.LOGIT})

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        bounded = [nn.Sigmoid()] if sample.bounds == (0.0, 1.0) else [nn.Tanh()] if sample.bounds else []
        size = int(np.prod(sample.shape))
        return nn.Sequential(nn.Linear(latent, size), *bounded, nn.Unflatten(1, sample.shape))

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        return nn.Sequential(nn.Flatten(1), nn.Linear(int(np.prod(sample.shape)), 1), nn.Flatten(0))


@attrs.frozen(kw_only=True)
class Cloud(Source):
    """Normal points of the plane."""

    name = "cloud"

    def spec(self) -> SampleSpec:
        return SampleSpec(shape=(2,))

    def open(self, split: Split) -> Samples:
        return Sampler(draw=lambda n, generator: torch.randn(n, 2, generator=generator))


@attrs.frozen(kw_only=True)
class Grid(Source):
    """The whole numbers, the even ones held out."""

    name = "grid"

    def spec(self) -> SampleSpec:
        return SampleSpec(shape=(1,))

    def open(self, split: Split) -> Samples:
        return Resident(samples=torch.arange(split == "train", 100, 2, dtype=torch.float32)[:, None])


@attrs.frozen(kw_only=True)
class Means(Metric):
    """The distance of the means.

        || mean_i x_i - mean_j y_j ||

    Source: nowhere.
    """

    name = "means"
    measures = Quantity(name="distance of means", unit="data units", low=0, bound="at most W1")
    samples = 100

    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        return (real.mean(0) - fake.mean(0)).norm()


@attrs.frozen(kw_only=True)
class Shake(Perturbation):
    """Adds noise.

        x -> x + e

    Every time.
    """

    name = "shake"

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, *, done: float) -> Tensor | None:
        return torch.randn(shape, generator=generator)

    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        return samples if drawn is None else samples + drawn


@attrs.frozen(kw_only=True)
class Silent(Tracker):
    """Tells nobody."""

    name = "silent"

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        return Tracking()


GOOD: dict[str, list[Plugin]] = {
    "objective": [Gap(), Kept()],
    "lipschitz": [Slope()],
    "network": [Flat()],
    "source": [Cloud(), Grid()],
    "metric": [Means()],
    "perturbation": [Shake()],
    "tracker": [Silent()],
}


def broken(plugin: Plugin, **changes: Any) -> Any:
    """The plugin with other methods or class data."""
    cls = type(plugin)
    return attrs.frozen(kw_only=True)(type(cls.__name__, (cls,), {"__doc__": cls.__doc__, **changes}))()


@attrs.frozen(kw_only=True)
class Undocumented(Gap):
    name = "undocumented"


@attrs.frozen(kw_only=True)
class Unwritable(Gap):
    """Rounds its option, so that it does not come back.

        w -> 2 w

    Source: nowhere.
    """

    w: float = option(1.0, help="doubled when it is made")

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "w", 2 * self.w)


@attrs.define(kw_only=True)
class Changing(LipschitzEnforcer):
    """Not frozen."""

    name = "changing"
    weight: float = option(1.0, help="can be set")


HELPLESS = {"__annotations__": {"x": float}, "x": attrs.field(default=1.0)}


def of(good: Plugin) -> Callable[..., Any]:
    return lambda **changes: broken(good, **changes)


gap, kept, slope, flat = of(Gap()), of(Kept()), of(Slope()), of(Flat())
cloud, grid, distance, shake, silent = of(Cloud()), of(Grid()), of(Means()), of(Shake()), of(Silent())


class Mixing(nn.Module):
    """Scores that depend on all of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Writing(nn.Module):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class Reading(nn.Module):
    """Reads a number back."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 if x.sum().item() > 0 else 1)


class Cutting(torch.autograd.Function):
    """The identity with twice its gradient."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * slope


class Doubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Cutting.apply(x)


def with_layer(layer: Callable[[], nn.Module], *, last: bool = False) -> dict[str, Any]:
    """A critic with one more layer, in front of or behind the others."""

    def critic(self: Flat, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        layers = list(Flat().critic(sample, kind, per_sample=per_sample))
        return nn.Sequential(*layers, layer()) if last else nn.Sequential(layer(), *layers)

    return {"critic": critic}


def penalty(function: Callable[[nn.Module, Tensor, Tensor], Any]) -> dict[str, Any]:
    return {"penalty": lambda self, critic, real, fake, drawn=None: function(critic, real, fake)}


def steep(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The squared slope of the summed outputs."""
    x = real.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return slopes.square().sum(1).mean()


def replaced(self: Any, critic: nn.Module) -> None:
    """Puts other parameters in the place of the critic's."""
    for module in critic.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight / 2)


def shrunk(self: Any, critic: nn.Module) -> None:
    """Divides each weight by its norm."""
    for p in critic.parameters():
        p.div_(p.norm())


def loss(function: Callable[[Tensor, Tensor], Any], name: str = "critic_loss") -> dict[str, Any]:
    return {name: lambda self, real, fake: function(real, fake)}


BROKEN: dict[str, tuple[Callable[[], Plugin], str]] = {
    "objective documented": (Undocumented, "no docstring"),
    "objective options": (Unwritable, "comes back from TOML as"),
    "objective orientation": (
        lambda: gap(**loss(lambda r, f: r.mean() - f.mean())),
        "rises as the critic rises on real",
    ),
    "objective scalars": (lambda: gap(**loss(lambda r, f: f - r)), r"critic_loss has shape \(9,\)"),
    "objective gradients": (lambda: gap(**loss(lambda r, f: f.mean() - Cutting.apply(r).mean())), "finite differences"),
    "objective means": (lambda: gap(**loss(lambda r, f: f.sum() - r.sum())), "with every sample twice"),
    "objective no-draws": (
        lambda: gap(**loss(lambda r, f: f.mean() - r.mean() + torch.rand(()))),
        "torch's global gen",
    ),
    "objective inputs-unchanged": (lambda: gap(**loss(lambda r, f: f.mean() - r.mul_(1).mean())), "writes into real"),
    "objective no-waiting": (
        lambda: gap(**loss(lambda r, f: (f.mean() - r.mean()) * (2 if f.mean().item() > 0 else 1))),
        "reads numbers back",
    ),
    "objective whole-batch": (
        lambda: gap(**loss(lambda r, f: f.mean() - r.mean() + (f.mean() - r.mean()).square())),
        "declare whole_batch",
    ),
    "objective min-batch": (
        lambda: gap(**loss(lambda r, f: (f - f.mean()).square().sum() / (len(f) - 1))),
        "min_batch = 1",
    ),
    "objective generator-uses-real": (
        lambda: gap(**loss(lambda r, f: r.sum() - f.mean(), "generator_loss")),
        "declare generator_uses_real",
    ),
    "objective needs-code": (lambda: gap(critic=CriticKind.ENERGY), "declare needs_code"),
    "objective needs-lipschitz": (lambda: gap(needs_lipschitz=False), "declare needs_lipschitz = True"),
    "objective estimate-range": (
        lambda: gap(estimates=Quantity(name="gap", unit="none", low=0, bound="lower bound")),
        "outside its range",
    ),
    "objective estimate-bound": (
        lambda: gap(**loss(lambda r, f: 2 * (r.mean() - f.mean()), "estimate")),
        "above the truth of",
    ),
    "objective state": (
        lambda: kept(critic_loss_and_state=lambda self, r, f, s: (s["w"] * f.mean(), {"w": s["w"] * f.mean()})),
        "detach",
    ),
    "objective autocast": (lambda: gap(**loss(lambda r, f: (f[None] @ r[:, None]).sum())), "autocast"),
    "objective vectorised": (
        lambda: gap(**loss(lambda r, f: (f.mean() - r.mean()) * (2 if f.mean().item() > 0 else 1))),
        "vectorises = False",
    ),
    "lipschitz documented": (lambda: slope(__doc__="Holds down\nslopes."), "sentence of its own"),
    "lipschitz options": (Changing, "can be changed"),
    "lipschitz orientation": (lambda: slope(**penalty(lambda c, r, f: -(c(r) - c(f)).square().mean())), "still has"),
    "lipschitz scalars": (lambda: slope(**penalty(lambda c, r, f: (c(r) - c(f)).square().sum().sqrt())), "not finite"),
    "lipschitz gradients": (
        lambda: slope(**penalty(lambda c, r, f: Cutting.apply(c(r) - c(f)).square().mean())),
        "finite differences",
    ),
    "lipschitz means": (lambda: slope(**penalty(lambda c, r, f: (c(r) - c(f)).square().sum())), "sample twice"),
    "lipschitz no-draws": (
        lambda: slope(**penalty(lambda c, r, f: c(r + torch.randn_like(r)).square().mean())),
        "penalty draws from torch",
    ),
    "lipschitz inputs-unchanged": (lambda: slope(**penalty(lambda c, r, f: c(r.add_(1)).mean())), "writes into real"),
    "lipschitz in-place": (lambda: slope(after_step=replaced), "write into it"),
    "lipschitz elementwise": (lambda: slope(elementwise=True, after_step=shrunk), "in a stack of critics"),
    "lipschitz no-waiting": (
        lambda: slope(**penalty(lambda c, r, f: c(r).mean() * float(r.std()))),
        "reads numbers back",
    ),
    "lipschitz per-sample": (lambda: slope(**penalty(steep)), "declare per_sample = True"),
    "lipschitz needs-double-backward": (lambda: slope(**penalty(steep)), "declare needs_double_backward = True"),
    "lipschitz scalar-critic": (
        lambda: slope(**penalty(lambda c, r, f: c(r).reshape(len(r)).square().mean())),
        "declare scalar_critic = True",
    ),
    "lipschitz certified": (
        lambda: slope(penalty=lambda *_: None, prepare=lambda self, critic: nn.Sequential(critic, Doubling())),
        "no bound for the constrained critic",
    ),
    "lipschitz state": (
        lambda: slope(
            state=lambda self: {"w": torch.ones(())},
            penalty_and_state=lambda self, c, r, f, d, s: (Slope().penalty(c, r, f), {"w": torch.ones(2)}),
        ),
        r"w changes from \(\)",
    ),
    "lipschitz autocast": (
        lambda: slope(**penalty(lambda c, r, f: (c(r) + 1000 - 1000).square().mean())),
        "switch autocast off",
    ),
    "lipschitz vectorised": (
        lambda: slope(**penalty(lambda c, r, f: c(r).square().mean() * float(c(r).mean().detach()))),
        "vectorises = False",
    ),
    "network documented": (lambda: flat(__doc__=""), "no docstring"),
    "network options": (lambda: flat(**HELPLESS), "has no help"),
    "network shapes": (
        lambda: flat(critic=lambda self, sample, kind, *, per_sample: nn.Sequential(nn.Flatten(1), nn.Linear(2, 1))),
        r"puts out \(3, 1\) for 3 samples",
    ),
    "network bounds": (
        lambda: flat(
            generator=lambda self, latent, sample: nn.Sequential(
                nn.Linear(latent, int(np.prod(sample.shape))), nn.Unflatten(1, sample.shape)
            )
        ),
        "leaves the samples' bounds",
    ),
    "network seeded": (
        lambda: flat(**with_layer(lambda: nn.PReLU(init=np.random.default_rng().random()))),
        "follow torch's global seed",
    ),
    "network gradients": (lambda: flat(**with_layer(Doubling)), "by finite differences"),
    "network inputs-unchanged": (lambda: flat(**with_layer(Writing)), "writes into its_input"),
    "network no-waiting": (lambda: flat(**with_layer(Reading)), "reads numbers back"),
    "network per-sample": (lambda: flat(**with_layer(Mixing)), "depends on the others"),
    "network autocast": (lambda: flat(**with_layer(lambda: Halved())), "autocast"),
    "network vectorised": (lambda: flat(**with_layer(Reading, last=True)), "vectorises = False"),
    "source documented": (lambda: cloud(__doc__="Points"), "sentence of its own"),
    "source options": (lambda: cloud(**HELPLESS), "has no help"),
    "source as-specified": (lambda: cloud(spec=lambda self: SampleSpec(shape=(3,))), r"spec\(\) says \(3,\)"),
    "source same-every-time": (
        lambda: cloud(open=lambda self, split: Sampler(draw=lambda n, g: torch.randn(n, 2))),
        "torch's global generator",
    ),
    "source splits-apart": (
        lambda: grid(open=lambda self, split: Resident(samples=torch.arange(9.0)[:, None])),
        "9 samples are in both",
    ),
    "metric documented": (lambda: distance(__doc__="The means.\n\nOf samples."), "no equation"),
    "metric options": (lambda: distance(**HELPLESS), "has no help"),
    "metric scalars": (lambda: distance(compute=lambda self, r, f, *, generator: r.mean(0)), "has shape"),
    "metric range": (
        lambda: distance(compute=lambda self, r, f, *, generator: (r - f[:1]).mean()),
        "outside its range",
    ),
    "metric direction": (
        lambda: distance(compute=lambda self, r, f, *, generator: r.mean(0).norm()),
        "for laws far apart",
    ),
    "metric no-draws": (
        lambda: distance(compute=lambda self, r, f, *, generator: (r.mean() - f.mean()) ** 2 + np.random.rand()),  # noqa: NPY002
        "NumPy's global generator",
    ),
    "metric inputs-unchanged": (
        lambda: distance(compute=lambda self, r, f, *, generator: (r.mul_(1).mean(0) - f.mean(0)).norm()),
        "writes into real",
    ),
    "metric order": (
        lambda: distance(compute=lambda self, r, f, *, generator: (r[0] - f.mean(0)).norm()),
        "order of the samples",
    ),
    "perturbation documented": (lambda: shake(__doc__="Adds noise.\n\nTo all."), "no equation"),
    "perturbation options": (lambda: shake(**HELPLESS), "has no help"),
    "perturbation shapes": (lambda: shake(perturb=lambda self, x, drawn: x.flatten()), "become"),
    "perturbation gradients": (lambda: shake(perturb=lambda self, x, drawn: x.detach() + drawn), "no gradient passes"),
    "perturbation no-draws": (
        lambda: shake(perturb=lambda self, x, drawn: x + torch.randn_like(x)),
        "perturb draws from torch's",
    ),
    "perturbation inputs-unchanged": (
        lambda: shake(perturb=lambda self, x, drawn: x.add_(drawn)),
        "writes into samples",
    ),
    "perturbation no-waiting": (
        lambda: shake(perturb=lambda self, x, drawn: x + drawn * float(x.std())),
        "reads numbers back",
    ),
    "perturbation vectorised": (
        lambda: shake(perturb=lambda self, x, drawn: x + drawn * float(x.std())),
        "vectorises = False",
    ),
    "tracker documented": (lambda: silent(__doc__=""), "no docstring"),
    "tracker options": (lambda: silent(**HELPLESS), "has no help"),
}


class Halved(nn.Module):
    """Small differences of large numbers, which half precision does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.eye(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        one = flat.new_full((len(flat), 1), 1000.0)
        return x + (one + 0.3) @ self.shift.detach() - one if x.dim() == 2 else x


def test_the_good_ones_pass() -> None:
    for kind, plugins in GOOD.items():
        for plugin in plugins:
            for name, check in properties(kind).items():
                if name not in RUNS:
                    with contextlib.suppress(NotApplicable):
                        check(plugin)


RUNS = ("resumes", "no-trace")


def test_every_property_has_a_plugin_that_fails_it() -> None:
    known = {f"{kind} {name}" for kind in KINDS for name in properties(kind) if name not in RUNS}
    assert set(BROKEN) == known


@pytest.mark.parametrize("case", BROKEN)
def test_each_property_can_fail(case: str) -> None:
    """In one line that says what is wrong."""
    kind, name = case.split()
    make, reason = BROKEN[case]
    with torch.random.fork_rng(devices=[]), pytest.raises(ConformanceError, match=reason) as caught:
        properties(kind)[name](make())
    assert len(str(caught.value).splitlines()) == 1


# --- what only a run shows


@attrs.frozen(kw_only=True)
class Hidden(Gap):
    """Counts its calls where no checkpoint sees it.

        w -> w + 1

    Source: nowhere.
    """

    name = "hidden"
    calls: list[int] = attrs.field(factory=list, init=False, eq=False)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        self.calls.append(1)
        return len(self.calls) * (fake.mean() - real.mean())


@attrs.frozen(kw_only=True)
class HiddenSlope(Slope):
    name = "hidden-slope"
    calls: list[int] = attrs.field(factory=list, init=False, eq=False)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor | None:
        self.calls.append(1)
        return len(self.calls) * (critic(real) - critic(fake)).square().mean()


class Counting(nn.Module):
    """Counts its calls in no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x / self.count


@attrs.frozen(kw_only=True)
class HiddenFlat(Flat):
    name = "hidden-flat"

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        return nn.Sequential(Counting(), Flat().generator(latent, sample))


@attrs.frozen(kw_only=True)
class HiddenMeans(Means):
    name = "hidden-means"
    calls: list[int] = attrs.field(factory=list, init=False, eq=False)

    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        self.calls.append(1)
        return torch.tensor(float(len(self.calls)))


@attrs.frozen(kw_only=True)
class HiddenShake(Shake):
    name = "hidden-shake"

    def draw(self, shape: tuple[int, ...], generator: torch.Generator, *, done: float) -> Tensor | None:
        return torch.full(shape, random.random())


class Scribbling(Tracking):
    """Writes into the run's own lines."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def log(self, record: Mapping[str, Any]) -> None:
        with (self.run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": record["step"], "opened": id(self)}) + "\n")


@attrs.frozen(kw_only=True)
class Scribbler(Silent):
    name = "scribbler"

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        return Scribbling(run)


@pytest.fixture
def install() -> Iterator[Callable[..., None]]:
    """Puts plugins into the registry as those of a distribution called ``acme-things``."""
    registry.cache_clear()

    def put(*plugins: type[Plugin]) -> None:
        registry()._add([Entry(plugin=plugin, distribution="acme-things", version="1.0") for plugin in plugins])

    yield put
    registry.cache_clear()


@pytest.mark.parametrize(
    "plugin", [Hidden, HiddenSlope, HiddenFlat, HiddenMeans, HiddenShake, Scribbler], ids=lambda p: p.kind
)
def test_a_run_that_forgets_fails(plugin: type[Plugin], install: Callable[..., None]) -> None:
    install(plugin)
    with pytest.raises(ConformanceError, match=r"than one in a single piece|two runs of one seed differ"):
        properties(plugin.kind)["resumes"](plugin())


def test_a_law_that_remembers_its_draws_fails() -> None:
    def opened(self: Any, split: Split) -> Samples:
        calls = itertools.count(1)
        return Sampler(draw=lambda n, generator: next(calls) * torch.randn(n, 2, generator=generator))

    with pytest.raises(ConformanceError, match="draw depends on what was drawn before"):
        properties("source")["same-every-time"](cloud(open=opened))


def test_a_tracker_that_writes_into_the_run_leaves_a_trace(install: Callable[..., None]) -> None:
    install(Scribbler)
    with pytest.raises(ConformanceError, match="a tracked run"):
        properties("tracker")["no-trace"](Scribbler())


def test_state_that_is_declared_survives(install: Callable[..., None]) -> None:
    install(Kept, Silent)
    properties("objective")["resumes"](Kept())
    properties("tracker")["resumes"](Silent())
    properties("tracker")["no-trace"](Silent())


# --- what is checked, and how it is told


def outcome(plugin: str, name: str) -> tuple[str, str]:
    (case,) = (case for case in cases(plugin) if case.property == name)
    result = case.run()
    return result.result, result.reason


@attrs.frozen(kw_only=True)
class Choosy(Gap):
    """Right by one choice, wrong by the other.

        f -> f

    Source: nowhere.
    """

    name = "choosy"
    sign: str = option("plus", help="of the loss", choices=("plus", "minus"))

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake.mean() - real.mean()) * (1 if self.sign == "plus" else -1)


@attrs.frozen(kw_only=True)
class Needy(Gap):
    """Needs an option.

        f -> p f

    Source: nowhere.
    """

    name = "needy"
    power: float = option(help="of the gap", above=0)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        raise ZeroDivisionError("by nothing\nat all")


def test_every_choice_is_checked(install: Callable[..., None]) -> None:
    install(Choosy)
    assert [chosen for chosen, _ in variants(Choosy())] == ["", "sign=minus"]
    result, reason = outcome("choosy", "orientation")
    assert (result, reason.partition(":")[0]) == ("fail", "sign=minus")
    assert outcome("choosy:sign=minus", "orientation")[0] == "fail"


def test_plugins_that_need_options_are_checked_with_them(install: Callable[..., None]) -> None:
    install(Needy)
    assert outcome("needy", "documented") == ("pass", "")
    result, reason = outcome("needy", "orientation")
    assert result == "skip"
    assert "needy:option=value" in reason
    assert outcome("needy:power=2.0", "estimate-range") == ("fail", "ZeroDivisionError: by nothing")
    assert outcome("needy:power=2.0", "whole-batch")[0] == "pass"


def test_names_are_distributions_or_plugins(install: Callable[..., None]) -> None:
    install(Kept, Silent)
    of_distribution = {(case.cls, case.property) for case in cases("Acme_Things")}
    assert {cls for cls, _ in of_distribution} == {Kept, Silent}
    assert of_distribution == {(case.cls, case.property) for case in cases("kept", "silent")}
    assert {case.cls for case in cases("none")} == {
        entry.plugin for entry in registry().entries() if entry.plugin.name == "none"
    }
    assert {case.cls for case in cases()} == {entry.plugin for entry in registry().entries()}
    with pytest.raises(UsageError, match="did you mean 'acme-things'"):
        cases("acme-thing")
    registry().broken.append(Broken(distribution="acme-others", version="2", error="ImportError: no"))
    with pytest.raises(PluginError, match="acme-others 2 could not be loaded: ImportError: no"):
        conformance("acme_others")


def test_a_case_leaves_global_generators_alone() -> None:
    (case,) = (case for case in cases("wgan") if case.property == "orientation")
    before = torch.get_rng_state()
    assert str(case) == "objective-wgan-orientation"
    assert isinstance(case, Case)
    assert case.run().result == "pass"
    assert torch.equal(before, torch.get_rng_state())


def test_the_command_line(install: Callable[..., None]) -> None:
    install(Choosy)
    checked = CliRunner().invoke(app, ["plugins", "check", "clip", "--json"])
    rows = json.loads(checked.stdout)
    assert checked.exit_code == 0
    assert {row["property"] for row in rows} == set(properties("lipschitz"))
    assert {"kind": "lipschitz", "plugin": "clip", "property": "certified", "result": "pass", "reason": ""} in rows
    failed = CliRunner().invoke(app, ["plugins", "check", "choosy"])
    assert failed.exit_code == 1
    assert "1 failed" in failed.stdout
    assert "sign=minus: critic_loss rises" in failed.stdout


def test_pytest_runs_it_from_one_line_and_from_none(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
        from ipmgan.testing import conformance

        test_conformance = conformance("none")
        """)
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--conformance", "wgan", "-k"]
    command += ["documented or means", str(tmp_path), "-rs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = [case for name in ("none", "wgan") for case in cases(name) if case.property in ("documented", "means")]
    assert f"{len(chosen) - 1} passed, 1 skipped" in done.stdout
    assert "it has no penalty" in done.stdout
    command[command.index("wgan")] = "wgna"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "did you mean 'wgan'" in done.stdout + done.stderr


def test_the_page_lists_every_property() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    everywhere, *sections = page.split("\n## ")[2:]
    titles = dict(zip(KINDS, sections, strict=True))
    for kind in KINDS:
        listed = set(
            re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^\| (`.*?) \|", everywhere + titles[kind], re.M)))
        )
        assert listed == set(properties(kind)), kind
