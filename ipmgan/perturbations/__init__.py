"""What is done to everything that the critic sees."""

from __future__ import annotations

from ipmgan.perturbations.base import Perturbation
from ipmgan.perturbations.noise import Noise
from ipmgan.perturbations.none import NoPerturbation

BUILTIN: tuple[type[Perturbation], ...] = (Noise, NoPerturbation)

__all__ = ["BUILTIN", "NoPerturbation", "Noise", "Perturbation"]
