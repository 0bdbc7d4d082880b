"""The ways in which one training step can be run."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch

from ipmgan.config import RunConfig
from ipmgan.engine.build import Parts, build
from ipmgan.engine.checks import check
from ipmgan.engine.replay import stepper
from ipmgan.engine.step import Step
from ipmgan.errors import UsageError, choose_from
from ipmgan.selection import Table


@attrs.frozen(kw_only=True)
class Mode:
    """A way to run the step: the settings that choose it, and the kinds of device that have it (all, if not said)."""

    name: str
    settings: Table
    devices: tuple[str, ...] = ()

    def on(self, device: torch.device) -> bool:
        """Whether the device has this mode."""
        return not self.devices or device.type in self.devices


EAGER = Mode(name="eager", settings={"compile": "off"})
COMPILED = Mode(name="compiled", settings={"compile": "on"})
GRAPH = Mode(name="graph", settings={"compile": "graph"}, devices=("cuda",))
MODES = (EAGER, COMPILED, GRAPH)


def modes(names: list[str], device: torch.device) -> list[Mode]:
    """The modes of these names, or all that the device has; raises `UsageError` for what it has not."""
    known = {mode.name: mode for mode in MODES if mode.on(device)}
    for name in names:
        if name not in known:
            raise UsageError(choose_from(f"mode for {device.type} named", name, known))
    return [known[name] for name in names or known]


@attrs.frozen(kw_only=True)
class Iteration:
    """A run that is built and ready: each call is one generator step with its critic steps, as `ipmgan train` does."""

    parts: Parts
    step: Step
    advance: Callable[[], None]

    def __call__(self) -> None:
        with self.parts.streams.global_draws("layers", self.step.steps):
            self.advance()


def iteration(config: RunConfig, mode: Mode) -> Iteration:
    """A run's iteration in a mode; without the longer critic steps of the first iterations, for which rates differ."""
    schedule = attrs.evolve(config.schedule, critic_warmup=False, **mode.settings)
    config = attrs.evolve(config, schedule=schedule)
    check(config)
    parts = build(config)
    step = Step(parts, compile=schedule.compile != "off")
    return Iteration(parts=parts, step=step, advance=stepper(step, schedule.compile))
