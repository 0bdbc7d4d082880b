"""Every objective and enforcer of this distribution trains on points and on images, and resumes to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipmgan
import pytest
import torch

RING8 = [
    ("least-squares", "none"),
    ("lsgan:a=0,b=1,c=1", "dragan"),
    ("geometric", "r1"),
    ("relativistic-average", "r2"),
    ("ragan:variant=least-squares", "zero-centred:points=noisy"),
    ("ragan:variant=hinge", "one-centred:points=noisy"),
    ("wgan", "zero-centred"),
    ("wgan", "ct-gan"),
]
DIGITS = [
    ("hinge", "0-gp:points=fake"),
    ("ragan", "consistency:gradient=0"),
    ("nonsaturating", "dragan:noise=gaussian"),
    ("least-squares", "r1"),
]
PAIRS = [("ring8", *pair) for pair in RING8] + [("digits", *pair) for pair in DIGITS]


@pytest.mark.parametrize(("source", "objective", "lipschitz"), PAIRS)
def test_trains_and_resumes(source: str, objective: str, lipschitz: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "objective": objective,
        "lipschitz": lipschitz,
        "source": source,
        "generator": "mlp:width=8,depth=1",
        "critic": "mlp:width=8,depth=2",
        "n_critic": 2,
        "device": "cpu",
        "batch": 16,
        "log_every": 2,
        "metrics": ["sliced-wasserstein:directions=4"],
    }
    whole = ipmgan.train(**settings, steps=6, out=tmp_path / "whole")
    ipmgan.train(**settings, steps=3, out=tmp_path / "parts")
    parts = ipmgan.resume(tmp_path / "parts", steps=6)
    assert torch.equal(whole.sample(8), parts.sample(8))
    last = whole.metrics[-1]
    for key in ("critic_loss", "generator_loss", "estimate", "held_out_estimate"):
        assert last[key] == parts.metrics[-1][key]
    assert ("penalty" in last) == (lipschitz != "none")
    assert whole.config == ipmgan.configure(config=whole.path / "config.toml")
