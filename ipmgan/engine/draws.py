"""What the updates of a run draw: real samples, latents and random numbers, each a function of its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from ipmgan.engine.blocks import Blocks, StackedBlocks
from ipmgan.engine.build import Parts
from ipmgan.engine.feed import Feed, StackedFeed
from ipmgan.lipschitz.base import LipschitzEnforcer


class CriticDraws(NamedTuple):
    """For a critic step: perturbed real samples, latents, what perturbs the fakes, and what the enforcer draws."""

    real: Tensor
    latents: Tensor
    noise: Tensor | None
    enforcer: Tensor | None


class GeneratorDraws(NamedTuple):
    """For a generator step: real samples where the objective looks at them, latents, and what perturbs the fakes."""

    real: Tensor | None
    latents: Tensor
    noise: Tensor | None


class Draws:
    """What one run draws."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self._config = parts, parts.config
        self._feed: Feed | StackedFeed = parts.train
        self._latents = {
            stream: Blocks(parts.config.latent.draw, parts.config.schedule.batch, parts.streams, stream)
            for stream in ("critic-latents", "generator-latents")
        }

    def critic(self, number: int, step: int) -> CriticDraws:
        """For critic step `number` of the run, which precedes generator step `step`."""
        own = step if self._config.objective.generator_uses_real else 0
        real = self._real("critic-noise-real", number + own, number, step)
        return CriticDraws(
            real=real,
            latents=self.latents("critic-latents", number),
            noise=self.noise("critic-noise-fake", number, step),
            enforcer=self.enforcer(real, number),
        )

    def generator(self, number: int, step: int) -> GeneratorDraws:
        """For generator step `step`, which precedes critic step `number`."""
        real = None
        if self._config.objective.generator_uses_real:
            real = self._real("generator-noise-real", number + step, step, step)
        return GeneratorDraws(
            real=real,
            latents=self.latents("generator-latents", step),
            noise=self.noise("generator-noise-fake", step, step),
        )

    def latents(self, stream: str, number: int) -> Tensor:
        """Batch `number` of latents."""
        return self._latents[stream].batch(number)

    def noise(self, stream: str, number: int, step: int) -> Tensor | None:
        """What perturbs a batch."""
        return self.parts.noise(stream, number, self._config.schedule.batch, step)

    def enforcer(self, real: Tensor, number: int) -> Tensor | None:
        """What the enforcer draws; None, without asking, where it never does."""
        enforcer = self._config.lipschitz
        if type(enforcer).draw is LipschitzEnforcer.draw:
            return None
        return enforcer.draw(real, self.parts.streams.at("penalty", number))

    def perturb(self, samples: Tensor, noise: Tensor | None) -> Tensor:
        """The samples, perturbed."""
        return self._config.perturbation.perturb(samples, noise)

    def _real(self, stream: str, batch: int, number: int, step: int) -> Tensor:
        """A real batch as the critic sees it."""
        return self.perturb(self._feed.batch(batch), self.noise(stream, number, step))


class StackedDraws(Draws):
    """What several runs draw that differ in their seed alone, stacked: (runs, batch, ...)."""

    def __init__(self, runs: Sequence[Draws]) -> None:
        super().__init__(runs[0].parts)
        self.runs = list(runs)
        self._feed = StackedFeed([run.parts.train for run in runs])
        self._latents = {stream: StackedBlocks([run._latents[stream] for run in runs]) for stream in self._latents}

    def noise(self, stream: str, number: int, step: int) -> Tensor | None:
        """What perturbs a batch of each run."""
        return stack([run.noise(stream, number, step) for run in self.runs])

    def enforcer(self, real: Tensor, number: int) -> Tensor | None:
        """What the enforcer draws for each run."""
        return stack([run.enforcer(batch, number) for run, batch in zip(self.runs, real, strict=True)])

    def perturb(self, samples: Tensor, noise: Tensor | None) -> Tensor:
        """The samples of each run, perturbed."""
        return vmap(super().perturb, in_dims=(0, None if noise is None else 0))(samples, noise)


def stack(values: Sequence[Tensor | None]) -> Tensor | None:
    """The tensors stacked; None where there are none."""
    given = [value for value in values if value is not None]
    return torch.stack(given) if given else None
