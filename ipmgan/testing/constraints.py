"""Whether an enforcer is what its class data says, what it certifies, and what it keeps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ipmgan.errors import IpmganError
from ipmgan.lipschitz import lipschitz_bound
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.testing.base import (
    ConformanceError,
    NotApplicable,
    close,
    first_line,
    keeps_state,
    number,
    require,
    rng,
    unchanged,
)
from ipmgan.testing.critics import make_critic, penalty_on, samples, steepness
from ipmgan.testing.enforcers import STEPS


class _Once(torch.autograd.Function):
    """tanh, differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.tanh()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        result: Tensor = slope * (1 - y.square())
        return result


class OnceDifferentiable(nn.Module):
    """A layer whose gradient has none."""

    def forward(self, x: Tensor) -> Tensor:
        """tanh x."""
        y: Tensor = _Once.apply(x)
        return y


def needs_double_backward(plugin: LipschitzEnforcer) -> None:
    """`needs_double_backward` is true where, and only where, the penalty differentiates the critic's gradient."""
    penalised, real, fake, drawn = penalty_on(plugin, activation=OnceDifferentiable)
    try:
        penalised(real, fake, drawn).backward()
        twice = False
    except RuntimeError:
        twice = True
    undeclared = "the penalty differentiates the critic twice: declare needs_double_backward = True"
    require(plugin.needs_double_backward or not twice, undeclared)
    require(twice or not plugin.needs_double_backward, "needs_double_backward is declared, but once is enough")


class Centred(nn.Module):
    """A critic less its mean over the batch, so that the gradient of its summed outputs is zero."""

    def __init__(self, critic: nn.Module, level: Tensor) -> None:
        super().__init__()
        self.critic, self.level = critic, level
        self.mixes = False

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of mean zero."""
        out: Tensor = self.critic(x)
        return out - (out.mean(0) if self.mixes else self.level)


def per_sample(plugin: LipschitzEnforcer) -> None:
    """`per_sample` is declared where the penalty is blind to a critic that mixes the samples of a batch."""
    penalised, real, fake, drawn = penalty_on(plugin)
    with torch.no_grad():
        centred = Centred(penalised.critic, penalised.critic(torch.cat([real, fake])).mean(0))
    penalised.critic = centred
    plain = number(penalised(real, fake, drawn))
    centred.mixes = True
    mixed = number(penalised(real, fake, drawn))
    blind = abs(plain - mixed) > 0.5 * max(abs(plain), abs(mixed))
    told = f"the penalty of a critic goes from {plain:.4g} to {mixed:.4g} as its mean over the batch is taken off"
    require(plugin.per_sample or not blind, f"{told}: declare per_sample = True, which refuses batch norm")


def scalar_critic(plugin: LipschitzEnforcer) -> None:
    """`scalar_critic` is declared where a critic with several outputs cannot be enforced."""
    if plugin.scalar_critic:
        raise NotApplicable("scalar_critic is declared")
    real, fake = samples()
    try:
        critic = make_critic(plugin, outputs=3)
        plugin.penalty_and_state(critic, real, fake, plugin.draw(real, rng()), plugin.state())
        with torch.no_grad():
            plugin.after_step(critic)
    except (IpmganError, RuntimeError, ValueError, IndexError) as error:
        raise ConformanceError(
            f"a critic with three outputs cannot be enforced: declare scalar_critic = True ({first_line(error)})"
        ) from error


def certified(plugin: LipschitzEnforcer) -> None:
    """Where weights are constrained, the critic's certified Lipschitz bound is finite, and not below its slope."""
    if not plugin.enforces:
        raise NotApplicable("it enforces nothing")
    real, fake = samples()
    critic = make_critic(plugin, scale=5.0, activation=nn.ReLU)
    if plugin.penalty_and_state(critic, real, fake, plugin.draw(real, rng()), plugin.state())[0] is not None:
        raise NotApplicable("a penalty is no constraint: nothing is certain")
    for _ in range(STEPS):
        critic(real)
        with torch.no_grad():
            plugin.after_step(critic)
    certificate = lipschitz_bound(critic, shape=(2,))
    told = "; ".join(certificate.unbounded)
    require(certificate.bound < float("inf"), f"lipschitz_bound has no bound for the constrained critic: {told}")
    steepest = max(steepness(critic, point[None]) for point in torch.cat([real, fake]))
    below = f"the certified bound {certificate.bound:.6g} is below a slope of the critic, {steepest:.6g}"
    require(steepest <= certificate.bound * (1 + 1e-6), below)


def state(plugin: LipschitzEnforcer) -> None:
    """What is kept between steps stays of its shape and type, without graph, and is changed by nobody else."""
    start = dict(plugin.state())
    if not start:
        raise NotApplicable("it keeps nothing between steps")
    penalised, real, fake, drawn = penalty_on(plugin, torch.float32)
    with unchanged("penalty_and_state", **start):
        value, after = plugin.penalty_and_state(penalised.critic, real, fake, drawn, start)
    keeps_state("penalty_and_state", start, after)
    first = plugin.penalty(penalised.critic, real, fake, drawn)
    same = (value is None and first is None) or (value is not None and first is not None and close(value, first, 1e-6))
    require(same, "penalty is not the first step's")
    again = [torch.equal(kept, plugin.state()[name]) for name, kept in start.items()]
    require(all(again), "state() is not what it was at the start: it must give the same values at every call")
