"""Whether generated samples are copies of training samples."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.neighbours import neighbours
from ipmgan.metrics import papers
from ipmgan.metrics.base import Comparison, DetailedMetric, FeatureNetwork, Reading
from ipmgan.metrics.networks import features_option, find_network, refusal, weights_option
from ipmgan.plugin import Quantity, option
from ipmgan.references import Reference


@attrs.frozen(kw_only=True)
class Memorisation(DetailedMetric):
    """How near generated samples are to the training data, beside held-out samples of the same law.

        ratio = median over x ~ P_g of d(x) / median over x ~ held-out of d(x),    d(x) = min over training of ‖x - t‖

    About 1 for the law itself, near 0 for copies; above 1 for samples that are off the data, and also for a few modes.
    Beside it stand both medians and `copies`, the share of generated samples nearer to a training sample than all but
    the share `tail` of held-out ones: about `tail` for a model that does not copy. Distances are between the samples
    themselves unless a feature network is given. It needs a finite training set, and held-out samples.
    Source: Meehan, Chaudhuri and Dasgupta (2020), section 3, whose test is by ranks over cells.
    """

    name: ClassVar[str] = "memorisation"
    references: ClassVar[tuple[Reference, ...]] = (papers.DATA_COPYING,)
    measures: ClassVar[Quantity] = Quantity(
        name="distance to training data", unit="that of held-out samples", low=0, bound="1 at equal laws; 0 for copies"
    )
    samples: ClassVar[int] = 1000

    tail: float = option(
        0.01, help="share of held-out samples that are nearest to the training data", above=0, at_most=0.5
    )
    features: str = features_option("none")
    weights: str | None = weights_option()

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        reason = self.refuses(comparison)
        if comparison.train is None or reason:
            raise UsageError(reason)
        network = find_network(comparison, self.features, self.weights)
        real, fake = comparison.features(network)
        both = torch.cat([real, fake])
        far = torch.full((len(both),), torch.inf, dtype=torch.float32, device=both.device)
        for batch in comparison.train():
            far = torch.minimum(far, _distances(both, batch.to(both.device), network))
        held_out, generated = far[: len(real)].double(), far[len(real) :].double()
        medians = held_out.median(), generated.median()
        near = held_out.quantile(self.tail)
        more = {
            "median": float(medians[1]),
            "median_held_out": float(medians[0]),
            "copies": float((generated < near).double().mean()),
        }
        return Reading.by(network, medians[1] / medians[0], **more)

    def refuses(self, comparison: Comparison) -> str:
        if comparison.train is None:
            return "no training samples to compare with: it is for runs on finite data, by ipmgan evaluate"
        if comparison.split != "held-out":
            return "it compares with held-out samples: leave out --split train"
        return refusal(comparison, self.features, self.weights)


def _distances(samples: Tensor, batch: Tensor, network: FeatureNetwork | None) -> Tensor:
    """From each sample to the nearest of a batch of training samples."""
    with torch.no_grad():
        others = batch.flatten(1) if network is None else network.features(batch)
    return neighbours(samples, others).distances[:, 0].float()
