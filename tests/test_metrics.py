"""The metrics that come with the package."""

from __future__ import annotations

import pytest
import torch

from ipmgan import metrics
from ipmgan.errors import UsageError
from ipmgan.functional import sliced_wasserstein


def test_builtin_is_a_tuple_of_metrics() -> None:
    assert [metric.name for metric in metrics.BUILTIN] == ["sliced-wasserstein"]
    assert all(issubclass(metric, metrics.Metric) for metric in metrics.BUILTIN)
    assert metrics.SlicedWasserstein.samples == 1000
    assert metrics.SlicedWasserstein().directions == 256


def test_sliced_wasserstein_flattens_images() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 30, 1, 4, 4, generator=generator)
    value = metrics.SlicedWasserstein(directions=64).compute(real, fake[:20], generator=generator.manual_seed(5))
    flat = real.reshape(30, 16), fake[:20].reshape(20, 16)
    assert value == sliced_wasserstein(*flat, directions=64, generator=generator.manual_seed(5))


def test_sliced_wasserstein_grows_with_the_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 5, generator=generator)
    values = [
        metrics.SlicedWasserstein().compute(real, real + shift, generator=generator.manual_seed(1))
        for shift in (0, 1, 2)
    ]
    assert values[0] == 0
    torch.testing.assert_close(values[2], 2 * values[1])


def test_directions_are_checked() -> None:
    with pytest.raises(UsageError, match="directions"):
        metrics.SlicedWasserstein(directions=0)
