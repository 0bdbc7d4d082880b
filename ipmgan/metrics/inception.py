"""Scores by a classifier's features and answers: the Fréchet distance and the inception score."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch

from ipmgan.errors import UsageError
from ipmgan.functional.gaussians import frechet
from ipmgan.functional.scores import inception_score, moments
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading, ordered
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class FID(DetailedMetric):
    """The Fréchet distance between Gaussians fitted to the features of real and of generated samples.

        ‖μ_r - μ_g‖² + tr(Σ_r + Σ_g - 2 (Σ_r^½ Σ_g Σ_r^½)^½)

    The squared W2 distance of these Gaussians, in float64; zero for laws whose features agree in mean and covariance.
    From N samples it is too high by about c/N: it is compared at equal numbers only, and they should be many times the
    number of features. It is the published FID with `features=inception`; with the embedded classifier of digits, or
    the samples themselves, it is another number, so each reading names its network.
    Source: Heusel et al. (2017), equation 6.
    """

    name: ClassVar[str] = "fid"
    references: ClassVar[tuple[Reference, ...]] = (papers.TTUR,)
    measures: ClassVar[Quantity] = Quantity(
        name="Fréchet distance", unit="squared units of the features", low=0, bound="too high for few samples"
    )
    samples: ClassVar[int] = 10_000

    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        real, fake = comparison.features(network)
        value = frechet(*moments(real), *moments(fake)).clamp_min(0)
        return Reading.by(network, value, features=real.shape[1])

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights)


@attrs.frozen(kw_only=True)
class InceptionScore(DetailedMetric):
    """How sure a classifier is of each generated sample, and how varied its answers are over all of them.

        exp(E_x KL(p(y|x) ‖ p(y))),    p(y) = E_x p(y|x)

    From 1 to the number of classes. It looks at generated samples alone: one perfect sample of each class, repeated,
    has the best score. The reading has the score of the real samples beside it. It is the published score with
    `features=inception`, 50,000 samples and `splits=10`; fewer samples read lower.
    Source: Salimans et al. (2016), section 4.
    """

    name: ClassVar[str] = "inception-score"
    references: ClassVar[tuple[Reference, ...]] = (papers.SALIMANS,)
    measures: ClassVar[Quantity] = Quantity(
        name="inception score", unit="classes", low=1, bound="too low for few samples; at most the number of classes"
    )
    samples: ClassVar[int] = 10_000

    splits: int = option(1, help="parts of the samples that are scored alone and averaged", at_least=1)
    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        if network is None or network.logits is None:
            raise UsageError(self.refuses(comparison))
        scores = []
        for side in comparison.features(network):
            logits = network.logits(side)
            if self.splits > 1:
                order = torch.randperm(len(logits), generator=generator, device=generator.device)
                logits = ordered(logits, generator)[order.to(logits.device)]
            scores.append(torch.stack([inception_score(part) for part in logits.chunk(self.splits)]).mean())
        return Reading.by(network, scores[1], real=float(scores[0]))

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights, classifier=True)
