"""The ways to run the same step: as it stands, or compiled."""

from __future__ import annotations

import contextlib
import inspect
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from ipmgan.config import RunConfig
from ipmgan.engine.build import Parts
from ipmgan.engine.losses import Loss, Seen

Returned = TypeVar("Returned")
WORTH_COMPILING = 120.0
"""Seconds that a run would take at least, by `seconds`, for compiling to pay: it takes some twenty."""


def seconds(config: RunConfig, weights: int) -> float:
    """A rough guess of how long a run of networks with so many weights takes, the same on every machine.

    steps · (n_critic + 1) · (1 ms + 6 · batch · weights / 50 GFLOP/s)
    """
    schedule = config.schedule
    return schedule.steps * (schedule.n_critic + 1) * (1e-3 + 6 * schedule.batch * weights / 50e9)


def way(config: RunConfig, parts: Parts, runs: int = 1) -> str:
    """How the steps of so many runs are run: ``off`` is as they stand, ``on`` compiled, ``graph`` that and replayed.

    As it was told; on ``auto`` the last that the device has, where the runs are long enough to pay for it. A guess and
    no measurement decides, so that a run's numbers do not depend on how busy its machine was.
    """
    if config.schedule.compile != "auto":
        return config.schedule.compile
    nets = (parts.generator, parts.critic)
    weights = sum(p.numel() for net in nets if net is not None for p in net.parameters())
    if parts.device.type == "mps" or runs * seconds(config, weights) <= WORTH_COMPILING:
        return "off"
    return "graph" if parts.device.type == "cuda" else "on"


class Backward:
    """Leaves the gradients of a loss in ``.grad``, by a backward pass; `held` is frozen meanwhile."""

    def __init__(self, loss: Loss, held: nn.Module | None = None) -> None:
        self._loss = loss
        self._weights = list(loss.weights().values())
        self._held = held

    def __call__(self, *inputs: Tensor | None) -> Seen:
        """What the step saw."""
        with frozen(self._held):
            outcome: tuple[Tensor, Seen] = self._loss(*inputs)
            for p in self._weights:
                p.grad = None
            outcome[0].backward()  # type: ignore[no-untyped-call]
        return outcome[1]


def pure(loss: Loss) -> Callable[..., tuple[dict[str, Tensor], Seen, dict[str, Tensor]]]:
    """The gradients of a loss as a pure function of the trained weights, the others, the buffers and the inputs.

    It returns the gradients, what the step saw, and the buffers as they are afterwards. Gradients of gradients stay
    inside it. A weight that the loss does not depend on gets a gradient of zeros.
    """

    def value(weights: Any, held: Any, buffers: Any, *inputs: Any) -> Any:
        buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        total, seen = functional_call(loss, (weights, held, buffers), inputs)
        return total, (seen, buffers)

    def gradients(weights: Any, held: Any, buffers: Any, *inputs: Any) -> Any:
        found, (_, (seen, moved)) = grad_and_value(value, has_aux=True)(weights, held, buffers, *inputs)
        return found, seen, moved

    return gradients


class Functional:
    """Leaves the gradients of a loss in ``.grad``, by a pure function such as `pure` gives.

    Weights, other weights and buffers are those of the loss, or stacks of those of several.
    """

    def __init__(
        self,
        function: Callable[..., tuple[dict[str, Tensor], Seen, dict[str, Tensor]]],
        weights: Mapping[str, Tensor],
        held: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
    ) -> None:
        self._function = function
        self._weights, self._held, self._buffers = weights, held, buffers

    def __call__(self, *inputs: Tensor | None) -> Seen:
        """What the step saw."""
        with torch.no_grad():
            found, seen, moved = self._function(self._weights, self._held, self._buffers, *inputs)
            for name, buffer in self._buffers.items():
                buffer.copy_(moved[name])
        for name, weight in self._weights.items():
            weight.grad = found[name]
        return seen


def compiled(function: Callable[..., Returned], **options: Any) -> Callable[..., Returned]:
    """The function as one compiled graph, with the random numbers that it draws uncompiled; more options of torch's."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    options |= {"fallback_random": True}
    return torch.compile(own_code(function), fullgraph=True, dynamic=False, options=options)


def of_values(guards: Sequence[Any]) -> list[bool]:
    """Which of a compiled function's checks stay: those of plain values, such as a learning rate, which may change.

    All that is known of an optimiser's tensors and tables stays as it is throughout a run, and to look at each again
    takes a quarter of a millisecond.
    """
    return [guard.guard_type in ("CONSTANT_MATCH", "EQUALS_MATCH") for guard in guards]


def steady(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Skips the compiler's checks, from the second call on, that what the function refers to is still the same.

    They cost as much as a small network's step. Batches, networks and devices stay as they are throughout a run.
    """
    called = False

    def call(*inputs: Any) -> Returned:
        nonlocal called
        if called:
            with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
                return function(*inputs)
        result, called = function(*inputs), True
        return result

    return call


def own_code(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """The same function with a code object of its own: torch counts compilations by code, over all runs."""
    code = function.__code__.replace()
    return types.FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)


def compiled_forward(module: nn.Module, what: str) -> Callable[[Tensor], Tensor]:
    """A module by a compiled function, or as it stands where it cannot be compiled."""

    def forward(inputs: Tensor) -> Tensor:
        made: Tensor = module(inputs)
        return made

    return or_else(compiled(forward), module, what)


def compiled_gradients(loss: Loss, otherwise: Callable[..., Seen]) -> Callable[..., Seen]:
    """The gradients of a loss by a compiled function, or the other way where it cannot be compiled."""
    way = Functional(steady(compiled(pure(loss))), loss.weights(), loss.held(), dict(loss.named_buffers()))
    return or_else(way, otherwise, f"the {loss.trained} step")


def compiled_update(
    optimizer: torch.optim.Optimizer, after: Callable[[], None] | None, otherwise: Callable[[], None]
) -> Callable[[], None]:
    """An optimiser's step and what follows it as one compiled graph, or the other way where it cannot be compiled."""
    if any(group.get("fused") for group in optimizer.param_groups):
        return otherwise  # One kernel already, into which torch's compiler refuses to look.
    # The method without torch's wrappers, which break the graph in order to call hooks that nobody registers here.
    step = inspect.unwrap(type(optimizer).step)

    def update() -> None:
        step(optimizer)
        if after is not None:
            after()

    way = torch.no_grad()(compiled(update, guard_filter_fn=of_values))
    return or_else(way, otherwise, f"the update by {type(optimizer).__name__}")


def or_else(first: Callable[..., Returned], second: Callable[..., Returned], what: str) -> Callable[..., Returned]:
    """Calls the first until it fails to compile, then always the second, after one line of warning.

    A graph compiles before any of it runs, so that nothing is done twice; an error of the step itself comes back from
    the second.
    """
    way = first

    def call(*inputs: Any) -> Returned:
        nonlocal way
        if way is second:
            return second(*inputs)
        try:
            return first(*inputs)
        except RuntimeError as error:
            way = second
            result = second(*inputs)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"{what} runs uncompiled: {reason}", stacklevel=2)
            return result

    return call


@contextlib.contextmanager
def frozen(module: nn.Module | None) -> Iterator[None]:
    """Freeze a module's parameters, so that a backward pass computes no gradient for them."""
    trainable = [p for p in module.parameters() if p.requires_grad] if module is not None else []
    for p in trainable:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
