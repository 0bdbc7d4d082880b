"""The gradient penalty of the Cramér GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, Reference, Training, UsageError, option
from ipmgan.functional import gradient_norms, interpolates, slope_penalty
from torch import Tensor, nn

from ipmgan_ipm.cramer import CRAMER

_ADAM = "Adam:lr=1e-4,betas=[0.5,0.9]"


@attrs.frozen(kw_only=True)
class CramerPenalty(LipschitzEnforcer):
    """Penalises a feature critic for slopes other than one of the Cramér GAN's f, between real and generated samples.

        w · mean_i (‖∇f_i(x_i)‖ - 1)²,   f_i(x) = ‖h(x) - h(y'_i)‖ - ‖h(x)‖,   x_i = ε_i real_i + (1 - ε_i) y_i

    with y'_i another generated sample than y_i (the one before it in the batch) and one ε ~ U(0, 1) a sample. A soft
    constraint: it bounds the slope of h nowhere. It is for an h of several numbers a sample, such as `cramer` and `mmd`
    train; of one number, f is h itself, and this is `gp`. It rules out batch norm.

    Departs from the paper in taking y' from the same batch. Source: Bellemare et al. (2017), algorithm 1.
    """

    name: ClassVar[str] = "cramer-gp"
    references: ClassVar[tuple[Reference, ...]] = (CRAMER,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True

    weight: float = option(10.0, help="w", above=0)

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor:
        """One ε a sample, (N,)."""
        dtype = torch.promote_types(real.dtype, torch.float32)
        return torch.rand(len(real), generator=generator, device=generator.device, dtype=dtype).to(real.device)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted penalty, a scalar, of samples (N, ...). Raises `UsageError` where ε was not drawn."""
        if drawn is None:
            raise UsageError("cramer-gp needs its weights between samples: penalty(..., drawn=draw(real, rng))")
        points = interpolates(real, fake, drawn)
        with torch.autocast(points.device.type, enabled=False):
            others = critic(fake.roll(1, 0).to(points.dtype))

        def f(x: Tensor) -> Tensor:
            h: Tensor = critic(x)
            return h if h.dim() == 1 else _lengths(h - others) - _lengths(h)

        return self.weight * slope_penalty(gradient_norms(f, points))


def _lengths(rows: Tensor) -> Tensor:
    """Euclidean norms, with all derivatives 0 where a row is 0."""
    squared = rows.square().sum(1)
    return torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)
