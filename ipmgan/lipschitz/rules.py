"""The rules of torch's own layers: what each can stretch a difference by, from l2 to l2.

Convolutions and pooling are linear or 1-Lipschitz maps of overlapping patches; elementwise functions count with their
steepest slope. Sources of the constants are derivations that fit in a line; the docstrings give them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ipmgan.functional.norms import convolution_bound, spectral_norm
from ipmgan.lipschitz.certificate import Answer, Walk, lipschitz_rule

Bound = Callable[[nn.Module], float]
_NOT_FINITE = "its weights are not finite"
_GELU = 1.13
"""Above the largest slope of both forms, 1.1290 near x = 1.41."""
_SILU = 1.0999
"""Above the largest slope, 1.09984 near x = 2.4."""
_LINEAR_ABOVE = 20.0
"""torch's softplus turns into the identity above a threshold; from 20 on, the step there is below 2.1e-9 / beta."""

_Rule = TypeVar("_Rule", bound=Callable[..., Answer])


def _for(*layers: type[nn.Module]) -> Callable[[_Rule], _Rule]:
    """Registers one rule for several layer types."""

    def register(rule: _Rule) -> _Rule:
        for layer in layers:
            lipschitz_rule.register(layer)(rule)
        return rule

    return register


@_for(nn.Sequential)
def _sequential(layer: nn.Sequential, bound: Bound) -> Answer:
    """The composition of its parts."""
    return list(layer)


@_for(nn.Linear)
def _linear(layer: nn.Linear, bound: Bound) -> Answer:
    """||W||_2, exactly; the bias drops out of differences."""
    return float(spectral_norm(layer.weight)) if _finite(layer.weight) else _NOT_FINITE


@_for(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, walk: Walk) -> Answer:
    """That of the zero-padded convolution, times that of another padding, which repeats values at the edges."""
    shapes = walk.shapes(layer)
    positions = shapes[1][1:] if shapes else ()
    return _kernel_bound(layer, positions, walk.effort) * _padding(layer)


