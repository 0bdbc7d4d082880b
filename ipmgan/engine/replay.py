"""A whole training step as one graph of the device: recorded once, then replayed while the host launches nothing."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import attrs
import torch
from torch import Tensor

from ipmgan.engine.draws import CriticDraws, GeneratorDraws
from ipmgan.engine.step import Losses, Step

BEFORE = 3
"""Steps that run as they otherwise would: the first makes the optimisers' state, compilers warm up in the others."""


def stepper(step: Step, way: str) -> Callable[[], None]:
    """What runs the step in a way that `ways.way` names."""
    return Replay(step, CudaGraphs(step.parts.device)).run if way == "graph" else step.run


class Recorder(Protocol):
    """Records what is launched on a device."""

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Launch meanwhile where recordings are made."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """What does again all that `launch` launches; it is not done yet."""


class CudaGraphs:
    """Records with CUDA graphs, on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Launch meanwhile where recordings are made; the streams wait for each other."""
        main = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(main)
        with torch.cuda.stream(self._stream):
            yield
        main.wait_stream(self._stream)

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """What does again all that `launch` launches; it is not done yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            launch()
        replay: Callable[[], None] = graph.replay
        return replay


@attrs.frozen(kw_only=True, eq=False)
class Recording:
    """A recorded step: how it is done again, where it reads its inputs and leaves its losses, and what it presumes."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    losses: Losses
    settings: list[dict[str, Any]]


class Replay:
    """Runs the steps of a run by replaying a recorded one.

    What a step draws is drawn on the device, from its streams, into the tensors that the recording reads. A step that
    has other critic steps than the recorded one runs as it otherwise would, and so do all where nothing can be
    recorded. Optimisers count their steps on the device, which moves their numbers in the last bits.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step = step
        self._recorder: Recorder | None = recorder
        self._recording: Recording | None = None
        self._before = BEFORE
        for optimizer in step.optimizers():
            if not capturable(optimizer):
                self._give_up(f"torch's {type(optimizer).__name__} counts its steps on the host")

    def run(self) -> None:
        """One generator step with its critic steps; raises `DivergedError` at the next check."""
        step = self._step
        usual = step.critic_steps_now() in (0, step.parts.config.schedule.n_critic)
        if self._recorder is None:
            step.run()
        elif self._before > 0 or not usual:
            self._before -= 1
            self._recording = None
            with self._recorder.aside():
                step.run()
        else:
            self._replay(self._recorder)

    def _replay(self, recorder: Recorder) -> None:
        step, count = self._step, self._step.critic_steps_now()
        step.begin()
        critic, generator = [step.critic_draws(ahead) for ahead in range(count)], step.generator_draws(count)
        if self._recording is None or self._recording.settings != self._settings():
            try:
                self._recording = self._record(recorder, critic, generator)
            except RuntimeError as error:
                self._give_up((str(error).strip() or type(error).__name__).splitlines()[0])
                step.run()
                return
        torch._foreach_copy_(self._recording.inputs, tensors(*critic, generator))
        self._recording.replay()
        step.last = self._recording.losses
        step.count(count)

    def _record(self, recorder: Recorder, critic: list[CriticDraws], generator: GeneratorDraws) -> Recording:
        """The recording of a step that reads copies of what was drawn, which nothing else can hold."""
        critic = [CriticDraws._make(copies(draws)) for draws in critic]
        generator = GeneratorDraws._make(copies(generator))

        def launch() -> None:
            self._step.train_critic(critic)
            self._step.generator_step(*generator)

        self._step.last = Losses()
        replay = recorder.record(launch)
        return Recording(
            replay=replay, inputs=tensors(*critic, generator), losses=self._step.last, settings=self._settings()
        )

    def _give_up(self, reason: str) -> None:
        self._recorder = self._recording = None
        warnings.warn(f"steps are not replayed: {reason}", stacklevel=2)

    def _settings(self) -> list[dict[str, Any]]:
        """What a recording holds fixed: rates and the like, which may change at a milestone."""
        groups = (group for optimizer in self._step.optimizers() for group in optimizer.param_groups)
        return [{key: value for key, value in group.items() if key != "params"} for group in groups]


def copies(draws: Iterable[Tensor | None]) -> Iterator[Any]:
    """A copy of each."""
    return (None if tensor is None else tensor.clone() for tensor in draws)


def tensors(*draws: Iterable[Tensor | None]) -> list[Tensor]:
    """Those that there are, in order."""
    return [tensor for group in draws for tensor in group if tensor is not None]


def capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Let an optimiser keep on the device whatever changes from step to step; whether it can."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    counts = any("capturable" not in group for group in optimizer.param_groups)
    return not counts or isinstance(optimizer, torch.optim.SGD)
