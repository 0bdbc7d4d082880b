"""Training steps of several seeds at once: one vectorised computation over stacked weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from ipmgan.engine.losses import Loss, Seen
from ipmgan.engine.step import Step
from ipmgan.engine.ways import Functional, compiled, compiled_update, or_else, pure, steady
from ipmgan.errors import DivergedError, PairingError
from ipmgan.settings import Optimizer

ELEMENTWISE = (
    *("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD"),
)
"""Optimisers that treat every number by itself, so that a stack of weights is updated as each of them would be."""


class VectorStep:
    """Advances the steps of runs that differ in their seed alone, by one computation.

    The runs keep their networks and optimisers: what these hold becomes a view of the stack, so that whatever reads or
    saves a run goes on as before. The very first step of each run is its own; it makes the optimisers' state. What a
    run draws, it draws from its own streams.
    """

    def __init__(self, steps: Sequence[Step], *, compile: bool = False) -> None:
        self.steps = list(steps)
        self.diverged: dict[int, DivergedError] = {}
        """Why runs were given up, by their place: a loss is no longer finite. The others go on."""
        self._compile = compile
        self._sides: tuple[Side | None, Side] | None = None

    def run(self) -> None:
        """One generator step of every run, with its critic steps."""
        first = self.steps[0]
        if first.steps == 0:
            for place, step in enumerate(self.steps):
                with step.parts.streams.global_draws("layers", 0), self.giving_up(place):
                    step.run()
                step.steps = 1
            return
        if self._sides is None:
            alive = next((place for place in range(len(self.steps)) if place not in self.diverged), 0)
            self._sides = _sides(self.steps, self._compile, alive)
        critic, generator = self._sides
        for step in self.steps:
            step.begin()
        count = first.critic_steps_now()
        if critic is not None:
            for ahead in range(count):
                self._advance(critic, [step.critic_inputs(ahead) for step in self.steps], Step.saw_critic)
        self._advance(generator, [step.generator_inputs(count) for step in self.steps], Step.saw_generator)
        for step in self.steps:
            step.move_average()
            step.count(count)

    def _advance(self, side: Side, inputs: list[tuple[Tensor | None, ...]], saw: Callable[[Step, Seen], None]) -> None:
        seen = side.gradients(*map(_stack, zip(*inputs, strict=True)))
        each = {name: values.unbind() for name, values in seen.items()}
        for place, step in enumerate(self.steps):
            with self.giving_up(place):
                saw(step, {name: values[place] for name, values in each.items()})
        side.update(self.steps[0].steps)

    @contextlib.contextmanager
    def giving_up(self, place: int) -> Iterator[None]:
        """Note that a run has diverged, instead of stopping all."""
        try:
            yield
        except DivergedError as error:
            self.diverged.setdefault(place, error)

    def show_gradients(self) -> None:
        """Let the runs' weights have their gradients, as after a step of their own."""
        for side in self._sides or ():
            if side is not None:
                side.show_gradients()


class Side:
    """The networks of one kind, critics or generators, as one that is trained.

    `alive` is the place of a run that has not diverged: its optimiser has done all steps.
    """

    def __init__(
        self, losses: list[Loss], stack: Stack, optimizers: list[torch.optim.Optimizer], compile: bool, alive: int
    ) -> None:
        config = losses[0].config
        self._settings: Optimizer = getattr(config, f"{losses[0].trained}_optimizer")
        self._members = optimizers
        self._weights = [loss.weights() for loss in losses]
        trained = {name: stack.weights[name] for name in self._weights[0]}
        held = {name: weight for name, weight in stack.weights.items() if name not in trained}
        self._stacked = trained
        self._optimizer = self._settings.make(list(trained.values()))
        self._adopt_state(alive)
        gradients = vectorised(losses[0])
        self.gradients: Callable[..., Seen] = Functional(gradients, trained, held, stack.buffers)
        self._step: Callable[[], None] = self._optimizer.step
        if compile:
            fast = Functional(steady(compiled(gradients)), trained, held, stack.buffers)
            self.gradients = or_else(fast, self.gradients, f"the {losses[0].trained} step")
            self._step = compiled_update(self._optimizer, None, self._step)
        critics = [loss.critic for loss in losses] if losses[0].trained == "critic" else []
        self._critics = [critic for critic in critics if critic is not None]
        self._project = config.lipschitz.after_step

    def update(self, step: int) -> None:
        """Update and project all."""
        self._settings.schedule(self._optimizer, step)
        self._step()
        with torch.no_grad():
            for critic in self._critics:
                self._project(critic)

    def show_gradients(self) -> None:
        """Give each network its part of the stack of gradients."""
        for name, weight in self._stacked.items():
            for place, weights in enumerate(self._weights):
                weights[name].grad = None if weight.grad is None else weight.grad[place]

    def _adopt_state(self, alive: int) -> None:
        """Stack the members' optimiser state, and let them hold views of it; one that never stepped has none."""
        for name, weight in self._stacked.items():
            states = [member.state[weights[name]] for member, weights in zip(self._members, self._weights, strict=True)]
            for key, value in list(states[alive].items()):
                stacked = value
                if isinstance(value, Tensor) and value.dim():
                    stacked = torch.stack([state.get(key, value) for state in states])
                self._optimizer.state[weight][key] = stacked
                for place, state in enumerate(states):
                    state[key] = stacked[place] if stacked is not value else value


