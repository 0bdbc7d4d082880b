"""What a run says about itself at a logging point; the training state is left as it was, to the bit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ipmgan.engine.build import Parts
from ipmgan.engine.facts import known
from ipmgan.engine.step import Step
from ipmgan.lipschitz import Certificate, lipschitz_bound

GENERATION_BATCH = 500
BOUND_EFFORT = 1e8
"""Enough for bounds on convolutions within a few per cent of the best that more effort would prove."""


def measure(parts: Parts, step: Step) -> dict[str, Any]:
    """Losses, the estimate on the last training batch and on held-out data, gradient norms and the certified bound."""
    last = step.last
    record: dict[str, Any] = {"step": step.steps, "critic_steps": step.critic_steps}
    for name in ("critic_loss", "penalty", "generator_loss"):
        value = getattr(last, name)
        if value is not None:
            record[name] = float(value)
    if last.real is not None and last.fake is not None:
        with torch.no_grad():
            record["estimate"] = float(parts.config.objective.estimate(last.real, last.fake))
    record["held_out_estimate"] = held_out_estimate(parts, step.steps)
    for name, net in (("critic", parts.critic), ("generator", parts.generator)):
        if net is not None:
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            record[f"{name}_gradient_norm"] = float(get_total_norm(gradients))
    certificate = certify(parts)
    if certificate is not None:
        record["lipschitz_bound"] = certificate.bound
    return record


def certify(parts: Parts) -> Certificate | None:
    """What the critic's Lipschitz constant can be at most, as it stands; None without a critic."""
    if parts.critic is None:
        return None
    return lipschitz_bound(parts.critic, shape=parts.config.source.spec().shape, effort=BOUND_EFFORT)


@torch.no_grad()
def held_out_estimate(parts: Parts, step: int) -> float:
    """The objective's estimate on held-out data: the mean over batches as large as training's, in training's mode.

    The mode matters where the critic normalises over the batch: its estimate then means something only for batches
    treated as in training. Batch statistics are put back afterwards.
    """
    config = parts.config
    count = config.schedule.held_out_batches
    total = 0.0
    with unmoved(parts.generator), unmoved(parts.critic):
        for number in range(step * count, (step + 1) * count):
            real = parts.held_out.batch(number)
            latents = config.latent.draw(len(real), parts.streams.at("held-out-latents", number))
            seen = {"real": real, "fake": parts.generator(latents)}
            for name, samples in seen.items():
                noise = parts.noise(f"held-out-noise-{name}", number, len(real), step)
                seen[name] = parts.outputs(config.perturbation.perturb(samples, noise))
            total += float(config.objective.estimate(seen["real"], seen["fake"]))
    return total / count


def quality(parts: Parts, step: int) -> dict[str, float]:
    """The metrics of the run, on a fixed set of held-out samples and as many fresh generated ones."""
    values = {}
    for metric in parts.config.metrics:
        real = parts.held_out.some(metric.samples)
        latents = parts.config.latent.draw(len(real), parts.streams.at("metric-latents", step))
        fake = generate(parts.best_generator, latents)
        pair = attrs.evolve(known(parts.config.source), real=real, fake=fake)
        values[metric.name] = float(metric.read(pair, generator=parts.streams.at("metric", step)).value)
    return values


@torch.no_grad()
def generate(generator: nn.Module, latents: Tensor) -> Tensor:
    """Samples for these latents from the generator in evaluation mode, a batch at a time."""
    training = generator.training
    generator.eval()
    try:
        return torch.cat([generator(part).float() for part in torch.split(latents, GENERATION_BATCH)])
    finally:
        generator.train(training)


@contextlib.contextmanager
def unmoved(module: nn.Module | None) -> Iterator[None]:
    """Put a module's buffers back afterwards."""
    buffers = list(module.buffers()) if module is not None else []
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, old in zip(buffers, saved, strict=True):
            buffer.copy_(old)


class Clock:
    """Steps and samples a second since the last line of metrics; the time that measuring takes is left out."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self._since = (time.perf_counter(), self._step.steps, self._step.critic_steps)

    def rates(self, batch: int) -> dict[str, float]:
        """Generator steps a second, and samples a second through all critic and generator steps."""
        start, steps, critic_steps = self._since
        seconds = max(time.perf_counter() - start, 1e-9)
        done = self._step.steps - steps
        samples = (done + self._step.critic_steps - critic_steps) * batch
        return {"steps_per_second": round_to(done / seconds), "samples_per_second": round_to(samples / seconds)}


def round_to(value: float, digits: int = 4) -> float:
    """A number to so many significant digits.

    >>> round_to(1234.5678)
    1235.0
    """
    return round(value, digits - 1 - math.floor(math.log10(value))) if value > 0 else 0.0
