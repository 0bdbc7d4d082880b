"""The state of a run as named tensors and plain numbers, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

from ipmgan.engine.build import Parts
from ipmgan.engine.checkpoint import Snapshot
from ipmgan.engine.step import Step
from ipmgan.errors import CheckpointError
from ipmgan.registry import versions

FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


def capture(parts: Parts, step: Step) -> Snapshot:
    """Everything that the next step depends on."""
    tensors: dict[str, Tensor] = {"torch-generator": torch.get_rng_state()}
    if parts.device.type == "cuda":
        tensors["cuda-generator"] = torch.cuda.get_rng_state(parts.device)
    scalars: dict[str, Any] = {"critic_steps": step.critic_steps, "data": parts.fingerprint}
    for name, module in _modules(parts).items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, (module, optimizer) in _optimizers(parts).items():
        flat: dict[str, Any] = get_optimizer_state_dict(module, optimizer, options=FLAT) if optimizer.state else {}
        tensors |= {f"{name}.{key}": value for key, value in flat.items() if isinstance(value, Tensor)}
        scalars[name] = {key: value for key, value in flat.items() if not isinstance(value, Tensor)}
    for plugin in (parts.config.objective, parts.config.lipschitz):
        tensors |= {f"{plugin.kind}.{key}": value for key, value in plugin.state().items()}
    return Snapshot(step=step.steps, tensors=tensors, scalars=scalars, versions=versions(parts.config.plugins))


def restore(parts: Parts, step: Step, snapshot: Snapshot) -> None:
    """Put a run where a snapshot left it; raises `CheckpointError` if it belongs to other data, plugins or networks."""
    if snapshot.scalars["data"] != parts.fingerprint:
        raise CheckpointError("the training data is not what the run was started with: restore it, or start a new run")
    for name, version in versions(parts.config.plugins).items():
        saved = snapshot.versions.get(name, version)
        if saved != version and name not in ("python", "torch", "ipmgan"):
            raise CheckpointError(f"the run was saved with {name} {saved}, and {version} is installed")
    tensors = snapshot.tensors
    try:
        for name, module in _modules(parts).items():
            module.load_state_dict(_under(tensors, name))
        for name, (module, optimizer) in _optimizers(parts).items():
            flat = {**_under(tensors, name), **snapshot.scalars[name]}
            if flat:
                set_optimizer_state_dict(module, optimizer, flat, options=FLAT)
        for plugin in (parts.config.objective, parts.config.lipschitz):
            for key, live in plugin.state().items():
                live.copy_(tensors[f"{plugin.kind}.{key}"])
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the checkpoint does not fit the run's configuration: {error}") from error
    torch.set_rng_state(tensors["torch-generator"])
    if "cuda-generator" in tensors and parts.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda-generator"], parts.device)
    step.steps, step.critic_steps = snapshot.step, snapshot.scalars["critic_steps"]


def _modules(parts: Parts) -> dict[str, nn.Module]:
    found = {"generator": parts.generator, "critic": parts.critic, "average": parts.average}
    return {name: module for name, module in found.items() if module is not None}


def _optimizers(parts: Parts) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    found = {"generator_optimizer": (parts.generator, parts.generator_optimizer)}
    if parts.critic is not None and parts.critic_optimizer is not None:
        found["critic_optimizer"] = (parts.critic, parts.critic_optimizer)
    return found


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
