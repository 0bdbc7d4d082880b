"""The parts of a run's configuration that are not plugins: latents and optimisers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError, choose_from
from ipmgan.plugin import option
from ipmgan.selection import Table, build

CLOSURE_OR_SPARSE = ("LBFGS", "SparseAdam")
"""Optimisers that the training step cannot drive: one needs a closure, the other sparse gradients."""
NOT_SETTINGS = frozenset({"params", "maximize", "capturable", "differentiable"})


@attrs.frozen(kw_only=True)
class Latent:
    """The generator's prior: `dim` independent coordinates, N(0, 1) or U[-1, 1]."""

    name: str = option("normal", help="the law of a coordinate", choices=("normal", "uniform"))
    dim: int = option(100, help="number of coordinates", at_least=1)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, dim) latents on the generator's device."""
        if self.name == "uniform":
            return torch.rand(n, self.dim, generator=generator, device=generator.device).mul_(2).sub_(1)
        return torch.randn(n, self.dim, generator=generator, device=generator.device)


@attrs.frozen(kw_only=True)
class Optimizer:
    """One of torch's optimisers by name, with its settings.

    `milestones` are tables with a `step` and new settings: from that generator step on they replace the earlier ones.
    """

    name: str
    lr: float = option(help="learning rate", above=0)
    options: tuple[tuple[str, Any], ...] = ()
    milestones: tuple[tuple[int, tuple[tuple[str, Any], ...]], ...] = ()

    @classmethod
    def from_table(cls, table: Mapping[str, Any], *, what: str) -> Optimizer:
        """From a table with `name`, `lr` and whatever else this optimiser takes."""
        kinds = optimizers()
        names = {name.lower(): name for name in kinds}
        wanted = str(table.get("name", ""))
        if wanted.lower() not in names:
            raise UsageError(choose_from("optimiser", wanted, kinds))
        name = names[wanted.lower()]
        rest = {key: value for key, value in table.items() if key not in ("name", "milestones")}
        milestones = []
        for milestone in table.get("milestones", ()):
            if not isinstance(milestone, Mapping) or not isinstance(milestone.get("step"), int):
                raise UsageError(f"{what}: a milestone is a table with a step and settings, not {milestone!r}")
            changes = {key: value for key, value in milestone.items() if key != "step"}
            milestones.append((milestone["step"], _settings(name, kinds[name], changes, what)))
        settings = dict(_settings(name, kinds[name], rest, what))
        if "lr" not in settings:
            raise UsageError(f"{what} {name} needs a learning rate: write {name}:lr=...")
        return cls(name=name, lr=settings.pop("lr"), options=tuple(settings.items()), milestones=tuple(milestones))

    def table(self) -> Table:
        """The table that `from_table` turns back into an equal object."""
        table: Table = {"name": self.name, "lr": self.lr}
        table |= {key: list(value) if isinstance(value, tuple) else value for key, value in self.options}
        if self.milestones:
            table["milestones"] = [{"step": step, **dict(changes)} for step, changes in self.milestones]
        return table

    @property
    def momentum(self) -> float:
        """The share of the last update's direction that the next one keeps: momentum, or the first of the betas."""
        options = dict(self.options)
        if "betas" in inspect.signature(optimizers()[self.name]).parameters:
            default = inspect.signature(optimizers()[self.name]).parameters["betas"].default
            return float(options.get("betas", default)[0])
        return float(options.get("momentum", 0.0))

    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters; raises `UsageError` where torch refuses the settings."""
        try:
            settings: dict[str, Any] = {"lr": self.lr, **dict(self.options)}
            return optimizers()[self.name](parameters, **settings)
        except (ValueError, TypeError, RuntimeError) as error:
            raise UsageError(f"torch.optim.{self.name} refuses these settings: {error}") from error

    def schedule(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Put the settings of generator step `step` into the optimiser; a pure function of the step."""
        for start, changes in self.milestones:
            if step >= start:
                for group in optimizer.param_groups:
                    group.update(dict(changes))


def optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """torch's optimisers that a training step can drive, by name."""
    found = {
        name: kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    return {name: kind for name, kind in found.items() if name not in CLOSURE_OR_SPARSE}


def _settings(
    name: str, kind: type[torch.optim.Optimizer], values: Mapping[str, Any], what: str
) -> tuple[tuple[str, Any], ...]:
    parameters = inspect.signature(kind).parameters
    allowed = {key: parameter.default for key, parameter in parameters.items() if key not in NOT_SETTINGS}
    settings = {}
    for key, value in values.items():
        if key not in allowed:
            raise UsageError(choose_from(f"option of {what} {name} named", key, allowed))
        settings[key] = tuple(value) if isinstance(value, list) else value
    if "lr" in settings:
        rate = build(_Rate, {"lr": settings["lr"]}, what=f"{what} {name}")
        settings["lr"] = rate.lr
    return tuple(settings.items())


@attrs.frozen(kw_only=True)
class _Rate:
    lr: float = option(help="learning rate", above=0)
