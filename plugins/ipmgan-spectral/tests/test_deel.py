"""The layers of deel-torchlip: their weights, their bounds, and whole runs; without the package, its absence."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import ipmgan
import pytest
import torch
from torch import nn

from ipmgan_spectral import Deel
from ipmgan_spectral.deel import library

DOUBLE = torch.float64
there = pytest.mark.skipif(importlib.util.find_spec("deel") is None, reason="needs deel-torchlip")
RING: dict[str, Any] = {
    "objective": "wgan", "source": "ring8", "generator": "mlp:width=16,depth=2", "critic": "mlp:width=16,depth=2",
    "device": "cpu", "batch": 16, "log_every": 2, "n_critic": 2,
}  # fmt: skip


def critic() -> nn.Sequential:
    """Of images 3 x 9 x 9."""
    layers = [nn.Conv2d(3, 6, 5, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 4), nn.Flatten(1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 1), nn.Flatten(0)).double()


def operator_norm(module: nn.Module, *shape: int) -> float:
    jacobian = torch.func.jacrev(lambda x: module(x[None])[0].flatten())(torch.zeros(shape, dtype=DOUBLE))
    return float(torch.linalg.svdvals(jacobian.detach().flatten(1))[0])


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "deel.torchlip", None)
    with pytest.raises(ipmgan.UsageError, match="ipmgan-spectral\\[deel\\]"):
        Deel().prepare(critic())


@there
def test_the_layers_keep_the_weights_and_their_certificate_is_the_svd() -> None:
    module = critic()
    before, drawn = [p.detach().clone() for p in module.parameters()], torch.random.get_rng_state()
    module = Deel(k=8.0).prepare(module)
    assert torch.equal(drawn, torch.random.get_rng_state())
    after = {tuple(p.shape): p for p in module.parameters()}
    assert all(torch.equal(p, after[tuple(p.shape)]) for p in before)
    module.eval()
    image = torch.zeros(1, 3, 9, 9, dtype=DOUBLE)
    certificate = ipmgan.lipschitz_bound(module, shape=(3, 9, 9))
    for layer, factor in zip(module, certificate.factors, strict=True):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            truth = operator_norm(layer, *image.shape[1:])
            assert truth <= 2.05
            assert factor.bound == pytest.approx(truth, rel=1e-9)
        image = layer(image)
    assert module[5].weight.norm() == pytest.approx(2, rel=1e-3)


@there
def test_sorting_replaces_bending_and_loses_nothing() -> None:
    module = Deel(sort=True).prepare(critic())
    assert [type(layer).__name__ for layer in module].count("GroupSort2") == 2
    assert ipmgan.lipschitz_bound(module, shape=(3, 9, 9)).bound <= 1.05
    with pytest.raises(ipmgan.PairingError, match="odd"):
        Deel(sort=True).prepare(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))


@there
@pytest.mark.parametrize("layer", [nn.Conv3d(1, 1, 2), nn.Conv2d(2, 2, 2, groups=2), nn.Conv1d(1, 1, 2, dilation=2)])
def test_layers_that_it_does_not_have_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ipmgan.PairingError, match="no layer like"):
        Deel().prepare(nn.Sequential(layer))


@there
@pytest.mark.parametrize("selection", ["deel", "deel:sort=true,k=2"])
def test_trains_and_resumes_to_the_bit(selection: str, tmp_path: Path) -> None:
    whole = ipmgan.train(lipschitz=selection, steps=6, out=tmp_path / "whole", **RING)
    ipmgan.train(lipschitz=selection, steps=3, out=tmp_path / "parts", **RING)
    parts = ipmgan.resume(tmp_path / "parts", steps=6)
    assert torch.equal(whole.sample(8), parts.sample(8))
    for key in ("critic_loss", "generator_loss", "held_out_estimate", "lipschitz_bound"):
        assert whole.metrics[-1][key] == parts.metrics[-1][key]
    assert whole.metrics[-1]["lipschitz_bound"] <= (2 if "k=2" in selection else 1) * 1.1


@there
def test_replicates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ipmgan.PairingError, match="vectorised"):
        ipmgan.train(lipschitz="deel", steps=4, replicates=2, out=tmp_path / "both", **RING)
