"""Divergences on finite sets and between Gaussians, against published numbers and independent formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from ipmgan import functional as fn
from ipmgan.errors import UsageError

P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.1, 0.4, 0.5], dtype=torch.float64)
TABLE = {
    "kl": 0.5351561881,
    "reverse-kl": 0.4122744037,
    "pearson": 1.805,
    "neyman": 0.8033333333,
    "squared-hellinger": 0.2275105494,
    "js": 0.2191332505,
    "gan": -1.1671611106,
    "tv": 0.4,
}


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def random_laws(seed: int, size: int = 7) -> tuple[Tensor, Tensor]:
    draws = torch.rand(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    p, q = draws / draws.sum(1, keepdim=True)
    return p, q


def test_discrete_values() -> None:
    assert fn.kl(P, Q).item() == pytest.approx(0.5351561881, abs=1e-10)
    assert fn.kl(Q, P).item() == pytest.approx(0.4122744037, abs=1e-10)
    assert fn.js(P, Q).item() == pytest.approx(0.1095666253, abs=1e-10)
    assert fn.total_variation(P, Q).item() == pytest.approx(0.4, abs=1e-12)
    expected = torch.tensor([1.6094379, -0.2876821, -0.9162907], dtype=torch.float64)
    torch.testing.assert_close(fn.optimal_logit(P, Q), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_discrete_values_on_random_laws(seed: int) -> None:
    p, q = random_laws(seed)
    a, b = p.numpy(), q.numpy()
    assert fn.kl(p, q).item() == pytest.approx(stats.entropy(a, b), rel=1e-12)
    mixed = (stats.entropy(a, (a + b) / 2) + stats.entropy(b, (a + b) / 2)) / 2
    assert fn.js(p, q).item() == pytest.approx(mixed, rel=1e-12)
    subsets = ((np.arange(2 ** len(a))[:, None] >> np.arange(len(a))) & 1).astype(bool)
    assert fn.total_variation(p, q).item() == pytest.approx(max((a[s] - b[s]).sum() for s in subsets), rel=1e-12)


def test_disjoint_laws_as_in_parallel_lines() -> None:
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert fn.js(p, q).item() == pytest.approx(math.log(2))
    assert fn.total_variation(p, q) == 1
    assert fn.kl(p, q) == math.inf
    assert fn.kl(q, p) == math.inf
    expected = {"kl": math.inf, "reverse-kl": math.inf, "pearson": math.inf, "neyman": math.inf}
    expected |= {"squared-hellinger": 2, "js": 2 * math.log(2), "gan": 0, "tv": 1}
    for name, value in expected.items():
        assert fn.F_DIVERGENCES[name](p, q).item() == pytest.approx(value), name


def test_the_table_is_complete() -> None:
    assert set(TABLE) == set(fn.F_DIVERGENCES)


@pytest.mark.parametrize("name", TABLE)
def test_f_divergence_and_its_variational_form(name: str) -> None:
    divergence = fn.F_DIVERGENCES[name]
    assert divergence(P, Q).item() == pytest.approx(TABLE[name], abs=1e-9)
    for seed in range(3):
        p, q = random_laws(seed)
        value = divergence(p, q).item()
        best = divergence.optimum(p / q)
        assert (p @ best - q @ divergence.conjugate(best)).item() == pytest.approx(value, abs=1e-10)
        raw = torch.randn(50, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        other = divergence.activation(raw)
        assert ((other @ p - divergence.conjugate(other) @ q) <= value + 1e-12).all()


@pytest.mark.parametrize("name", TABLE)
def test_conjugate_is_the_supremum(name: str) -> None:
    """f*(t) = sup_r (r t - f(r)), by a grid around the r at which t is the slope of f."""
    divergence = fn.F_DIVERGENCES[name]
    at = torch.tensor([0.2, 0.7, 1.6, 4.0], dtype=torch.float64)
    t = divergence.optimum(at)
    grid = torch.cat([at, torch.linspace(0.001, 30, 30_000, dtype=torch.float64)])
    supremum = (grid * t[:, None] - divergence.f(grid)).max(1).values
    torch.testing.assert_close(divergence.conjugate(t), supremum, atol=1e-6, rtol=1e-6)


def test_lower_bound_takes_raw_outputs() -> None:
    """On samples that repeat p and q exactly, a raw output log p/q makes the `gan` bound the game's value."""
    logits = fn.optimal_logit(P, Q)
    real, fake = logits.repeat_interleave(torch.tensor([5, 3, 2])), logits.repeat_interleave(torch.tensor([1, 4, 5]))
    assert fn.F_DIVERGENCES["gan"].lower_bound(real, fake).item() == pytest.approx(TABLE["gan"], abs=1e-9)


