"""What the generator makes for critic steps: without graph, and for several of them in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ipmgan.engine.build import Parts
from ipmgan.engine.losses import Forward, samplewise

AT_ONCE = 5
"""Critic steps whose fakes are made together: the generator stands still between them."""


class Fakes(Forward):
    """Maps latents to the generator's samples, without graph, in float32."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.generator = parts.generator

    def forward(self, latents: Tensor) -> Tensor:
        """(batch, *shape) samples for (batch, dim) latents."""
        with torch.no_grad(), self.precision():
            made: Tensor = self.generator(latents)
        return made.float()


def together(
    make: Callable[[Tensor], Tensor], generator: nn.Module, batch_dim: int = 0
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
    """Makes fakes of several batches of latents: as one batch, which is faster, where nothing can tell the difference.

    `batch_dim` is that of a batch, after those over which it is stacked.
    """
    at_once = samplewise(generator)

    def fakes(batches: Sequence[Tensor]) -> Sequence[Tensor]:
        if not at_once or generator._forward_hooks or generator._forward_pre_hooks:
            return [make(latents) for latents in batches]
        return torch.split(make(torch.cat(list(batches), batch_dim)), batches[0].shape[batch_dim], batch_dim)

    return fakes
