"""What the properties are made of: verdicts, batches that are the same every time, and watches over side effects."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

Property = Callable[[Any], None]
"""Takes a plugin; raises `ConformanceError` where it fails, and `NotApplicable` where there is nothing to check."""


class ConformanceError(AssertionError):
    """A property that a plugin lacks, in one line."""


class NotApplicable(Exception):
    """Why a property says nothing about a plugin, in one line."""


def require(holds: object, reason: str) -> None:
    """Raise `ConformanceError` with the reason unless it holds."""
    if not holds:
        raise ConformanceError(reason)


def first_line(error: BaseException) -> str:
    """What an error says, in one line.

    >>> first_line(ValueError("no\\nand why"))
    'ValueError: no'
    """
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


def rng(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same at every call."""
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64).to(dtype)


def number(x: Tensor) -> float:
    """A scalar as a number."""
    return float(x.detach())


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether two tensors agree to so large a share of their size, or of 1."""
    return torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance)


@contextlib.contextmanager
def no_global_draws(what: str) -> Iterator[None]:
    """Fail where torch's, NumPy's or Python's global generator has moved."""
    before = _global_states()
    yield
    for name, old, new in zip(("torch", "NumPy", "Python"), before, _global_states(), strict=True):
        require(old == new, f"{what} draws from {name}'s global generator: draw from the one that is given")


def _global_states() -> tuple[bytes, bytes, object]:
    numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002  (the global generator is what is watched)
    return torch.get_rng_state().numpy().tobytes(), repr(numpy[2:]).encode() + numpy[1].tobytes(), random.getstate()


@contextlib.contextmanager
def unchanged(what: str, **tensors: Tensor | None) -> Iterator[None]:
    """Fail where one of the tensors was written to, even with what was in it."""
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    before = {name: (tensor._version, tensor.detach().clone()) for name, tensor in given.items()}
    yield
    for name, tensor in given.items():
        version, values = before[name]
        same = tensor._version == version and torch.equal(tensor.detach(), values)
        require(same, f"{what} writes into {name}: leave what is given as it is")


def on_devices(what: str, prepare: Callable[[torch.device], Callable[[], object]]) -> None:
    """Fail where a computation makes a device wait, or leaves the device of its inputs.

    `prepare` makes the inputs on a device, and returns the computation. It runs on torch's meta device, where nothing
    can be read back, and, where there is one, on CUDA with torch's own watch over synchronisation.
    """
    run = prepare(torch.device("meta"))
    try:
        with mock.patch.object(torch.autocast, "__init__", _meta_is_cpu):
            run()
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConformanceError(
            f"{what} reads numbers back from the device, or makes tensors on another: {first_line(error)}"
        ) from error
    if torch.cuda.is_available():
        _on_cuda(what, prepare(torch.device("cuda")))


_AUTOCAST = torch.autocast.__init__


def _meta_is_cpu(self: torch.autocast, device_type: str, *arguments: Any, **settings: Any) -> None:
    """Autocast, which torch's meta device has none of."""
    _AUTOCAST(self, "cpu" if device_type == "meta" else device_type, *arguments, **settings)


def _on_cuda(what: str, run: Callable[[], object]) -> None:
    run()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        raise ConformanceError(f"{what} makes CUDA wait: {first_line(error)}") from error
    finally:
        torch.cuda.set_sync_debug_mode(before)


def derivative_is_right(what: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    """Fail where the gradient in the inputs, float64, is not that of finite differences."""
    leaves = tuple(x.detach().clone().requires_grad_() for x in inputs)
    try:
        torch.autograd.gradcheck(function, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise ConformanceError(f"the gradient of {what} is not that of finite differences: {reason}") from error


def is_scalar(what: str, value: object, dtype: torch.dtype) -> Tensor:
    """The value; fails where it is no finite scalar tensor of this type."""
    if not isinstance(value, Tensor):
        raise ConformanceError(f"{what} is a {type(value).__name__}, not a tensor")
    require(value.dim() == 0, f"{what} has shape {tuple(value.shape)}: reduce it to a scalar")
    require(value.dtype == dtype, f"{what} of {dtype} inputs is {value.dtype}")
    require(torch.isfinite(value), f"{what} is {value.item()}")
    return value


def start_of(plugin: Any, device: torch.device) -> dict[str, Tensor]:
    """What a plugin keeps between steps, as it is before the first, on a device."""
    return {name: value.to(device) for name, value in plugin.state().items()}


def keeps_state(what: str, before: dict[str, Tensor], after: object) -> None:
    """Fail unless what is kept after a step has the names, shapes and types of what was kept before, without graph."""
    if not isinstance(after, dict) and not hasattr(after, "items"):
        raise ConformanceError(f"{what}: what is kept is a {type(after).__name__}, not a mapping of tensors")
    kept = dict(after.items())
    require(kept.keys() == before.keys(), f"{what}: keeps {sorted(kept)} after a step, and {sorted(before)} before it")
    for name, old in before.items():
        new = kept[name]
        if not isinstance(new, Tensor):
            raise ConformanceError(f"{what}: {name} becomes a {type(new).__name__}")
        same = (new.shape, new.dtype) == (old.shape, old.dtype)
        require(same, f"{what}: {name} changes from {tuple(old.shape)} {old.dtype} to {tuple(new.shape)} {new.dtype}")
        require(not new.requires_grad, f"{what}: {name} is kept with its graph: detach it")