def test_gaussian_values() -> None:
    zero, one, two = number(0), number(1), number(2)
    assert fn.gaussian_kl(zero, one, one, two).item() == pytest.approx(0.4431471806, abs=1e-10)
    assert fn.gaussian_kl(one, two, zero, one).item() == pytest.approx(1.3068528194, abs=1e-10)
    assert fn.gaussian_w1(zero, one, one, two).item() == pytest.approx(1.1666309412, abs=1e-10)
    assert fn.gaussian_w1(zero, one, number(-3), one).item() == 3
    assert fn.gaussian_tv(zero, one, one, one).item() == pytest.approx(0.3829249225, abs=1e-10)
    assert fn.gaussian_energy_distance(zero, one, one, one).item() == pytest.approx(0.5418065793, abs=1e-10)


@pytest.mark.parametrize(("mean_q", "std_p", "std_q"), [(0.3, 0.7, 1.9), (-1.2, 2.0, 0.5)])
def test_gaussian_values_by_quadrature(mean_q: float, std_p: float, std_q: float) -> None:
    p, q = stats.norm(0, std_p), stats.norm(mean_q, std_q)
    arguments = number(0), number(std_p), number(mean_q), number(std_q)
    gap = integrate.quad(lambda x: abs(p.cdf(x) - q.cdf(x)), -20, 20, limit=300)[0]
    assert fn.gaussian_w1(*arguments).item() == pytest.approx(gap, rel=1e-6)
    squared = integrate.quad(lambda x: (p.cdf(x) - q.cdf(x)) ** 2, -20, 20, limit=300)[0]
    assert fn.gaussian_energy_distance(*arguments).item() == pytest.approx(2 * squared, rel=1e-6)
    kl = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -20, 20, limit=300)[0]
    assert fn.gaussian_kl(*arguments).item() == pytest.approx(kl, rel=1e-6)


def test_more_gaussian_values() -> None:
    zero, one = number(0), number(1)
    assert fn.gaussian_js(zero, one, one, one).item() == pytest.approx(0.1114214822, abs=1e-10)
    assert fn.gaussian_w2(zero, one, number(3), number(5)) == 5
    assert fn.gaussian_norm(2, one).item() == pytest.approx(1.2533141373, abs=1e-10)
    assert fn.gaussian_norm(2, one) <= math.sqrt(2)
    assert fn.gaussian_norm(1, number(2.0)).item() == pytest.approx(2 * math.sqrt(2 / math.pi), rel=1e-12)
    assert fn.gaussian_w1(zero, one, zero, number(math.sqrt(2))).item() == pytest.approx(0.3304946063, abs=1e-10)
    assert fn.gaussian_tv(zero, one, zero, one) == 0
    assert fn.gaussian_js(zero, one, zero, one).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize(
    ("mean_q", "std_p", "std_q"), [(1.0, 1.0, 1.0), (0.3, 0.7, 0.9), (-1.2, 1.1, 0.95), (0, 1, 1.3)]
)
def test_f_divergences_of_gaussians_by_quadrature(name: str, mean_q: float, std_p: float, std_q: float) -> None:
    x = torch.linspace(-14, 14, 280_001, dtype=torch.float64)
    p, q = (torch.from_numpy(stats.norm(mean, std).pdf(x)) for mean, std in ((0, std_p), (mean_q, std_q)))
    expected = fn.F_DIVERGENCES[name](p, q).item() * 1e-4
    found = fn.gaussian_f_divergence(name, number(0), number(std_p), number(mean_q), number(std_q))
    assert found.item() == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_f_divergences_of_gaussians_that_are_infinite_or_unknown() -> None:
    zero, one, two = number(0), number(1), number(2)
    assert fn.gaussian_f_divergence("pearson", zero, two, zero, one) == math.inf
    assert fn.gaussian_f_divergence("neyman", zero, two, zero, one) < math.inf
    with pytest.raises(UsageError, match="did you mean 'pearson'"):
        fn.gaussian_f_divergence("person", zero, one, zero, one)


