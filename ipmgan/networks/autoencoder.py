"""The critic of energy-based GANs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor, nn

from ipmgan.data.base import SampleSpec
from ipmgan.networks.base import Network
from ipmgan.networks.layers import ACTIVATIONS, activation, check_kind
from ipmgan.objectives.base import CriticKind
from ipmgan.plugin import option
from ipmgan.references import EBGAN


class ReconstructionEnergy(nn.Module):
    """The energy of samples (N, ...): how far the decoder lands from them, (N,); with the code, (N, 1 + K)."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, *, error: str = "norm", with_code: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder, self.error, self.with_code = encoder, decoder, error, with_code

    def forward(self, x: Tensor) -> Tensor:
        """The energy of each sample, and behind it, if asked for, its code."""
        flat = x.flatten(1)
        code = self.encoder(flat)
        energy = self._distance(self.decoder(code) - flat)
        return torch.cat([energy.unsqueeze(1), code], dim=1) if self.with_code else energy

    def reconstruct(self, x: Tensor) -> Tensor:
        """Dec(Enc(x)), of the shape of x."""
        result: Tensor = self.decoder(self.encoder(x.flatten(1)))
        return result.view_as(x)

    def lipschitz_rule(self, bound: Callable[[nn.Module], float]) -> float | str:
        """|D(x) - D(y)| <= |residual(x) - residual(y)| <= (1 + K_dec K_enc) |x - y| for the norm; squares have none."""
        if self.error != "norm":
            return f"a {self.error} of squares has no slope limit"
        encoder = bound(self.encoder)
        energy = 1 + encoder * bound(self.decoder)
        return math.hypot(energy, encoder) if self.with_code else energy

    def _distance(self, residual: Tensor) -> Tensor:
        if self.error == "norm":
            energy: Tensor = torch.linalg.vector_norm(residual, dim=1)
            return energy
        squares = residual.square()
        return squares.sum(1) if self.error == "sum" else squares.mean(1)


@attrs.frozen(kw_only=True)
class AutoEncoder(Network):
    """An auto-encoder whose reconstruction error is the energy of a sample: the critic of EBGAN, for any sample shape.

        D(x) = || Dec(Enc(x)) - x ||_2

    | part    | layers                                                           |
    |---------|------------------------------------------------------------------|
    | encoder | flattened; Linear and activation for each of `hidden`; Linear to `code` |
    | decoder | one Linear from the code to the sample's size                    |

    The error is the Euclidean norm over all of a sample's numbers (`error = "norm"`, the paper's equation 13). A margin
    of 10 is meant in this unit: of MNIST in (-1, 1), a linear auto-encoder with a code of 32 leaves 7.2 of a digit
    and 20 of a grey image, so that 10 separates them. In the sum of squares ("sum") even the digits lie above it, at
    54, and the mean of squares ("mean", at most 4) never reaches it: give other margins with those.

    With `with_code` the output is (N, 1 + code), the energy and then the code, which a pulling-away term needs.
    Departs from the paper, whose layers are searched over and batch-normalised on MNIST: no norm, so that an energy
    depends on its own sample alone. It has no generator.
    """

    name = "autoencoder"
    references = (EBGAN,)

    hidden: int | tuple[int, ...] = option((512, 256), help="units of each hidden layer of the encoder", at_least=1)
    code: int = option(32, help="numbers in the code", at_least=1)
    activation: str = option("relu", help="after each hidden layer", choices=ACTIVATIONS)
    error: str = option("norm", help="how the residual becomes an energy", choices=("norm", "sum", "mean"))
    with_code: bool = option(False, help="put the code out behind the energy")

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        """An energy only."""
        return frozenset({CriticKind.ENERGY})

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        """Samples (N, *shape) to energies (N,), or (N, 1 + code)."""
        check_kind(self, kind)
        size = math.prod(sample.shape)
        hidden = self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise((size, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), activation(self.activation)]
        encoder = nn.Sequential(*layers, nn.Linear((size, *hidden)[-1], self.code))
        return ReconstructionEnergy(encoder, nn.Linear(self.code, size), error=self.error, with_code=self.with_code)
