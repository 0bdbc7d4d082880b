"""What a critic step and a generator step minimise, each as a module over samples, latents and random numbers.

They draw nothing and update nothing, so that the same code runs as it stands, compiled, or for many seeds at once.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from ipmgan.engine.build import Parts
from ipmgan.errors import PluginError

Seen = dict[str, Tensor]
"""What a step leaves to look at, without graph: the ``loss``, the ``penalty``, the critic's outputs ``real``, ``fake``.

A table of those that there are, since torch's transforms return nothing but tensors."""


SAMPLEWISE = (
    *(nn.Sequential, nn.Flatten, nn.Unflatten, nn.Linear, nn.LayerNorm),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus),
)
"""Layers that put out for a sample what that sample alone decides, and draw nothing."""


def samplewise(net: nn.Module | None) -> bool:
    """Whether a network is known to treat each sample by itself, so that two batches can go through it as one.

    What parametrises a layer sees its weights and no samples.
    """
    if net is None:
        return False
    layers = (module for name, module in net.named_modules() if "parametrizations" not in name.split("."))
    return all(type_before_parametrizations(layer) in SAMPLEWISE for layer in layers)


class Forward(nn.Module):
    """Runs networks forward in the precision that is asked for."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.config, self.device_type = parts.config, parts.device.type

    def precision(self) -> contextlib.AbstractContextManager[object]:
        """Autocast for the networks' forward passes; losses, penalties and updates stay outside, in float32."""
        if self.config.schedule.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=torch.bfloat16)


class Loss(Forward):
    """Maps a step's inputs to the scalar that is minimised, and to what is looked at."""

    trained: str
    """The network whose weights the scalar is minimised over."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.critic = parts.critic

    def weights(self) -> dict[str, nn.Parameter]:
        """The trained weights by their names in this module."""
        prefix = f"{self.trained}."
        return {name: p for name, p in self.named_parameters() if name.startswith(prefix) and p.requires_grad}

    def held(self) -> dict[str, nn.Parameter]:
        """All other weights, by their names in this module."""
        weights = self.weights()
        return {name: p for name, p in self.named_parameters() if name not in weights}


class CriticLoss(Loss):
    """The objective's critic loss on a real and a generated batch, and the enforcer's penalty."""

    trained = "critic"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.objective_state, self.enforcer_state = parts.objective_state, parts.enforcer_state
        self._samplewise = samplewise(parts.critic)

    def forward(self, real: Tensor, fake: Tensor, noise: Tensor | None, drawn: Tensor | None) -> tuple[Tensor, Seen]:
        """The scalar to minimise; `noise` and `drawn` are the fakes' perturbation's and the enforcer's random numbers.

        The real samples come perturbed, the fakes as the generator made them, without graph.
        """
        objective, enforcer, critic = self.config.objective, self.config.lipschitz, self.critic
        assert critic is not None
        with torch.no_grad():
            fake = self.config.perturbation.perturb(fake, noise)
        with self.precision():
            on_real, on_fake = self._both(critic, real, fake)
        loss, state = objective.critic_loss_and_state(on_real, on_fake, self.objective_state.table())
        scalar(objective.name, "critic loss", loss)
        self.objective_state.move(state, objective.name)
        penalty, state = enforcer.penalty_and_state(critic, real, fake, drawn, self.enforcer_state.table())
        self.enforcer_state.move(state, enforcer.name)
        seen = {"loss": loss.detach(), "real": on_real.detach(), "fake": on_fake.detach()}
        if penalty is None:
            return loss, seen
        scalar(enforcer.name, "penalty", penalty)
        return loss + penalty, seen | {"penalty": penalty.detach()}

    def _both(self, critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The critic's outputs on both batches: as one, which is faster, where nothing can tell the difference.

        That takes a batch whose 1/N is exact: what cancels between the two, such as the gradient of a last bias, then
        cancels to 0 in any order of summation, and leaves no rounding for adaptive optimisers to blow up.
        """
        hooked = critic._forward_hooks or critic._forward_pre_hooks
        if self._samplewise and len(real).bit_count() == 1 and not hooked:
            out = critic(torch.cat([real, fake])).float()
            return out[: len(real)], out[len(real) :]
        return critic(real).float(), critic(fake).float()


class GeneratorLoss(Loss):
    """The objective's generator loss; without a critic, on the samples themselves."""

    trained = "generator"

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.generator = parts.generator

    def forward(self, real: Tensor | None, latents: Tensor, noise: Tensor | None) -> tuple[Tensor, Seen]:
        """The scalar to minimise; `noise` is for the fakes, `real` a batch where the generator loss uses it."""
        objective = self.config.objective
        with self.precision():
            fake = self.config.perturbation.perturb(self.generator(latents).float(), noise)
            on_fake = self._outputs(fake)
            on_real = on_fake.new_empty(0) if real is None else self._outputs(real)
        loss = scalar(objective.name, "generator loss", objective.generator_loss(on_real, on_fake))
        return loss, {"loss": loss.detach(), "real": on_real.detach(), "fake": on_fake.detach()}

    def _outputs(self, samples: Tensor) -> Tensor:
        return (samples.flatten(1) if self.critic is None else self.critic(samples)).float()


def scalar(plugin: str, term: str, loss: Tensor) -> Tensor:
    """The loss; raises `PluginError` for what is none."""
    if not isinstance(loss, Tensor):
        raise PluginError(f"the {term} of {plugin} must be a scalar tensor, not a {type(loss).__name__}")
    if loss.dim() != 0 or not loss.is_floating_point() or not loss.requires_grad:
        raise PluginError(
            f"the {term} of {plugin} must be a scalar of floating point with a graph, not shape "
            f"{tuple(loss.shape)}, {loss.dtype}, requires_grad={loss.requires_grad}"
        )
    return loss
