"""Critics and points that enforcers are tried on, and how steep a critic is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ipmgan.errors import UsageError
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.testing.base import NotApplicable, normal, rng, start_of

COUNT = 8


def make_critic(
    plugin: LipschitzEnforcer,
    *,
    outputs: int = 1,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float64,
    activation: Callable[[], nn.Module] = nn.Softplus,
    prepared: bool = True,
) -> nn.Module:
    """A critic of points in the plane, (N,) or (N, K), with weights of its own, as the enforcer prepares it."""
    layers: list[nn.Module] = []
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise((2, 5, 5, outputs))):
        layer = nn.Linear(fan_in, fan_out, dtype=dtype)
        for p in layer.parameters():
            p.data.copy_(scale * normal(*p.shape, seed=number + 10 * p.dim()) / fan_in**0.5)
        layers += [layer, activation()]
    critic = nn.Sequential(*layers[:-1], *([nn.Flatten(0)] if outputs == 1 else []))
    if not prepared:
        return critic
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return plugin.prepare(critic)
        except UsageError as error:
            raise NotApplicable(f"it takes no such critic here: {str(error).splitlines()[0]}") from error


def settled(critic: nn.Module) -> nn.Module:
    """The critic, in evaluation mode where its layers draw, as dropout does, so that it is a function."""
    before = torch.get_rng_state()
    critic(samples(next(critic.parameters()).dtype)[0])
    return critic if torch.equal(before, torch.get_rng_state()) else critic.eval()


def samples(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Real and generated points of the plane."""
    return normal(COUNT, 2, dtype=dtype), 1 + normal(COUNT, 2, seed=1, dtype=dtype)


class Penalised(nn.Module):
    """The penalty as a module over real samples, generated ones and what is drawn."""

    def __init__(self, plugin: LipschitzEnforcer, critic: nn.Module) -> None:
        super().__init__()
        self.plugin, self.critic = plugin, critic

    def forward(self, real: Tensor, fake: Tensor, drawn: Tensor | None) -> Tensor:
        """The penalty of the first step."""
        value, _ = self.plugin.penalty_and_state(self.critic, real, fake, drawn, start_of(self.plugin, real.device))
        if value is None:
            raise NotApplicable("it has no penalty")
        return value


def penalty_on(
    plugin: LipschitzEnforcer, dtype: torch.dtype = torch.float64, **critic: Any
) -> tuple[Penalised, Tensor, Tensor, Tensor | None]:
    """The penalty of a critic, and its inputs."""
    real, fake = samples(dtype)
    drawn = plugin.draw(real, rng())
    return Penalised(plugin, settled(make_critic(plugin, dtype=dtype, **critic))), real, fake, drawn


def steepness(critic: nn.Module, *points: Tensor) -> float:
    """The mean slope of a critic with one output, in evaluation mode."""
    x = torch.cat(points).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(critic.eval()(x).sum(), x)
    critic.train()
    return float(slopes.norm(dim=1).mean())
