"""Wasserstein distances on the line and by slices."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from scipy import stats
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional import sliced_wasserstein, wasserstein_1d


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sorted_samples() -> None:
    assert wasserstein_1d(torch.tensor([3.0, 0, 1]), torch.tensor([6.0, 8, 5])) == 5


def test_quantiles_of_uniform_laws() -> None:
    x = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert wasserstein_1d(x, 2 * x).item() == pytest.approx(0.5, abs=1e-12)
    assert wasserstein_1d(x, 2 * ((torch.arange(777, dtype=torch.float64) + 0.5) / 777)).item() == pytest.approx(
        0.5, abs=1e-3
    )


@pytest.mark.parametrize(("n", "m"), [(7, 7), (5, 8), (6, 4), (1, 9), (12, 3)])
def test_any_counts_against_independent_solvers(n: int, m: int) -> None:
    x, y = normal(n, n), 2 * normal(m + 100, m) + 1
    assert wasserstein_1d(x, y).item() == pytest.approx(stats.wasserstein_distance(x, y), rel=1e-12)
    cost = (x[:, None] - y).square().numpy()
    exact = math.sqrt(ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), cost))
    assert wasserstein_1d(x, y, p=2).item() == pytest.approx(exact, rel=1e-10)


def test_columns_are_separate_problems() -> None:
    x, y = normal(0, 9, 4), normal(1, 6, 4)
    columns = torch.stack([wasserstein_1d(x[:, i], y[:, i]) for i in range(4)])
    torch.testing.assert_close(wasserstein_1d(x, y), columns)


@pytest.mark.parametrize("m", [8, 5])
@pytest.mark.parametrize("p", [1, 2])
def test_sliced_against_an_independent_one(m: int, p: int) -> None:
    x, y = normal(0, 8, 3), normal(1, m, 3) + 1
    lines = torch.randn(3, 40, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    lines /= lines.norm(dim=0)
    expected = ot.sliced_wasserstein_distance(x.numpy(), y.numpy(), projections=lines.numpy(), p=p)
    value = sliced_wasserstein(x, y, directions=40, p=p, generator=torch.Generator().manual_seed(7))
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_sliced_translation() -> None:
    """SW1 = ‖Δ‖ E|θ₁| = 5·2/π in the plane; 20,000 directions have a standard error of .011, so 6 of them."""
    x = normal(0, 10, 2)
    shifted = x + torch.tensor([3.0, 4.0], dtype=torch.float64)
    value = sliced_wasserstein(x, shifted, directions=20_000, generator=torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(10 / math.pi, abs=0.066)


def test_sliced_on_the_line_is_exact() -> None:
    x, y = normal(0, 20, 1), normal(1, 13, 1)
    value = sliced_wasserstein(x, y, directions=3, generator=torch.Generator().manual_seed(0))
    assert value.item() == pytest.approx(wasserstein_1d(x[:, 0], y[:, 0]).item(), rel=1e-12)


def test_sliced_draws_from_the_given_generator_only() -> None:
    x, y = normal(0, 6, 3), normal(1, 6, 3)
    before = torch.random.get_rng_state()
    first, second = (sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1))
    assert first == second
    assert first != sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("p", [1, 2])
def test_gradients(p: int) -> None:
    x, y = normal(0, 5, 2).requires_grad_(), normal(1, 7, 2)
    generator = torch.Generator()
    assert torch.autograd.gradcheck(
        lambda z: sliced_wasserstein(z, y, directions=8, p=p, generator=generator.manual_seed(3)), x
    )
    same = normal(0, 5, 2).requires_grad_()
    sliced_wasserstein(same, same.detach().clone(), p=p, generator=generator.manual_seed(3)).backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


def test_refusals() -> None:
    with pytest.raises(UsageError, match="p = 3"):
        wasserstein_1d(torch.zeros(2), torch.zeros(2), p=3)
    with pytest.raises(UsageError, match="shapes"):
        wasserstein_1d(torch.zeros(2, 1), torch.zeros(2, 2))
    with pytest.raises(UsageError, match="at least 1"):
        wasserstein_1d(torch.zeros(0), torch.zeros(2))
