"""The convolutional family that is handicapped on purpose."""

from __future__ import annotations

import attrs
from torch import nn

from ipmgan.data.base import SampleSpec
from ipmgan.networks.base import Network
from ipmgan.networks.convolution import downward, initialise, pyramid, upward
from ipmgan.networks.layers import check_kind, critic_head, samples_head
from ipmgan.objectives.base import CriticKind
from ipmgan.plugin import option
from ipmgan.references import WGAN


@attrs.frozen(kw_only=True)
class DCGANConstant(Network):
    """A DCGAN without normalisation and with the same number of filters everywhere: WGAN's test of robustness.

    For n halvings of the image down to b pixels (see `dcgan`) and f = `nf`:

    | part      | layers                                                                                          |
    |-----------|-------------------------------------------------------------------------------------------------|
    | generator | b x b transposed convolution to f, ReLU; n-1 times 4x4 transposed convolution of stride 2, ReLU; |
    |           | one more to the channels; tanh (or what the bounds ask for)                                      |
    | critic    | n times 4x4 convolution of stride 2 to f, LeakyReLU(.2); b x b convolution to 1 (or `features`);  |
    |           | softplus for an energy                                                                           |

    No layer has a bias; weights start at N(0, .02^2). 64x64x3 from 100 latents has 302,080 parameters in the
    generator, 11.84 times fewer than `dcgan`. The paper leaves the critic a DCGAN (`--critic dcgan`); this one serves
    where a critic without norm, whose Lipschitz constant can be bounded, is wanted.
    """

    name = "dcgan-constant"
    references = (WGAN,)

    nf: int = option(64, help="filters of every layer", at_least=1)
    features: int = option(16, help="outputs of a feature critic", at_least=1)

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        """All that a critic can be."""
        return frozenset(CriticKind) - {CriticKind.NONE}

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        """Latents (N, latent) to images (N, channels, size, size)."""
        sizes = pyramid(self, sample)
        body = upward(latent, sample.shape[0], sizes, (self.nf,) * (len(sizes) - 1), _no_norm)
        return initialise(nn.Sequential(*body, *samples_head(self, "auto", sample)))

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        """Images (N, channels, size, size) to (N,), or (N, features)."""
        check_kind(self, kind)
        sizes = pyramid(self, sample)
        outputs = self.features if kind is CriticKind.FEATURES else 1
        body = downward(sample.shape[0], sizes, (self.nf,) * (len(sizes) - 1), outputs, _no_norm)
        return initialise(nn.Sequential(*body, *critic_head(kind)))


def _no_norm(channels: int) -> list[nn.Module]:
    return []
