"""What a run is: resolved once from all layers, saved, and enough to run it again.

Later layers win: built-in < source < objective < enforcer < preset < file < flags.
"""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import operator
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from ipmgan.data.base import Source
from ipmgan.errors import PairingError, UsageError, choose_from
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.metrics.base import Metric
from ipmgan.networks.base import Network
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.perturbations.base import Perturbation
from ipmgan.plugin import Plugin, option
from ipmgan.registry import registry, table_of
from ipmgan.selection import Table, build, fields_of, parse_selection
from ipmgan.settings import Latent, Optimizer, canonical
from ipmgan.trackers.base import Tracker

BUILT_IN: Table = {
    "lipschitz": "none",
    "source": "digits",
    "generator": "mlp",
    "perturbation": "none",
    "metrics": ["sliced-wasserstein"],
    "tracker": [],
    "latent": "normal:dim=100",
    "steps": 10_000,
    "batch": 64,
    "n_critic": 1,
    "generator_optimizer": "Adam:lr=2e-4,betas=[0.5,0.999]",
    "critic_optimizer": "Adam:lr=2e-4,betas=[0.5,0.999]",
}
PLUGINS = {
    "objective": "objective",
    "lipschitz": "lipschitz",
    "source": "source",
    "generator": "network",
    "perturbation": "perturbation",
}
LISTS = {"metrics": "metric", "tracker": "tracker"}
OPTIMIZERS = ("generator_optimizer", "critic_optimizer")
TABLES = (*PLUGINS, "critic", "latent", *OPTIMIZERS)
ABSENT: Table = {"name": "none"}
"""How a table says that there is no critic."""
LATER: Table = {"perturbation": {"name": "none"}, "tracker": []}
"""What the complete tables of earlier versions do not have, as they would say it."""


@attrs.frozen(kw_only=True)
class Schedule:
    """The plain settings of a run."""

    steps: int = option(help="generator steps", at_least=1)
    batch: int = option(help="samples a batch, real and generated alike", at_least=1)
    n_critic: int = option(help="critic steps before each generator step", at_least=0)
    critic_warmup: bool = option(False, help="100 critic steps in the first 25 generator steps and at every 500th")
    average: float = option(0.0, help="decay of the averaged generator; 0 for none", at_least=0, at_most=0.999999)
    seed: int = option(0, help="decides initial weights, data order and every draw", at_least=0, at_most=2**62)
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")
    precision: str = option("float32", help="of the networks' forward passes", choices=("float32", "bf16"))
    compile: str = option(
        "auto",
        help="compile the training step, or (graph) replay it on CUDA; auto: where the run is long enough",
        choices=("auto", "on", "off", "graph"),
    )
    log_every: int = option(100, help="generator steps between lines of metrics", at_least=1)
    sample_every: int = option(1000, help="generator steps between sample pictures and metrics", at_least=1)
    checkpoint_every: int = option(1000, help="generator steps between checkpoints", at_least=1)
    audit_every: int = option(1000, help="generator steps between audits of the critic; 0 for none", at_least=0)
    keep: int = option(3, help="checkpoints kept", at_least=1)
    held_out_batches: int = option(8, help="held-out batches behind each held-out estimate", at_least=1)
    workers: int = option(2, help="loader processes for a source that streams", at_least=0)


