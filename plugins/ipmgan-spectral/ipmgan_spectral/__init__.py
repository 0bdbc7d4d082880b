"""Critics that are Lipschitz by construction: their weights are computed from others, so that no step can leave."""

from __future__ import annotations

from ipmgan import LipschitzEnforcer, hookimpl

from ipmgan_spectral.bjorck import Bjorck
from ipmgan_spectral.deel import Deel
from ipmgan_spectral.lattice import Lattice
from ipmgan_spectral.orthogonal import Orthogonal
from ipmgan_spectral.spectral import Spectral

__all__ = ["Bjorck", "Deel", "Lattice", "Orthogonal", "Spectral", "ipmgan_lipschitz"]


@hookimpl
def ipmgan_lipschitz() -> list[type[LipschitzEnforcer]]:
    """The enforcers of this distribution."""
    return [Spectral, Orthogonal, Bjorck, Deel]
