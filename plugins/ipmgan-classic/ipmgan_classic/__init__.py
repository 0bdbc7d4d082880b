"""Two classic GAN objectives, each read as the divergence that its best critic measures."""

from __future__ import annotations

from ipmgan import Objective, hookimpl

from ipmgan_classic.hinge import Hinge
from ipmgan_classic.least_squares import LeastSquares

__all__ = ["Hinge", "LeastSquares", "ipmgan_objectives"]


@hookimpl
def ipmgan_objectives() -> list[type[Objective]]:
    """The objectives of this distribution."""
    return [LeastSquares, Hinge]
