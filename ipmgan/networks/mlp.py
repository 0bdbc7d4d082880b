"""The fully connected family."""

from __future__ import annotations

import itertools
import math

import attrs
from torch import nn

from ipmgan.data.base import SampleSpec
from ipmgan.networks.base import Network
from ipmgan.networks.layers import (
    ACTIVATIONS,
    OUTPUTS,
    activation,
    check_kind,
    critic_head,
    critic_norm,
    samples_head,
)
from ipmgan.objectives.base import CriticKind
from ipmgan.plugin import option
from ipmgan.references import WGAN, WGAN_GP


@attrs.frozen(kw_only=True)
class MLP(Network):
    """A fully connected generator or critic, for samples of any shape.

    | part      | layers                                                                          |
    |-----------|---------------------------------------------------------------------------------|
    | hidden    | `depth` times: Linear, norm, activation (no bias before a batch norm)            |
    | generator | hidden, Linear to the sample's size, output, reshaped to the sample's shape      |
    | critic    | flattened, hidden, Linear to 1 (or `features`), output; (N,), or (N, `features`) |

    `output = "auto"` closes a generator with tanh for samples in (-1, 1), a sigmoid for (0, 1), a tanh mapped onto any
    other interval, and nothing where samples are unbounded; it closes a critic with softplus for an energy and with
    nothing otherwise. "identity" is the generator of the WGAN authors' code, which has no tanh (and may leave the
    interval). A log-odds critic must end in the identity: a sigmoid there would be applied twice.

    `init = "he"` draws weights uniformly with standard deviation sqrt(2 / inputs), sqrt(1 / inputs) in the last layer,
    and zero biases, as the toy experiments of WGAN-GP; "default" is torch's own.
    """

    name = "mlp"
    references = (WGAN, WGAN_GP)

    width: int | tuple[int, ...] = option(512, help="units of a hidden layer, or of each one in turn", at_least=1)
    depth: int = option(3, help="hidden layers (not used where width names each)", at_least=0)
    activation: str = option("relu", help="after each hidden layer", choices=ACTIVATIONS)
    norm: str = option("none", help="normalisation of each hidden layer", choices=("none", "batch", "layer"))
    output: str = option("auto", help="activation of the last layer", choices=OUTPUTS)
    features: int = option(16, help="outputs of a feature critic", at_least=1)
    init: str = option("default", help="how weights are drawn", choices=("default", "he"))

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        """All but those that the output's range forbids."""
        kinds = {CriticKind.SCORE, CriticKind.FEATURES}
        if self.output in ("auto", "identity"):
            kinds.add(CriticKind.LOGIT)
        if self.output in ("auto", "sigmoid", "softplus"):
            kinds.add(CriticKind.ENERGY)
        return frozenset(kinds)

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        """Latents (N, latent) to samples (N, *shape)."""
        head = samples_head(self, self.output, sample)
        shape = [nn.Unflatten(1, sample.shape)] if len(sample.shape) > 1 else []
        return nn.Sequential(*self._body(latent, math.prod(sample.shape), self.norm), *head, *shape)

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        """Samples (N, *shape) to (N,), or (N, features)."""
        check_kind(self, kind)
        norm = critic_norm(self, self.norm, per_sample=per_sample)
        outputs = self.features if kind is CriticKind.FEATURES else 1
        flat = [nn.Flatten(1)] if len(sample.shape) > 1 else []
        body = self._body(math.prod(sample.shape), outputs, norm)
        return nn.Sequential(*flat, *body, *critic_head(kind, self.output))

    def _body(self, inputs: int, outputs: int, norm: str) -> list[nn.Module]:
        widths = self.width if isinstance(self.width, tuple) else (self.width,) * self.depth
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise((inputs, *widths)):
            layers.append(self._linear(fan_in, fan_out, variance=2.0, bias=norm != "batch"))
            if norm != "none":
                layers.append(nn.BatchNorm1d(fan_out) if norm == "batch" else nn.LayerNorm(fan_out))
            layers.append(activation(self.activation))
        return [*layers, self._linear(widths[-1] if widths else inputs, outputs, variance=1.0)]

    def _linear(self, fan_in: int, fan_out: int, *, variance: float, bias: bool = True) -> nn.Linear:
        layer = nn.Linear(fan_in, fan_out, bias=bias)
        if self.init == "he":
            limit = math.sqrt(3 * variance / fan_in)
            nn.init.uniform_(layer.weight, -limit, limit)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return layer
