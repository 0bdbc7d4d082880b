"""Where penalties take the critic's slope."""

from __future__ import annotations

import torch
from ipmgan import UsageError
from ipmgan.functional import interpolates
from torch import Tensor

POINTS = ("between", "real", "fake", "noisy")


def uniform(shape: tuple[int, ...], real: Tensor, generator: torch.Generator) -> Tensor:
    """U(0, 1) numbers of this shape, drawn on the generator's device, put on that of the samples."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=_wide(real)).to(real.device)


def normal(shape: tuple[int, ...], real: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) numbers of this shape, drawn on the generator's device, put on that of the samples."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=_wide(real)).to(real.device)


def draw_for(where: str, real: Tensor, generator: torch.Generator) -> Tensor | None:
    """What `points_at` needs: a weight a sample (N,) between samples, noise (N, ...) around real ones."""
    match where:
        case "between":
            return uniform((len(real),), real, generator)
        case "noisy":
            return normal(tuple(real.shape), real, generator)
        case _:
            return None


def points_at(where: str, real: Tensor, fake: Tensor, drawn: Tensor | None, noise: float) -> Tensor:
    """Points (N, ...) on the segments between real and generated samples, at either of them, or near the real ones.

    `noise` is the standard deviation of the noise of "noisy" points. Raises `UsageError` where numbers were needed and
    not drawn.
    """
    match where:
        case "real":
            return real
        case "fake":
            return fake
        case "between":
            return interpolates(real, fake, needed(drawn))
        case _:
            return real + noise * needed(drawn)


def needed(drawn: Tensor | None) -> Tensor:
    """The numbers, where they were drawn."""
    if drawn is None:
        raise UsageError("this penalty needs its random numbers: penalty(..., drawn=draw(real, generator))")
    return drawn


def _wide(real: Tensor) -> torch.dtype:
    return torch.promote_types(real.dtype, torch.float32)
