"""MMD² by tiles or by the matrix, as one differentiable function; what transforms and compilers see of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ipmgan.functional import tiles
from ipmgan.functional.kernels import Kernel, Mixture, squared_distances

COMPILED_FROM = 2**21
"""Pairs of samples from which code that is being compiled, or runs on a GPU, takes tiles and not the matrix."""
STACKED_TO = 2**20
"""Pairs of samples, times numbers a sample, to which batches under `torch.func.vmap` take matrices, all at once."""


def matrix_mmd2(x: Tensor, y: Tensor, kernel: Kernel, *, unbiased: bool) -> Tensor:
    """MMD² from the matrices of kernel values, for any kernel, differentiable as often as that is."""
    across = kernel(squared_distances(x, y)).mean()
    return _within(x, kernel, unbiased=unbiased) + _within(y, kernel, unbiased=unbiased) - 2 * across


def _within(x: Tensor, kernel: Kernel, *, unbiased: bool) -> Tensor:
    count = len(x)
    squared = squared_distances(x)
    if not unbiased:
        return kernel(squared).mean()
    diagonal = kernel(squared.new_zeros(())) * count
    return (kernel(squared).sum() - diagonal) / (count * (count - 1))


def tiles_pay(x: Tensor, y: Tensor) -> bool:
    """Whether tiles are to be had and faster: always in plain code on the CPU, and elsewhere from some size on."""
    large = _pairs(x, y) >= COMPILED_FROM
    if x.device.type == "cuda":
        return large and tiles.triton_is_there()
    return x.device.type == "cpu" and (large or not torch.compiler.is_compiling())


def _pairs(x: Tensor, y: Tensor) -> int:
    return (len(x) + len(y)) ** 2 // 2


def tiled_mmd2(x: Tensor, y: Tensor, kernel: Mixture, *, unbiased: bool) -> Tensor:
    """MMD² by tiles; derivatives beyond the first go through the matrix."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    wanted = [torch.is_grad_enabled() and z.requires_grad for z in (x, y)]
    value: Tensor = _Tiled.apply(x.to(dtype), y.to(dtype), kernel.name, kernel.widths, unbiased, *wanted)[0]
    return value


@torch.library.custom_op("ipmgan::mmd2_and_forces", mutates_args=())
def mmd2_and_forces(
    x: Tensor, y: Tensor, name: str, widths: Sequence[float], unbiased: bool, wants_x: bool, wants_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`tiles.mmd2_and_forces` as an operator, which compilers take whole."""
    kernel = Mixture(name, tuple(widths))
    return tiles.mmd2_and_forces(x, y, kernel, unbiased=unbiased, wanted=(wants_x, wants_y))


@mmd2_and_forces.register_fake
def _shapes(
    x: Tensor, y: Tensor, name: str, widths: Sequence[float], unbiased: bool, wants_x: bool, wants_y: bool
) -> tuple[Tensor, Tensor, Tensor]:
    on_x = torch.empty_like(x) if wants_x else x.new_empty(0)
    return x.new_empty(()), on_x, torch.empty_like(y) if wants_y else y.new_empty(0)


class _Tiled(torch.autograd.Function):
    """The value with its gradients, which are found together."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        if torch.compiler.is_compiling():
            value, on_x, on_y = mmd2_and_forces(*inputs)
            return value, on_x, on_y
        x, y, name, widths, unbiased = inputs[:5]
        return tiles.mmd2_and_forces(x, y, Mixture(name, widths), unbiased=unbiased, wanted=inputs[5:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros for those
        ctx.settings, ctx.wanted = inputs[2:5], inputs[5:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        scale = grads[0]
        if scale is None:
            return (None,) * 7
        x, y, on_x, on_y = ctx.saved_tensors
        needs_x, needs_y = ctx.needs_input_grad[:2]
        if (needs_x and not ctx.wanted[0]) or (needs_y and not ctx.wanted[1]):  # a transform hid the need
            _, on_x, on_y = _Tiled.apply(x, y, *ctx.settings, needs_x, needs_y)
        if torch.is_grad_enabled():  # somebody may differentiate this gradient
            on_x, on_y = _Forces.apply(x, y, on_x, on_y, *ctx.settings)
        return scale * on_x if needs_x else None, scale * on_y if needs_y else None, *[None] * 5

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        x, y = (_stacked(z, dim, info.batch_size) for z, dim in zip(inputs[:2], in_dims[:2], strict=True))
        if _pairs(x[0], y[0]) * x.shape[-1] <= STACKED_TO:
            matrix = functools.partial(_matrix, settings=inputs[2:5])
            forces, values = torch.func.vmap(torch.func.grad_and_value(matrix, (0, 1)))(x, y)
            return (values, *forces), (0, 0, 0)
        each = [_Tiled.apply(x[k], y[k], *inputs[2:]) for k in range(info.batch_size)]
        return tuple(torch.stack(outputs) for outputs in zip(*each, strict=True)), (0, 0, 0)


class _Forces(torch.autograd.Function):
    """The gradients that the tiles gave, as functions of the samples: their own derivatives are the matrix form's."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor]:
        return inputs[2].view_as(inputs[2]), inputs[3].view_as(inputs[3])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.settings = inputs[4:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        vectors = tuple(g if g.shape == z.shape else torch.zeros_like(z) for g, z in zip(grads, (x, y), strict=True))
        gradient = torch.func.grad(functools.partial(_matrix, settings=ctx.settings), (0, 1))
        return *torch.func.vjp(gradient, x, y)[1](vectors), *[None] * 5

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        stacks = [_stacked(z, dim, info.batch_size) for z, dim in zip(inputs[:4], in_dims[:4], strict=True)]
        each = [_Forces.apply(*item, *inputs[4:]) for item in zip(*stacks, strict=True)]
        return tuple(torch.stack(outputs) for outputs in zip(*each, strict=True)), (0, 0)


def _stacked(x: Tensor, dim: int | None, count: int) -> Tensor:
    return x.expand(count, *x.shape) if dim is None else x.movedim(dim, 0)


def _matrix(x: Tensor, y: Tensor, *, settings: tuple[str, tuple[float, ...], bool]) -> Tensor:
    name, widths, unbiased = settings
    return matrix_mmd2(x, y, Mixture(name, widths), unbiased=unbiased)
