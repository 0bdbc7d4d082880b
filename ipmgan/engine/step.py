"""One training step: n_critic critic steps, each with a fresh real batch and fresh latents, then one generator step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import attrs
import torch
from torch import Tensor, nn

from ipmgan.engine.build import Parts
from ipmgan.engine.draws import CriticDraws, Draws, GeneratorDraws
from ipmgan.engine.fakes import Fakes, Together
from ipmgan.engine.guard import Guard
from ipmgan.engine.heap import keep_freed_memory
from ipmgan.engine.losses import CriticLoss, GeneratorLoss, Seen
from ipmgan.engine.ways import Backward, compiled_forward, compiled_gradients, compiled_update
from ipmgan.errors import DivergedError

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
    """Runs training steps on the parts of a run, and counts them.

    Where `compile` is set, the very first step runs as it stands, which checks the plugins and lets the optimisers make
    their state, and all others as compiled graphs.
    """

    def __init__(self, parts: Parts, *, compile: bool = False) -> None:
        self.parts = parts
        self.steps = 0
        self.critic_steps = 0
        self.last = Losses()
        self.critic_loss, self.generator_loss = CriticLoss(parts), GeneratorLoss(parts)
        self.draws = Draws(parts)
        self._guard = Guard(parts.device)
        if parts.device.type == "cpu":
            keep_freed_memory()
        self._compile = compile
        self._fakes = Together(Fakes(parts))
        self._critic_gradients: Callable[..., Seen] = Backward(self.critic_loss)
        self._generator_gradients: Callable[..., Seen] = Backward(self.generator_loss, held=parts.critic)
        self._critic_update: Callable[[], None] = self._update_critic
        self._generator_update: Callable[[], None] = parts.generator_optimizer.step

    def run(self) -> None:
        """One generator step with its critic steps; raises `DivergedError` once a loss is not finite."""
        self.prepare()
        self.begin()
        count = self.critic_steps_now()
        self.train_critic(map(self.critic_draws, range(count)))
        self.generator_step(*self.generator_draws(count))
        self.count(count)

    def count(self, critic_steps: int) -> None:
        """Take note of a generator step that is done, with so many critic steps."""
        self.critic_steps += critic_steps
        self.steps += 1
        if self.parts.average is not None:
            self.parts.average.n_averaged += 1

    def train_critic(self, draws: Iterable[CriticDraws]) -> None:
        """A critic step on each of what was drawn."""
        for inputs in self.critic_inputs(draws):
            self.critic_step(*inputs)

    def critic_step(self, *inputs: Tensor | None) -> None:
        """One update of the critic, and its projection."""
        self.saw_critic(self._critic_gradients(*inputs))
        self._critic_update()

    def generator_step(self, *inputs: Tensor | None) -> None:
        """One update of the generator and of its average."""
        self.saw_generator(self._generator_gradients(*inputs))
        self._generator_update()
        self.move_average()

    def prepare(self) -> None:
        """What precedes the first steps: nothing the first of all, then compiling."""
        if self._compile and self.steps:
            self._compile = False
            self._compile_ways()

    def begin(self) -> None:
        """What precedes all updates of a step: this step's number and settings."""
        self._guard.begin(self.steps + 1)
        self.schedule(self.steps)

    def schedule(self, step: int) -> None:
        """Give the optimisers their settings for a step."""
        parts, config = self.parts, self.parts.config
        config.generator_optimizer.schedule(parts.generator_optimizer, step)
        if parts.critic_optimizer is not None:
            config.critic_optimizer.schedule(parts.critic_optimizer, step)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that are stepped: the critic's, if there is one, and the generator's."""
        return [held for held in (self.parts.critic_optimizer, self.parts.generator_optimizer) if held is not None]

    def critic_steps_now(self) -> int:
        """How many critic steps the coming generator step has."""
        schedule = self.parts.config.schedule
        if self.parts.critic is None:
            return 0
        if schedule.critic_warmup and (self.steps < 25 or self.steps % 500 == 0):
            return WARMUP_CRITIC_STEPS
        return schedule.n_critic

    def critic_draws(self, ahead: int = 0) -> CriticDraws:
        """For the coming critic step, or for one further `ahead`."""
        return self.draws.critic(self.critic_steps + ahead, self.steps)

    def generator_draws(self, ahead: int = 0) -> GeneratorDraws:
        """For the generator step that follows `ahead` more critic steps."""
        return self.draws.generator(self.critic_steps + ahead, self.steps)

    def critic_inputs(self, draws: Iterable[CriticDraws]) -> Iterator[tuple[Tensor | None, ...]]:
        """The inputs of the critic's loss for critic steps in a row: what they drew, with fakes instead of latents."""
        coming = iter(draws)
        while some := list(itertools.islice(coming, self._fakes.steps)):
            fakes = self._fakes([drawn.latents for drawn in some])
            for drawn, fake in zip(some, fakes, strict=True):
                yield drawn.real, fake, drawn.noise, drawn.enforcer

    def saw_critic(self, seen: Seen) -> None:
        """Check and keep what a critic step saw, before its update."""
        config = self.parts.config
        self._guard.watch(config.objective.name, "critic loss", seen["loss"])
        if "penalty" in seen:
            self._guard.watch(config.lipschitz.name, "penalty", seen["penalty"])
        self.last.critic_loss, self.last.penalty = seen["loss"], seen.get("penalty")
        self.last.real, self.last.fake = seen["real"], seen["fake"]

    def saw_generator(self, seen: Seen) -> None:
        """Check and keep what the generator step saw, before its update."""
        self._guard.watch(self.parts.config.objective.name, "generator loss", seen["loss"])
        self.last.generator_loss = seen["loss"]
        if self.parts.critic is None:
            self.last.real, self.last.fake = seen["real"], seen["fake"]

    def move_average(self) -> None:
        """Let the averaged generator follow, where there is one."""
        if self.parts.average is not None:
            update_average(self.parts.average, self.parts.generator)

    def _update_critic(self) -> None:
        parts = self.parts
        assert parts.critic is not None
        assert parts.critic_optimizer is not None
        parts.critic_optimizer.step()
        # After the step, so that the generator never sees weights outside the constraint (Algorithm 1, lines 6 and 7).
        with torch.no_grad():
            parts.config.lipschitz.after_step(parts.critic)

    def _compile_ways(self) -> None:
        parts = self.parts
        self._generator_gradients = compiled_gradients(self.generator_loss, self._generator_gradients)
        self._generator_update = compiled_update(parts.generator_optimizer, None, self._generator_update)
        if parts.critic is not None and parts.critic_optimizer is not None:
            fakes = Fakes(parts)
            self._fakes = Together(fakes, compiled_forward(fakes, "the generator"))
            self._critic_gradients = compiled_gradients(self.critic_loss, self._critic_gradients)
            project = functools.partial(parts.config.lipschitz.after_step, parts.critic)
            self._critic_update = compiled_update(parts.critic_optimizer, project, self._critic_update)

    def check_finite(self) -> None:
        """Raise `DivergedError` if a loss, gradient or weight is not finite; waits for the device."""
        self._guard.check()
        for name, tensor in self._watched():
            if not torch.isfinite(tensor).all():
                raise DivergedError(f"{name} is not finite at step {self.steps}")

    def _watched(self) -> Iterator[tuple[str, Tensor]]:
        parts = self.parts
        for net in ("generator", "critic"):
            for key, p in getattr(parts, net).named_parameters() if getattr(parts, net) is not None else ():
                yield f"the {net}'s weight {key}", p
                if p.grad is not None:
                    yield f"the {net}'s gradient {key}", p.grad
        for plugin, kept in (
            (parts.config.objective, parts.objective_state),
            (parts.config.lipschitz, parts.enforcer_state),
        ):
            for key, tensor in kept.named_buffers():
                yield f"the {key} that {plugin.name} keeps", tensor


def update_average(average: torch.optim.swa_utils.AveragedModel, generator: nn.Module) -> None:
    """Move the averaged parameters towards the generator's, and take over its buffers (such as batch statistics).

    The first average is the generator itself. `AveragedModel.update_parameters` does the same and counts, but makes the
    device wait, as it copies its counter there at every step; here the counter stays where it is, on the CPU.
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
