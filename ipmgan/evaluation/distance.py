"""The distance between two fixed sets of samples, by a critic that is trained for it or by a method without one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ipmgan.config import RunConfig
from ipmgan.data.base import SampleSpec
from ipmgan.drawing.witness import draw_witness
from ipmgan.engine.build import choose_device
from ipmgan.engine.checks import check
from ipmgan.engine.measure import BOUND_EFFORT
from ipmgan.engine.streams import Streams
from ipmgan.errors import UsageError
from ipmgan.evaluation.bracket import Bracket, End, bracket, lower_end
from ipmgan.evaluation.fit import Fitted, Parted, as_plugin, critic_config, fit
from ipmgan.evaluation.methods import Exact, Method, make_method
from ipmgan.evaluation.results import finite
from ipmgan.evaluation.sides import SPLITS, Given, Side, open_sides, take_sides
from ipmgan.evaluation.statistics import around, bootstrap, jackknife, permutation_p_value
from ipmgan.lipschitz import Certificate, lipschitz_bound
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, option
from ipmgan.registry import table_of
from ipmgan.selection import build

CRITIC = "critic"
PLAIN = ("estimate", "interval", "confidence", "p_value", "held_out", "steps", "best_step", "counts", "notes")
"""What a distance knows in plain values."""


@attrs.frozen(kw_only=True)
class Settings:
    """How a distance is measured, whatever the method."""

    samples: int = option(10_000, help="samples a side, at most", at_least=20)
    matrix_samples: int = option(
        2_000, help="samples a side, at most, wherever all pairs are compared", at_least=10, at_most=20_000
    )
    split: str | None = option(None, help="of a source: all, or held-out beside a run", choices=SPLITS)
    permutations: int = option(0, help="random relabellings behind the p-value; 0 for none", at_least=0)
    confidence: float = option(0.99, help="of the interval and of the bracket", above=0.5, at_most=0.9999)
    steps: int = option(5_000, help="critic steps, at most", at_least=1)
    batch: int = option(256, help="samples a batch of either side", at_least=2)
    check_every: int = option(50, help="critic steps between looks at the held-out samples", at_least=1)
    patience: int = option(20, help="looks without a better one after which training stops", at_least=1)
    seed: int = option(0, help="decides every draw", at_least=0, at_most=2**62)
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")


@attrs.frozen(kw_only=True, eq=False)
class Distance:
    """How far apart two sets of samples are, by one method, with the size and the side of the error."""

    method: str
    quantity: Quantity
    """What is estimated: its name, unit, range, and on which side of the truth the estimate lies."""
    estimate: float
    interval: tuple[float, float]
    """Where resampled data would put the estimate, as often as `confidence` says."""
    confidence: float
    p_value: float | None
    """Of no difference, by permutations; None where none were asked for."""
    bracket: Bracket | None
    """Two ends for W1 between the laws; for objectives that estimate it, and for exact transport."""
    real: Side
    fake: Side
    counts: dict[str, int]
    """How many samples of either side stand behind the estimate."""
    notes: tuple[str, ...]
    settings: dict[str, Any]
    witness: Callable[[Tensor], Tensor] = attrs.field(repr=False)
    """From samples (N, ...) to numbers (N,), high where there are more real ones: the trained critic, as a rule."""
    certificate: Certificate | None = None
    """What the critic's Lipschitz constant can be at most; None without a critic."""
    held_out: float | None = None
    """The estimate on the samples that told when to stop."""
    steps: int = 0
    best_step: int = 0

    def table(self) -> dict[str, Any]:
        """The result as plain values."""
        plain: dict[str, Any] = {"real": self.real.label, "fake": self.fake.label, "method": self.method}
        plain |= attrs.asdict(self.quantity) | {name: getattr(self, name) for name in PLAIN}
        plain["lipschitz_bound"] = None if self.certificate is None else self.certificate.bound
        plain["bracket"] = None if self.bracket is None else attrs.asdict(self.bracket)
        return finite(plain | {"settings": self.settings})

    def plot(self, path: str | Path) -> Path:
        """Draw the witness: over the plane, along the line, or, for images, the samples where it is most extreme."""
        draw_witness(Path(path), self.witness, self.real.samples, self.fake.samples, bounds=self.real.bounds)
        return Path(path)


