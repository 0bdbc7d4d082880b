"""Bounds W1 between a run's data and its generator by how well a discriminator tells their noised selves apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from ipmgan.drawing.curves import draw_bound
from ipmgan.engine.build import Data
from ipmgan.engine.measure import unmoved
from ipmgan.engine.run import Run
from ipmgan.errors import UsageError
from ipmgan.evaluation.frozen import Frozen, against, means
from ipmgan.evaluation.results import finite
from ipmgan.functional.noised import noise_bound, spread
from ipmgan.objectives import NonSaturating
from ipmgan.perturbations import Noise
from ipmgan.plugin import option
from ipmgan.selection import build

SHARES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""√V as shares of the samples' spread, where no strengths are given."""
DIRECTION = (
    "a discriminator proves a lower bound of JSD, so what is computed from it may lie below the true right-hand side, "
    "and need not be above W1: the less so, the nearer the discriminator is to the best one. JSD <= log 2 always "
    "holds, and what is computed from that is above W1 whatever was trained"
)


@attrs.frozen(kw_only=True)
class Settings:
    """How a bound is computed."""

    sds: tuple[float, ...] = option((), help="strengths of the noise, a coordinate's sd; else by the spread", above=0)
    law: str = option("uniform", help="of a coordinate's noise", choices=("uniform", "gaussian"))
    steps: int = option(1000, help="critic steps at each strength", at_least=1)
    samples: int = option(2000, help="samples of either side that C is measured on", at_least=2)
    checkpoint: int | None = option(None, help="the checkpoint's step; else the last", at_least=0)
    seed: int = option(0, help="decides the critics' weights and every draw", at_least=0, at_most=2**62)
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")


@attrs.frozen(kw_only=True)
class Row:
    """The bound at one strength of the noise; all but `jsd` in data units."""

    sd: float
    variance: float
    """V = d sd², of all d coordinates together."""
    jsd: float
    """What the discriminator proves on held-out data: on average a lower bound, in nats."""
    jsd_error: float
    """Its standard error over batches; NaN for a single one."""
    training_jsd: float
    """The same on training data: the more it is above the other, the more was learnt by heart."""
    noise_term: float
    """2 √V."""
    by_moments: float
    """With C by second moments and the discriminator's JSD."""
    by_ball: float
    """With C of a ball and the discriminator's JSD; infinite under Gaussian noise."""
    certified_by_moments: float
    """With log 2 for JSD."""
    certified_by_ball: float


