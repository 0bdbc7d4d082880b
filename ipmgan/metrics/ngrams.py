"""The distance between the n-grams of sequences."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan import references as papers
from ipmgan.errors import UsageError
from ipmgan.functional.scores import ngram_jsd
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading
from ipmgan.plugin import Quantity, option


@attrs.frozen(kw_only=True)
class NgramJSD(DetailedMetric):
    """The Jensen-Shannon divergence between the n-grams of real and of generated sequences, in bits.

        JSD(P_n, Q_n),    P_n the law of n consecutive tokens

    From 0 to 1. Sequences are rows of whole numbers, (N, L), or one-hot or soft rows, (N, L, V), of which the
    likeliest token counts. It is that of the empirical laws, and too high for few sequences: compare it with its value
    between two sets of real ones. Shorter n-grams stand beside it.
    Source: Gulrajani et al. (2017), section 5.5.
    """

    name: ClassVar[str] = "ngram-jsd"
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.WGAN_GP,)
    measures: ClassVar[Quantity] = Quantity(
        name="JSD of n-grams", unit="bits", low=0, high=1, bound="too high for few sequences"
    )
    samples: ClassVar[int] = 10_000

    n: int = option(4, help="tokens in an n-gram", at_least=1)

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        real, fake = _tokens(comparison.real), _tokens(comparison.fake)
        values = {n: ngram_jsd(real, fake, n=n) for n in range(1, self.n + 1)}
        value = values.pop(self.n)
        return Reading(value=value, more={f"n={n}": float(shorter) for n, shorter in values.items()})

    def refuses(self, comparison: Comparison) -> str:
        shape = comparison.shape
        if len(shape) not in (1, 2) or shape[0] < self.n:
            return f"it is for sequences (L,) or (L, V) with L at least {self.n}, and these samples are {shape}"
        whole = all(bool((side == side.round()).all()) for side in (comparison.real, comparison.fake))
        return "" if len(shape) == 2 or whole else "it is for sequences of whole numbers, and these are not"


def _tokens(samples: Tensor) -> Tensor:
    if samples.dim() == 3:
        return samples.argmax(2)
    if samples.dim() != 2 or not bool((samples == samples.round()).all()):
        raise UsageError("ngram-jsd is for sequences of whole numbers (N, L), or (N, L, V)")
    return samples.long()