@attrs.frozen(kw_only=True, eq=False)
class _Question:
    """Two sides with their samples, and how to compare them."""

    real: Side
    fake: Side
    spec: SampleSpec
    notes: tuple[str, ...]
    made: Settings
    streams: Streams

    @property
    def parted(self) -> tuple[Parted, Parted]:
        return Parted.of(self.real.samples), Parted.of(self.fake.samples)

    def p_value(self, observed: float, permuted: Callable[[Tensor], float], count: int) -> float | None:
        """None where no permutations were asked for."""
        if not self.made.permutations:
            return None
        generator = self.streams.at("permutations", 0)
        return permutation_p_value(observed, permuted, count, self.made.permutations, generator)

    def bracket(self, critic: End | None) -> Bracket:
        real, fake = ((side.fit.flatten(1), side.test.flatten(1)) for side in self.parted)
        made = self.made
        return bracket(
            real, fake, critic, matrix_samples=made.matrix_samples, confidence=made.confidence, streams=self.streams
        )

    def answer(self, *, notes: tuple[str, ...] = (), settings: Mapping[str, Any] = {}, **found: Any) -> Distance:
        """What was found, with what is known of the question."""
        asked = {"real": self.real, "fake": self.fake, "confidence": self.made.confidence}
        told = {"notes": self.notes + notes, "settings": attrs.asdict(self.made) | dict(settings)}
        whole: dict[str, Any] = asked | told | found
        return Distance(**whole)


def distance(real: Given, fake: Given, *, method: str = CRITIC, **settings: Any) -> Distance:
    """Measure how far apart two sets of samples are.

    Either side is a source (an object or ``name:key=value``), a file (.npy, .npz, .safetensors), a folder of images, a
    run (``run:DIRECTORY``), or samples in memory, (N, D) or (N, channels, height, width). The two must be drawn
    independently of each other.

    Args:
        real: the side where the critic is high.
        fake: the other side.
        method: ``critic``, or ``exact``, ``sinkhorn``, ``sliced``, ``energy``, ``mmd``, with options after a colon.
        settings: those of `ipmgan.evaluation.distance.Settings`; and, for ``critic``, `objective` (wgan), `lipschitz`
            (gp where the objective needs one), `critic` and `critic_optimizer`, as for `ipmgan.train`. `perturbation`,
            with any method, changes each sample of both sides once: the distance is then that of the perturbed laws.

    Returns:
        The estimate with its interval, and what else is known.

    Raises:
        UsageError: for names and values that are not allowed, and sides that do not fit each other.
        DataError: for data that is missing, unreadable or too small.

    >>> import torch
    >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    >>> y = torch.randn(400, 1, generator=torch.Generator().manual_seed(1)) + 3
    >>> found = distance(x, y, method="sliced")
    >>> found.interval[0] < 3 < found.interval[1]
    True
    """
    perturbation: Any = settings.pop("perturbation", None)
    perturbation = perturbation and as_plugin("perturbation", perturbation)
    choices = {key: settings.pop(key, None) for key in ("objective", "lipschitz", "critic", "critic_optimizer")}
    made: Settings = build(Settings, {k: v for k, v in settings.items() if v is not None}, what="a distance")
    without = None if method == CRITIC else make_method(method)
    given = [key for key, value in choices.items() if value is not None]
    if without is not None and given:
        raise UsageError(f"method = {method!r} has no critic: {', '.join(given)} cannot be given beside it")
    streams = Streams(made.seed, choose_device(made.device))
    opened = open_sides(real, fake)
    first, second, notes = take_sides(*opened, made.samples, made.split, streams)
    if perturbation is not None:
        notes += (f"both sides are perturbed by {perturbation.name}: what is told is of the laws after that",)
        first = first.perturbed(perturbation, streams.at("perturbation-real", 0))
        second = second.perturbed(perturbation, streams.at("perturbation-fake", 0))
    spec = SampleSpec(shape=opened[0].spec.shape, bounds=opened[0].spec.bounds or opened[1].spec.bounds)
    question = _Question(real=first, fake=second, spec=spec, notes=notes, made=made, streams=streams)
    found = _by_critic(question, choices) if without is None else _by_method(question, without, method)
    return attrs.evolve(found, settings=found.settings | {"perturbation": perturbation and table_of(perturbation)})


