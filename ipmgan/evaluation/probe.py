"""Trains a fresh critic against a frozen generator, and records what the generator would have got from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from ipmgan.drawing.curves import draw_probe
from ipmgan.engine.run import Run
from ipmgan.engine.rundir import writing
from ipmgan.errors import CheckpointError, UsageError
from ipmgan.evaluation.frozen import Frozen, Held, against, means
from ipmgan.evaluation.results import finite
from ipmgan.objectives import WGAN, Minimax, NonSaturating
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import option
from ipmgan.selection import build

FOLDER, LINES, ABOUT, PICTURE = "probes", "probe.jsonl", "probe.json", "probe.png"
COSTS: dict[CriticKind, tuple[Objective, ...]] = {
    CriticKind.LOGIT: (Minimax(), NonSaturating(), WGAN()),
    CriticKind.SCORE: (WGAN(),),
}
"""The generator costs that mean something for a critic's outputs, beside the objective's own."""


@attrs.frozen(kw_only=True)
class Settings:
    """How a probe is made, whatever the critic."""

    steps: int = option(4000, help="critic steps", at_least=1)
    every: int = option(10, help="critic steps between records", at_least=1)
    draws: int = option(4, help="generator batches behind each gradient's norm and variance", at_least=2)
    checkpoint: int | None = option(None, help="the checkpoint's step; else the last", at_least=0)
    seed: int = option(0, help="decides the critic's weights and every draw", at_least=0, at_most=2**62)
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")


class Probe:
    """A probe of a run: iterating over it trains the critic, writing and yielding each record.

    `run` is a run or its directory. The critic is that of `objective` (nonsaturating: a discriminator), with
    `lipschitz`, `critic` and `critic_optimizer` as for `ipmgan.train`. Where nothing else is said, critic and enforcer
    are the run's if they fit, and the rest the objective's defaults. `settings` are those of `Settings`. Perturbations
    are the run's, as strong as they were at the checkpoint.

    A record holds, for the critic after so many critic ``step``s, means over a few batches of its ``loss``,
    ``accuracy`` and ``estimate`` on training and (``held_out_...``) on held-out samples, and for each generator cost
    ``gradient_norm_...`` and ``gradient_variance_...``.

    Raises `CheckpointError` where there is no such run or checkpoint, `PairingError` for parts that do not fit.

    Source: Arjovsky and Bottou (2017), figures 1 to 3.
    """

    def __init__(
        self,
        run: str | Path | Run,
        *,
        objective: str | Objective = "nonsaturating",
        name: str | None = None,
        lipschitz: Any = None,
        critic: Any = None,
        critic_optimizer: Any = None,
        **settings: Any,
    ) -> None:
        self.run = run if isinstance(run, Run) else Run(run)
        given = {key: value for key, value in settings.items() if value is not None}
        self.settings: Settings = build(Settings, given, what="a probe")
        made, self._snapshot = self.settings, self.run.dir.snapshot(self.settings.checkpoint)
        chosen = {"lipschitz": lipschitz, "critic": critic, "critic_optimizer": critic_optimizer}
        self.config = against(
            self.run, objective=objective, steps=made.steps, seed=made.seed, device=made.device, **chosen
        )
        self.costs = costs(self.config.objective)
        done = self._snapshot.step / self.run.config.schedule.steps
        held = Held(inner=self.config.perturbation, done=min(done, 1.0))
        self._frozen = Frozen(self._snapshot, attrs.evolve(self.config, perturbation=held))
        self.path = self._claim(name)
        self.records: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """How many records there will be."""
        return math.ceil(self.settings.steps / self.settings.every) + 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train to the last step, recording on the way."""
        step, total, every = self._frozen.step, self.settings.steps, self.settings.every
        if self.records:
            return
        yield self._record()
        while step.steps < total:
            self._frozen.train(min(every, total - step.steps))
            yield self._record()

    @property
    def step(self) -> int:
        """The generator step of the checkpoint."""
        return self._snapshot.step

    def table(self) -> dict[str, Any]:
        """What was probed, and how, as plain values."""
        quantity = self.config.objective.estimates
        told = {"estimate": quantity.name, "unit": quantity.unit, "bound": quantity.bound}
        return {
            "run": str(self.run.path),
            "checkpoint": self.step,
            "objective": self.config.objective.name,
            "costs": [cost.name for cost in self.costs],
            **told,
            "settings": attrs.asdict(self.settings),
        }

    def plot(self, path: str | Path | None = None) -> Path:
        """Draw the records, by default beside them: loss, accuracy and estimate; norms and variances, to log scale."""
        target = Path(path) if path is not None else self.path / PICTURE
        title = f"{self.config.objective.name} critic against step {self.step}"
        draw_probe(target, self.records, [cost.name for cost in self.costs], title)
        return target

    def _record(self) -> dict[str, Any]:
        seen = means(self._frozen.see("train"))
        held_out = {f"held_out_{key}": value for key, value in means(self._frozen.see("held-out")).items()}
        record: dict[str, Any] = {"step": self._frozen.step.steps} | seen | held_out
        for cost in self.costs:
            for key, value in self._frozen.gradients(cost, self.settings.draws).items():
                record[f"gradient_{key}_{cost.name}"] = value
        clean = finite(record)
        self.records.append(clean)
        with writing(self.path), (self.path / LINES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")
        return clean

    def _claim(self, name: str | None) -> Path:
        """A new directory among the run's probes."""
        parent, number = self.run.path / FOLDER, 1
        first = f"{self.config.objective.name}-{self.step}" if name is None else name
        if name is not None and (name in ("", "..") or Path(name).name != name or (parent / name).exists()):
            raise UsageError(f"name = {name!r}: must be a new name, without slashes, in {parent}")
        while (parent / (path := first if number == 1 else f"{first}-{number}")).exists():
            number += 1
        target = parent / path
        with writing(target):
            target.mkdir(parents=True)
            (target / "config.toml").write_text(self.config.toml(), encoding="utf-8")
            (target / ABOUT).write_text(json.dumps(self.table(), indent=2) + "\n", encoding="utf-8")
        return target


def costs(objective: Objective) -> tuple[Objective, ...]:
    """Objectives by whose generator loss a critic of this one can be judged: those of its kind, and itself.

    >>> [cost.name for cost in costs(NonSaturating())], [cost.name for cost in costs(WGAN())]
    (['minimax', 'nonsaturating', 'wgan'], ['wgan'])
    """
    shared = COSTS.get(objective.critic, ())
    return shared if objective.name in (cost.name for cost in shared) else (*shared, objective)


def probe(run: str | Path | Run, **settings: Any) -> Probe:
    """Probe a run, and draw the picture; the arguments are those of `Probe`.

    ::

        found = ipmgan.probe("runs/mnist", steps=500, every=5)
        print(found.records[-1]["gradient_norm_minimax"])
    """
    made = Probe(run, **settings)
    for _ in made:
        pass
    made.plot()
    return made


def read_probe(path: str | Path) -> list[dict[str, Any]]:
    """The records of a probe's directory; raises `CheckpointError` where there are none."""
    lines = Path(path) / LINES
    if not lines.is_file():
        raise CheckpointError(f"{path} is not a probe: it has no {LINES}")
    return [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
