"""What the other files share: the width of numbers, a root that can be differentiated, the shape of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ipmgan.errors import UsageError


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself in float32 or wider, and as float32 where it is narrower (bfloat16, float16, integers).

    >>> at_least_float32(torch.ones(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def widest(device: torch.device) -> torch.dtype:
    """The widest floating-point type that a device has: float64, and float32 on mps.

    >>> widest(torch.device("cpu"))
    torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64


def safe_sqrt(x: Tensor) -> Tensor:
    """√x, and 0 with gradient 0 where x ≤ 0 (a rounded non-negative number, at which √ has no finite gradient).

    >>> x = torch.tensor([4.0, 0.0], requires_grad=True)
    >>> safe_sqrt(x).sum().backward()
    >>> x.grad
    tensor([0.2500, 0.0000])
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def check_samples(x: Tensor, y: Tensor, least: int = 1) -> None:
    """Raise `UsageError` unless `x` is (N, K) and `y` is (M, K), with at least so many samples each."""
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise UsageError(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}: must be (N, K) and (M, K)")
    if min(len(x), len(y)) < least:
        raise UsageError(f"{len(x)} and {len(y)} samples: must be at least {least} on each side")
