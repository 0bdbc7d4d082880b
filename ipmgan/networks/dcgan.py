"""The convolutional family of DCGAN."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from torch import nn

from ipmgan.data.base import SampleSpec
from ipmgan.networks.base import Network
from ipmgan.networks.convolution import downward, initialise, pyramid, upward
from ipmgan.networks.layers import check_kind, critic_head, critic_norm, samples_head
from ipmgan.objectives.base import CriticKind
from ipmgan.plugin import option
from ipmgan.references import DCGAN as PAPER
from ipmgan.references import WGAN


@attrs.frozen(kw_only=True)
class DCGAN(Network):
    """A convolutional generator or critic, for square images of 28 to 128 pixels and any number of channels.

    Sizes are halved, rounding down, until they are below 8: 64-32-16-8-4, 28-14-7, 45-22-11-5. For n halvings down to
    b pixels and f = `nf`:

    | part      | layers                                                                                           |
    |-----------|--------------------------------------------------------------------------------------------------|
    | generator | b x b transposed convolution to 2^(n-1) f, norm, ReLU; n-1 times 4x4 transposed convolution of   |
    |           | stride 2 to half the filters, norm, ReLU; one more to the channels; tanh (or what the bounds ask) |
    | critic    | 4x4 convolution of stride 2 to f, LeakyReLU(.2); n-1 times 4x4 convolution of stride 2 to twice   |
    |           | the filters, norm, LeakyReLU(.2); b x b convolution to 1 (or `features`); softplus for an energy  |

    Where the larger size is odd, the kernel is 5x5, so that every pixel is reached and every size is hit exactly. No
    layer has a bias. Convolutions start at N(0, .02^2), gains of batch norms at N(1, .02^2). A layer norm is over
    channels, height and width with one gain a channel. 64x64x3 from 100 latents is the generator of the paper, with
    3,576,704 parameters. `norm = "auto"` is batch, except in a critic that must treat each sample by itself: layer.
    """

    name = "dcgan"
    references = (PAPER, WGAN)

    nf: int = option(64, help="filters of the layer next to the image; they double with each halving", at_least=1)
    norm: str = option("auto", help="normalisation of the inner layers", choices=("auto", "batch", "layer", "none"))
    features: int = option(16, help="outputs of a feature critic", at_least=1)

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        """All that a critic can be."""
        return frozenset(CriticKind) - {CriticKind.NONE}

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        """Latents (N, latent) to images (N, channels, size, size)."""
        sizes = pyramid(self, sample)
        norm = _normaliser("batch" if self.norm == "auto" else self.norm)
        body = upward(latent, sample.shape[0], sizes, self._filters(sizes), norm)
        return initialise(nn.Sequential(*body, *samples_head(self, "auto", sample)))

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        """Images (N, channels, size, size) to (N,), or (N, features)."""
        check_kind(self, kind)
        sizes = pyramid(self, sample)
        norm = _normaliser(critic_norm(self, self.norm, per_sample=per_sample))
        outputs = self.features if kind is CriticKind.FEATURES else 1
        body = downward(sample.shape[0], sizes, self._filters(sizes), outputs, norm)
        return initialise(nn.Sequential(*body, *critic_head(kind)))

    def _filters(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.nf * 2**i for i in range(len(sizes) - 1))


def _normaliser(norm: str) -> Callable[[int], list[nn.Module]]:
    match norm:
        case "batch":
            return lambda channels: [nn.BatchNorm2d(channels)]
        case "layer":
            return lambda channels: [nn.GroupNorm(1, channels)]
        case _:
            return lambda channels: []
