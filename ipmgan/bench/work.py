"""What one training iteration costs at least, and how fast it can therefore go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ipmgan.bench.ceilings import Ceilings


@attrs.frozen(kw_only=True)
class Work:
    """The operations and the traffic with memory of one iteration.

    Operations are those of matrix products and convolutions, two for a multiplication and an addition, in forward,
    backward and double backward passes, as the eager step does them. All else is a few operations a number, and free.

    Traffic is that of kernels which fuse everything between two products into one of them:

        products:  each operand is read once, and each result written once
        updates:   weights and optimiser state are read and written, gradients read

    of which the weights' share of the operands and all else (activations and gradients) are counted apart.
    """

    matmul_flops: int
    convolution_flops: int
    weight_bytes: int
    activation_bytes: int
    update_bytes: int
    resident_bytes: int
    """Weights, gradients and optimiser state together: the least that the working set can be."""

    @property
    def flops(self) -> int:
        """All operations."""
        return self.matmul_flops + self.convolution_flops

    @property
    def bytes(self) -> int:
        """All traffic."""
        return self.weight_bytes + self.activation_bytes + self.update_bytes


@attrs.frozen(kw_only=True)
class Limit:
    """How fast a workload can go on a machine: the roofline, in seconds an iteration.

        seconds = max(matmul flops / ceiling + convolution flops / ceiling, bytes / bandwidth)

    with the bandwidth for what is resident at least. An iteration that keeps the caches warm between products can be
    faster than its traffic says; one that computes what it counts cannot be faster than its operations say.
    """

    compute_seconds: float
    memory_seconds: float

    @property
    def rate(self) -> float:
        """Iterations a second."""
        return 1 / max(self.compute_seconds, self.memory_seconds)

    @property
    def bound(self) -> str:
        """What the limit comes from: compute or memory."""
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"


def limit(work: Work, ceilings: Ceilings, precision: str = "float32") -> Limit:
    """The limit of this work under these ceilings."""
    compute = ceilings.compute(precision)
    return Limit(
        compute_seconds=work.matmul_flops / compute.matmul + work.convolution_flops / compute.convolution,
        memory_seconds=work.bytes / ceilings.bandwidth_at(work.resident_bytes),
    )


def count_work(run: Callable[[], object], optimizers: Sequence[torch.optim.Optimizer]) -> Work:
    """The work of one call of `run`, which trains with these optimisers; it is carried out while being counted.

    >>> layer = torch.nn.Linear(3, 2, bias=False)
    >>> count_work(lambda: layer(torch.ones(5, 3)).sum().backward(), []).matmul_flops
    120
    """
    updates = dict.fromkeys(range(len(optimizers)), 0)

    def counting(index: int) -> Callable[..., None]:
        def count(*_: Any) -> None:
            updates[index] += 1

        return count

    handles = [optimizer.register_step_post_hook(counting(i)) for i, optimizer in enumerate(optimizers)]
    weights = [_weights(optimizer) for optimizer in optimizers]
    try:
        with _Counter(weight for held in weights for weight in held) as counter:
            run()
    finally:
        for handle in handles:
            handle.remove()
    sizes = [sum(weight.nbytes for weight in held) for held in weights]
    states = [_state_bytes(optimizer) for optimizer in optimizers]
    return Work(
        matmul_flops=counter.flops["matmul"],
        convolution_flops=counter.flops["convolution"],
        weight_bytes=counter.bytes["weights"],
        activation_bytes=counter.bytes["activations"],
        update_bytes=sum(updates[i] * (3 * sizes[i] + 2 * states[i]) for i in updates),
        resident_bytes=2 * sum(sizes) + sum(states),
    )


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every matrix product and convolution that is carried out, whichever pass it belongs to.

    torch's own `FlopCounterMode` counts the same, with the same formulas, but refuses to look on while
    `torch.autograd.grad` differentiates with respect to a leaf, which is what a gradient penalty does.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self.flops = {"matmul": 0, "convolution": 0}
        self.bytes = {"weights": 0, "activations": 0}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            kind = "convolution" if "conv" in packet.__name__ else "matmul"
            self.flops[kind] += flop_registry[packet](*args, **kwargs, out_val=out)
            for tensor in _tensors((*args, *kwargs.values(), out)):
                weight = tensor.untyped_storage().data_ptr() in self._weights
                self.bytes["weights" if weight else "activations"] += tensor.nbytes
        return out


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
