"""Integral probability metrics: Fisher, Sobolev, Cramér, mean and covariance matching, and Dudley's."""

from __future__ import annotations

from ipmgan import LipschitzEnforcer, Objective, hookimpl

from ipmgan_ipm.covariance_matching import CovarianceMatching
from ipmgan_ipm.cramer import Cramer
from ipmgan_ipm.cramer_gp import CramerPenalty
from ipmgan_ipm.dudley import Dudley
from ipmgan_ipm.fisher import Fisher
from ipmgan_ipm.mean_matching import MeanMatching
from ipmgan_ipm.sobolev import Sobolev

__all__ = [
    "CovarianceMatching",
    "Cramer",
    "CramerPenalty",
    "Dudley",
    "Fisher",
    "MeanMatching",
    "Sobolev",
    "ipmgan_lipschitz",
    "ipmgan_objectives",
]


@hookimpl
def ipmgan_objectives() -> list[type[Objective]]:
    """The objectives of this distribution."""
    return [Fisher, Cramer, MeanMatching, CovarianceMatching, Dudley]


@hookimpl
def ipmgan_lipschitz() -> list[type[LipschitzEnforcer]]:
    """The enforcers of this distribution."""
    return [Sobolev, CramerPenalty]
