"""The state of a run as named tensors and plain numbers, and back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ipmgan.config import LATER
from ipmgan.engine.build import Parts
from ipmgan.engine.checkpoint import Snapshot
from ipmgan.engine.step import Step
from ipmgan.engine.ways import frozen
from ipmgan.errors import CheckpointError
from ipmgan.registry import versions
from ipmgan.settings import WAYS

BASE = ("python", "torch", "ipmgan")
FREE = (
    *("steps", "device", "source", "metrics", "log_every", "sample_every", "checkpoint_every", "audit_every"),
    *("keep", "held_out_batches", "workers", "compile", "tracker"),
)
"""Settings that may change between two parts of a run; the source is free as long as the data is the same."""


def capture(parts: Parts, step: Step) -> Snapshot:
    """Everything that the next step depends on."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, Any] = {"critic_steps": step.critic_steps, "data": parts.fingerprint, "config": _fixed(parts)}
    for name, module in _modules(parts).items():
        tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, (module, optimizer) in _optimizers(parts).items():
        flat = flat_state(module, optimizer)
        tensors |= {f"{name}.{key}": value for key, value in flat.items() if isinstance(value, Tensor)}
        scalars[name] = {key: value for key, value in flat.items() if not isinstance(value, Tensor)}
    return Snapshot(step=step.steps, tensors=tensors, scalars=scalars, versions=versions(parts.config.plugins))


def restore(parts: Parts, step: Step, snapshot: Snapshot) -> None:
    """Put a run where a snapshot left it; raises `CheckpointError` if it belongs to other settings, data or plugins."""
    _check_versions(snapshot.versions, versions(parts.config.plugins))
    _check_settings(snapshot.scalars.get("config"), _fixed(parts))
    if snapshot.scalars.get("data") != parts.fingerprint:
        raise CheckpointError("the training data is not what the run was started with: restore it, or start a new run")
    tensors = snapshot.tensors
    try:
        for name, module in _modules(parts).items():
            module.load_state_dict(_under(tensors, name))
        for name, (module, optimizer) in _optimizers(parts).items():
            flat = _under(tensors, name) | {key: _tuple(value) for key, value in snapshot.scalars[name].items()}
            if flat:
                set_flat_state(module, optimizer, flat)
        step.steps, step.critic_steps = snapshot.step, int(snapshot.scalars["critic_steps"])
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint does not fit the run's configuration: {error}") from error


def put_weights(net: nn.Module, snapshot: Snapshot, name: str) -> None:
    """Give a network the weights and buffers that a snapshot has under a name; raises `CheckpointError` for others."""
    try:
        net.load_state_dict(_under(snapshot.tensors, name))
    except RuntimeError as error:
        raise CheckpointError(f"the checkpoint does not fit the run's configuration: {error}") from error


def flat_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state and settings by the names of the module's parameters; nothing before its first step."""
    if not optimizer.state:
        return {}
    # Loaded here, for it takes half as long to load as torch itself, and training starts without it.
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(flatten_optimizer_state_dict=True)
    return get_optimizer_state_dict(module, optimizer, options=options)


def set_flat_state(module: nn.Module, optimizer: torch.optim.Optimizer, flat: dict[str, Any]) -> None:
    """Put back what `flat_state` gave; the way of stepping stays that of this machine and device."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    here = {way: value for way, value in optimizer.param_groups[0].items() if way in WAYS}
    settings = (key for key in flat if key.startswith("param_groups."))
    ways = {key: here[way] for key in settings if (way := key.rpartition(".")[2]) in here}
    with frozen(nn.ParameterList(_idle(module, flat))):
        options = StateDictOptions(flatten_optimizer_state_dict=True)
        set_optimizer_state_dict(module, optimizer, flat | ways, options=options)


def _fixed(parts: Parts) -> dict[str, Any]:
    return {key: value for key, value in parts.config.table().items() if key not in FREE}


def _check_settings(saved: Any, now: Mapping[str, Any]) -> None:
    # Through JSON, as the saved ones went.
    plain = json.loads(json.dumps(now))
    known = LATER | saved if isinstance(saved, dict) else LATER
    before = {key: value for key, value in known.items() if key not in FREE}
    changes = [
        f"{key}: {before.get(key)} -> {plain.get(key)}"
        for key in {**before, **plain}
        if before.get(key) != plain.get(key)
    ]
    if changes:
        raise CheckpointError(
            f"the run was saved with other settings ({'; '.join(changes)}): undo that, or start a new run"
        )


def _check_versions(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    told = "; ".join(
        f"saved with {name} {saved.get(name, 'absent')}, here {now.get(name, 'absent')}" for name in changed
    )
    if not set(changed) <= set(BASE):
        raise CheckpointError(f"the plugins are not those of the run: {told}. Install what it was saved with")
    if changed:
        warnings.warn(f"results may differ in the last bits: {told}", stacklevel=2)


def _modules(parts: Parts) -> dict[str, nn.Module]:
    found = {
        "generator": parts.generator,
        "critic": parts.critic,
        "average": parts.average,
        "objective_state": parts.objective_state,
        "enforcer_state": parts.enforcer_state,
    }
    return {name: module for name, module in found.items() if module is not None}


def _optimizers(parts: Parts) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
    found = {"generator_optimizer": (parts.generator, parts.generator_optimizer)}
    if parts.critic is not None and parts.critic_optimizer is not None:
        found["critic_optimizer"] = (parts.critic, parts.critic_optimizer)
    return found


def _idle(module: nn.Module, flat: Mapping[str, Any]) -> list[nn.Parameter]:
    """The parameters that never had a gradient, so that no optimiser state was saved for them.

    torch takes the state of every trainable parameter for given, and fails on these unless they are frozen.
    """
    saved = [
        p
        for name, p in module.named_parameters(remove_duplicate=False)
        if any(key.startswith(f"state.{name}.") for key in flat)
    ]
    return [p for p in module.parameters() if not any(p is other for other in saved)]


def _tuple(value: Any) -> Any:
    """JSON knows no tuples, and torch's optimisers no lists."""
    return tuple(value) if isinstance(value, list) else value


def _under(tensors: dict[str, Tensor], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
