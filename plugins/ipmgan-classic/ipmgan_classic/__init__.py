"""Classic GAN objectives, each read as the divergence that its best critic measures, and classic critic penalties."""

from __future__ import annotations

from ipmgan import LipschitzEnforcer, Objective, hookimpl

from ipmgan_classic.consistency import Consistency
from ipmgan_classic.dragan import DRAGAN
from ipmgan_classic.hinge import Hinge
from ipmgan_classic.least_squares import LeastSquares
from ipmgan_classic.one_centred import OneCentred
from ipmgan_classic.r1 import R1
from ipmgan_classic.r2 import R2
from ipmgan_classic.relativistic import RelativisticAverage
from ipmgan_classic.zero_centred import ZeroCentred

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "Consistency",
    "Hinge",
    "LeastSquares",
    "OneCentred",
    "RelativisticAverage",
    "ZeroCentred",
    "ipmgan_lipschitz",
    "ipmgan_objectives",
]


@hookimpl
def ipmgan_objectives() -> list[type[Objective]]:
    """The objectives of this distribution."""
    return [LeastSquares, Hinge, RelativisticAverage]


@hookimpl
def ipmgan_lipschitz() -> list[type[LipschitzEnforcer]]:
    """The enforcers of this distribution."""
    return [R1, R2, OneCentred, ZeroCentred, DRAGAN, Consistency]
