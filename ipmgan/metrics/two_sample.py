"""The classifier two-sample test."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.neighbours import neighbours
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading, ordered
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class TwoSampleTest(DetailedMetric):
    """How well a classifier that learned from one half of the samples tells real from generated in the other half.

        accuracy on n test samples,    p-value = P(Z ≥ 2√n (accuracy - ½))

    One half at equal laws, 1 where they can be told apart without error. Given the training half, the test samples are
    independent, so that the p-value of "no difference" is valid for any classifier, by the normal approximation; over
    several draws it is averaged, and twice the mean is still a p-value. `nearest` is the nearest neighbour, which sees
    any difference in few dimensions; `logistic` is logistic regression on standardised features. The accuracies on real
    and on generated samples stand beside the value.
    Source: Lopez-Paz and Oquab (2017), section 3.
    """

    name: ClassVar[str] = "c2st"
    references: ClassVar[tuple[Reference, ...]] = (papers.TWO_SAMPLE,)
    measures: ClassVar[Quantity] = Quantity(
        name="accuracy", unit="share of test samples", low=0, high=1, bound="at most that of the best classifier"
    )
    samples: ClassVar[int] = 5000

    classifier: str = option("nearest", help="what learns to tell them apart", choices=("nearest", "logistic"))
    features: str = features_option()
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        network = find_network(comparison, self.features, self.weights)
        real, fake = comparison.features(network)
        count = min(len(real), len(fake)) // 2
        if count < 2:
            raise UsageError(f"c2st with {len(real)} and {len(fake)} samples: it needs at least 4 of each")
        real, fake = (_shuffled(side, generator) for side in (real, fake))
        train, test = (torch.cat([real[part], fake[part]]) for part in (slice(count), slice(count, 2 * count)))
        learn = _nearest if self.classifier == "nearest" else _logistic
        called_real = learn(train, count, test)
        kinds = called_real[:count].double().mean(), (~called_real[count:]).double().mean()
        accuracy = (kinds[0] + kinds[1]) / 2
        z = 2 * math.sqrt(2 * count) * (float(accuracy) - 0.5)
        more = {"p_value": math.erfc(z / math.sqrt(2)) / 2, "real": float(kinds[0]), "generated": float(kinds[1])}
        return Reading.by(network, accuracy, **more)

    def refuses(self, comparison: Comparison) -> str:
        return refusal(comparison, self.features, self.weights)


def _shuffled(samples: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(samples), generator=generator, device=generator.device)
    return ordered(samples, generator)[order.to(samples.device)]


def _nearest(train: Tensor, real: int, test: Tensor) -> Tensor:
    """Which test samples are called real; the first `real` training samples are."""
    return neighbours(test, train).index[:, 0] < real


def _logistic(train: Tensor, real: int, test: Tensor) -> Tensor:
    from sklearn.linear_model import LogisticRegression

    mean, scale = train.mean(0), train.std(0).clamp_min(1e-12)
    inputs, others = (((part - mean) / scale).double().cpu().numpy() for part in (train, test))
    model = LogisticRegression(max_iter=1000).fit(inputs, [True] * real + [False] * (len(train) - real))
    return torch.from_numpy(model.predict(others)).to(train.device)
