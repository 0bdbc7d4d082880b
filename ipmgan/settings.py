"""The parts of a run's configuration that are not plugins: latents and optimisers."""

from __future__ import annotations

import functools
import inspect
import math
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
WAYS = ("foreach", "fused", "capturable")
"""Settings that decide how an optimiser steps, and change its numbers in the last bits only."""
IN_CACHE = 2**18
"""So many parameters and their moments stay in a core's cache; with more, a pass over all of them at once is slower."""


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
        name = canonical(str(table.get("name", "")))
        if name not in kinds:
            raise UsageError(choose_from("optimiser", name, kinds))
        rest = {key: value for key, value in table.items() if key not in ("name", "milestones")}
        settings = dict(_settings(name, kinds[name], rest, what))
        if "lr" not in settings:
            raise UsageError(f"{what} {name} needs a learning rate: write {name}:lr=...")
        made = cls(
            name=name,
            lr=settings.pop("lr"),
            options=tuple(settings.items()),
            milestones=_milestones(name, kinds[name], table.get("milestones", ()), what),
        )
        made._try_out(what)
        return made

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
        settings = _allowed(optimizers()[self.name]) | dict(self.options)
        kept = settings["betas"][0] if "betas" in settings else settings.get("momentum", 0.0)
        return float(kept)

    def make(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over these parameters; raises `UsageError` where torch refuses the settings."""
        kind = optimizers()[self.name]
        settings: dict[str, Any] = {"lr": self.lr, **dict(self.options)}
        if not any(way in settings for way in WAYS):
            settings |= quickest(kind, parameters)
        try:
            return bare(kind)(parameters, **settings)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise UsageError(f"torch.optim.{self.name} refuses these settings: {error}") from error

    def _try_out(self, what: str) -> None:
        """Raise `UsageError` where torch refuses the settings, or those of a milestone, over a weight."""
        weight = torch.nn.Parameter(torch.zeros(2, 2))
        settings = dict(self.options)
        for step, changes in ((0, ()), *self.milestones):
            settings |= dict(changes)
            rate = settings.pop("lr", self.lr)
            try:
                attrs.evolve(self, lr=rate, options=tuple(settings.items()), milestones=()).make([weight])
            except UsageError as error:
                raise UsageError(f"{what}{f', from step {step}' if step else ''}: {error}") from error

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


def quickest(kind: type[torch.optim.Optimizer], parameters: list[torch.nn.Parameter]) -> dict[str, bool]:
    """The setting with which an optimiser steps these parameters fastest; nothing where torch's choice is.

    On a CPU torch's choice is a Python loop over the parameters. Where there is one kernel for all, it is 2 to 8 times
    as fast; else one call an operation, for all parameters together, saves up to a fifth as long as they are few.
    """
    known = inspect.signature(kind).parameters
    if not all(p.is_cpu and p.is_floating_point() and torch.empty_like(p).stride() == p.stride() for p in parameters):
        return {}  # A parameter with gaps in its memory, for one, is beyond those kernels.
    if "fused" in known:
        return {"fused": True}
    return {"foreach": True} if "foreach" in known and sum(p.numel() for p in parameters) <= IN_CACHE else {}


def bare(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The optimiser without torch's precautions for compiling its methods.

    They load the compiler at the first use, which takes half as long as loading torch, whether or not it is needed.
    """
    plain = inspect.unwrap(kind.step)

    @functools.wraps(plain)
    @torch.no_grad()
    def step(optimizer: torch.optim.Optimizer, closure: None = None) -> None:
        for group in optimizer.param_groups:
            if group.get("fused"):
                lay_alike(optimizer, group["params"])
        plain(optimizer)

    return type(kind.__name__, (kind,), {"step": step, "add_param_group": inspect.unwrap(kind.add_param_group)})


def lay_alike(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Give gradients and moments the strides of their parameters, where they have others.

    torch's fused kernels read the memory of all of them in the parameter's order, and so take wrong numbers otherwise.
    """
    for p in parameters:
        if p.grad is not None and p.grad.stride() != p.stride():
            p.grad = torch.empty_like(p).copy_(p.grad)
        state = optimizer.state.get(p, {})
        for key, moment in state.items():
            if moment.shape == p.shape and moment.stride() != p.stride():
                state[key] = torch.empty_like(p).copy_(moment)


def canonical(name: str) -> str:
    """An optimiser's name as torch writes it, however it is capitalised; a name that is none, unchanged.

    >>> canonical("rmsprop")
    'RMSprop'
    """
    return next((known for known in optimizers() if known.lower() == name.lower()), name)


def _settings(
    name: str, kind: type[torch.optim.Optimizer], values: Mapping[str, Any], what: str
) -> tuple[tuple[str, Any], ...]:
    allowed = _allowed(kind)
    settings = {}
    for key, given in values.items():
        if key not in allowed:
            raise UsageError(choose_from(f"option of {what} {name} named", key, allowed))
        value = tuple(given) if isinstance(given, list) else given
        if key == "lr":
            value = build(_Rate, {"lr": value}, what=f"{what} {name}").lr
        elif not _alike(value, allowed[key]):
            raise UsageError(f"{what} {name}: {key} = {given!r}: must be like torch's default, {allowed[key]}")
        if value is not None:
            settings[key] = _converted(value, allowed[key])
    return tuple(settings.items())


def _milestones(
    name: str, kind: type[torch.optim.Optimizer], listed: Any, what: str
) -> tuple[tuple[int, tuple[tuple[str, Any], ...]], ...]:
    """The milestones in the order of their steps."""
    found: dict[int, tuple[tuple[str, Any], ...]] = {}
    for milestone in listed if isinstance(listed, list | tuple) else [listed]:
        step = milestone.get("step") if isinstance(milestone, Mapping) else None
        if not isinstance(step, int) or isinstance(step, bool) or step < 1 or step in found:
            raise UsageError(
                f"{what}: a milestone is a table with settings and a step of its own, at least 1, not {milestone!r}"
            )
        found[step] = _settings(name, kind, {key: value for key, value in milestone.items() if key != "step"}, what)
    return tuple(sorted(found.items()))


def _allowed(kind: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """What this optimiser can be told, with torch's defaults."""
    parameters = inspect.signature(kind).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in NOT_SETTINGS}


def _alike(value: Any, default: Any) -> bool:
    """Whether a value is of the default's kind: a switch, a finite number, or so many of them."""
    if default is None:
        return value is None or isinstance(value, bool | int | float | str)
    if isinstance(default, tuple):
        return isinstance(value, tuple) and len(value) == len(default) and all(map(_alike, value, default))
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, int | float) and math.isfinite(value)


def _converted(value: Any, default: Any) -> Any:
    """The value with whole numbers as floats where torch's default is one: betas of 0 and 0.9 are refused otherwise."""
    if isinstance(default, tuple):
        return tuple(map(_converted, value, default))
    return float(value) if isinstance(default, float) and isinstance(value, int) else value


@attrs.frozen(kw_only=True)
class _Rate:
    lr: float = option(help="learning rate", above=0)