def test_gaussian_js_and_tv_go_element_by_element() -> None:
    means, stds = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([[1.0], [0.02]])
    for function in (fn.gaussian_js, fn.gaussian_tv):
        found = function(torch.tensor(0.0), torch.tensor(1.0), means, stds)
        assert found.shape == (2, 3)
        assert found[1, 2].item() == pytest.approx(function(*map(torch.tensor, (0.0, 1.0, 5.0, 0.02))).item(), abs=1e-6)
        assert ((found >= 0) & (found <= 1)).all()


def test_laws_on_points_whose_distances_are_known() -> None:
    """Samples {0, 1} and {0, 2} as laws on {0, 1, 2}: the V-statistics."""
    p, q = (torch.tensor(law, dtype=torch.float64) for law in ((0.5, 0.5, 0), (0.5, 0, 0.5)))
    points = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    squared = fn.squared_distances(points)
    assert fn.discrete_mmd2(p, q, fn.rbf(squared, (1.0,))).item() == pytest.approx(0.1967346701, abs=1e-10)
    assert fn.discrete_mmd2(p, q, fn.imq(squared, (2.0,))).item() == pytest.approx(1 / 6, abs=1e-12)
    x, y = points[[0, 1]], points[[0, 2]]
    assert fn.mmd2_unbiased(x, y, fn.Mixture("imq", (2.0,))).item() == pytest.approx(-1 / 3, abs=1e-12)
    energy = fn.discrete_energy_distance(p, q, squared.sqrt()).item()
    assert energy == pytest.approx(fn.energy_distance_1d(x[:, 0], y[:, 0]).item(), abs=1e-12)
    assert energy == pytest.approx(fn.mmd2_biased(x, y, fn.Mixture("energy", (1.0,))).item(), abs=1e-12)


def test_one_place_has_them_all() -> None:
    from ipmgan.functional import divergences

    assert set(divergences.__all__) <= set(fn.__all__)
    for name in divergences.__all__:
        assert getattr(divergences, name) is getattr(fn, name)


def test_gaussian_w1_has_finite_gradients_at_equal_widths() -> None:
    std = torch.ones((), requires_grad=True)
    fn.gaussian_w1(torch.zeros(()), torch.ones(()), torch.ones(()), std).backward()
    assert std.grad is not None
    assert torch.isfinite(std.grad)


def test_frechet() -> None:
    means = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    covariances = torch.tensor([[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]]], dtype=torch.float64)
    value = fn.frechet(means[0], covariances[0], means[1], covariances[1])
    assert value.item() == pytest.approx(5.9293118550, abs=1e-9)
    assert fn.frechet(means[0], covariances[0], means[0], covariances[0]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_is_the_sum_over_axes_of_commuting_covariances(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    s, t = torch.rand(2, 4, generator=generator, dtype=torch.float64)
    t[0] = 0  # a singular covariance
    delta = torch.randn(4, generator=generator, dtype=torch.float64)
    value = fn.frechet(delta, basis * s @ basis.T, torch.zeros_like(delta), basis * t @ basis.T)
    assert value.item() == pytest.approx((delta.square() + (s.sqrt() - t.sqrt()).square()).sum().item(), rel=1e-7)
