"""One training step: n_critic critic steps, each with a fresh real batch and fresh latents, then one generator step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor, nn

from ipmgan.engine.build import Parts
from ipmgan.errors import DivergedError, PluginError

WARMUP_CRITIC_STEPS = 100
"""Critic steps in the first 25 generator steps and at every 500th, in the code of Wasserstein GAN's authors."""


@attrs.define(kw_only=True, eq=False)
class Losses:
    """What the last critic step and the last generator step left behind; tensors on the device, without graph."""

    critic_loss: Tensor | None = None
    penalty: Tensor | None = None
    generator_loss: Tensor | None = None
    real: Tensor | None = None
    fake: Tensor | None = None


class Step:
    """Runs training steps on the parts of a run, and counts them."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.steps = 0
        self.critic_steps = 0
        self.last = Losses()
        self._guard = Guard(parts.device)
        self._no_output = torch.empty(0, device=parts.device)

    def run(self) -> None:
        """One generator step with its critic steps; raises `DivergedError` once a loss is not finite."""
        if self.parts.critic is not None:
            for _ in range(self.critic_steps_now()):
                self._critic_step(self.parts.critic)
        self._generator_step()
        self.steps += 1

    def critic_steps_now(self) -> int:
        """How many critic steps the coming generator step has."""
        schedule = self.parts.config.schedule
        if schedule.critic_warmup and (self.steps < 25 or self.steps % 500 == 0):
            return WARMUP_CRITIC_STEPS
        return schedule.n_critic

    def _critic_step(self, critic: nn.Module) -> None:
        parts, config, number = self.parts, self.parts.config, self.critic_steps
        assert parts.critic_optimizer is not None
        config.critic_optimizer.schedule(parts.critic_optimizer, self.steps)
        real = parts.train.batch(self._batches_drawn())
        with torch.no_grad(), self._precision():
            fake = parts.generator(self._latents("critic-latents", number)).float()
        with self._precision():
            on_real, on_fake = critic(real).float(), critic(fake).float()
        loss = config.objective.critic_loss(on_real, on_fake)
        penalty = config.lipschitz.penalty(critic, real, fake, generator=parts.streams.at("penalty", number))
        self._guard.watch(config.objective.name, "critic loss", self.steps + 1, loss)
        if penalty is not None:
            self._guard.watch(config.lipschitz.name, "penalty", self.steps + 1, penalty)
        parts.critic_optimizer.zero_grad(set_to_none=True)
        (loss if penalty is None else loss + penalty).backward()  # type: ignore[no-untyped-call]
        parts.critic_optimizer.step()
        # After the step, so that the generator never sees weights outside the constraint (Algorithm 1, lines 6 and 7).
        with torch.no_grad():
            config.lipschitz.after_step(critic)
        self.last.critic_loss, self.last.penalty = loss.detach(), None if penalty is None else penalty.detach()
        self.last.real, self.last.fake = on_real.detach(), on_fake.detach()
        self.critic_steps += 1

    def _generator_step(self) -> None:
        parts, config = self.parts, self.parts.config
        config.generator_optimizer.schedule(parts.generator_optimizer, self.steps)
        with frozen(parts.critic):
            with self._precision():
                fake = parts.generator(self._latents("generator-latents", self.steps))
                on_fake = parts.outputs(fake.float()).float()
                on_real = self._no_output
                if config.objective.generator_uses_real:
                    on_real = parts.outputs(parts.train.batch(self._batches_drawn())).float()
            loss = config.objective.generator_loss(on_real, on_fake)
            self._guard.watch(config.objective.name, "generator loss", self.steps + 1, loss)
            parts.generator_optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        parts.generator_optimizer.step()
        if parts.average is not None:
            update_average(parts.average, parts.generator)
        self.last.generator_loss = loss.detach()
        if parts.critic is None:
            self.last.real, self.last.fake = on_real.detach(), on_fake.detach()

    def check_finite(self) -> None:
        """Raise `DivergedError` if a loss, gradient or weight is not finite; waits for the device."""
        self._guard.check()
        parts = self.parts
        for name, net in (("generator", parts.generator), ("critic", parts.critic)):
            for key, tensor in net.named_parameters() if net is not None else ():
                for what, values in (("weight", tensor), ("gradient", tensor.grad)):
                    if values is not None and not torch.isfinite(values).all():
                        raise DivergedError(f"the {name}'s {what} {key} is not finite at step {self.steps}")

    def _latents(self, stream: str, number: int) -> Tensor:
        config = self.parts.config
        return config.latent.draw(config.schedule.batch, self.parts.streams.at(stream, number))

    def _batches_drawn(self) -> int:
        own = self.steps if self.parts.config.objective.generator_uses_real else 0
        return self.critic_steps + own

    def _precision(self) -> torch.autocast:
        """Autocast for the networks' forward passes; losses, penalties and updates stay outside, in float32."""
        enabled = self.parts.config.schedule.precision == "bf16"
        return torch.autocast(self.parts.device.type, dtype=torch.bfloat16, enabled=enabled)


