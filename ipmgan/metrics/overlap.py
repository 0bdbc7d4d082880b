"""Precision, recall, density and coverage."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch

from ipmgan.functional.neighbours import overlap
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class PRDC(DetailedMetric):
    """Precision, recall, density and coverage of generated samples, by balls of nearest neighbours.

        precision  share of generated samples in some ball around a real one: fidelity
        recall     share of real samples in some ball around a generated one: diversity
        density    balls around real samples that hold a generated one, on average, divided by k
        coverage   share of real samples whose own ball holds a generated one

    A ball reaches to the k-th nearest sample of its own side. The value is the coverage; the others stand beside it.
    At equal laws coverage is 1 - 2^(-k) or so for equal numbers, density 1, and precision and recall fall short of 1
    by an amount that depends on numbers and dimension: compare at equal numbers only.
    Source: Kynkäänniemi et al. (2019), equation 2; Naeem et al. (2020), equations 3 and 5.
    """

    name: ClassVar[str] = "prdc"
    references: ClassVar[tuple[Reference, ...]] = (papers.PRECISION_RECALL, papers.DENSITY_COVERAGE)
    measures: ClassVar[Quantity] = Quantity(
        name="coverage", unit="share of real samples", low=0, high=1, bound="below 1 at equal laws, by about 2^-k"
    )
    samples: ClassVar[int] = 5000

    k: int = option(5, help="how many neighbours a ball reaches to", at_least=1)
    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        found = overlap(*comparison.features(network), k=self.k)
        more = {name: float(getattr(found, name)) for name in ("precision", "recall", "density")}
        return Reading.by(network, found.coverage, **more)

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights)
