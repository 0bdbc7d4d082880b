"""On a CUDA device: every pair trains and resumes there, and nothing waits for it between logging points."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ipmgan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

PAIRS = [
    ("wgan", "clip", None),
    ("wgan", "sphere", None),
    ("wgan", "gp", None),
    ("minimax", "none", None),
    ("nonsaturating", "gp", None),
    ("ebgan", "none", None),
    ("mmd", "none", None),
    ("mmd", "clip", "mlp"),
]


def settings(objective: str, enforcer: str, critic: str | None, **more: object) -> dict[str, object]:
    common = {"source": "ring8", "generator": "mlp:width=32", "device": "cuda", "log_every": 10, "checkpoint_every": 10}
    return {"objective": objective, "lipschitz": enforcer, "critic": critic, "steps": 20, **common, **more}


@pytest.mark.parametrize(("objective", "enforcer", "critic"), PAIRS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_run_on_the_gpu_is_what_its_two_halves_are(
    tmp_path: Path, objective: str, enforcer: str, critic: str | None, precision: str
) -> None:
    chosen = settings(objective, enforcer, critic, precision=precision, average=0.9)
    whole = ipmgan.train(out=tmp_path / "whole", **chosen)
    ipmgan.train(out=tmp_path / "halves", **{**chosen, "steps": 10})
    halves = ipmgan.resume(tmp_path / "halves", steps=20)
    assert torch.allclose(whole.sample(100), halves.sample(100), atol=1e-5)


@pytest.mark.parametrize(("objective", "enforcer", "critic"), PAIRS)
def test_nothing_waits_for_the_device_between_logging_points(
    tmp_path: Path, objective: str, enforcer: str, critic: str | None
) -> None:
    chosen = settings(
        objective, enforcer, critic, steps=1000, average=0.9, log_every=1000, sample_every=1000, checkpoint_every=1000
    )
    trainer = ipmgan.Trainer(out=tmp_path / "run", **chosen)
    steps = iter(trainer)
    for _ in range(3):
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.stop()
    assert next(steps, "stopped") == "stopped"
