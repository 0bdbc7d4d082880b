"""Training steps of several seeds at once: one vectorised computation over stacked weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import attrs
import torch
from torch import Tensor
from torch.func import functional_call

from ipmgan.engine.draws import StackedDraws
from ipmgan.engine.fakes import Fakes, Together
from ipmgan.engine.guard import Guards
from ipmgan.engine.losses import Loss, Seen
from ipmgan.engine.stack import Projection, Stack, vectorised
from ipmgan.engine.step import Losses, Step
from ipmgan.engine.ways import Functional, compiled, compiled_update, or_else, steady
from ipmgan.errors import DivergedError, PairingError
from ipmgan.settings import Optimizer

ELEMENTWISE = (
    *("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD"),
)
"""Optimisers that treat every number by itself, so that a stack of weights is updated as each of them would be."""


class VectorStep(Step):
    """The step of runs that differ in their seed alone, as one computation.

    The runs keep their networks and optimisers: what these hold becomes a view of the stack, so that whatever reads or
    saves a run goes on as before, once `show` has been called. The very first step of each run is its own; it makes the
    optimisers' state. What a run draws is what it draws alone.
    """

    def __init__(self, runs: Sequence[Step], *, compile: bool = False) -> None:
        super().__init__(runs[0].parts, compile=compile)
        self.runs = list(runs)
        self.draws = StackedDraws([run.draws for run in runs])
        self._guards = self._guard = Guards(self.parts.device)
        self._sides: list[Side] = []

    @property
    def diverged(self) -> dict[int, DivergedError]:
        """Why runs were given up, by their place: a loss is no longer finite. The others go on."""
        return self._guards.diverged

    def run(self) -> None:
        """One generator step of every run, with its critic steps."""
        if self.runs[0].steps:
            super().run()
            return
        for place, run in enumerate(self.runs):
            with run.parts.streams.global_draws("layers", 0), self.giving_up(place):
                run.run()
            run.steps = 1

    def prepare(self) -> None:
        """Stack what the runs have come to, before their first step together."""
        if self._sides:
            return
        place = next((place for place in range(len(self.runs)) if place not in self.diverged), 0)
        alive, stack = self.runs[place], Stack(self.runs)
        self.steps, self.critic_steps = alive.steps, alive.critic_steps
        fakes = Fakes(alive.parts)
        self._fakes = Together(fakes, stack.forward(fakes, self._compile), batch_dim=1)
        optimizers = [run.parts.generator_optimizer for run in self.runs]
        generators = Side([run.generator_loss for run in self.runs], optimizers, stack, place, compile=self._compile)
        self._generator_gradients, self._generator_update = generators.gradients, generators.updating()
        # The averages are moved by the runs themselves.
        self.parts = attrs.evolve(alive.parts, generator_optimizer=generators.optimizer, average=None)
        self._sides = [generators]
        optimizers = [run.parts.critic_optimizer for run in self.runs if run.parts.critic_optimizer is not None]
        if optimizers:
            critics = Side([run.critic_loss for run in self.runs], optimizers, stack, place, compile=self._compile)
            self._critic_gradients, self._critic_update = critics.gradients, critics.projecting(stack)
            self.parts.critic_optimizer = critics.optimizer
            self._sides.append(critics)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that are stepped: the runs' own at the very first step, then one for critics and one for generators."""
        return super().optimizers() if self._sides else [held for run in self.runs for held in run.optimizers()]

    def count(self, critic_steps: int) -> None:
        """Take note of a generator step that is done, with so many critic steps."""
        super().count(critic_steps)
        for run in self.runs:
            run.count(critic_steps)

    def move_average(self) -> None:
        """Let the averaged generators follow, where there are any."""
        for run in self.runs:
            run.move_average()

    def show(self) -> None:
        """Let each run have what a step of its own leaves: losses, gradients and its optimisers' settings.

        Waits for the device, in order to find the runs that diverged.
        """
        if not self._sides:
            return
        self._guards.check()
        seen = attrs.asdict(self.last, recurse=False)
        for place, run in enumerate(self.runs):
            run.last = Losses(**{name: None if value is None else value[place] for name, value in seen.items()})
            run.schedule(self.steps - 1)
        for side in self._sides:
            side.show_gradients()

    @contextlib.contextmanager
    def giving_up(self, place: int) -> Iterator[None]:
        """Note that a run has diverged, instead of stopping all."""
        try:
            yield
        except DivergedError as error:
            self.diverged.setdefault(place, error)


class Side:
    """The networks of one kind, critics or generators, as one that is trained.

    The runs' optimisers go on with views of the state of the one for all. `alive` is the place of a run that has not
    diverged, whose optimiser has done all steps.
    """

    def __init__(
        self, losses: list[Loss], optimizers: list[torch.optim.Optimizer], stack: Stack, alive: int, *, compile: bool
    ) -> None:
        self._losses, self._compile = losses, compile
        self._members = [loss.weights() for loss in losses]
        self._weights = {name: stack.weights[name] for name in self._members[0]}
        settings: Optimizer = getattr(losses[0].config, f"{losses[0].trained}_optimizer")
        self.optimizer = settings.make(list(self._weights.values()))
        self._adopt_state(optimizers, alive)
        held = {name: stack.weights[name] for name in losses[0].held()}
        several, buffers = vectorised(losses[0]), stack.buffers_of(losses[0])
        self.gradients: Callable[..., Seen] = Functional(several, self._weights, held, buffers)
        if compile:
            fast = Functional(steady(compiled(several)), self._weights, held, buffers)
            self.gradients = or_else(fast, self.gradients, f"the {losses[0].trained} step")

    def updating(self, after: Callable[[], None] | None = None) -> Callable[[], None]:
        """What updates all, and does what follows as part of it."""

        def update() -> None:
            self.optimizer.step()
            if after is not None:
                with torch.no_grad():
                    after()

        return compiled_update(self.optimizer, after, update) if self._compile else update

    def projecting(self, stack: Stack) -> Callable[[], None]:
        """What updates and projects all: as a stack where the enforcer takes every number by itself, else in turn."""
        enforcer = self._losses[0].config.lipschitz
        projections = [Projection(enforcer, loss.critic) for loss in self._losses]
        if enforcer.elementwise:
            weights = stack.weights_of(projections[0])
            return self.updating(lambda: functional_call(projections[0], weights, ()))
        update = self.updating()

        def update_and_project() -> None:
            update()
            with torch.no_grad():
                for projection in projections:
                    projection()

        return update_and_project

    def show_gradients(self) -> None:
        """Give each network its part of the stack of gradients."""
        for name, weight in self._weights.items():
            for place, weights in enumerate(self._members):
                weights[name].grad = None if weight.grad is None else weight.grad[place]

    def _adopt_state(self, optimizers: list[torch.optim.Optimizer], alive: int) -> None:
        """Stack the state of the runs' optimisers, and let them hold views of it; one that never stepped has none."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = optimizers[alive].param_groups[0]["capturable"]
        for name, weight in self._weights.items():
            states = [own.state[weights[name]] for own, weights in zip(optimizers, self._members, strict=True)]
            for key, value in list(states[alive].items()):
                stacked = value
                if isinstance(value, Tensor) and value.dim():
                    stacked = torch.stack([state.get(key, value) for state in states])
                self.optimizer.state[weight][key] = stacked
                for place, state in enumerate(states):
                    state[key] = stacked[place] if stacked is not value else value


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
        real, _, *drawn = step.critic_draws()
        yield step.critic_loss, (real, real, *drawn)
    yield step.generator_loss, step.generator_draws()
