"""Random Fourier features: the kernels they stand for, and how far MMD² is off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ipmgan
from ipmgan import functional as fn
from ipmgan.errors import UsageError
from ipmgan.functional import Mixture
from ipmgan.functional.features import SPECTRAL, fixed_frequencies

WIDTHS = {
    "rbf": (0.5, 1.0, 3.0),
    "imq": (0.7, 2.0),
    "gmmn": fn.GMMN_WIDTHS,
    "rq": (0.2, 1.0, 5.0),
    "laplace": (0.5, 2.0),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def test_every_kernel_but_the_distance_has_a_spectral_law() -> None:
    assert set(SPECTRAL) == set(WIDTHS) == set(fn.KERNELS) - {"energy"}
    with pytest.raises(UsageError, match="energy"):
        fn.frequencies(Mixture("energy", (1.0,)), 2, 10, generator=seeded(0))
    with pytest.raises(UsageError, match="0 random features: must be at least 1"):
        fn.frequencies(Mixture("rbf", (1.0,)), 2, 0, generator=seeded(0))


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("dimension", [1, 5])
def test_waves_average_to_the_kernel(name: str, dimension: int) -> None:
    """At each of 20 differences within five standard errors: false alarm 6e-5 for each of the ten cases."""
    count = 200_000
    for width in WIDTHS[name]:
        kernel = Mixture(name, (width,))
        waves = fn.frequencies(kernel, dimension, count, generator=seeded(1))[0].double()
        differences = normal(2, 20, dimension) * torch.linspace(0.1, 2, 20, dtype=torch.float64)[:, None]
        cosines = (differences @ waves.T).cos()
        exact = kernel(differences.square().sum(1))
        error = 5 * cosines.std(1) / count**0.5 + 1e-6
        assert ((cosines.mean(1) - exact).abs() < error).all(), width


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_under_the_approximate_kernel(unbiased: bool) -> None:
    """Exactly the statistic of k(x, y) = Σ_w mean cos(ω_w·(x - y)), by all pairs; a shift changes nothing."""
    x, y = normal(1, 7, 3), normal(2, 5, 3) + 0.5
    waves = fn.frequencies(Mixture("rbf", (0.5, 1.0)), 3, 11, generator=seeded(0)).double()

    def gram(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("nmk,wfk->nmwf", a[:, None] - b, waves).cos().mean(3).sum(2)

    def within(a: Tensor) -> Tensor:
        mask = ~torch.eye(len(a), dtype=torch.bool) if unbiased else torch.ones(len(a), len(a), dtype=torch.bool)
        return gram(a, a)[mask].mean()

    x.requires_grad_()
    exact = within(x) + within(y) - 2 * gram(x, y).mean()
    value = fn.mmd2_features(x, y, waves, unbiased=unbiased)
    torch.testing.assert_close(value, exact)
    torch.testing.assert_close(torch.autograd.grad(value, x), torch.autograd.grad(exact, x))
    shifted = fn.mmd2_features(x + 1e3, y + 1e3, waves, unbiased=unbiased)
    torch.testing.assert_close(shifted, value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SPECTRAL)
def test_the_stated_error(name: str) -> None:
    """Over 300 draws: right on average (5 standard errors: false alarm 6e-7), and spread no more than stated."""
    kernel, count = Mixture(name, WIDTHS[name]), 64
    x, y = normal(1, 60, 3), normal(2, 60, 3) + 0.5
    draws = [fn.frequencies(kernel, 3, count, generator=seeded(seed)) for seed in range(300)]
    values = {
        unbiased: torch.stack([fn.mmd2_features(x, y, waves, unbiased=unbiased) for waves in draws])
        for unbiased in (True, False)
    }
    exact = fn.mmd2_biased(x, y, kernel)
    stated = 2 * exact.sqrt() / count**0.5
    for unbiased, right in ((False, exact), (True, fn.mmd2_unbiased(x, y, kernel))):
        assert abs(values[unbiased].mean() - right) < 5 * values[unbiased].std() / len(draws) ** 0.5
    assert values[False].std() < stated
    assert values[True].std() < stated + (len(kernel.widths) / count) ** 0.5 / 59


def test_draws_belong_to_the_generator() -> None:
    kernel = Mixture("rq", (0.5,))
    state = torch.get_rng_state()
    first = fn.frequencies(kernel, 2, 5, generator=seeded(3))
    assert torch.equal(first, fn.frequencies(kernel, 2, 5, generator=seeded(3)))
    assert not torch.equal(first, fn.frequencies(kernel, 2, 5, generator=seeded(4)))
    assert torch.equal(first, fixed_frequencies(kernel, 2, 5, seed=3))
    assert torch.equal(state, torch.get_rng_state())


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"frequencies of shape \(1, 5, 3\): must be \(widths, F, 2\)"):
        fn.mmd2_features(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(1, 5, 3))
    with pytest.raises(UsageError, match="at least 2"):
        fn.mmd2_features(torch.zeros(1, 2), torch.zeros(4, 2), torch.zeros(1, 5, 2))


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "root"])
def test_as_an_option_of_the_objective(estimator: str) -> None:
    objective = ipmgan.MMD(kernel="imq", widths=(2.0, 8.0), estimator=estimator, features=50_000, weight=3.0)
    exact = ipmgan.MMD(kernel="imq", widths=(2.0, 8.0), estimator=estimator)
    x, y = normal(1, 40, 4).float(), normal(2, 40, 4).float() + 1
    value = objective.estimate(x, y)
    assert value.item() == pytest.approx(exact.estimate(x, y).item(), rel=0.05)
    assert objective.generator_loss(x, y) == 3 * value == -objective.critic_loss(x, y)
    assert value == objective.estimate(x, y)
    other = ipmgan.MMD(kernel="imq", widths=(2.0, 8.0), estimator=estimator, features=50_000, features_seed=1)
    assert value != other.estimate(x, y)


def test_in_compiled_and_stacked_code() -> None:
    objective = ipmgan.MMD(features=16)
    x, y = normal(1, 3, 8, 2).float(), normal(2, 3, 8, 2).float()
    each = torch.stack([torch.func.grad(objective.generator_loss)(x[k], y[k]) for k in range(3)])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(objective.generator_loss))(x, y), each)
    compiled = torch.compile(objective.generator_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x[0], y[0]), objective.generator_loss(x[0], y[0]))


def test_refused_by_the_objective() -> None:
    with pytest.raises(UsageError, match="features = 8: kernel must be one of rbf, gmmn, imq, rq, laplace, not energy"):
        ipmgan.MMD(kernel="energy", features=8)
    with pytest.raises(UsageError, match="features = 8: estimator must be unbiased, biased or root, not linear"):
        ipmgan.MMD(estimator="linear", features=8)