@attrs.frozen(kw_only=True)
class NoiseBound:
    """The mended theorem 3.3 over a range of noise."""

    run: str
    checkpoint: int
    law: str
    spread: float
    """C without noise, by second moments: measured on samples."""
    ball: float
    """C without noise, of a ball: of the box that the source names, or of the samples where it names none."""
    ball_is_proven: bool
    """The source names a box, and all samples lie in it."""
    rows: tuple[Row, ...]
    settings: dict[str, Any]

    @property
    def best(self) -> Row:
        """The strength with the least right-hand side from the discriminator."""
        return min(self.rows, key=lambda row: row.by_moments)

    @property
    def certified(self) -> float:
        """The right-hand side with log 2 for JSD, and no noise, which only adds to it then: 2 √2 C √log 2."""
        c = self.ball if self.ball_is_proven else self.spread
        return _right_hand_side(0.0, c, math.log(2))

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known to read the numbers."""
        count = self.settings["samples"]
        found = [DIRECTION, f"C by second moments is measured on {count} samples a side at most"]
        if self.law == "gaussian":
            found.append("Gaussian noise lies in no ball, so that only the form by second moments holds")
        elif not self.ball_is_proven:
            found.append("the ball is that of the samples: nothing proves that it holds all of both laws")
        return tuple(found)

    def table(self) -> dict[str, Any]:
        """The bound as plain values; what is not finite is None."""
        best = {"best_sd": self.best.sd, "best": self.best.by_moments, "certified": self.certified}
        return finite(attrs.asdict(self) | best | {"notes": self.notes})

    def plot(self, path: str | Path) -> Path:
        """Draw the right-hand sides and JSD over the strength of the noise."""
        rows = [finite(attrs.asdict(row)) for row in self.rows]
        draw_bound(Path(path), rows, f"W1 <= 2 √V + 2 √2 C √JSD, {self.law} noise, step {self.checkpoint}")
        return Path(path)


class Bounder:
    """Computes the bound for one strength of the noise after another; iterating over it trains, yielding each row.

    `run` is a run or its directory; `critic` and `critic_optimizer` are as for `ipmgan.train`, the run's critic and the
    objective's optimiser unless given; `settings` are those of `Settings`. At each strength a fresh discriminator is
    trained between noised samples of the training split and of the generator, and judged on held-out ones. Raises as
    `Probe` does.
    """

    def __init__(
        self, run: str | Path | Run, *, critic: Any = None, critic_optimizer: Any = None, **settings: Any
    ) -> None:
        self._run = run if isinstance(run, Run) else Run(run)
        given = {key: value for key, value in settings.items() if value is not None}
        made: Settings = build(Settings, given, what="a bound")
        self.settings, self._snapshot = made, self._run.dir.snapshot(made.checkpoint)
        chosen = {"critic": critic, "critic_optimizer": critic_optimizer}
        self._config = against(
            self._run, objective=NonSaturating(), steps=made.steps, seed=made.seed, device=made.device, **chosen
        )
        self._data = Data.of(self._config)
        self._dim = math.prod(self._config.source.spec().shape)
        real, fake = self._samples()
        self._spread = float(spread(real, fake))
        self._ball, self._proven = ball(real, fake, self._config.source.spec().bounds)
        self.sds = made.sds or tuple(share * self._spread / math.sqrt(self._dim) for share in SHARES)
        self.rows: list[Row] = []

    def __len__(self) -> int:
        """How many strengths there are."""
        return len(self.sds)

    def __iter__(self) -> Iterator[Row]:
        """Train a discriminator at each strength."""
        for sd in self.sds[len(self.rows) :]:
            self.rows.append(self._row(sd))
            yield self.rows[-1]

    def bound(self) -> NoiseBound:
        """What was found so far; raises `UsageError` where there is nothing yet."""
        if not self.rows:
            raise UsageError("nothing was computed yet: iterate over the bounder first")
        return NoiseBound(
            run=str(self._run.path),
            checkpoint=self._snapshot.step,
            law=self.settings.law,
            spread=self._spread,
            ball=self._ball,
            ball_is_proven=self._proven,
            rows=tuple(self.rows),
            settings=attrs.asdict(self.settings),
        )

    def _frozen(self, sd: float) -> Frozen:
        noise = Noise(sd=sd, law=self.settings.law, anneal="constant")
        return Frozen(self._snapshot, attrs.evolve(self._config, perturbation=noise), self._data)

    def _row(self, sd: float) -> Row:
        frozen = self._frozen(sd)
        frozen.train(self.settings.steps)
        held_out = [seen["estimate"] for seen in frozen.see("held-out")]
        jsd, variance = statistics.fmean(held_out), self._dim * sd**2
        moments = math.sqrt(self._spread**2 + variance)
        reach = math.sqrt(3 * self._dim) * sd if self.settings.law == "uniform" else math.inf
        return Row(
            sd=sd,
            variance=variance,
            jsd=jsd,
            jsd_error=statistics.stdev(held_out) / math.sqrt(len(held_out)) if len(held_out) > 1 else math.nan,
            training_jsd=means(frozen.see("train"))["estimate"],
            noise_term=2 * math.sqrt(variance),
            by_moments=_right_hand_side(variance, moments, jsd),
            by_ball=_right_hand_side(variance, self._ball + reach, jsd),
            certified_by_moments=_right_hand_side(variance, moments, math.log(2)),
            certified_by_ball=_right_hand_side(variance, self._ball + reach, math.log(2)),
        )

    @torch.no_grad()
    def _samples(self) -> tuple[Tensor, Tensor]:
        """Held-out samples, and as many of the generator, in batches as in training."""
        parts = self._frozen(1.0).parts
        real = parts.held_out.some(self.settings.samples)
        latents = parts.config.latent.draw(len(real), parts.streams.at("bound-latents", 0))
        with unmoved(parts.generator):
            batches = [parts.generator(part).float() for part in torch.split(latents, parts.config.schedule.batch)]
        return real, torch.cat(batches)


def bound(run: str | Path | Run, **settings: Any) -> NoiseBound:
    """Bound W1 between a run's data and its generator by noise; the arguments are those of `Bounder`.

    ::

        found = ipmgan.bound("runs/mnist", steps=2000)
        print(found.best.sd, found.best.by_moments, found.certified)
    """
    made = Bounder(run, **settings)
    for _ in made:
        pass
    return made.bound()


def ball(real: Tensor, fake: Tensor, bounds: tuple[float, float] | None) -> tuple[float, bool]:
    """The radius of a ball that holds samples (N, ...), and whether it is that of a box that the data cannot leave.

    >>> points = torch.tensor([[0.6, 0.8], [-0.6, -0.8]])
    >>> [round(ball(points, points, box)[0], 4) for box in (None, (-1.0, 1.0), (-0.5, 0.5))]
    [1.0, 1.4142, 1.0]
    """
    both = torch.cat([real, fake]).flatten(1)
    if bounds is not None and bool(((both >= bounds[0]) & (both <= bounds[1])).all()):
        return math.sqrt(both.shape[1]) * (bounds[1] - bounds[0]) / 2, True
    centre = (both.amin(0) + both.amax(0)) / 2
    return float(torch.linalg.vector_norm(both - centre, dim=1).max()), False


def _right_hand_side(variance: float, radius: float, jsd: float) -> float:
    if math.isinf(radius):
        return math.inf  # Also where the divergence is 0.
    terms = (torch.tensor(part, dtype=torch.float64) for part in (variance, radius, jsd))
    return float(noise_bound(*terms))
