"""The contract of a network family: a generator and a critic for a given sample."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ipmgan.data.base import SampleSpec
from ipmgan.errors import PairingError
from ipmgan.objectives.base import CriticKind
from ipmgan.plugin import Plugin


class Network(Plugin):
    """A family of networks. Overrides one or both of `generator` and `critic`."""

    kind = "network"
    vectorises: ClassVar[bool] = True
    """Works under `torch.func.vmap`, by which several seeds are trained at once."""

    @property
    def critic_kinds(self) -> frozenset[CriticKind]:
        """What the critics of this family, as configured, can put out; empty where it has no critic."""
        return frozenset()

    def generator(self, latent: int, sample: SampleSpec) -> nn.Module:
        """A module that maps latents (N, latent) to samples (N, *sample.shape) inside `sample.bounds`."""
        raise PairingError(f"the network {self.name!r} has no generator; choose another with --generator")

    def critic(self, sample: SampleSpec, kind: CriticKind, *, per_sample: bool) -> nn.Module:
        """A module that maps samples (N, *sample.shape) to outputs of the given kind.

        With `per_sample` the output for a sample depends on that sample alone; a family that leaves the
        normalisation open then chooses one that keeps to it.
        """
        raise PairingError(f"the network {self.name!r} has no critic; choose another with --critic")
