"""The layers of deel-torchlip."""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, ClassVar

import attrs
import torch
from ipmgan import LipschitzEnforcer, PairingError, Reference, Training, UsageError, lipschitz_rule, option
from torch import nn

from ipmgan_spectral.layers import Answer, Bound, constrained, convolution_rule
from ipmgan_spectral.papers import DEEL, SORTING
from ipmgan_spectral.spectral import ADAM

WARM_UP = 20
"""Forward passes of a new layer's weight, each of which iterates once towards the norm of the weight it was given."""
BENT = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Softplus)
"""The activations that sorting replaces."""


@attrs.frozen(kw_only=True)
class Deel(LipschitzEnforcer):
    """Replaces the critic's layers by those of deel-torchlip, with the same weights, so that the critic is K-Lipschitz.

        W_l -> K^(1/L) bjorck(W_l / sigma(W_l)) / sqrt(o_l),   l = 1, ..., L

    over the critic's L layers, linear, convolutional in one or two dimensions, and transposed in two: each weight is
    divided by its norm as a matrix, by one power iteration, made orthogonal by Björck's, and that of a convolution
    divided by the root of how many patches a pixel lies in. `sort` replaces ReLU and its kin by sorting pairs of units
    (GroupSort of size 2), which keeps the gradient's length, as ReLU does not.

    It iterates until weights move by less than a tolerance, which asks the device for an answer at every step: on a GPU
    `bjorck` is faster, and the step runs uncompiled. Power iteration and the weights that evaluation uses move with
    each forward pass in training, of either network's step. Replicates are refused, as its loops cannot be vectorised.
    Needs deel-torchlip 1.0 or later: pip install "ipmgan-spectral[deel]".

    Source: Serrurier et al. (2021); Anil, Lucas and Grosse (2019), for sorting.
    """

    name: ClassVar[str] = "deel"
    references: ClassVar[tuple[Reference, ...]] = (DEEL, SORTING)
    defaults: ClassVar[Training] = Training(critic_optimizer=ADAM, generator_optimizer=ADAM)
    per_sample: ClassVar[bool] = True
    vectorises: ClassVar[bool] = False

    k: float = option(1.0, help="K, the constant of all layers together", above=0)
    sort: bool = option(False, help="sort pairs of units in place of ReLU, leaky ReLU, tanh and softplus")

    def prepare(self, critic: nn.Module) -> nn.Module:
        """A critic of deel-torchlip's layers. Raises `PairingError` for layers of which it has no counterpart."""
        torchlip = library()
        layers = constrained(critic, self.name)
        scale = self.k ** (1 / len(layers))
        for name, layer in layers.items():
            critic = replaced(critic, name, counterpart(torchlip, name, layer, scale))
        if self.sort:
            odd = [name for name, layer in [*layers.items()][:-1] if layer.get_parameter("weight").shape[0] % 2]
            if odd:
                raise PairingError(f"deel:sort=true sorts pairs, and the critic's layer {odd[0]!r} has an odd number")
            for name in [name for name, layer in critic.named_modules() if isinstance(layer, BENT)]:
                critic = replaced(critic, name, torchlip.GroupSort2())
        return critic


@functools.cache
def library() -> Any:
    """deel-torchlip, its layers known to `lipschitz_bound`; raises `UsageError` where it is not installed."""
    try:
        torchlip = importlib.import_module("deel.torchlip")
    except ImportError as error:
        raise UsageError(
            f'deel needs the package deel-torchlip: pip install "ipmgan-spectral[deel]" ({error})'
        ) from error
    for kind in ("SpectralConv1d", "SpectralConv2d", "SpectralConvTranspose2d", "FrobeniusConv2d"):
        lipschitz_rule.register(getattr(torchlip, kind), padded_rule)
    for kind in ("GroupSort", "MaxMin"):
        lipschitz_rule.register(getattr(torchlip, kind), sorting_rule)
    return torchlip


def counterpart(torchlip: Any, name: str, layer: nn.Module, scale: float) -> nn.Module:
    """deel-torchlip's layer for one of torch's, with its weights."""
    around = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "padding_mode")
    kinds: dict[type[nn.Module], tuple[Any, tuple[str, ...]]] = {
        nn.Linear: (torchlip.SpectralLinear, ("in_features", "out_features")),
        nn.Conv1d: (torchlip.SpectralConv1d, around),
        nn.Conv2d: (torchlip.SpectralConv2d, around),
        nn.ConvTranspose2d: (torchlip.SpectralConvTranspose2d, around),
    }
    fixed = {"dilation": 1, "output_padding": 0, "groups": 1}
    simple = all(set(_all(getattr(layer, name, value))) == {value} for name, value in fixed.items())
    if type(layer) not in kinds or not simple:
        raise PairingError(
            f"deel-torchlip has no layer like the critic's {name!r} ({layer}): it has linear layers, convolutions in "
            "one or two dimensions and transposed ones in two, all without dilation and groups"
        )
    kind, options = kinds[type(layer)]
    weight = layer.get_parameter("weight")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # For the vectors of its power iteration; its weights are replaced.
        made: nn.Module = kind(
            **{option: getattr(layer, option) for option in options}, bias=layer.bias is not None, k_coef_lip=scale
        )
    made.to(weight)
    with torch.no_grad():
        made.get_parameter("parametrizations.weight.original").copy_(weight)
        if layer.bias is not None:
            made.get_parameter("bias").copy_(layer.get_parameter("bias"))
        for _ in range(WARM_UP):
            made.weight  # noqa: B018
    return made


def _all(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def replaced(critic: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """The critic with another layer in this place; the layer itself where the critic is nothing else."""
    if not name:
        return layer
    parent, _, last = name.rpartition(".")
    setattr(critic.get_submodule(parent), last, layer)
    return critic


def padded_rule(layer: Any, bound: Bound) -> Answer:
    """That of the convolution, unless it pads in a way that torch does not know."""
    if getattr(layer, "old_padding_mode", "zeros") == "symmetric":
        return "it pads by mirroring, which shows values twice"
    return convolution_rule(layer, bound)


def sorting_rule(layer: nn.Module, bound: Bound) -> Answer:
    """A permutation on each piece of its domain, or max(x, 0) beside max(-x, 0), times the layer's coefficient."""
    return math.fabs(float(getattr(layer, "_coefficient_lip", 1.0)))
