"""Trains only a critic, between two fixed sets of samples, until it stops getting better on others."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig, configure
from ipmgan.data.base import Resident, SampleSpec, Source, Split
from ipmgan.engine.build import build
from ipmgan.engine.checks import check
from ipmgan.engine.feed import Feed
from ipmgan.engine.measure import unmoved
from ipmgan.engine.step import Step
from ipmgan.plugin import Plugin
from ipmgan.registry import registry

CHUNK = 1024
CRITIC = "mlp:width=256,depth=2"
OPTIMIZER = "Adam:lr=1e-3,betas=[0.5,0.9]"
MOMENTUM_FREE = "RMSprop:lr=5e-4"
"""Both are faster than the papers', since there is no generator to wait for."""


@attrs.frozen(kw_only=True, eq=False)
class Parted:
    """A side's samples in three: what the critic is fitted on, what tells when to stop, and what nobody touched."""

    fit: Tensor
    held_out: Tensor
    test: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Parted:
        """A half and two quarters of samples in random order."""
        first, second = len(samples) // 2, len(samples) * 3 // 4
        return cls(fit=samples[:first], held_out=samples[first:second], test=samples[second:])


@attrs.frozen(kw_only=True, eq=False)
class Fixed(Source):
    """Samples at hand as a source."""

    name = "fixed"

    sample: SampleSpec
    parted: Parted

    def spec(self) -> SampleSpec:
        """As given."""
        return self.sample

    def open(self, split: Split) -> Resident:
        """What is fitted on, or what tells when to stop."""
        return Resident(samples=self.parted.fit if split == "train" else self.parted.held_out)


@attrs.frozen(kw_only=True, eq=False)
class Fitted:
    """A critic at its best, in evaluation mode, and how it got there."""

    critic: nn.Module
    steps: int
    best_step: int

    @torch.no_grad()
    def outputs(self, samples: Tensor) -> Tensor:
        """For each sample, (N,) or (N, K)."""
        return torch.cat([self.critic(part).float() for part in torch.split(samples, CHUNK)])


def critic_config(
    real: Parted, fake: Parted, spec: SampleSpec, schedule: Mapping[str, Any], choices: Mapping[str, Any]
) -> RunConfig:
    """The configuration of a run in which only the critic is trained; what is left open suits that."""
    chosen = {key: value for key, value in choices.items() if value is not None}
    objective: Any = as_plugin("objective", chosen.setdefault("objective", "wgan"))
    enforcer: Any = as_plugin(
        "lipschitz", chosen.setdefault("lipschitz", "gp" if objective.needs_lipschitz else "none")
    )
    chosen.setdefault("critic", CRITIC)
    chosen.setdefault("critic_optimizer", MOMENTUM_FREE if enforcer.momentum_free else OPTIMIZER)
    batch = min(schedule["batch"], len(real.fit), len(fake.fit))
    config = configure(**chosen, **{**schedule, "batch": batch}, n_critic=1, compile="off")
    return attrs.evolve(config, source=Fixed(sample=spec, parted=real))


def fit(config: RunConfig, fake: Parted, *, check_every: int, patience: int) -> Fitted:
    """The critic with the lowest loss, penalty included, on the held-out samples, once it has stopped falling.

    That is the estimate's highest where there is no penalty. With one, the estimate alone would prefer a critic that is
    steeper than the penalty lets it stay.
    """
    fitting = _Fitting(config, fake)
    best, best_step, best_state = math.inf, 0, fitting.state()
    with fitting.parts.streams.global_draws("layers", 0):
        for loss in fitting.losses(check_every):
            if loss < best:
                best, best_step, best_state = loss, fitting.step.steps, fitting.state()
            if fitting.step.steps - best_step >= patience * check_every:
                break
    critic = fitting.critic
    critic.load_state_dict(best_state)
    return Fitted(critic=critic.eval(), steps=fitting.step.steps, best_step=best_step)


class _Fitting:
    """The critic's half of a training step, with samples at hand where there is a generator otherwise."""

    def __init__(self, config: RunConfig, fake: Parted) -> None:
        check(config)
        self.parts = build(config)
        assert self.parts.critic is not None
        self.critic = self.parts.critic
        self.step = Step(self.parts)
        self._fakes = Feed(Resident(samples=fake.fit), config.schedule.batch, self.parts.streams, "fake")
        self._held_out = fake.held_out

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(self.critic.state_dict())

    def losses(self, every: int) -> Iterator[float]:
        """Train to the last step; the loss on held-out samples after every so many."""
        total = self.parts.config.schedule.steps
        while self.step.steps < total:
            for _ in range(min(every, total - self.step.steps)):
                self._train()
            self.step.check_finite()
            yield self._held_out_loss()

    def _train(self) -> None:
        number, parts = self.step.steps, self.parts
        real = parts.train.batch(number)
        drawn = parts.config.lipschitz.draw(real, parts.streams.at("penalty", number))
        self.step.begin()
        self.step.critic_step(real, self._fakes.batch(number), None, drawn)
        self.step.count(1)

    def _held_out_loss(self) -> float:
        """In evaluation mode, with the same random numbers each time; nothing is left changed."""
        parts = self.parts
        source = parts.config.source
        assert isinstance(source, Fixed)
        count = min(len(source.parted.held_out), len(self._held_out))
        generator, total = parts.streams.at("held-out-penalty", 0), 0.0
        batches = [torch.split(side[:count], CHUNK) for side in (source.parted.held_out, self._held_out)]
        self.critic.eval()
        with unmoved(self.step.critic_loss):
            for real, fake in zip(*batches, strict=True):
                loss, _ = self.step.critic_loss(real, fake, None, parts.config.lipschitz.draw(real, generator))
                total += len(real) * float(loss.detach())
        self.critic.train()
        return total / count


def as_plugin(kind: str, given: Any) -> Plugin:
    """What is given, or the plugin that it selects; raises `UsageError` where there is none."""
    return given if isinstance(given, Plugin) else registry().make(kind, given)
