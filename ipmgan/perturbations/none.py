"""No perturbation."""

from __future__ import annotations

import attrs
from torch import Tensor

from ipmgan.perturbations.base import Perturbation


@attrs.frozen(kw_only=True)
class NoPerturbation(Perturbation):
    """Shows the critic the samples as they are.

        x -> x

    The objective compares P_r and P_g themselves.
    """

    name = "none"

    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        """The samples themselves."""
        return samples
