"""What the generator makes for critic steps: without graph, and for several of them in one go."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ipmgan.engine.build import Parts
from ipmgan.engine.losses import Forward, samplewise

AT_ONCE = 5
"""Critic steps whose fakes are made together: the generator stands still between them."""
LARGEST = 2**20
"""Numbers in fakes that are made together: larger batches fill a machine by themselves, and would fill its memory."""


class Fakes(Forward):
    """Maps latents to the generator's samples, without graph, in float32."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.generator = parts.generator
        numbers = parts.config.schedule.batch * math.prod(parts.shape)
        self._few = AT_ONCE if samplewise(parts.generator) and AT_ONCE * numbers <= LARGEST else 1

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, *shape) samples for (batch, dim) latents."""
        with torch.no_grad(), self.precision():
            made: Tensor = self.generator(latents)
        return made.float()

    @property
    def steps(self) -> int:
        """Critic steps whose fakes can be made together, since nothing can tell the difference."""
        hooked = self.generator._forward_hooks or self.generator._forward_pre_hooks
        return 1 if hooked else self._few


class Together:
    """Makes the fakes of a few critic steps as one batch, which is faster: a product of few rows is slow.

    `make` is how the fakes are made. `batch_dim` is the axis of a batch, after those over which it is stacked.
    """

    def __init__(self, fakes: Fakes, make: Callable[[Tensor], Tensor] | None = None, batch_dim: int = 0) -> None:
        self._fakes, self._make, self._dim = fakes, make or fakes, batch_dim

    @property
    def steps(self) -> int:
        """How many steps at once, at most."""
        return self._fakes.steps

    def __call__(self, batches: Sequence[Tensor]) -> Sequence[Tensor]:
        """The fakes for each batch of latents."""
        return torch.split(self._make(torch.cat(list(batches), self._dim)), batches[0].shape[self._dim], self._dim)
