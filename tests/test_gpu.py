"""On a CUDA device: every pair trains and resumes there, and nothing waits for it between logging points."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import ipmgan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WAYS = ("off", "on", "graph")
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


def assert_no_waiting(trainer: ipmgan.Trainer | ipmgan.Replicates) -> None:
    steps = iter(trainer)
    for _ in range(6):  # Recorded by then.
        next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.stop()
    assert next(steps, "stopped") == "stopped"


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
@pytest.mark.parametrize("way", WAYS[1:])
def test_every_way_gives_the_same_run(
    tmp_path: Path, objective: str, enforcer: str, critic: str | None, way: str
) -> None:
    # Steps that hardly amplify rounding, and no momentum, which a graph would count on the device.
    optimizer = "SGD:lr=0.01"
    chosen = settings(objective, enforcer, critic, generator_optimizer=optimizer, critic_optimizer=optimizer)
    plain = ipmgan.train(out=tmp_path / "plain", **chosen, compile="off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # A step that falls back runs another way.
        other = ipmgan.train(out=tmp_path / "other", **chosen, compile=way)
    assert torch.allclose(plain.sample(100), other.sample(100), atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_images_go_through_convolutions_with_channels_last_and_resume(tmp_path: Path, precision: str) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), dtype=np.uint8))
    chosen = settings("wgan", "clip", "dcgan:nf=8", generator="dcgan:nf=8", batch=16, precision=precision)
    chosen |= {"source": f"tensor:path={tmp_path / 'images.npy'}"}
    whole = ipmgan.train(out=tmp_path / "whole", **chosen, compile="graph")
    ipmgan.train(out=tmp_path / "halves", **{**chosen, "steps": 10}, compile="graph")
    halves = ipmgan.resume(tmp_path / "halves", steps=20)
    assert torch.allclose(whole.sample(16), halves.sample(16), atol=1e-3 if precision == "float32" else 5e-2)


@pytest.mark.parametrize("optimizer", ["Adam:lr=1e-3,eps=1e-3", "RMSprop:lr=1e-3,eps=1e-3", "AdamW:lr=1e-3,eps=1e-3"])
def test_recorded_optimisers_give_the_same_run(tmp_path: Path, optimizer: str) -> None:
    chosen = settings("wgan", "gp", None, generator_optimizer=optimizer, critic_optimizer=optimizer)
    runs = [ipmgan.train(out=tmp_path / way, **chosen, compile=way) for way in WAYS]
    for run in runs[1:]:
        assert torch.allclose(runs[0].sample(100), run.sample(100), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_in_any_way(tmp_path: Path, way: str) -> None:
    chosen = settings("wgan", "gp", None, generator_optimizer="SGD:lr=0.01", critic_optimizer="SGD:lr=0.01")
    whole = ipmgan.train(out=tmp_path / "whole", **chosen, compile="off")
    ipmgan.train(out=tmp_path / "halves", **{**chosen, "steps": 10}, compile="graph")
    config = tmp_path / "halves" / "config.toml"
    config.write_text(config.read_text().replace('compile = "graph"', f'compile = "{way}"'))
    halves = ipmgan.resume(tmp_path / "halves", steps=20)
    assert torch.allclose(whole.sample(100), halves.sample(100), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("objective", "enforcer", "critic"), PAIRS)
def test_nothing_waits_for_the_device_between_logging_points(
    tmp_path: Path, objective: str, enforcer: str, critic: str | None, way: str
) -> None:
    chosen = settings(objective, enforcer, critic, steps=1000, average=0.9, compile=way)
    chosen |= dict.fromkeys(("log_every", "sample_every", "checkpoint_every"), 1000)
    assert_no_waiting(ipmgan.Trainer(out=tmp_path / "run", **chosen))


@pytest.mark.parametrize("enforcer", ["clip", "sphere", "gp"])
@pytest.mark.parametrize("way", WAYS)
def test_replicates_are_the_runs_of_their_seeds(tmp_path: Path, enforcer: str, way: str) -> None:
    optimizer = "SGD:lr=0.01"
    chosen = settings("wgan", enforcer, None, generator_optimizer=optimizer, critic_optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = ipmgan.train(out=tmp_path / "runs", replicates=3, **chosen, compile=way)
    for seed, run in enumerate(runs):
        alone = ipmgan.train(out=tmp_path / str(seed), **chosen, seed=seed, compile="off")
        assert torch.allclose(run.sample(100), alone.sample(100), atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_replicates_wait_for_the_device_at_logging_points_only(tmp_path: Path, way: str) -> None:
    chosen = settings("wgan", "clip", None, steps=1000, compile=way)
    chosen |= dict.fromkeys(("log_every", "sample_every", "checkpoint_every"), 1000)
    assert_no_waiting(ipmgan.Replicates(out=tmp_path / "runs", replicates=3, **chosen))
