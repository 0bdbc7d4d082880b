"""Which modes or classes generated samples reach."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch

from ipmgan.errors import UsageError
from ipmgan.functional.discrete import total_variation
from ipmgan.functional.scores import count_modes
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class ModesCovered(DetailedMetric):
    """How many modes of a mixture generated samples reach, and how many of them are of high quality.

        near a mode:  ‖x - c‖ ≤ within · σ, for the nearest centre c
        covered:      a mode with at least `least` of all samples near it

    For sources that know their modes, such as ring8 and grid25. The value is the number of modes covered; beside it
    stand the number of modes and `high_quality`, the share of samples near any. With within = 3, of an isotropic
    Gaussian in the plane 98.9% are near.
    Source: Metz et al. (2017), section 3.2; Srivastava et al. (2017), section 5.1, with its three standard deviations.
    """

    name: ClassVar[str] = "modes"
    references: ClassVar[tuple[Reference, ...]] = (papers.UNROLLED, papers.VEEGAN)
    measures: ClassVar[Quantity] = Quantity(
        name="modes covered", unit="modes", low=0, bound="at most the number of modes"
    )
    samples: ClassVar[int] = 10_000

    within: float = option(3.0, help="standard deviations from its centre that a mode reaches", above=0)
    least: float = option(0.01, help="share of all samples that covers a mode", above=0, at_most=1)

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        if comparison.modes is None:
            raise UsageError(self.refuses(comparison))
        centres = comparison.modes.centres.to(comparison.fake)
        found = count_modes(
            comparison.fake.flatten(1), centres, comparison.modes.std, within=self.within, least=self.least
        )
        return Reading(value=float(found.covered), more={"modes": found.modes, "high_quality": found.near})

    def refuses(self, comparison: Comparison) -> str:
        return "" if comparison.modes else "the real samples have no modes that are known: it is for ring8, grid25, ..."


@attrs.frozen(kw_only=True)
class Classes(DetailedMetric):
    """How the classes of generated samples are spread, beside those of real ones, by a classifier's answers.

        TV = ½ Σ_y |p_g(y) - p_r(y)|,    p(y) the mean over samples of the classifier's p(y|x)

    0 where every class is as frequent as in the data, near 1 where one class has all. Beside it stand the number of
    classes `covered`, which at least the share `least` of the samples is called, and the shares `sure` and `sure_real`
    of samples whose class has probability `sure` or more; a classifier may be sure of what is no digit at all. With the
    embedded classifier it counts digits.
    Source: Srivastava et al. (2017), section 5.2, by total variation where that has KL, which may be infinite.
    """

    name: ClassVar[str] = "classes"
    references: ClassVar[tuple[Reference, ...]] = (papers.VEEGAN,)
    measures: ClassVar[Quantity] = Quantity(
        name="TV of classes",
        unit="probability",
        low=0,
        high=1,
        bound="at most TV of the laws; too high for few samples",
    )
    samples: ClassVar[int] = 10_000

    least: float = option(0.01, help="share of all samples that covers a class", above=0, at_most=1)
    sure: float = option(0.9, help="probability of a class at which the classifier is sure", above=0, at_most=1)
    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        if network is None or network.logits is None:
            raise UsageError(self.refuses(comparison))
        real, fake = (network.logits(side).double().softmax(1) for side in comparison.features(network))
        answers = torch.bincount(fake.argmax(1), minlength=fake.shape[1]).double() / len(fake)
        more = {
            "covered": float((answers >= self.least).sum()),
            "classes": float(fake.shape[1]),
            "sure": float((fake.amax(1) >= self.sure).double().mean()),
            "sure_real": float((real.amax(1) >= self.sure).double().mean()),
        }
        return Reading.by(network, total_variation(real.mean(0), fake.mean(0)), **more)

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights, classifier=True)
