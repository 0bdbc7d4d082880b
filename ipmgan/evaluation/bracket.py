"""The bracket of W1: two ends that the Wasserstein distance between the laws lies between."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ipmgan.engine.streams import Streams
from ipmgan.evaluation.methods import Exact, mean_error
from ipmgan.evaluation.statistics import quantile
from ipmgan.functional.transport import sliced_witness


@attrs.frozen(kw_only=True)
class End:
    """One bound of W1: its estimate, and the confidence limit of that on the safe side."""

    value: float
    limit: float


@attrs.frozen(kw_only=True)
class Bracket:
    """Two numbers with W1 between the *laws* in between, in data units, as sure as `confidence`.

        low = max(0, critic.limit, sliced.limit)  <=  W1(P_r, P_g)  <=  exact.limit = high

    `critic` is the gap of means on untouched samples divided by the critic's certified K. `sliced` is the gap, there
    too, of a 1-Lipschitz function that was fitted on other samples (`sliced_witness`). Both are unbiased estimates of
    lower bounds, and their limits lie below them. `exact` is W1 between `samples` samples a side. On average that is
    above W1 between the laws; its limit lies above it by what the means of the best critic may be off. The risk is
    shared out: half to the high end, a quarter to each of the low ones.

    `bias` is W1 between two halves of the real samples, which are of one law: about how much of `exact` is there for
    want of samples. It is the whole of it where the laws are equal, and more than its share where they are far apart.
    """

    low: float
    high: float
    confidence: float
    critic: End | None
    sliced: End
    exact: End
    bias: float
    samples: int


def lower_end(on_real: Tensor, on_fake: Tensor, bound: float, confidence: float) -> End:
    """The gap of means of a function with Lipschitz constant at most `bound`, divided by it."""
    if not 0 < bound < float("inf"):
        return End(value=0.0, limit=0.0)
    value = float(on_real.double().mean() - on_fake.double().mean()) / bound
    reach = quantile(1 - (1 - confidence) / 4) * mean_error(on_real, on_fake) / bound
    return End(value=value, limit=value - reach)


def bracket(
    real: tuple[Tensor, Tensor],
    fake: tuple[Tensor, Tensor],
    critic: End | None,
    *,
    matrix_samples: int,
    confidence: float,
    streams: Streams,
) -> Bracket:
    """The bracket from flattened samples: for either side, those to fit on and untouched ones."""
    witness = sliced_witness(real[0], fake[0], generator=streams.at("sliced", 0))
    sliced = lower_end(witness(real[1]), witness(fake[1]), 1.0, confidence)
    x, y = (torch.cat([side[1], side[0]]) for side in (real, fake))
    count = min(matrix_samples, len(x), len(y))
    compared = Exact().compare(x[:count], y[:count], streams.at("exact", 0))
    reach = quantile(1 - (1 - confidence) / 2) * compared.error
    exact = End(value=compared.value, limit=compared.value + reach)
    half = min(count, len(x) // 2)
    bias = Exact().compare(x[:half], x[half : 2 * half], streams.at("exact", 1)).value
    low = max(0.0, sliced.limit, *(() if critic is None else (critic.limit,)))
    return Bracket(
        low=low,
        high=exact.limit,
        confidence=confidence,
        critic=critic,
        sliced=sliced,
        exact=exact,
        bias=bias,
        samples=count,
    )
