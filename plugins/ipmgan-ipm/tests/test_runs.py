"""All of the distribution in runs: trains, resumes to the bit, runs for several seeds, compiles; and is offered."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipmgan
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ipmgan_ipm
from ipmgan_ipm import CovarianceMatching, Cramer, Dudley, Fisher, MeanMatching

PAIRS = [
    ("fisher:rho=0.5", "none", None),
    ("wgan", "sobolev:rho=0.5", None),
    ("cramer", "none", None),
    ("cramer", "cramer-gp", "mlp:width=8,depth=1,features=4"),
    ("cramer:surrogate=false", "clip", "mlp:width=8,depth=1,features=4"),
    ("mean-matching:norm=l1", "clip", None),
    ("covariance-matching:k=2", "sphere", None),
    ("dudley", "gp", None),
    ("fisher", "sobolev", None),
]
FEATURES = (Cramer(), Cramer(surrogate=False), MeanMatching(norm="linf"), CovarianceMatching(k=2))


def small(pair: tuple[str, str, str | None], source: str = "ring8") -> dict[str, Any]:
    objective, lipschitz, critic = pair
    given = critic if objective.startswith("cramer") else "mlp:width=8,depth=1"
    return {
        "objective": objective,
        "lipschitz": lipschitz,
        "critic": given,
        "source": source,
        "generator": "mlp:width=8,depth=1",
        "device": "cpu",
        "batch": 16,
        "log_every": 2,
        "compile": "off",
    }


def kept(run: ipmgan.Run) -> dict[str, Tensor]:
    """All tensors of the last checkpoint."""
    (*_, last) = sorted((run.path / "checkpoints").glob("*/state.safetensors"), key=lambda path: int(path.parent.name))
    return load_file(last)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Weights and multipliers agree, but for the critic's last bias.

    Where only differences of outputs count its gradient is rounding, which adaptive optimisers blow up.
    """
    parts = ("generator.", "critic.", "objective_", "enforcer_")
    for name, tensor in expected.items():
        if name.startswith(parts) and name != "critic.2.bias":
            assert torch.allclose(found[name], tensor, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_trains_and_resumes_to_the_bit(pair: tuple[str, str, str | None], tmp_path: Path) -> None:
    whole = ipmgan.train(steps=6, out=tmp_path / "whole", **small(pair))
    ipmgan.train(steps=3, out=tmp_path / "parts", **small(pair))
    parts = ipmgan.resume(tmp_path / "parts", steps=6)
    first, second = kept(whole), kept(parts)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    multipliers = [float(tensor) for name, tensor in first.items() if name.endswith("_state.multiplier")]
    stateful = [part for part in pair[:2] if part.startswith(("fisher", "sobolev"))]
    assert len(multipliers) == len(stateful)
    assert all(multipliers), "a multiplier that never moves would resume whatever is saved"
    assert whole.metrics[-1]["held_out_estimate"] == parts.metrics[-1]["held_out_estimate"]


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_trains_on_images(pair: tuple[str, str, str | None], tmp_path: Path) -> None:
    run = ipmgan.train(steps=2, out=tmp_path / "run", **small(pair, "digits"))
    assert math.isfinite(run.metrics[-1]["held_out_estimate"])


def test_a_lost_multiplier_would_be_seen() -> None:
    """The critic's gradient depends on λ, so that resuming without it ends elsewhere."""
    real = torch.ones(4, requires_grad=True)
    slopes = []
    for start in (0.0, 0.3):
        loss, _ = Fisher().critic_loss_and_state(real, -real, {"multiplier": torch.tensor(start)})
        slopes.append(torch.autograd.grad(loss, real)[0])
    assert not torch.allclose(slopes[0], slopes[1])


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_replicates_are_the_runs_of_their_seeds(pair: tuple[str, str, str | None], tmp_path: Path) -> None:
    settings = small(pair)
    runs = ipmgan.train(steps=4, replicates=2, seed=3, out=tmp_path / "both", **settings)
    alone = ipmgan.train(steps=4, seed=4, out=tmp_path / "alone", **settings)
    found, expected = kept(runs[1]), kept(alone)
    assert_close(found, expected)


def features_or_scores(objective: ipmgan.Objective, seed: int) -> Tensor:
    shape = (8, 3) if isinstance(objective, Cramer | MeanMatching | CovarianceMatching) else (8,)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("objective", [Fisher(rho=0.5), Dudley(), *FEATURES], ids=str)
def test_compiles_and_vectorises(objective: ipmgan.Objective) -> None:
    """As one graph, and for a stack of batches, with the values of plain code."""

    def step(real: Tensor, fake: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss, after = objective.critic_loss_and_state(real, fake, state)
        return loss + objective.generator_loss(real, fake) * 2, after

    def check(function: Callable[..., Any]) -> None:
        (loss, after), (again, expected) = function(real, fake, state), step(real, fake, state)
        assert torch.allclose(loss, again, atol=1e-6)
        assert all(torch.allclose(after[name], expected[name]) for name in expected)

    real, fake = features_or_scores(objective, 1), features_or_scores(objective, 2)
    state = objective.state()
    check(torch.compile(step, fullgraph=True, backend="eager"))
    check(lambda *given: torch.func.vmap(lambda r, f: step(r, f, given[2]))(given[0][None], given[1][None]))


@pytest.mark.slow
@pytest.mark.parametrize("pair", [PAIRS[0], PAIRS[1], PAIRS[3], PAIRS[6], PAIRS[7]], ids=str)
def test_trains_compiled(pair: tuple[str, str, str | None], tmp_path: Path) -> None:
    settings = small(pair) | {"steps": 4}
    plain = ipmgan.train(out=tmp_path / "plain", **settings)
    compiled = ipmgan.train(out=tmp_path / "compiled", **settings | {"compile": "on"})
    found, expected = kept(compiled), kept(plain)
    assert_close(found, expected)


def test_fisher_learns_the_ring(tmp_path: Path) -> None:
    """The estimate on held-out data falls, and so does a distance that training does not know."""
    run = ipmgan.train(
        objective="fisher:rho=0.01",
        source="ring8",
        n_critic=5,
        generator="mlp:width=64,depth=2",
        critic="mlp:width=64,depth=2",
        device="cpu",
        steps=200,
        log_every=100,
        sample_every=50,
        compile="off",
        out=tmp_path / "run",
    )
    assert run.metrics[-1]["held_out_estimate"] < 2
    far = [line["sliced-wasserstein"] for line in run.metrics if "sliced-wasserstein" in line]
    assert far[-1] < 0.6 * far[0]


def test_offered_by_this_distribution_with_page_and_citation() -> None:
    points = importlib.metadata.entry_points(group="ipmgan", name="ipm")
    registry = ipmgan.Registry(points)
    assert registry.broken == []
    for plugin in (*ipmgan_ipm.ipmgan_objectives(), *ipmgan_ipm.ipmgan_lipschitz()):
        entry = registry.find(plugin.kind, plugin.name)
        assert entry.distribution == "ipmgan-ipm"
        assert plugin.references[0].bibtex().startswith("@")


def test_uses_public_names_only() -> None:
    files = sorted(Path(ipmgan_ipm.__file__).parent.glob("*.py"))
    imports = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    assert "ipmgan" in modules
    assert {module for module in modules if module.startswith("ipmgan.")} <= {"ipmgan.functional"}


@pytest.mark.parametrize("plugin", ipmgan_ipm.ipmgan_objectives(), ids=lambda plugin: plugin.name)
def test_an_objective_is_under_forty_lines(plugin: type[ipmgan.Objective]) -> None:
    """Of code: without its docstring and blank lines."""
    source = Path(inspect.getfile(plugin)).read_text(encoding="utf-8")
    (found,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = source.splitlines()
    body = [line for node in found.body[1:] for line in lines[node.lineno - 1 : node.end_lineno] if line.strip()]
    assert len(body) < 40
