"""Constraints on the critic, and the certificate of how steep it can be."""

from __future__ import annotations

from ipmgan.lipschitz import rules
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.lipschitz.certificate import Certificate, Factor, lipschitz_bound, lipschitz_rule
from ipmgan.lipschitz.clip import Clip, clip_bound
from ipmgan.lipschitz.gp import GradientPenalty
from ipmgan.lipschitz.none import NoEnforcer
from ipmgan.lipschitz.sphere import Sphere

BUILTIN: tuple[type[LipschitzEnforcer], ...] = (Clip, Sphere, GradientPenalty, NoEnforcer)

__all__ = [
    "BUILTIN",
    "Certificate",
    "Clip",
    "Factor",
    "GradientPenalty",
    "LipschitzEnforcer",
    "NoEnforcer",
    "Sphere",
    "clip_bound",
    "lipschitz_bound",
    "lipschitz_rule",
    "rules",
]
