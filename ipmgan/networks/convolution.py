"""The convolutional pyramids that `dcgan` and `dcgan-constant` are made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from torch import nn

from ipmgan.data.base import SampleSpec
from ipmgan.errors import PairingError
from ipmgan.networks.base import Network

SMALLEST, LARGEST = 28, 128


def pyramid(network: Network, sample: SampleSpec) -> tuple[int, ...]:
    """The sizes of an image as it is halved, rounding down, until it is smaller than 8: 64 -> 64, 32, 16, 8, 4.

    Raises `PairingError` for what is not a square image of 28 to 128 pixels.
    """
    shape = sample.shape
    if len(shape) != 3 or shape[1] != shape[2] or not SMALLEST <= shape[1] <= LARGEST:
        raise PairingError(
            f"the network {network.name!r} is for square images of {SMALLEST} to {LARGEST} pixels, these samples are "
            f"{'x'.join(map(str, shape))}: take mlp, or resize the images"
        )
    sizes = [shape[1]]
    while sizes[-1] >= 8:
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def downward(
    channels: int,
    sizes: tuple[int, ...],
    filters: tuple[int, ...],
    outputs: int,
    norm: Callable[[int], list[nn.Module]],
) -> list[nn.Module]:
    """An image (channels, s, s) to (outputs, 1, 1): halving convolutions, then one as large as what is left."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise((channels, *filters))):
        kernel = 4 + sizes[i] % 2
        layers.append(nn.Conv2d(fan_in, fan_out, kernel, stride=2, padding=1, bias=False))
        layers += norm(fan_out) if i else []
        layers.append(nn.LeakyReLU(0.2))
    return [*layers, nn.Conv2d(filters[-1], outputs, sizes[-1], bias=False)]


def upward(
    latent: int, channels: int, sizes: tuple[int, ...], filters: tuple[int, ...], norm: Callable[[int], list[nn.Module]]
) -> list[nn.Module]:
    """A latent (latent,) to an image (channels, s, s): the mirror of `downward`, in transposed convolutions."""
    widths = (*reversed(filters), channels)
    layers: list[nn.Module] = [
        nn.Unflatten(1, (latent, 1, 1)),
        nn.ConvTranspose2d(latent, widths[0], sizes[-1], bias=False),
    ]
    for size, fan_in, fan_out in zip(reversed(sizes[:-1]), widths, widths[1:], strict=False):
        layers += [*norm(fan_in), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(fan_in, fan_out, 4 + size % 2, stride=2, padding=1, bias=False))
    return layers


def initialise(network: nn.Module) -> nn.Module:
    """DCGAN's initial weights, in place: convolutions N(0, .02^2), batch-norm gains N(1, .02^2), offsets 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
    return network
