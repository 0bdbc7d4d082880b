"""The properties of a metric: a number about two sets of samples."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ipmgan.metrics.base import Comparison, Metric
from ipmgan.testing.base import NotApplicable, close, is_scalar, no_global_draws, normal, require, rng, unchanged

COUNT = 200


def value(plugin: Metric, real: Tensor, fake: Tensor, seed: int = 0) -> Tensor:
    """The metric, with random numbers from a generator of its own."""
    reason = plugin.refuses(Comparison(real=real, fake=fake))
    if reason:
        raise NotApplicable(reason)
    return plugin.compute(real, fake, generator=rng(seed))


def pictures(seed: int = 0, *, shift: float = 0.0) -> Tensor:
    """Samples (N, 1, 4, 4)."""
    return shift + normal(COUNT, 1, 4, 4, seed=seed, dtype=torch.float32)


def scalars(plugin: Metric) -> None:
    """It is a finite scalar, for vectors and for images, and for unequal numbers of samples."""
    pairs = (pictures(), pictures(1)[: COUNT // 2]), (pictures().flatten(1), pictures(1).flatten(1)[: COUNT // 2])
    taken = [pair for pair in pairs if not plugin.refuses(Comparison(real=pair[0], fake=pair[1]))]
    for real, fake in taken or pairs:
        found = value(plugin, real, fake)
        is_scalar("the metric", found, found.dtype)
    require(plugin.samples >= 1, f"samples = {plugin.samples}: must be at least 1")


def measured_range(plugin: Metric) -> None:
    """Values stay in the range that `measures` states."""
    said = plugin.measures
    require(said.name and said.unit, "measures lacks its name or its unit")
    for shift in (0.0, 1.0, 30.0):
        found = float(value(plugin, pictures(), pictures(1, shift=shift)))
        inside = said.low - 1e-6 <= found <= said.high + 1e-6
        require(inside, f"it is {found:.6g}, outside its range from {said.low:g} to {said.high:g}")


def direction(plugin: Metric) -> None:
    """It says on which side of the truth it falls, and tells laws that are apart from laws that are equal."""
    bound = plugin.measures.bound
    require(bound, "measures does not say on which side of the truth it falls: give bound='at most ...'")
    same = float(value(plugin, pictures(), pictures()))
    near, far = (float(value(plugin, pictures(), pictures(1, shift=shift))) for shift in (0.0, 3.0))
    require(abs(far - same) > abs(near - same), f"it reads {near:.4g} for equal laws, {far:.4g} for laws far apart")
    if re.search("at most|lower bound", bound) and plugin.measures.name.endswith("W1"):
        shifted = float(value(plugin, pictures(), pictures(shift=0.5)))
        truth = 0.5 * pictures()[0].numel() ** 0.5
        require(shifted <= truth + 1e-5, f"it reads {shifted:.6g} for a shift, whose W1 is {truth:.6g}")


def no_draws(plugin: Metric) -> None:
    """Random numbers come from the generator that is given."""
    with no_global_draws("compute"):
        first, second = (value(plugin, pictures(), pictures(1)) for _ in range(2))
    require(torch.equal(first, second), "it gives two values for the same samples and seed")


def inputs_unchanged(plugin: Metric) -> None:
    """The samples are left as they are."""
    real, fake = pictures(), pictures(1)
    with unchanged("compute", real=real, fake=fake):
        value(plugin, real, fake)


def order(plugin: Metric) -> None:
    """The order of the samples does not matter."""
    real, fake = pictures(), pictures(1)
    shuffled = value(plugin, real.flip(0), fake.roll(7, 0))
    require(close(shuffled, value(plugin, real, fake), 1e-4), "it depends on the order of the samples")