def _by_critic(question: _Question, choices: dict[str, Any]) -> Distance:
    made, sides = question.made, question.parted
    schedule = {key: getattr(made, key) for key in ("steps", "batch", "seed", "device")}
    config = critic_config(*sides, question.spec, schedule, choices)
    warnings = tuple(check(config))
    fitted = fit(config, sides[1], check_every=made.check_every, patience=made.patience)
    certificate = lipschitz_bound(fitted.critic, shape=question.spec.shape, effort=BOUND_EFFORT)
    estimate, (real, fake) = config.objective.estimate, (fitted.outputs(side.test) for side in sides)
    value, pooled = float(estimate(real, fake)), torch.cat([real, fake])
    ends = None
    if config.objective.needs_lipschitz and real.dim() == 1:
        ends = question.bracket(lower_end(real, fake, certificate.bound, made.confidence))
    return question.answer(
        method=CRITIC,
        quantity=config.objective.estimates,
        estimate=value,
        interval=_interval(config, real, fake, made.confidence, question.streams),
        p_value=question.p_value(
            value, lambda order: float(estimate(pooled[order[: len(real)]], pooled[order[len(real) :]])), len(pooled)
        ),
        bracket=ends,
        certificate=certificate,
        held_out=float(estimate(*(fitted.outputs(side.held_out) for side in sides))),
        steps=fitted.steps,
        best_step=fitted.best_step,
        counts={"real": len(real), "fake": len(fake)},
        notes=warnings + certificate.unbounded,
        settings=_chosen(config),
        witness=functools.partial(_witness, fitted, config.objective),
    )


def _by_method(question: _Question, method: Method, selection: str) -> Distance:
    made = question.made
    limit = made.matrix_samples if method.matrix else made.samples
    x, y = (side.samples.flatten(1)[:limit] for side in (question.real, question.fake))
    compared = method.compare(x, y, question.streams.at("method", 0))
    return question.answer(
        method=selection,
        quantity=method.quantity,
        estimate=compared.value,
        interval=around(compared.value, compared.error, made.confidence),
        p_value=question.p_value(compared.value, compared.permuted, len(x) + len(y)),
        bracket=question.bracket(None) if isinstance(method, Exact) else None,
        counts={"real": len(x), "fake": len(y)},
        witness=lambda samples: compared.witness(samples.flatten(1)).float(),
    )


def _interval(
    config: RunConfig, real: Tensor, fake: Tensor, confidence: float, streams: Streams
) -> tuple[float, float]:
    objective = config.objective
    if objective.whole_batch:
        return jackknife(objective.estimate, real, fake, confidence)
    return bootstrap(objective.estimate, real, fake, confidence, streams.at("bootstrap", 0))


def _witness(fitted: Fitted, objective: Objective, samples: Tensor) -> Tensor:
    """The critic, high on real samples, whatever it puts out."""
    out = fitted.outputs(samples)
    if objective.critic is CriticKind.ENERGY:
        return -(out if out.dim() == 1 else out[:, 0])
    if out.dim() != 1:
        raise UsageError(
            f"the critic of {objective.name} puts out {out.shape[1]} numbers a sample: there is no witness"
        )
    return out


def _chosen(config: RunConfig) -> dict[str, Any]:
    """What the critic was trained with."""
    assert config.critic is not None
    plugins = {"objective": config.objective, "lipschitz": config.lipschitz, "critic": config.critic}
    chosen: dict[str, Any] = {key: table_of(plugin) for key, plugin in plugins.items()}
    return chosen | {"batch": config.schedule.batch, "critic_optimizer": config.critic_optimizer.table()}
