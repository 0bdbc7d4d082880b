"""Kernels and the estimators of MMD."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from ipmgan import functional as fn
from ipmgan.errors import UsageError
from ipmgan.functional import Kernel

WIDTHS = {
    "rbf": (0.5, 1.0, 3.0),
    "imq": (0.7, 2.0),
    "gmmn": fn.GMMN_WIDTHS,
    "rq": (0.2, 1.0, 5.0),
    "laplace": (0.5, 2.0),
    "energy": (1.0, 2.0),
}
X = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
Y = torch.tensor([[0.0], [2.0]], dtype=torch.float64)


def kernel(name: str, widths: tuple[float, ...] | None = None) -> Kernel:
    return lambda squared: fn.KERNELS[name](squared, widths or WIDTHS[name])


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def plain_kernel(name: str, squared: Tensor, widths: tuple[float, ...]) -> Tensor:
    """The kernels again, one width at a time, as their formulas stand."""
    distance = torch.where(squared > 0, torch.where(squared > 0, squared, 1).sqrt(), 0)
    formulas = {
        "rbf": lambda w: torch.exp(-squared / (2 * w * w)),
        "gmmn": lambda w: torch.exp(-squared / (2 * w)),
        "imq": lambda w: w / (w + squared),
        "rq": lambda w: (1 + squared / (2 * w)) ** -w,
        "laplace": lambda w: torch.exp(-distance / w),
        "energy": lambda w: -distance / w,
    }
    return torch.stack([formulas[name](w) for w in widths]).sum(0)


def plain_mmd2(x: Tensor, y: Tensor, name: str, *, unbiased: bool) -> Tensor:
    """MMD² with explicit differences and an explicit mask."""

    def gram(a: Tensor, b: Tensor) -> Tensor:
        return plain_kernel(name, (a[:, None] - b).square().sum(2), WIDTHS[name])

    def within(a: Tensor) -> Tensor:
        mask = ~torch.eye(len(a), dtype=torch.bool) if unbiased else torch.ones(len(a), len(a), dtype=torch.bool)
        return gram(a, a)[mask].mean()

    return within(x) + within(y) - 2 * gram(x, y).mean()


# Kernels


@pytest.mark.parametrize("name", WIDTHS)
def test_kernel_values_and_derivatives(name: str) -> None:
    squared = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 9 + 0.1
    torch.testing.assert_close(kernel(name)(squared), plain_kernel(name, squared, WIDTHS[name]))
    squared.requires_grad_()
    assert torch.autograd.gradcheck(kernel(name), squared)
    assert torch.autograd.gradgradcheck(kernel(name), squared)


def test_every_kernel_is_tested() -> None:
    assert set(WIDTHS) == set(fn.KERNELS)


@pytest.mark.parametrize("name", ["laplace", "energy"])
def test_no_force_and_no_nan_between_copies(name: str) -> None:
    x = normal(0, 3, 2).requires_grad_()
    fn.mmd2_biased(x, x.detach().clone(), kernel(name)).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


# Squared distances


def test_distances_far_from_the_origin() -> None:
    """Float32 data at 1e4: the centred product stays right to 1e-5, where the plain one loses everything."""
    x = (normal(0, 50, 8) + 1e4).float()
    exact = (x.double()[:, None] - x.double()).square().sum(2)
    squared = fn.squared_distances(x)
    assert squared.dtype == torch.float32
    assert (squared >= 0).all()
    assert torch.equal(squared.diagonal(), torch.zeros(50))
    assert (squared - exact).abs().max() < 1e-5 * exact.max()
    across = fn.squared_distances(x[:20], x[20:] + 0)
    assert (across - exact[:20, 20:]).abs().max() < 1e-5 * exact.max()
    plain = x.square().sum(1)[:, None] + x.square().sum(1) - 2 * x @ x.T
    assert plain.min() < -1
    assert (plain - exact).abs().max() > exact.max() / 10


def test_distances_are_never_negative() -> None:
    x = normal(0, 40, 3).float()
    y = x + 1e-6
    assert (fn.squared_distances(x, y) >= 0).all()
    left, right = x - x.mean(0), y - x.mean(0)
    assert (left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T).min() < 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_widened_and_autocast_stays_out(dtype: torch.dtype) -> None:
    x = normal(0, 6, 4).to(dtype)
    assert fn.squared_distances(x).dtype == torch.float32
    wide = normal(0, 6, 4).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fn.mmd2_unbiased(wide, wide + 1, kernel("rbf"))
    assert torch.equal(inside, fn.mmd2_unbiased(wide, wide + 1, kernel("rbf")))


# Closed forms


def test_rbf_closed_form() -> None:
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    unit = number(1)
    assert fn.gaussian_mmd2_rbf(zero, unit, one, unit, 1.0).item() == pytest.approx(0.1772676349, abs=1e-10)
    plane = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    value = fn.gaussian_mmd2_rbf(plane[0], number(1), plane[1], number(2), 2.0)
    assert value.item() == pytest.approx(0.2045872739, abs=1e-10)
    gmmn = sum(fn.gaussian_mmd2_rbf(zero, unit, one, unit, math.sqrt(s)).item() for s in fn.GMMN_WIDTHS)
    assert gmmn == pytest.approx(0.4351663768, abs=1e-10)
    assert math.sqrt(gmmn) == pytest.approx(0.6596714157, abs=1e-10)


def test_imq_closed_form() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert fn.gaussian_mmd2_imq(0 * one, number(1), one, number(1), 2.0).item() == pytest.approx(
        0.1446888868, abs=1e-10
    )
    delta = torch.full((8,), 0.5, dtype=torch.float64)
    values = [
        fn.gaussian_mmd2_imq(0 * delta, number(1), delta, number(1), 16 * scale).item() for scale in fn.IMQ_SCALES
    ]
    assert values[3] == pytest.approx(0.0558279308, abs=1e-10)
    assert sum(values) == pytest.approx(0.2659760668, abs=1e-10)


@pytest.mark.parametrize(("mean", "std_p", "std_q", "width"), [(0.4, 0.5, 1.5, 0.8), (-1.0, 2.0, 1.0, 3.0)])
def test_closed_forms_by_quadrature(mean: float, std_p: float, std_q: float, width: float) -> None:
    """MMD² = ∫∫ k (p - q)(p - q): E k(D) over the three normal differences."""
    arguments = torch.zeros(1, dtype=torch.float64), number(std_p), number(mean).reshape(1), number(std_q), width

    def by_quadrature(k: Callable[[float], float]) -> float:
        def expect(centre: float, variance: float) -> float:
            law = stats.norm(centre, math.sqrt(variance))
            return float(integrate.quad(lambda d: k(d * d) * law.pdf(d), -30, 30, limit=400, epsabs=1e-12)[0])

        return expect(0, 2 * std_p**2) + expect(0, 2 * std_q**2) - 2 * expect(mean, std_p**2 + std_q**2)

    rbf = by_quadrature(lambda d2: math.exp(-d2 / (2 * width**2)))
    assert fn.gaussian_mmd2_rbf(*arguments).item() == pytest.approx(rbf, abs=1e-9)
    imq = by_quadrature(lambda d2: width / (width + d2))
    assert fn.gaussian_mmd2_imq(*arguments).item() == pytest.approx(imq, abs=1e-9)


def test_v_statistic_of_quantiles_meets_the_closed_forms() -> None:
    u = (np.arange(1500) + 0.5) / 1500
    x = torch.from_numpy(stats.norm.ppf(u))[:, None]
    y = x + 1
    assert fn.mmd2_biased(x, y, kernel("rbf", (1.0,))).item() == pytest.approx(0.1772676349, abs=2e-4)
    assert fn.mmd2_biased(x, y, kernel("imq", (2.0,))).item() == pytest.approx(0.1446888868, abs=2e-4)
    assert fn.mmd_root(x, y, kernel("gmmn")).item() == pytest.approx(0.6596714157, abs=1e-3)
    assert fn.mmd2_biased(x, y, fn.energy).item() == pytest.approx(0.5418065793, abs=1e-3)


# Estimators


def test_estimators_on_two_points_each() -> None:
    rbf, imq = kernel("rbf", (1.0,)), kernel("imq", (2.0,))
    assert fn.mmd2_biased(X, Y, rbf).item() == pytest.approx(0.1967346701, abs=1e-10)
    assert fn.mmd2_unbiased(X, Y, rbf).item() == pytest.approx(-0.4323323584, abs=1e-10)
    assert fn.mmd2_biased(X, Y, imq).item() == pytest.approx(1 / 6, abs=1e-10)
    assert fn.mmd2_unbiased(X, Y, imq).item() == pytest.approx(-1 / 3, abs=1e-10)
    assert fn.mmd2_biased(X, Y, fn.gmmn).item() == pytest.approx(0.2042375856, abs=1e-10)
    assert fn.mmd_root(X, Y, fn.gmmn).item() == pytest.approx(0.4519265268, abs=1e-10)


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("unbiased", [True, False])
def test_estimators_and_gradients_on_random_samples(name: str, unbiased: bool) -> None:
    x, y = normal(1, 7, 3).requires_grad_(), (normal(2, 5, 3) + 0.5).requires_grad_()
    estimator = fn.mmd2_unbiased if unbiased else fn.mmd2_biased
    value, plain = estimator(x, y, kernel(name)), plain_mmd2(x, y, name, unbiased=unbiased)
    torch.testing.assert_close(value, plain)
    got, expected = torch.autograd.grad(value, (x, y)), torch.autograd.grad(plain, (x, y))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("estimator", [fn.mmd2_unbiased, fn.mmd2_linear])
def test_unbiased_estimators_are_right_on_average(estimator: Callable[[Tensor, Tensor, Kernel], Tensor]) -> None:
    """Over all draws of two samples a side from p and q on three points, weighted by their probability."""
    points = torch.tensor([[0.0], [1.0], [2.5]], dtype=torch.float64)
    p, q = (0.5, 0.3, 0.2), (0.1, 0.4, 0.5)
    rbf = kernel("rbf", (1.0,))
    gram = rbf(fn.squared_distances(points))
    for left, right in ((p, q), (p, p)):
        gap = torch.tensor(left, dtype=torch.float64) - torch.tensor(right, dtype=torch.float64)
        mean = sum(
            left[a] * left[b] * right[c] * right[d] * estimator(points[[a, b]], points[[c, d]], rbf).item()
            for a, b, c, d in itertools.product(range(3), repeat=4)
        )
        assert mean == pytest.approx((gap @ gram @ gap).item(), abs=1e-12)


def test_keeping_the_diagonal_would_show() -> None:
    """Samples too far apart to feel each other: 0, where a sum with its diagonals over N(N-1) reads 2/(N-1)."""
    x, y = 100 * torch.arange(6.0)[:, None], 100 * torch.arange(6.0)[:, None] + 50
    assert fn.mmd2_unbiased(x, y, kernel("rbf", (1.0,))) == 0
    assert fn.mmd2_biased(x, y, kernel("rbf", (1.0,))).item() * 6 / 5 == pytest.approx(2 / 5)


def test_linear_estimator() -> None:
    x, y = normal(0, 6, 2), normal(1, 6, 2) + 1
    rbf = kernel("rbf", (1.0,))

    def k(a: Tensor, b: Tensor) -> float:
        return math.exp(-(a - b).square().sum().item() / 2)

    terms = [k(x[i], x[i + 1]) + k(y[i], y[i + 1]) - k(x[i], y[i + 1]) - k(x[i + 1], y[i]) for i in range(0, 6, 2)]
    assert fn.mmd2_linear(x, y, rbf).item() == pytest.approx(sum(terms) / 3, rel=1e-12)
    more = torch.cat([x, x[:1] + 9])
    assert fn.mmd2_linear(more, y, rbf) == fn.mmd2_linear(x, y, rbf)


def test_root_is_never_of_a_u_statistic() -> None:
    """The two samples have a negative U-statistic; the root there is that of the V-statistic."""
    rbf = kernel("rbf", (1.0,))
    assert fn.mmd2_unbiased(X, Y, rbf) < 0
    assert fn.mmd_root(X, Y, rbf).item() == pytest.approx(math.sqrt(0.1967346701), abs=1e-9)
    assert set(fn.ESTIMATORS) == {"unbiased", "biased", "root", "linear"}


def test_root_at_zero_has_no_nan() -> None:
    x = normal(0, 8, 3).float().requires_grad_()
    value = fn.mmd_root(x, x.detach()[torch.randperm(8, generator=torch.Generator().manual_seed(0))], fn.gmmn)
    value.backward()
    assert torch.isfinite(value)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    point = torch.zeros(1, 1, requires_grad=True)
    fn.mmd_root(point, torch.zeros(1, 1), fn.gmmn).backward()
    assert point.grad == 0


@pytest.mark.parametrize("estimator", fn.ESTIMATORS)
def test_shifts_do_not_matter(estimator: str) -> None:
    x, y = normal(0, 8, 2), normal(1, 8, 2)
    before, after = (fn.ESTIMATORS[estimator](x + c, y + c, fn.gmmn).item() for c in (0, 1e4))
    assert after == pytest.approx(before, rel=1e-6)


def test_duplicating_the_batch() -> None:
    x, y = normal(0, 6, 2), normal(1, 6, 2)
    twice = x.repeat(2, 1), y.repeat(2, 1)
    torch.testing.assert_close(fn.mmd2_biased(*twice, fn.gmmn), fn.mmd2_biased(x, y, fn.gmmn))
    assert fn.mmd2_unbiased(*twice, fn.gmmn) != fn.mmd2_unbiased(x, y, fn.gmmn)


def test_the_mixture_keeps_two_matrices_however_many_widths() -> None:
    squared = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        fn.gmmn(squared, tuple(float(s) for s in range(1, 30)))
    assert len(kept) == 2


def test_refusals() -> None:
    with pytest.raises(UsageError, match="1 and 3 samples: must be at least 2"):
        fn.mmd2_unbiased(torch.zeros(1, 2), torch.zeros(3, 2), fn.gmmn)
    with pytest.raises(UsageError, match="at least 2"):
        fn.mmd2_linear(torch.zeros(1, 2), torch.zeros(3, 2), fn.gmmn)
    with pytest.raises(UsageError, match="shapes"):
        fn.mmd2_linear(torch.zeros(4, 1), torch.zeros(4, 2), fn.gmmn)
    with pytest.raises(UsageError, match="shapes"):
        fn.mmd2_biased(torch.zeros(4), torch.zeros(4), fn.gmmn)
