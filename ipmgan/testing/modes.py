"""The ways that the engine runs losses and penalties: in half precision, and for several seeds at once."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ipmgan.errors import IpmganError
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.objectives.base import Objective
from ipmgan.plugin import Plugin
from ipmgan.testing.base import ConformanceError, NotApplicable, close, first_line, number, require
from ipmgan.testing.critics import penalty_on
from ipmgan.testing.objectives import outputs, terms

SEEDS = 3
BF16 = 0.05
"""How far a number of order 1 may be moved by bfloat16, of 8 bits, and some sums."""


def autocast_losses(plugin: Objective) -> None:
    """Losses and estimate under bf16 autocast are those without, up to rounding, and no less than float32."""
    pair = [outputs(plugin, seed=seed, dtype=torch.float32) for seed in (0, 1)]
    for name, term in terms(plugin).items():
        half = _half_precision(name, functools.partial(term, *pair))
        require(half == torch.float32, f"{name} under bf16 autocast is {half}: compute it in float32 or wider")


def autocast_penalty(plugin: LipschitzEnforcer) -> None:
    """The penalty under bf16 autocast is that without, up to rounding."""
    penalised, *given = penalty_on(plugin, torch.float32)
    _half_precision("the penalty", lambda: penalised(*given))


def _half_precision(what: str, compute: Callable[[], Tensor]) -> torch.dtype:
    """The type that comes out."""
    plain = compute()
    with torch.autocast("cpu", torch.bfloat16):
        try:
            half = compute()
        except IpmganError as error:
            raise NotApplicable(f"it refuses autocast: {first_line(error)}") from error
        except RuntimeError as error:
            raise ConformanceError(f"{what} fails under bf16 autocast: {first_line(error)}") from error
    told = f"{what} is {number(plain):.4g}, and {number(half):.4g} under bf16 autocast"
    require(close(half, plain, BF16), f"{told}: switch autocast off inside")
    return half.dtype


def vectorised_losses(plugin: Objective) -> None:
    """Losses under `torch.func.vmap` are those of each seed alone, or `vectorises = False` is declared."""
    stacks = [torch.stack([outputs(plugin, seed=k + 10 * side) for k in range(SEEDS)]) for side in (0, 1)]
    for name, term in list(terms(plugin).items())[:2]:
        slope = grad(term, argnums=(0, 1))
        alone = [slope(*pair) for pair in zip(*stacks, strict=True)]
        _together(plugin, name, functools.partial(vmap(slope), *stacks), alone)


def vectorised_penalty(plugin: LipschitzEnforcer) -> None:
    """Critic and penalty under `torch.func.vmap` are those of each seed alone, or `vectorises = False` is declared."""
    penalised, *inputs = penalty_on(plugin)
    given = tuple(inputs)
    penalised.train()
    weights, buffers = dict(penalised.named_parameters()), dict(penalised.named_buffers())
    seeds = [{name: p.detach() * (1 + 0.1 * k) for name, p in weights.items()} for k in range(SEEDS)]
    stack = {name: torch.stack([seed[name] for seed in seeds]) for name in weights}
    slope = grad(lambda weights: _loss(penalised, weights, buffers, given))
    alone = [tuple(slope(seed).values()) for seed in seeds]
    _together(plugin, "the penalty", lambda: tuple(vmap(slope)(stack).values()), alone)


def _loss(penalised: nn.Module, weights: Any, buffers: dict[str, Tensor], given: Any) -> Tensor:
    """The critic's outputs and, if there is one, its penalty."""
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    whole: Tensor = functional_call(
        Whole(penalised), {f"penalised.{k}": v for k, v in (weights | buffers).items()}, given
    )
    return whole


class Whole(nn.Module):
    """What a critic step minimises, but for the objective."""

    def __init__(self, penalised: nn.Module) -> None:
        super().__init__()
        self.penalised: Any = penalised

    def forward(self, real: Tensor, fake: Tensor, drawn: Tensor | None) -> Tensor:
        """The mean of the critic's outputs, and the penalty."""
        total: Tensor = self.penalised.critic(real).square().mean()
        with contextlib.suppress(NotApplicable):
            total = total + self.penalised(real, fake, drawn)
        return total


def _together(
    plugin: Plugin, what: str, compute: Callable[[], tuple[Tensor, ...]], alone: list[tuple[Tensor, ...]]
) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            stacked = compute()
    except (RuntimeError, IpmganError) as error:
        if not vectorises(plugin):
            raise NotApplicable("vectorises = False is declared") from error
        raise ConformanceError(
            f"{what} cannot be vectorised: declare vectorises = False ({first_line(error)})"
        ) from error
    for k, single in enumerate(alone):
        same = all(close(part[k], own, 1e-6) for part, own in zip(stacked, single, strict=True))
        require(same, f"the gradient of {what} under torch.func.vmap is not that of each seed alone")
    require(vectorises(plugin), f"vectorises = False is declared, but {what} can be vectorised")


def vectorises(plugin: Plugin) -> bool:
    """Whether a plugin says that it works under `torch.func.vmap`."""
    return bool(getattr(plugin, "vectorises", True))
