"""Weights and buffers of several runs as one stack, and what is computed on such stacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ipmgan.engine.losses import Loss
from ipmgan.engine.step import Step
from ipmgan.engine.ways import compiled, or_else, pure
from ipmgan.lipschitz.base import LipschitzEnforcer


class Projection(nn.Module):
    """An enforcer's projection of a critic, as a module that can be called with other weights."""

    def __init__(self, enforcer: LipschitzEnforcer, critic: nn.Module | None) -> None:
        super().__init__()
        self._enforcer, self.critic = enforcer, critic

    def forward(self) -> None:
        """Project in place."""
        assert self.critic is not None
        self._enforcer.after_step(self.critic)


class Stack:
    """The weights and buffers of several runs, one above the other; the networks go on with views of them."""

    def __init__(self, runs: Sequence[Step]) -> None:
        self.weights: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, Tensor] = {}
        with torch.no_grad():
            for losses in ([run.critic_loss for run in runs], [run.generator_loss for run in runs]):
                for name, _ in losses[0].named_parameters():
                    if name not in self.weights:
                        self.weights[name] = nn.Parameter(_share([loss.get_parameter(name) for loss in losses]))
                for name, _ in losses[0].named_buffers():
                    if name not in self.buffers:
                        self.buffers[name] = _share([loss.get_buffer(name) for loss in losses])

    def weights_of(self, module: nn.Module) -> dict[str, Tensor]:
        """The stacked weights of what is part of each run, by their names in it."""
        return {name: self.weights[name] for name, _ in module.named_parameters()}

    def buffers_of(self, module: nn.Module) -> dict[str, Tensor]:
        """The stacked buffers of what is part of each run, by their names in it."""
        return {name: self.buffers[name] for name, _ in module.named_buffers()}

    def forward(self, module: nn.Module, compile: bool) -> Callable[[Tensor], Tensor]:
        """A module of one run as a function of stacked inputs, with the weights and buffers of all; these move."""
        weights, buffers = self.weights_of(module), self.buffers_of(module)

        def one(weights: Any, buffers: Any, inputs: Any) -> Any:
            buffers = {name: buffer.clone() for name, buffer in buffers.items()}
            return functional_call(module, (weights, buffers), (inputs,)), buffers

        def several(inputs: Tensor) -> Any:
            return vmap(one)(weights, buffers, inputs)

        run = or_else(compiled(several), several, "the generators") if compile else several

        def forward(inputs: Tensor) -> Tensor:
            made: Tensor
            with torch.no_grad():
                made, moved = run(inputs)
                for name, buffer in buffers.items():
                    buffer.copy_(moved[name])
            return made

        return forward


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
