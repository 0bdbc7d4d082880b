"""MMD by tiles: what it gives, how exactly, in how much memory, and what transforms and compilers make of it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ipmgan import functional as fn
from ipmgan.errors import UsageError
from ipmgan.functional import Mixture, tiled, tiles

WIDTHS = {
    "rbf": (0.5, 1.0, 3.0),
    "imq": (0.7, 2.0),
    "gmmn": fn.GMMN_WIDTHS,
    "rq": (0.2, 1.0, 5.0),
    "laplace": (0.5, 2.0),
    "energy": (1.0, 2.0),
}
RBF = Mixture("rbf", (0.5, 1.0, 2.0))
KERNELS = [Mixture(name, widths) for name, widths in WIDTHS.items()]
NAMES = list(WIDTHS)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def explicit(x: Tensor, y: Tensor, kernel: Mixture, *, unbiased: bool) -> Tensor:
    """MMD² with all differences at once, by autograd, from the kernel's values alone."""

    def gram(a: Tensor, b: Tensor) -> Tensor:
        return kernel((a[:, None] - b).square().sum(2))

    def within(a: Tensor) -> Tensor:
        mask = ~torch.eye(len(a), dtype=torch.bool) if unbiased else torch.ones(len(a), len(a), dtype=torch.bool)
        return gram(a, a)[mask].mean()

    return within(x) + within(y) - 2 * gram(x, y).mean()


def value_and_gradients(f: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y = x.detach().clone().requires_grad_(), y.detach().clone().requires_grad_()
    value = f(x, y)
    return value.detach(), *torch.autograd.grad(value, (x, y))


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 16)
    monkeypatch.setattr(tiles, "_STRIP", 50)


@pytest.fixture
def tiles_everywhere(monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> None:
    """Transforms and compilers meet tiles too, however small the batch."""
    monkeypatch.setattr(tiled, "COMPILED_FROM", 0)
    monkeypatch.setattr(tiled, "STACKED_TO", 0)


# What it gives


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("sizes", [(37, 50, 3), (40, 7, 12), (2, 33, 1), (16, 16, 9)])
def test_value_and_gradients_in_float64(kernel: Mixture, unbiased: bool, sizes: tuple[int, int, int]) -> None:
    n, m, k = sizes
    x, y = normal(1, n, k), normal(2, m, k) + 0.5
    estimator = fn.mmd2_unbiased if unbiased else fn.mmd2_biased
    got = value_and_gradients(lambda x, y: estimator(x, y, kernel), x, y)
    expected = value_and_gradients(lambda x, y: explicit(x, y, kernel, unbiased=unbiased), x, y)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True), (False, False)])
