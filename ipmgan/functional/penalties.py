"""Penalties on the slope of a critic: where it is taken, how steep it is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ipmgan.errors import PairingError, UsageError
from ipmgan.functional.tensors import at_least_float32


def interpolates(real: Tensor, fake: Tensor, epsilon: Tensor) -> Tensor:
    """Points on the straight lines between pairs of samples.

        x_hat_i = eps_i x_i + (1 - eps_i) x~_i

    Args:
        real: x, (N, ...).
        fake: x~, of the same shape.
        epsilon: one weight a sample on the real one, (N,).

    Returns:
        (N, ...), without graph, in float32 or wider.

    Raises:
        UsageError: where real and fake, or the weights, do not pair up.

    >>> import torch
    >>> interpolates(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.zeros(2, 2), torch.tensor([0.5, 0.25]))
    tensor([[1.5000, 2.0000],
            [0.2500, 0.0000]])

    Source: Gulrajani et al. (2017), algorithm 1, line 6.
    """
    if real.shape != fake.shape:
        raise UsageError(
            f"real {tuple(real.shape)} and fake {tuple(fake.shape)}: interpolates need as many of both, of one shape"
        )
    if epsilon.shape != real.shape[:1]:
        raise UsageError(f"weights {tuple(epsilon.shape)}: interpolates need one a sample, ({len(real)},)")
    epsilon = epsilon.reshape(-1, *[1] * (real.dim() - 1))
    real, fake = at_least_float32(real.detach()), at_least_float32(fake.detach())
    return epsilon * real + (1 - epsilon) * fake


def gradient_norms(critic: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """How steep the critic is at each point.

        n_i = || grad f(x_i) ||_2, over all axes of the point

    The gradient is that of the summed outputs, which is each point's own where f(x_i) depends on x_i alone. The norm's
    own derivative is taken as 0 where the norm is 0. Autocast is switched off inside, and half precision raised to
    float32: a squared gradient of a gradient does not fit into bfloat16.

    Args:
        critic: maps (N, ...) to one number a point, (N,) or (N, 1).
        points: (N, ...); their graph is not followed.

    Returns:
        (N,), with the graph that leads to the critic's parameters.

    Raises:
        PairingError: where the critic puts out anything but one number a point.

    >>> import torch
    >>> gradient_norms(lambda x: x.square().sum(1) / 2, torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [5.0, 0.0]
    """
    with torch.autocast(points.device.type, enabled=False), torch.enable_grad():
        points = at_least_float32(points.detach())
        with _Masks():
            gradient = _gradient(lambda x: _one_each(critic(x), len(x)).sum(), points)
        norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return norms


def _one_each(out: Tensor, count: int) -> Tensor:
    if out.dim() == 0 or out.numel() != count or len(out) != count:
        raise PairingError(
            f"a gradient penalty needs one number a sample from the critic, which gave {tuple(out.shape)} for "
            f"{count} samples: the slope of several outputs, or of their mean, is another quantity"
        )
    return out


def _gradient(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The gradient of a scalar, itself differentiable; by torch.func where the function is compiled or transformed."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        transformed: Tensor = torch.func.grad(function)(points)
        return transformed
    points.requires_grad_()
    (gradient,) = torch.autograd.grad(function(points), points, create_graph=True, materialize_grads=True)
    return gradient


class _Masks(TorchFunctionMode):
    """Rectifies by a mask instead of ReLU and leaky ReLU: the same values and slopes, to the bit.

    Autograd does not know that their second derivative is 0, and would carry zeros through every layer below.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (functional.relu, torch.relu, Tensor.relu):
            return torch.where(args[0] <= 0, 0, args[0])
        if func is functional.leaky_relu:
            return _leaky(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def _leaky(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return torch.where(x > 0, x, negative_slope * x)


def slope_penalty(norms: Tensor, *, target: float = 1.0, one_sided: bool = False) -> Tensor:
    """What slopes cost that are not the target.

        mean_i (n_i - t)^2,    one-sided: mean_i max(n_i - t, 0)^2

    Args:
        norms: n, (N,).
        target: t.
        one_sided: lets slopes below the target go free.

    Returns:
        A scalar.

    >>> import torch
    >>> float(slope_penalty(torch.tensor([5.0]))), float(slope_penalty(torch.tensor([0.5]), one_sided=True))
    (16.0, 0.0)

    Source: Gulrajani et al. (2017), equation 3 and section 4; the one-sided form is also that of Petzka et al. (2018).
    """
    excess = norms - target
    if one_sided:
        excess = excess.relu()
    return excess.square().mean()