@attrs.frozen(kw_only=True)
class RunConfig:
    """Everything that decides a run's result."""

    objective: Objective
    lipschitz: LipschitzEnforcer
    source: Source
    generator: Network
    critic: Network | None
    perturbation: Perturbation
    metrics: tuple[Metric, ...]
    trackers: tuple[Tracker, ...]
    latent: Latent
    generator_optimizer: Optimizer
    critic_optimizer: Optimizer
    schedule: Schedule

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that has a hand in the result: all but the trackers."""
        networks = (self.generator, self.critic)
        parts = (self.objective, self.lipschitz, self.source, *networks, self.perturbation, *self.metrics)
        return tuple(part for part in parts if part is not None)

    @property
    def title(self) -> str:
        """The name that a run gets unless told otherwise."""
        return f"{self.objective.name}-{self.lipschitz.name}-{self.source.name}"

    def table(self) -> Table:
        """The configuration as a table that `resolve` turns back into an equal one."""
        table: Table = attrs.asdict(self.schedule)
        table |= {"metrics": [*map(table_of, self.metrics)], "tracker": [*map(table_of, self.trackers)]}
        for key in PLUGINS:
            table[key] = table_of(getattr(self, key))
        table["critic"] = dict(ABSENT) if self.critic is None else table_of(self.critic)
        table["latent"] = attrs.asdict(self.latent)
        for key in OPTIMIZERS:
            table[key] = getattr(self, key).table()
        return table

    def toml(self) -> str:
        """The configuration as TOML."""
        return tomli_w.dumps(self.table())


def configure(*, preset: str | None = None, config: str | Path | None = None, **flags: Any) -> RunConfig:
    """The configuration for these settings, over a preset and a file if given.

    Plugins and optimisers are given as ``"name:key=value"``, as tables, or, for plugins, as objects; None means not
    given. Raises `UsageError` for unknown keys, names and values, each with what is allowed.

    >>> configure(objective="wgan", lipschitz="clip", steps=10).critic_optimizer.table()
    {'name': 'RMSprop', 'lr': 5e-05}
    """
    layers = [load_preset(preset)[1]] if preset else []
    layers += [read_toml(Path(config))] if config else []
    return resolve(*layers, {key: value for key, value in flags.items() if value is not None})


def resolve(*layers: Mapping[str, Any]) -> RunConfig:
    """Merge the layers over the defaults of the plugins that they choose; the last one wins."""
    allowed = (*TABLES, *LISTS, "lr", *fields_of(Schedule))
    for key in itertools.chain(*layers):
        if key not in allowed:
            raise UsageError(choose_from("setting of a run named", key, allowed))
    chosen = merge(_normal(BUILT_IN), *(_normal(layer) for layer in layers))
    if "objective" not in chosen:
        raise UsageError(f"choose an objective: --objective, one of {', '.join(registry().names('objective'))}")
    defaults = [
        registry().find(kind, str(chosen[kind].get("name"))).plugin.defaults.settings()
        for kind in ("source", "objective", "lipschitz")
    ]
    base = functools.reduce(operator.or_, map(_normal, defaults), _normal(BUILT_IN))
    return from_table(merge(base, *(_normal(layer) for layer in layers)))


def from_table(table: Mapping[str, Any]) -> RunConfig:
    """The configuration that a complete table, such as `RunConfig.table` makes, stands for: no default is merged in."""
    merged = _normal(LATER | dict(table))
    missing = [key for key in (*PLUGINS, *LISTS, *OPTIMIZERS, "latent") if key not in merged]
    if missing:
        raise UsageError(f"the configuration lacks {', '.join(missing)}")
    parts: dict[str, Any] = {key: registry().make(kind, merged.pop(key)) for key, kind in PLUGINS.items()}
    for key, kind in LISTS.items():
        parts[key] = tuple(registry().make(kind, selection) for selection in merged.pop(key))
    parts["trackers"] = parts.pop("tracker")
    critic = merged.pop("critic", None)
    parts |= {key: Optimizer.from_table(merged.pop(key), what=key) for key in OPTIMIZERS}
    parts["latent"] = build(Latent, merged.pop("latent"), what="latent")
    parts["critic"] = _critic(critic, parts["objective"], parts["generator"])
    if parts["critic"] is None:
        merged["n_critic"] = 0
    return RunConfig(**parts, schedule=build(Schedule, merged, what="a run"))


def part(table: Mapping[str, Any], key: str) -> Plugin | Latent:
    """What one key of a complete table stands for, whatever the others say: a plugin, or the latents."""
    made = _normal({key: table[key]} if key in table else {})
    if key not in made:
        raise UsageError(f"the configuration lacks {key}")
    if key in PLUGINS:
        return registry().make(PLUGINS[key], made[key])
    latent: Latent = build(Latent, made[key], what="latent")
    return latent


def _critic(selection: Mapping[str, Any] | None, objective: Objective, generator: Network) -> Network | None:
    """The critic that was chosen; else, where the objective needs one, the generator's family."""
    if selection is not None and selection != ABSENT:
        return typing.cast(Network, registry().make("network", selection))
    if objective.critic is CriticKind.NONE:
        return None
    if selection is not None:
        raise PairingError(f"{objective.name} needs a critic: choose one with --critic")
    if objective.critic in generator.critic_kinds:
        return generator
    raise PairingError(
        f"{objective.name} needs a critic that puts out a {objective.critic.value}, and {generator.name} has none: "
        "choose one with --critic"
    )


def merge(*layers: Mapping[str, Any]) -> Table:
    """Later layers over earlier ones: a table that names another plugin replaces, one that does not is merged in.

    The defaults beneath are not merged so: a paper's optimiser is that paper's, whole.
    """
    merged: Table = {}
    for layer in layers:
        for key, value in layer.items():
            below = merged.get(key)
            if isinstance(below, dict) and isinstance(value, dict):
                same = value.get("name", below.get("name")) == below.get("name")
                value = {**below, **value} if same else value
            merged[key] = value
    return merged


def _normal(layer: Mapping[str, Any]) -> Table:
    """A layer with every selection as a table, and a bare `lr` moved into both optimisers."""
    table = dict(layer)
    rate = table.pop("lr", None)
    for key in TABLES:
        if key in table:
            table[key] = _as_table(table[key], key)
            if key in OPTIMIZERS and "name" in table[key]:
                table[key]["name"] = canonical(str(table[key]["name"]))
        if rate is not None and key in OPTIMIZERS:
            table[key] = {"lr": rate, **table.get(key, {})}
    for key, kind in LISTS.items():
        if key in table:
            listed = table[key]
            if isinstance(listed, str | Mapping) or not isinstance(listed, Iterable):
                raise UsageError(f"{key} = {listed!r}: must be a list of {kind}s")
            table[key] = [_as_table(item, key) for item in listed]
    return table


def _as_table(value: Any, key: str) -> Table:
    if isinstance(value, Plugin):
        return table_of(value)
    if isinstance(value, Latent):
        return attrs.asdict(value)
    if isinstance(value, Optimizer):
        return value.table()
    if isinstance(value, str):
        return parse_selection(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise UsageError(f"{key} = {value!r}: must be name:key=value,... or a table")


def read_toml(path: Path) -> Table:
    """A configuration file; raises `UsageError` where it is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def presets() -> list[str]:
    """The names of the presets."""
    folder = importlib.resources.files("ipmgan") / "presets"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_preset(name: str) -> tuple[str, Table]:
    """A preset's text, whose comment says where it comes from, and its settings."""
    if name not in presets():
        raise UsageError(choose_from("preset", name, presets()))
    text = (importlib.resources.files("ipmgan") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    return text, tomllib.loads(text)
