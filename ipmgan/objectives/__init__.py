"""Objectives: the distances that training minimises."""

from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.objectives.ebgan import EBGAN
from ipmgan.objectives.minimax import Minimax
from ipmgan.objectives.mmd import MMD
from ipmgan.objectives.nonsaturating import NonSaturating
from ipmgan.objectives.wgan import WGAN

BUILTIN: tuple[type[Objective], ...] = (WGAN, Minimax, NonSaturating, EBGAN, MMD)
"""The objectives that come with the package."""

__all__ = ["BUILTIN", "EBGAN", "MMD", "WGAN", "CriticKind", "Minimax", "NonSaturating", "Objective"]