@contextlib.contextmanager
def frozen(critic: nn.Module | None) -> Iterator[None]:
    """Freeze the critic's parameters, so that the generator's backward pass computes no gradient for them."""
    trainable = [p for p in critic.parameters() if p.requires_grad] if critic is not None else []
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def update_average(average: torch.optim.swa_utils.AveragedModel, generator: nn.Module) -> None:
    """Move the averaged parameters towards the generator's, and take over its buffers (such as batch statistics).

    The first average is the generator itself. `AveragedModel.update_parameters` does the same, but makes the device
    wait, as it copies its counter there at every step; here the counter stays where it is, on the CPU.
    """
    means: list[Tensor] = list(average.module.parameters())
    current: list[Tensor] = list(generator.parameters())
    with torch.no_grad():
        if average.n_averaged == 0:
            torch._foreach_copy_(means, current)
        else:
            assert average.multi_avg_fn is not None
            average.multi_avg_fn(means, current, average.n_averaged)
        for mean, now in zip(average.module.buffers(), generator.buffers(), strict=True):
            mean.copy_(now)
        average.n_averaged += 1


class Guard:
    """Watches that losses stay finite: at once on the CPU, at the next `check` where reading one stalls a device."""

    def __init__(self, device: torch.device) -> None:
        self._immediate = device.type == "cpu"
        self._bad: dict[tuple[str, str], Tensor] = {}

    def watch(self, plugin: str, term: str, step: int, loss: Tensor) -> None:
        """Raise `PluginError` for what is no loss and, now or at `check`, `DivergedError` for one not finite."""
        if not isinstance(loss, Tensor):
            raise PluginError(f"the {term} of {plugin} must be a scalar tensor, not a {type(loss).__name__}")
        if loss.dim() != 0 or not loss.is_floating_point() or not loss.requires_grad:
            raise PluginError(
                f"the {term} of {plugin} must be a scalar of floating point with a graph, not shape "
                f"{tuple(loss.shape)}, {loss.dtype}, requires_grad={loss.requires_grad}"
            )
        if self._immediate:
            if not torch.isfinite(loss):
                raise _diverged(plugin, term, step)
            return
        first = self._bad.setdefault((plugin, term), torch.full((), -1, device=loss.device))
        first.copy_(torch.where((first < 0) & ~torch.isfinite(loss.detach()), step, first))

    def check(self) -> None:
        """Raise `DivergedError` for the first loss that was not finite; waits for the device."""
        steps = {key: int(first) for key, first in self._bad.items()}
        bad = {key: step for key, step in steps.items() if step >= 0}
        if bad:
            plugin, term = min(bad, key=bad.__getitem__)
            raise _diverged(plugin, term, bad[plugin, term])


def _diverged(plugin: str, term: str, step: int) -> DivergedError:
    return DivergedError(f"the {term} of {plugin} is not finite at step {step}: lower --lr, or check the data")
