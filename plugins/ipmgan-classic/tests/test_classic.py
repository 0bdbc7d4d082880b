"""The exact optima of least squares and hinge, their orientation, and what this distribution offers and uses."""

from __future__ import annotations

import ast
import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path

import ipmgan
import ipmgan.functional
import pytest
import torch
from torch import Tensor

import ipmgan_classic
from ipmgan_classic import Hinge, LeastSquares

LABELS = [(-1.0, 1.0, 0.0), (0.0, 1.0, 1.0), (-0.5, 2.0, 0.3)]
COUNTS = [torch.tensor([[5, 3, 2], [1, 4, 5]])] + [
    torch.randint(0, 9, (2, 6), generator=torch.Generator().manual_seed(seed)) for seed in range(4)
]


def outputs(table: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What a tabular critic puts out on batches that hold each point as often as the counts say."""
    return table.repeat_interleave(counts[0]), table.repeat_interleave(counts[1])


def laws(counts: Tensor) -> tuple[Tensor, Tensor]:
    p, q = (side.double() / side.sum() for side in counts)
    return p, q


def chi_square(counts: Tensor) -> float:
    """∫ (q - m)² / m, summed point by point."""
    pairs = zip(*(law.tolist() for law in laws(counts)), strict=True)
    return math.fsum((q - (p + q) / 2) ** 2 / ((p + q) / 2) for p, q in pairs if p + q)


def total_variation(counts: Tensor) -> float:
    """The largest P(A) - Q(A) over all sets A of points."""
    p, q = laws(counts)
    sets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * len(p))
    return float((sets @ (p - q)).max())


def least_squares_optimum(counts: Tensor, a: float, b: float) -> Tensor:
    p, q = laws(counts)
    return torch.where(p + q > 0, (b * p + a * q) / (p + q), 0)


def hinge_optimum(counts: Tensor) -> Tensor:
    p, q = laws(counts)
    return torch.where(p > q, 1.0, -1.0).double()


def assert_minimum(loss: Callable[[Tensor], Tensor], table: Tensor, seed: int) -> None:
    """No random change of the table, small or large, lowers the loss."""
    generator = torch.Generator().manual_seed(seed)
    best = loss(table)
    for scale in (1e-3, 1e-1, 1.0, 10.0):
        for _ in range(20):
            noise = torch.randn(len(table), generator=generator, dtype=torch.float64)
            assert loss(table + scale * noise) >= best - 1e-12


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(("a", "b", "c"), LABELS)
def test_best_least_squares_critic_reads_chi_square(counts: Tensor, a: float, b: float, c: float) -> None:
    objective = LeastSquares(a=a, b=b, c=c)
    table = least_squares_optimum(counts, a, b)
    assert_minimum(lambda t: objective.critic_loss(*outputs(t, counts)), table, seed=1)
    assert float(objective.estimate(*outputs(table, counts))) == pytest.approx(chi_square(counts), abs=1e-12)
    assert float(objective.critic_loss(*outputs(table, counts))) == pytest.approx(
        (b - a) ** 2 * (1 - chi_square(counts)) / 4, abs=1e-12
    )


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_default_labels_make_the_generator_descend_chi_square(counts: Tensor) -> None:
    objective = LeastSquares()
    real, fake = outputs(least_squares_optimum(counts, objective.a, objective.b), counts)
    both = objective.generator_loss(real, fake) + objective.generator_loss(real, real)
    assert float(both) == pytest.approx(chi_square(counts), abs=1e-12)


def test_other_labels_give_the_generator_no_chi_square() -> None:
    """With equal laws it would be 0; with labels 0, 1, 1 it is ½·¼ + ½·¼."""
    counts, objective = torch.tensor([[5, 3, 2], [5, 3, 2]]), LeastSquares(a=0.0, b=1.0, c=1.0)
    real, fake = outputs(least_squares_optimum(counts, 0.0, 1.0), counts)
    both = objective.generator_loss(real, fake) + objective.generator_loss(real, real)
    assert float(both) == pytest.approx(0.25, abs=1e-15)


def test_known_values() -> None:
    """On p = (.5, .3, .2), q = (.1, .4, .5): χ² = ½(.16/.6 + .01/.7 + .09/.7) = 43/210, TV = .4, L_D = 1.2."""
    counts = COUNTS[0]
    assert chi_square(counts) == pytest.approx(43 / 210, abs=1e-15)
    assert total_variation(counts) == pytest.approx(0.4, abs=1e-15)
    hinge = outputs(hinge_optimum(counts), counts)
    assert float(Hinge().critic_loss(*hinge)) == pytest.approx(1.2, abs=1e-15)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_best_hinge_critic_reads_total_variation(counts: Tensor) -> None:
    objective, table = Hinge(), hinge_optimum(counts)
    real, fake = outputs(table, counts)
    assert_minimum(lambda t: objective.critic_loss(*outputs(t, counts)), table, seed=2)
    assert float(objective.estimate(real, fake)) == pytest.approx(total_variation(counts), abs=1e-12)
    constant = real.mean()
    assert float(objective.generator_loss(real, fake) + constant) == pytest.approx(
        2 * total_variation(counts), abs=1e-12
    )


def test_hinge_is_on_each_sample() -> None:
    real, fake = torch.tensor([3.0, -1.0]), torch.tensor([-3.0, -3.0])
    assert float(Hinge().critic_loss(real, fake)) == 1.0
    assert float((1 - real.mean()).relu() + (1 + fake.mean()).relu()) == 0.0


@pytest.mark.parametrize("objective", [LeastSquares(), LeastSquares(a=0.0, c=1.0), Hinge()], ids=str)
def test_orientation(objective: ipmgan.Objective) -> None:
    """From a critic that knows nothing, real samples go up and fakes down; the generator raises its samples."""
    start = (objective.a + objective.b) / 2 if isinstance(objective, LeastSquares) else 0.0
    real = torch.full((4,), start, requires_grad=True)
    fake = torch.full((4,), start, requires_grad=True)
    torch.autograd.backward(objective.critic_loss(real, fake))
    assert real.grad is not None
    assert (real.grad < 0).all()
    assert fake.grad is not None
    assert (fake.grad > 0).all()
    low = torch.full((4,), -0.9, requires_grad=True)
    torch.autograd.backward(objective.generator_loss(torch.empty(0), low))
    assert low.grad is not None
    assert (low.grad < 0).all()


@pytest.mark.parametrize("labels", [{"a": 1.0, "b": 1.0}, {"a": 2.0}, {"c": -1.0}, {"b": float("nan")}])
def test_labels_the_wrong_way_round_are_refused(labels: dict[str, float]) -> None:
    with pytest.raises(ipmgan.UsageError):
        LeastSquares(**labels)


def test_offered_by_this_distribution_with_page_and_citation() -> None:
    points = importlib.metadata.entry_points(group="ipmgan", name="classic")
    registry = ipmgan.Registry(points)
    assert registry.broken == []
    plugins: list[type[ipmgan.Plugin]] = [*ipmgan_classic.ipmgan_objectives(), *ipmgan_classic.ipmgan_lipschitz()]
    assert len(plugins) == 9
    for plugin in plugins:
        for name in (plugin.name, *plugin.aliases):
            entry = registry.find(plugin.kind, name)
            assert (entry.plugin, entry.distribution) == (plugin, "ipmgan-classic")
        assert (plugin.__doc__ or "").splitlines()[0].endswith(".")
        assert plugin.references[0].bibtex().startswith("@")
        assert plugin() == plugin()


def test_geometric_is_the_hinge() -> None:
    points = importlib.metadata.entry_points(group="ipmgan", name="classic")
    assert ipmgan.Registry(points).find("objective", "geometric").plugin is Hinge


def test_uses_public_names_only() -> None:
    files = sorted(Path(ipmgan_classic.__file__).parent.glob("*.py"))
    imports = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert "ipmgan" in modules
    assert not [module for module in modules if module.startswith("ipmgan.") and module != "ipmgan.functional"]
    functional = {
        alias.name
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module == "ipmgan.functional"
    }
    assert functional <= set(ipmgan.functional.__all__)