def test_only_what_is_wanted_is_computed(wanted: tuple[bool, bool]) -> None:
    x, y = normal(1, 20, 3), normal(2, 30, 3)
    whole = tiles.mmd2_and_forces(x, y, RBF, unbiased=True, wanted=(True, True))
    part = tiles.mmd2_and_forces(x, y, RBF, unbiased=True, wanted=wanted)
    torch.testing.assert_close(part[0], whole[0])
    for got, full, wants in zip(part[1:], whole[1:], wanted, strict=True):
        torch.testing.assert_close(got, full if wants else full.new_empty(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_types_of_values_and_gradients(dtype: torch.dtype) -> None:
    x, y = normal(1, 20, 3).to(dtype).requires_grad_(), normal(2, 30, 3)
    value = fn.mmd2_unbiased(x, y.to(dtype), RBF)
    assert value.dtype == torch.float32
    value.backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert fn.mmd2_unbiased(x, y, RBF).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fn.mmd2_unbiased(x, y.to(dtype), RBF), value)


def test_mixtures_are_kernels() -> None:
    squared = normal(0, 4, 5).square()
    for kernel in KERNELS:
        assert torch.equal(kernel(squared), fn.KERNELS[kernel.name](squared, kernel.widths))
        assert kernel.at_zero == kernel(squared.new_zeros(())).item()
    with pytest.raises(UsageError, match=r"kernel .*rbg.*rbf"):
        Mixture("rbg", (1.0,))
    with pytest.raises(UsageError, match="needs a width"):
        Mixture("rbf", ())


@pytest.mark.parametrize("widths", [(1.0, 2.0, 4.0, 8.0, 16.0), (3.0, 1.0, 1.0, 2.0**0.5), (0.1, 0.2, 0.7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_by_squaring(widths: tuple[float, ...], dtype: torch.dtype) -> None:
    """To 2e-6 of each value in float32, whatever the order of the widths; 256th powers of one would be far off."""
    squared = (torch.linspace(0, 20, 5001, dtype=torch.float64) * min(widths) ** 2).to(dtype)
    exact = torch.stack([torch.exp(-squared.double() / (2 * w * w)) for w in widths]).sum(0)
    error = ((fn.rbf(squared, widths) - exact) / exact).abs().max().item()
    assert error < (2e-6 if dtype == torch.float32 else 4e-15)
    if widths[-1] == 16 and dtype == torch.float32:
        narrow, sole = torch.exp(squared / -512), torch.exp(squared.double() / -2)
        for _ in range(8):
            narrow = narrow.square()
        assert ((narrow - sole) / sole).abs().max() > 1e-5


# How exactly


def far_clusters(dimension: int) -> tuple[Tensor, Tensor]:
    centres = torch.tensor([-1000.0, 1000.0], dtype=torch.float64)[torch.arange(100) % 2][:, None]
    return normal(1, 100, dimension) + centres, normal(2, 100, dimension) + centres + 0.3


def far_from_the_origin(dimension: int) -> tuple[Tensor, Tensor]:
    return normal(1, 100, dimension) + 1e4, normal(2, 100, dimension) + 1e4 + 0.3


def plain_float32(x: Tensor, y: Tensor, kernel: Mixture) -> Tensor:
    """The V-statistic by ‖x‖² + ‖y‖² - 2xᵀy, as it comes."""

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return kernel((a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)).mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("samples", [far_clusters, far_from_the_origin])
@pytest.mark.parametrize("dimension", [2, 40])
def test_float32_against_float64(
    kernel: Mixture, samples: Callable[[int], tuple[Tensor, Tensor]], dimension: int
) -> None:
    x, y = (z.float() for z in samples(dimension))
    kernel = Mixture(kernel.name, tuple(w * dimension for w in kernel.widths))
    exact = value_and_gradients(lambda x, y: explicit(x, y, kernel, unbiased=False), x.double(), y.double())
    size = kernel.at_zero or 2000 * dimension**0.5
    for f in (fn.mmd2_biased, lambda x, y, k: tiled.matrix_mmd2(x, y, k, unbiased=False)):
        got = value_and_gradients(lambda x, y, f=f: f(x, y, kernel), x, y)  # type: ignore[misc]
        assert abs(got[0].item() - exact[0].item()) < 3e-7 * size
        for mine, right in zip(got[1:], exact[1:], strict=True):
            assert (mine - right).norm() < 1e-6 * right.norm()
    wrong = value_and_gradients(lambda x, y: plain_float32(x, y, kernel), x, y)
    assert (wrong[1] - exact[1]).norm() > 3e-3 * exact[1].norm()


@pytest.mark.parametrize("name", ["laplace", "energy"])
@pytest.mark.parametrize("dimension", [2, 40])
def test_forces_between_near_copies(name: str, dimension: int) -> None:
    """Unit vectors along tiny differences, which the difference of two large products would lose altogether."""
    x = normal(1, 80, dimension).float()
    y = x + 1e-3 * normal(2, 80, dimension).float()
    kernel = Mixture(name, (1.0,))
    exact = value_and_gradients(lambda x, y: explicit(x, y, kernel, unbiased=False), x.double(), y.double())
    got = value_and_gradients(lambda x, y: fn.mmd2_biased(x, y, kernel), x, y)
    assert (got[1] - exact[1]).norm() < 1e-4 * exact[1].norm()
    wrong = value_and_gradients(lambda x, y: plain_float32(x, y, kernel), x, y)
    assert (wrong[1] - exact[1]).norm() > 0.02 * exact[1].norm()


def test_what_is_not_finite_stays_so() -> None:
    x = normal(1, 20, 12)
    x[3, 4] = torch.nan
    assert torch.isnan(fn.mmd2_unbiased(x, normal(2, 20, 12), RBF))


# In how much memory


class Largest(TorchDispatchMode):
    """The most numbers that any result holds."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.untyped_storage().nbytes() // result.itemsize)
        return result


@pytest.mark.parametrize("dimension", [3, 20])
def test_no_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch, dimension: int) -> None:
    monkeypatch.setattr(tiles, "TILE", 32)
    x, y = normal(1, 500, dimension).float(), normal(2, 400, dimension).float()
    with Largest() as tile:
        tiles.mmd2_and_forces(x, y, RBF, unbiased=True, wanted=(True, True))
    assert tile.numbers <= 900 * dimension
    with Largest() as matrix:
        tiled.matrix_mmd2(x, y, RBF, unbiased=True)
    assert matrix.numbers >= 500 * 500


# What transforms and compilers make of it


Function = Callable[[Tensor, Tensor], Tensor]


def u(x: Tensor, y: Tensor) -> Tensor:
    return fn.mmd2_unbiased(x, y, RBF)


def by_matrix(x: Tensor, y: Tensor) -> Tensor:
    return tiled.matrix_mmd2(x, y, RBF, unbiased=True)


def transforms(f: Function) -> Iterator[tuple[Callable[..., Any], tuple[Tensor, Tensor]]]:
    x, y = normal(1, 3, 20, 4), normal(2, 3, 30, 4)
    yield torch.func.vmap(f), (x, y)
    yield torch.func.vmap(torch.func.grad(f)), (x, y)
    yield torch.func.vmap(torch.func.grad(f, argnums=1), (0, None)), (x, y[0])
    yield torch.func.grad(lambda x, y: torch.func.vmap(f)(x, y).square().sum()), (x, y)
    yield torch.func.grad_and_value(f, argnums=(0, 1)), (x[0], y[0])
    yield torch.func.grad(lambda x, y: torch.func.grad(f)(x, y).square().sum()), (x[0], y[0])


@pytest.mark.parametrize("large", [False, True])
def test_under_transforms(request: pytest.FixtureRequest, large: bool) -> None:
    if large:
        request.getfixturevalue("tiles_everywhere")
    for (mine, samples), (right, _) in zip(transforms(u), transforms(by_matrix), strict=True):
        torch.testing.assert_close(mine(*samples), right(*samples))


@pytest.mark.parametrize("estimator", fn.ESTIMATORS)
def test_stacked_batches_are_each_its_own(estimator: str) -> None:
    x, y = normal(1, 3, 12, 4).float(), normal(2, 3, 12, 4).float()
    for kernel in KERNELS:

        def f(x: Tensor, y: Tensor, kernel: Mixture = kernel) -> Tensor:
            return fn.ESTIMATORS[estimator](x, y, kernel)

        each = [torch.func.grad_and_value(f)(x[k], y[k]) for k in range(3)]
        stacked = torch.func.vmap(torch.func.grad_and_value(f))(x, y)
        expected = tuple(torch.stack(items) for items in zip(*each, strict=True))
        torch.testing.assert_close(stacked, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("transform", [lambda f: f, torch.func.grad, lambda f: torch.func.grad(f, argnums=1)])
def test_in_compiled_code(
    request: pytest.FixtureRequest, transform: Callable[[Function], Function], large: bool
) -> None:
    """In one graph, without breaks; with the matrix for small batches and tiles, as one operator, for large ones."""
    if large:
        request.getfixturevalue("tiles_everywhere")
    torch.compiler.reset()
    x, y = normal(1, 20, 4), normal(2, 30, 4)
    compiled = torch.compile(transform(u), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), transform(by_matrix)(x, y))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("leaves", [(True, False), (False, True), (True, True)])
def test_backward_through_compiled_code(request: pytest.FixtureRequest, leaves: tuple[bool, bool], large: bool) -> None:
    if large:
        request.getfixturevalue("tiles_everywhere")
    torch.compiler.reset()
    compiled = torch.compile(u, fullgraph=True, backend="aot_eager")
    samples = [z.requires_grad_(leaf) for z, leaf in zip((normal(1, 20, 4), normal(2, 30, 4)), leaves, strict=True)]
    wanted = [z for z in samples if z.requires_grad]
    got = torch.autograd.grad(compiled(*samples), wanted)
    torch.testing.assert_close(got, torch.autograd.grad(by_matrix(*samples), wanted))


def test_second_derivatives() -> None:
    x, y = normal(1, 5, 3).requires_grad_(), normal(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(u, (x, y))
    assert torch.autograd.gradgradcheck(u, (x, y))
    assert torch.autograd.gradgradcheck(lambda x: u(x, y.detach()), (x,))


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a compiler for C++")
def test_compiled_tiles_are_those_of_plain_code() -> None:
    x, y = normal(1, 4, 70).float(), normal(2, 4, 50).float()
    outputs = []
    for compiled in (True, False):
        program = tiles._program(RBF, few=True, slopes=True, compiled=compiled)
        assert (program.__name__ == "by_strips") is not compiled
        tile = torch.empty(70, 50)
        outputs.append((program(x, y, tile), tile))
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)


def test_without_a_compiler_tiles_are_done_in_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(program: Any, **_: Any) -> Any:
        def run(*_: Any) -> Any:
            raise RuntimeError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(tiles, "COMPILED", 0)
    kernel = Mixture("rbf", (0.123,))
    x, y = normal(1, 20, 4), normal(2, 30, 4)
    torch.testing.assert_close(
        value_and_gradients(lambda x, y: fn.mmd2_unbiased(x, y, kernel), x, y),
        value_and_gradients(lambda x, y: explicit(x, y, kernel, unbiased=True), x, y),
    )


# On CUDA

DEVICE = """
import torch
from ipmgan.functional import Mixture, tiles, tiles_cuda

generator = torch.Generator().manual_seed(0)
tiles._engine = lambda kernel, points, *, slopes: tiles_cuda.Device(kernel, slopes=slopes)
tiles.TILE, tiles_cuda.SIDE = 30, 32
for name in ("rbf", "gmmn", "imq", "rq", "laplace", "energy"):
    kernel = Mixture(name, (0.3, 0.7, 1.0, 2.1))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12))[: 2 if name == "rbf" else 1]:
        x = torch.randn(40, 3, generator=generator, dtype=dtype)
        y = torch.randn(23, 3, generator=generator, dtype=dtype) + 0.5
        got = tiles.mmd2_and_forces(x, y, kernel, unbiased=True, wanted=(True, True))
        differences = [(a[:, None] - b).double() for a, b in ((x, x), (y, y), (x, y))]
        values, slopes = zip(*(kernel.with_slope(d.square().sum(2)) for d in differences))
        for own in (*values[:2], *slopes[:2]):
            own.fill_diagonal_(0)
        n, m = 40, 23
        value = values[0].sum() / (n * (n - 1)) + values[1].sum() / (m * (m - 1)) - 2 * values[2].mean()
        forces = [(slope[:, :, None] * d) for slope, d in zip(slopes, differences)]
        on_x = 4 * forces[0].sum(1) / (n * (n - 1)) - 4 * forces[2].sum(1) / (n * m)
        on_y = 4 * forces[1].sum(1) / (m * (m - 1)) + 4 * forces[2].sum(0) / (n * m)
        assert abs(got[0] - value) < tolerance * 4
        for mine, right in zip(got[1:], (on_x, on_y)):
            assert (mine - right).norm() < tolerance * right.norm(), name
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_kernels_for_cuda_in_tritons_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "device.py"
    script.write_text(DEVICE, encoding="utf-8")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", KERNELS, ids=NAMES)
@pytest.mark.parametrize("samples", [far_clusters, far_from_the_origin])
def test_cuda_against_the_cpu(
    monkeypatch: pytest.MonkeyPatch, kernel: Mixture, samples: Callable[[int], tuple[Tensor, Tensor]]
) -> None:
    monkeypatch.setattr(tiled, "COMPILED_FROM", 0)
    monkeypatch.setattr(tiles, "CUDA_TILE", 70)
    x, y = (z.float() for z in samples(20))
    exact = value_and_gradients(lambda x, y: fn.mmd2_unbiased(x, y, kernel), x.double(), y.double())
    device = value_and_gradients(lambda x, y: fn.mmd2_unbiased(x, y, kernel), x.cuda(), y.cuda())
    assert abs(device[0].item() - exact[0].item()) < 1e-6 * (kernel.at_zero or 1e4)
    for mine, right in zip(device[1:], exact[1:], strict=True):
        assert (mine.cpu() - right).norm() < 1e-5 * right.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tiles_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "COMPILED_FROM", 0)
    x, y = (normal(seed, 500, 20).float().cuda().requires_grad_() for seed in (1, 2))
    u(x, y).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        u(x, y).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
