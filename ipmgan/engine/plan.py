"""What a run would take, worked out without training or allocating it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig
from ipmgan.data.base import Resident, Samples, Streamed
from ipmgan.engine.build import choose_device, make_networks
from ipmgan.engine.checks import check
from ipmgan.settings import Optimizer

MIB = 2**20


@attrs.frozen(kw_only=True)
class Plan:
    """A resolved run, its size, and what is doubtful about it. Sizes in bytes."""

    config: RunConfig
    device: str
    warnings: tuple[str, ...]
    generator_parameters: int
    critic_parameters: int
    data: str
    memory: dict[str, int]

    @property
    def total_memory(self) -> int:
        """The sum over `memory`."""
        return sum(self.memory.values())

    def table(self) -> dict[str, Any]:
        """The plan as plain values."""
        plain = attrs.asdict(self, recurse=False) | {"config": self.config.table(), "total_memory": self.total_memory}
        return plain | {"warnings": list(self.warnings)}


def plan(config: RunConfig) -> Plan:
    """The plan of a run; raises as `check` does, and `DataError` where the data is missing.

    The memory of activations is what the layers put out in one critic step, held until its backward pass.
    """
    warnings = check(config)
    generator, critic = make_networks(config)
    batch = config.schedule.batch
    latents = torch.empty(batch, config.latent.dim, device="meta")
    samples = torch.empty(2 * batch, *config.source.spec().shape, device="meta")
    train = config.source.open("train")
    memory = {
        "weights and gradients": 2 * _size(generator, critic),
        "optimiser state": _optimizer_state(config.generator_optimizer, generator)
        + _optimizer_state(config.critic_optimizer, critic),
        "averaged generator": _size(generator) if config.schedule.average else 0,
        "activations": _activations(generator, latents) + _activations(critic, samples),
        "data": train.samples.nbytes if isinstance(train, Resident) else 0,
    }
    return Plan(
        config=config,
        device=str(choose_device(config.schedule.device)),
        warnings=tuple(warnings),
        generator_parameters=_count(generator),
        critic_parameters=_count(critic),
        data=_describe(train),
        memory=memory,
    )


def _describe(samples: Samples) -> str:
    if isinstance(samples, Resident):
        return f"{len(samples):,} samples, held on the device"
    return f"{len(samples):,} samples, streamed" if isinstance(samples, Streamed) else "drawn without end from a law"


def _count(module: nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module is not None else 0


def _size(*modules: nn.Module | None) -> int:
    return sum(p.nbytes for module in modules if module is not None for p in module.parameters())


def _optimizer_state(settings: Optimizer, module: nn.Module | None) -> int:
    """Bytes of state: the tensors that one step on a single 2 x 2 weight leaves behind, scaled up."""
    weight = nn.Parameter(torch.zeros(2, 2))
    optimizer = settings.make([weight])
    weight.grad = torch.zeros(2, 2)
    optimizer.step()
    held = sum(value.numel() for value in optimizer.state[weight].values() if isinstance(value, Tensor))
    return _size(module) * (held // weight.numel())


def _activations(module: nn.Module | None, inputs: Tensor) -> int:
    total = 0

    def add(layer: nn.Module, arguments: Any, out: Any) -> None:
        nonlocal total
        total += out.nbytes if isinstance(out, Tensor) else 0

    if module is None:
        return 0
    leaves = [layer for layer in module.modules() if not list(layer.children())]
    handles: list[Callable[[], None]] = [layer.register_forward_hook(add).remove for layer in leaves]
    module(inputs)
    for remove in handles:
        remove()
    return total
