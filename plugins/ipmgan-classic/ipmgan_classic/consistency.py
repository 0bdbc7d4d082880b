"""The consistency term of CT-GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, PairingError, Reference, Training, option
from ipmgan.functional import gradient_norms, interpolates, slope_penalty
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ipmgan_classic.points import needed, uniform

CT_GAN = Reference(
    key="wei2018improving",
    title="Improving the Improved Training of Wasserstein GANs: A Consistency Term and Its Dual Effect",
    authors=("Xiang Wei", "Boqing Gong", "Zixia Liu", "Wei Lu", "Liqiang Wang"),
    year=2018,
    venue="International Conference on Learning Representations",
    arxiv="1803.01541",
)
_ADAM = "Adam:lr=1e-4,betas=[0.5,0.9]"


class Halves(nn.Sequential):
    """A critic in two parts: up to the input of its last layer, and that layer with what follows it."""


@attrs.frozen(kw_only=True)
class Consistency(LipschitzEnforcer):
    """Penalises the critic for changing its mind about real samples under dropout, beside the gradient penalty.

        lambda_2 * mean_i max(0, d_i - M) + lambda_1 * mean_i (||grad f(x_i)||_2 - 1)²

        d_i = (f'(real_i) - f''(real_i))² + w * mean_k (h'_k(real_i) - h''_k(real_i))²
        x_i = eps_i real_i + (1 - eps_i) fake_i,   eps_i ~ U(0, 1)

    f' and f'' are two passes of the critic, each with its own dropout, and h is the input of its last layer. Dropout
    moves hidden units as a step away from a sample would, so that this is a Lipschitz condition around the data, where
    points between real and generated samples seldom come.

    The critic needs dropout. A plain stack of layers (`nn.Sequential`, as of `mlp` and `dcgan`) that has none gets one
    of rate `dropout` after each hidden activation, as in the paper; another critic must bring its own. All of training
    goes through it, the gradient penalty, the generator's steps and the estimates included. It draws from torch's own
    generators, which follow the run's streams: runs repeat and resume to the bit, compiled or not, but seeds cannot be
    trained at once (`--replicates`). Without a stack of layers there is no h, and w counts for nothing.

    Departs from the authors' code in M, which the code subtracts behind lambda_2, and here the paper's formula in front
    of it; distances are squares, and a mean over h, as there. Every sample counts alone, which rules out batch norm.
    Source: Wei et al. (2018), section 3.
    """

    name: ClassVar[str] = "consistency"
    aliases: ClassVar[tuple[str, ...]] = ("ct-gan",)
    references: ClassVar[tuple[Reference, ...]] = (CT_GAN,)
    defaults: ClassVar[Training] = Training(critic_optimizer=_ADAM, generator_optimizer=_ADAM)
    needs_double_backward: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    scalar_critic: ClassVar[bool] = True
    vectorises: ClassVar[bool] = False

    weight: float = option(2.0, help="lambda_2, of the consistency term", above=0)
    margin: float = option(0.0, help="M, the distance that costs nothing", at_least=0)
    features: float = option(0.1, help="w, of the distance at the last layer's input", at_least=0)
    gradient: float = option(10.0, help="lambda_1, of the gradient penalty; 0 for none", at_least=0)
    dropout: float = option(0.5, help="share of hidden units that are dropped", above=0, at_most=0.95)

    def prepare(self, critic: nn.Module) -> nn.Module:
        """The critic with dropout, in two parts. Raises `PairingError` where it has none and no place for it."""
        dropped = any(isinstance(module, _DropoutNd) and module.p > 0 for module in critic.modules())
        if type(critic) is nn.Sequential:
            layers = list(critic) if dropped else _with_dropout(list(critic), self.dropout)
            dropped = dropped or len(layers) > len(critic)
            last = _last_layer(layers)
            critic = Halves(nn.Sequential(*layers[:last]), nn.Sequential(*layers[last:]))
        if not dropped:
            raise PairingError(
                f"{self.name} compares two passes of a critic with dropout, and this critic has neither dropout nor "
                "hidden activations in a plain stack of layers to put it behind: take mlp or dcgan, or another enforcer"
            )
        return critic

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor | None:
        """A weight a sample, (N,), for the gradient penalty."""
        return uniform((len(real),), real, generator) if self.gradient else None

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor, drawn: Tensor | None = None) -> Tensor:
        """The weighted sum of both penalties, a scalar, of samples (N, ...)."""
        total = self.weight * (self._distances(critic, real) - self.margin).relu().mean()
        if not self.gradient:
            return total
        norms = gradient_norms(critic, interpolates(real, fake, needed(drawn)))
        return total + self.gradient * slope_penalty(norms)

    def _distances(self, critic: nn.Module, real: Tensor) -> Tensor:
        """How far two passes lie apart, (N,): both in one, as dropout treats every row by itself."""
        twice = torch.cat([real, real])
        with torch.autocast(real.device.type, enabled=False):
            if not isinstance(critic, Halves):
                return _apart(critic(twice)).sum(1)
            hidden = critic[0](twice)
            return _apart(critic[1](hidden)).sum(1) + self.features * _apart(hidden).mean(1)


def _apart(out: Tensor) -> Tensor:
    """Squared differences, (N, K), between the first half of the rows and the second."""
    halves = out.reshape(2, len(out) // 2, -1)
    return (halves[0] - halves[1]).square()


def _with_dropout(layers: list[nn.Module], rate: float) -> list[nn.Module]:
    """The layers with dropout after each activation that is not behind the last layer."""
    last, dropped = _last_layer(layers), list[nn.Module]()
    for place, layer in enumerate(layers):
        dropped.append(layer)
        if place < last and type(layer).__module__ == nn.ReLU.__module__:
            dropped.append(nn.Dropout(rate))
    return dropped


def _last_layer(layers: list[nn.Module]) -> int:
    """The place of the last layer that has weights."""
    return max((place for place, layer in enumerate(layers) if any(True for _ in layer.parameters())), default=0)
