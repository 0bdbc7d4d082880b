"""McGAN: both distances against NumPy, their dual forms, and what they see and do not see."""

from __future__ import annotations

import itertools

import ipmgan
import numpy as np
import pytest
import torch
from torch import Tensor

from ipmgan_ipm import CovarianceMatching, MeanMatching

ORDER = {"l1": 1.0, "l2": 2.0, "linf": np.inf}
DUAL = {"l1": np.inf, "l2": 2.0, "linf": 1.0}
K = [1, 2, 4, 16]
OBJECTIVES = [*(MeanMatching(norm=norm) for norm in DUAL), *(CovarianceMatching(k=k) for k in K)]


def batches(seed: int, features: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(7, features, generator=generator, dtype=torch.float64),
        torch.randn(5, features, generator=generator, dtype=torch.float64) * 2 - 0.5,
    )


def gap_of_means(real: Tensor, fake: Tensor) -> np.ndarray:
    return np.asarray(real).mean(0) - np.asarray(fake).mean(0)


def gap_of_moments(real: Tensor, fake: Tensor) -> np.ndarray:
    first, second = (np.einsum("ni,nj->ij", x, x) / len(x) for x in (np.asarray(real), np.asarray(fake)))
    return np.asarray(first - second)


def ball(norm: str, gap: np.ndarray) -> np.ndarray:
    """The v with ‖v‖_p = 1 that meets Hölder's inequality."""
    if norm == "l1":
        return np.sign(gap)
    if norm == "l2":
        return np.asarray(gap / np.linalg.norm(gap))
    return np.where(np.abs(gap) == np.abs(gap).max(), np.sign(gap), 0)


@pytest.mark.parametrize(("norm", "seed"), list(itertools.product(DUAL, range(3))))
def test_means_by_their_dual_form(norm: str, seed: int) -> None:
    real, fake = batches(seed)
    gap, found = gap_of_means(real, fake), float(MeanMatching(norm=norm).estimate(real, fake))
    assert found == pytest.approx(np.linalg.norm(gap, ord=ORDER[norm]), abs=1e-13)
    best = ball(norm, gap)
    assert np.linalg.norm(best, ord=DUAL[norm]) == pytest.approx(1, abs=1e-13)
    assert best @ gap == pytest.approx(found, abs=1e-13)
    rng = np.random.default_rng(seed)
    others = rng.normal(size=(100, len(gap)))
    others /= np.linalg.norm(others, ord=DUAL[norm], axis=1, keepdims=True)
    assert (others @ gap).max() <= found + 1e-13


@pytest.mark.parametrize(("k", "seed"), list(itertools.product(K, range(3))))
def test_covariances_by_their_dual_form(k: int, seed: int) -> None:
    real, fake = batches(seed)
    gap, found = gap_of_moments(real, fake), float(CovarianceMatching(k=k).estimate(real, fake))
    left, sizes, right = np.linalg.svd(gap)
    assert found == pytest.approx(sizes[:k].sum(), abs=1e-12)
    assert np.trace(left[:, :k].T @ gap @ right[:k].T) == pytest.approx(found, abs=1e-12)
    rng = np.random.default_rng(seed)
    for _ in range(50):
        u, v = (np.linalg.qr(rng.normal(size=gap.shape))[0][:, :k] for _ in range(2))
        assert np.trace(u.T @ gap @ v) <= found + 1e-12


def test_known_values() -> None:
    """Means (3, -4) apart: 7, 5 and 4; second moments diag(3, -8) apart: 11, and 8 of the largest."""
    real, fake = torch.tensor([[1.0, 2.0]]), torch.tensor([[-2.0, 6.0]])
    assert [float(MeanMatching(norm=norm).estimate(real, fake)) for norm in DUAL] == [7.0, 5.0, 4.0]
    real, fake = torch.diag(torch.tensor([8.0, 2.0]).sqrt()), torch.diag(torch.tensor([2.0, 18.0]).sqrt())
    assert float(CovarianceMatching(k=2).estimate(real, fake)) == pytest.approx(11, rel=1e-6)
    assert float(CovarianceMatching(k=1).estimate(real, fake)) == pytest.approx(8, rel=1e-6)


def test_what_each_sees() -> None:
    """Means do not see a spread; raw second moments see both a spread and a shift."""
    here = torch.tensor([[1.0], [-1.0]])
    assert float(MeanMatching().estimate(here, 3 * here)) == 0
    assert float(CovarianceMatching().estimate(here, 3 * here)) == 8
    assert float(CovarianceMatching().estimate(here, here + 1)) == 1


def test_the_mean_gap_is_at_most_w1_of_the_features() -> None:
    real, fake = batches(4, features=1)
    w1 = float(ipmgan.functional.wasserstein_1d(real[:5, 0], fake[:, 0]))
    assert float(MeanMatching().estimate(real[:5], fake)) <= w1 + 1e-12


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_signs_and_gradients(objective: MeanMatching | CovarianceMatching) -> None:
    real, fake = batches(5)
    assert float(objective.critic_loss(real, fake)) == -float(objective.estimate(real, fake)) < 0
    assert float(objective.generator_loss(real, fake)) == float(objective.estimate(real, fake))
    torch.autograd.gradcheck(objective.estimate, (real.requires_grad_(), fake.requires_grad_()))


@pytest.mark.parametrize("objective", [MeanMatching(), MeanMatching(norm="l1"), CovarianceMatching()], ids=str)
def test_equal_batches_have_gradients(objective: MeanMatching | CovarianceMatching) -> None:
    real = torch.ones(3, 2, requires_grad=True)
    fake = torch.ones(3, 2, requires_grad=True)
    value = objective.estimate(real, fake)
    assert float(value.detach()) == 0
    for slope in torch.autograd.grad(value, (real, fake)):
        assert torch.isfinite(slope).all()


def test_coinciding_singular_values_have_gradients() -> None:
    """Eigenvalues 3 and -3: singular vectors are not defined there, and the gradient is all the same."""
    real = torch.tensor([[6.0, 0.0], [0.0, 0.0]]).double().sqrt().requires_grad_()
    fake = torch.tensor([[0.0, 0.0], [0.0, 6.0]]).double().sqrt().requires_grad_()
    value = CovarianceMatching().estimate(real, fake)
    assert float(value.detach()) == pytest.approx(6, abs=1e-12)
    for slope, side in zip(torch.autograd.grad(value, (real, fake)), (real, fake), strict=True):
        assert torch.allclose(slope, side.detach(), atol=1e-12)