@_for(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def _transposed(layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, walk: Walk) -> Answer:
    """That of the convolution whose adjoint it is."""
    shapes = walk.shapes(layer)
    positions = shapes[0][1:] if shapes else ()
    return _kernel_bound(layer, positions, walk.effort)


def _kernel_bound(layer: nn.Module, positions: Sequence[int], effort: float) -> float:
    """Along an axis with a single position, the kernel is applied once: the stride that spans it says so."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if not _finite(weight):
        return math.nan
    stride, dilation = list(_axes(layer, "stride")), list(_axes(layer, "dilation"))
    for axis, count in enumerate(positions):
        if count == 1:
            stride[axis], dilation[axis] = weight.shape[axis + 2], 1
    groups: int = layer.groups  # type: ignore[assignment]
    return float(convolution_bound(weight, stride=stride, dilation=dilation, groups=groups, effort=effort))


def _padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> float:
    """The norm of the padding: the root of how often it can repeat one value.

    'reflect' and 'circular' show a value once more on each side at most, 'replicate' shows the edge at every place.
    """
    if layer.padding_mode == "zeros":
        return 1.0
    added = [before + after for before, after in _padded(layer)]
    if layer.padding_mode != "replicate":
        added = [min(count, 2) for count in added]
    return _up(math.prod(1 + count for count in added))


def _padded(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, int]]:
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        spans = [gap * (size - 1) for size, gap in zip(layer.kernel_size, layer.dilation, strict=True)]
        return [(span // 2, span - span // 2) for span in spans]
    return [(count, count) for count in _axes(layer, "padding")]


@_for(nn.Identity, nn.Flatten, nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
def _rearranged(layer: nn.Module, bound: Bound) -> Answer:
    """The same numbers elsewhere."""
    return 1.0


@_for(nn.ReLU, nn.ReLU6, nn.Tanh, nn.Hardtanh, nn.LogSigmoid, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.CELU)
def _gentle(layer: nn.Module, bound: Bound) -> Answer:
    """Slopes in [0, 1]."""
    return 1.0


@_for(nn.LeakyReLU)
def _leaky(layer: nn.LeakyReLU, bound: Bound) -> Answer:
    return max(1.0, abs(layer.negative_slope))


@_for(nn.PReLU)
def _learned_leaky(layer: nn.PReLU, bound: Bound) -> Answer:
    return max(1.0, float(layer.weight.abs().max())) if _finite(layer.weight) else _NOT_FINITE


@_for(nn.Sigmoid)
def _sigmoid(layer: nn.Sigmoid, bound: Bound) -> Answer:
    """s(1 - s)."""
    return 0.25


@_for(nn.Softplus)
def _softplus(layer: nn.Softplus, bound: Bound) -> Answer:
    """The slope is a sigmoid's value."""
    if layer.threshold < _LINEAR_ABOVE:
        return f"its threshold {layer.threshold:g} is below {_LINEAR_ABOVE:g}, where its value jumps"
    return 1.0


@_for(nn.ELU)
def _elu(layer: nn.ELU, bound: Bound) -> Answer:
    """alpha exp(x) below zero, 1 above."""
    return max(1.0, abs(layer.alpha))


@_for(nn.SELU)
def _selu(layer: nn.SELU, bound: Bound) -> Answer:
    """scale alpha just below zero."""
    return 1.0507009873554805 * 1.6732632423543773


@_for(nn.GELU)
def _gelu(layer: nn.GELU, bound: Bound) -> Answer:
    return _GELU


@_for(nn.SiLU)
def _silu(layer: nn.SiLU, bound: Bound) -> Answer:
    return _SILU


@_for(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
def _dropout(layer: nn.Dropout, bound: Bound) -> Answer:
    """In training mode 1 / (1 - p), for every draw of what is dropped."""
    if not layer.training or layer.p == 1:
        return 1.0
    return math.nextafter(1 / (1 - layer.p), math.inf)


@_for(_BatchNorm, nn.SyncBatchNorm)
def _batch_norm(layer: _BatchNorm, bound: Bound) -> Answer:
    """max |gamma| / sqrt(var + eps) in evaluation mode; in training mode it depends on the other samples."""
    if layer.training or layer.running_var is None:
        return "it divides by the spread of the batch, so that there is no bound without the data; call eval() first"
    spread = (layer.running_var.double() + layer.eps).sqrt()
    gain = torch.ones_like(spread) if layer.weight is None else layer.weight.double().abs()
    return _rounded(float((gain / spread).max()))


@_for(nn.LayerNorm, nn.GroupNorm, _InstanceNorm)
def _own_norm(layer: nn.LayerNorm | nn.GroupNorm | _InstanceNorm, bound: Bound) -> Answer:
    """max |gamma| / sqrt(eps): with s = sqrt(var + eps), z = (x - mean) / s and P the centring of d numbers, the
    Jacobian (P - z z^T / d) / s has the eigenvalues 0, eps / s^3 and 1 / s, and s is at least sqrt(eps)."""
    if isinstance(layer, _InstanceNorm) and layer.track_running_stats and not layer.training:
        return _batch_norm(layer, bound)  # type: ignore[arg-type]
    if layer.eps == 0:
        return "its eps is 0, so that it divides by a spread that may be 0"
    gain = 1.0 if layer.weight is None else float(layer.weight.double().abs().max())
    return _rounded(gain / math.sqrt(layer.eps))


@_for(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
def _max_pool(layer: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, bound: Bound) -> Answer:
    """A maximum moves by at most the largest change in its window, and a value lies in so many windows."""
    axes = zip(_axes(layer, "kernel_size"), _axes(layer, "stride"), _axes(layer, "dilation"), strict=True)
    return _up(math.prod(-(-size // (step // math.gcd(step, gap))) for size, step, gap in axes))


@_for(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def _average_pool(layer: nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d, bound: Bound) -> Answer:
    """A convolution with a constant, non-negative kernel, whose symbol peaks at frequency 0: sqrt(sum_r n_r^2) an axis.

    n_r counts the kernel's places that meet residue r of the stride. Where windows at the edge divide by fewer numbers,
    |mean|^2 <= the mean of squares leaves the root of how many windows a value lies in.
    """
    windows = list(zip(_axes(layer, "kernel_size"), _axes(layer, "stride"), strict=True))
    divisor = getattr(layer, "divisor_override", None)
    uneven = layer.ceil_mode or (any(_axes(layer, "padding")) and not layer.count_include_pad)
    if uneven and not divisor:
        return _up(math.prod(-(-size // step) for size, step in windows))
    squares = math.prod(sum(len(range(r, size, step)) ** 2 for r in range(step)) for size, step in windows)
    return _rounded(_up(squares) / (divisor or math.prod(size for size, _ in windows)))


@_for(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
def _adaptive_average_pool(layer: nn.AdaptiveAvgPool1d, walk: Walk) -> Answer:
    """sqrt(windows a value lies in / numbers in the smallest window) an axis, as |mean|^2 <= the mean of squares."""
    shapes = walk.shapes(layer)
    if shapes is None:
        sizes = _axes(layer, "output_size")
        return 1.0 if set(sizes) == {1} else "how it divides depends on the input's size: give a sample's shape"
    dims = _dims(layer)
    worst = 1.0
    for size, count in zip(shapes[0][-dims:], shapes[1][-dims:], strict=True):
        windows = [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
        overlap = max(sum(place in window for window in windows) for place in range(size))
        worst *= overlap / min(len(window) for window in windows)
    return _rounded(math.sqrt(worst))


def _axes(layer: nn.Module, option: str) -> tuple[int, ...]:
    """An option of a layer, one number an axis."""
    value = getattr(layer, option)
    return value if isinstance(value, tuple) else (value,) * _dims(layer)


def _dims(layer: nn.Module) -> int:
    """How many spatial axes a layer of torch has, which is in its name."""
    for cls in type(layer).__mro__:
        if cls in lipschitz_rule.registry:
            return int(cls.__name__[-2])
    raise TypeError(type(layer).__name__)


def _finite(weight: Tensor) -> bool:
    return bool(weight.isfinite().all())


def _up(count: float) -> float:
    """The root, rounded up unless it is whole."""
    root = math.sqrt(count)
    return root if root * root == count else math.nextafter(root, math.inf)


def _rounded(value: float) -> float:
    """A few roundings up."""
    return value * (1 + 1e-15)