class Stack:
    """The weights and buffers of several runs, one above the other; the networks go on with views of them."""

    def __init__(self, losses: list[Loss]) -> None:
        self.weights: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, _ in losses[0].named_parameters():
                self.weights[name] = nn.Parameter(_share([loss.get_parameter(name) for loss in losses]))
            for name, _ in losses[0].named_buffers():
                self.buffers[name] = _share([loss.get_buffer(name) for loss in losses])


def vectorised(loss: Loss) -> Callable[..., Any]:
    """The gradients of a loss for stacks of weights, buffers and inputs."""
    gradients = pure(loss)

    def several(weights: Any, held: Any, buffers: Any, *inputs: Any) -> Any:
        dims = [None if value is None else 0 for value in inputs]
        return vmap(gradients, in_dims=(0, 0, 0, *dims))(weights, held, buffers, *inputs)

    return several


def _share(tensors: list[Tensor]) -> Tensor:
    """The tensors stacked, and each made a view of the stack."""
    stack = torch.stack([tensor.data for tensor in tensors])
    for tensor, part in zip(tensors, stack, strict=True):
        tensor.data = part
    return stack


def _stack(values: tuple[Tensor | None, ...]) -> Tensor | None:
    given = [value for value in values if value is not None]
    return torch.stack(given) if given else None


def _sides(steps: list[Step], compile: bool, alive: int) -> tuple[Side | None, Side]:
    stack = Stack([step.generator_loss for step in steps])
    optimizers = [step.parts.critic_optimizer for step in steps if step.parts.critic_optimizer is not None]
    critic = Side([step.critic_loss for step in steps], stack, optimizers, compile, alive) if optimizers else None
    generators = [step.parts.generator_optimizer for step in steps]
    return critic, Side([step.generator_loss for step in steps], stack, generators, compile, alive)


def check_vectorised(step: Step) -> None:
    """Raise `PairingError` for what cannot be vectorised, by trying it on one run; nothing of the run moves."""
    parts, config = step.parts, step.parts.config
    for plugin in (config.objective, config.lipschitz, config.perturbation, config.generator, config.critic):
        if plugin is not None and not plugin.vectorises:
            raise PairingError(f"{plugin.name} cannot be vectorised, as it says: train the seeds one by one")
    names = [config.generator_optimizer.name, *([config.critic_optimizer.name] if parts.critic is not None else [])]
    for name in names:
        if name not in ELEMENTWISE:
            raise PairingError(f"{name} looks at whole weights: replicates need one of {', '.join(ELEMENTWISE)}")
    for loss, inputs in _trials(step):
        with torch.no_grad():
            weights, held, buffers = (
                {name: tensor.detach()[None] for name, tensor in tensors.items()}
                for tensors in (loss.weights(), loss.held(), dict(loss.named_buffers()))
            )
            try:
                vectorised(loss)(weights, held, buffers, *(x if x is None else x[None] for x in inputs))
            except RuntimeError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise PairingError(
                    f"the {loss.trained} step of {config.objective.name} with {config.lipschitz.name} cannot be "
                    f"vectorised: {reason}. Train the seeds one by one"
                ) from error


def _trials(step: Step) -> Iterator[tuple[Loss, tuple[Tensor | None, ...]]]:
    if step.parts.critic is not None:
        yield step.critic_loss, step.critic_inputs()
    yield step.generator_loss, step.generator_inputs()
