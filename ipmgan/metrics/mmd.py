"""The maximum mean discrepancy, on samples or features, and its form for feature networks, KID."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan import references
from ipmgan.functional.kernels import Mixture
from ipmgan.functional.mmd import mmd2_unbiased
from ipmgan.functional.scores import polynomial_mmd2
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading, ordered
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option

MEDIAN_OF = 1000
"""Real samples behind the median distance."""


@attrs.frozen(kw_only=True)
class MMDMetric(DetailedMetric):
    """MMD² between the samples, or their features, under kernels as wide as the real samples are apart.

        MMD² = E k(X, X') - 2 E k(X, Y) + E k(Y, Y'),    by the U-statistic

    Right on average, so negative half the time at equal laws, and of the size of the kernel, which is summed over
    `scales`. A width is a scale times the median distance of 1,000 real samples (its square for imq): the reading says
    which. Give `widths` to compare across data sets; with kernel=energy it is the energy distance, without any width.
    Source: Gretton et al. (2012), equation 3, and section 8 on the median.
    """

    name: ClassVar[str] = "mmd"
    references: ClassVar[tuple[references.Reference, ...]] = (references.KERNEL_TEST,)
    measures: ClassVar[Quantity] = Quantity(name="MMD²", unit="kernel value", bound="neither: right on average")
    samples: ClassVar[int] = 5000

    kernel: str = option("rbf", help="the kernel", choices=("rbf", "laplace", "imq", "energy"))
    widths: tuple[float, ...] = option((), help="its widths; none: scales times the median distance", above=0)
    scales: tuple[float, ...] = option((0.5, 1.0, 2.0), help="widths in units of the median distance", above=0)
    features: str = features_option("none")
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        real, fake = comparison.features(network)
        if self.kernel == "energy":
            return Reading.by(network, mmd2_unbiased(real, fake, Mixture("energy", self.widths or (1.0,))))
        if self.widths:
            return Reading.by(network, mmd2_unbiased(real, fake, Mixture(self.kernel, self.widths)))
        some = _some(ordered(real, generator), MEDIAN_OF, generator)
        median = float(torch.pdist(some.double()).median())
        unit = median**2 if self.kernel == "imq" else median
        widths = tuple(scale * unit for scale in self.scales)
        value = mmd2_unbiased(real, fake, Mixture(self.kernel, widths))
        return Reading.by(network, value, median_distance=median)

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights)


@attrs.frozen(kw_only=True)
class KID(DetailedMetric):
    """The kernel inception distance: MMD² between features under a cubic kernel, averaged over random subsets.

        mean over subsets of MMD²_u,    k(x, y) = (xᵀy / K + 1)³

    Right on average for any number of samples, where the Fréchet distance is too high for few; negative at times.
    Published values are with Inception's features (`features=inception`); those of the embedded classifier of digits,
    or of the samples themselves, are another quantity, so each reading names its network. The standard error of one
    draw is that of the mean over subsets, for the samples as they are.
    Source: Bińkowski et al. (2018), section 4.
    """

    name: ClassVar[str] = "kid"
    references: ClassVar[tuple[references.Reference, ...]] = (papers.KID,)
    measures: ClassVar[Quantity] = Quantity(name="KID", unit="kernel value", bound="neither: right on average")
    samples: ClassVar[int] = 5000

    subsets: int = option(100, help="random subsets that are averaged", at_least=1)
    subset: int = option(1000, help="samples of each side in a subset; all where there are fewer", at_least=2)
    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        sides = [ordered(side, generator) for side in comparison.features(network)]
        size = min(self.subset, *(len(side) for side in sides))
        whole = all(len(side) == size for side in sides)
        values = torch.stack(
            [
                polynomial_mmd2(*(_some(side, size, generator) for side in sides))
                for _ in range(1 if whole else self.subsets)
            ]
        )
        error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        return attrs.evolve(Reading.by(network, values.mean()), standard_error=error)

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights)


def _some(samples: Tensor, count: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(samples), generator=generator, device=generator.device)
    return samples[order[:count].to(samples.device)]
