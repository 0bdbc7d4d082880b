"""The mended theorem 3.3: its constants, that it holds with the true JSD, what a trained discriminator makes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import ipmgan
from ipmgan.cli.app import app
from ipmgan.engine.checkpoint import load_latest
from ipmgan.errors import UsageError
from ipmgan.evaluation.bound import Bounder, ball, bound
from ipmgan.functional import gaussian_js, gaussian_w1, js, noise_bound, spread

LOG2 = math.log(2)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def right(variance: float, radius: float, jsd: float) -> float:
    return float(noise_bound(number(variance), number(radius), number(jsd)))


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mended_theorem_and_the_printed_one() -> None:
    """The points ±1 with noise from U(-.05, .05): W1 = 2, and the noised laws do not overlap."""
    variance = 0.05**2 / 3
    assert right(variance, 1.05, LOG2) == pytest.approx(2.5302961, abs=5e-8)
    printed = 2 * math.sqrt(variance) + 2 * 1.05 * math.sqrt(LOG2)
    assert printed == pytest.approx(1.8060997, abs=5e-8)
    assert printed < 2 < right(variance, math.sqrt(1 + variance), LOG2) < right(variance, 1.05, LOG2)


def test_jsd_is_held_between_0_and_log_2() -> None:
    assert right(1.0, 3.0, -0.1) == 2.0
    assert right(0.0, 1.0, 5.0) == right(0.0, 1.0, LOG2) == pytest.approx(2 * math.sqrt(2 * LOG2))


def test_spread_is_least_at_the_common_centre_and_within_the_ball() -> None:
    x, y = uniform(0, 50, 3), 2 * uniform(1, 20, 3) - 1
    at = [math.sqrt(sum(float((s - c).square().sum(1).mean()) for s in (x, y)) / 2) for c in uniform(2, 200, 3)]
    assert float(spread(x, y)) < min(at)
    assert float(spread(x, y)) <= ball(x, y, None)[0]
    with pytest.raises(UsageError, match="must be"):
        spread(x, y[:, :2])


@pytest.mark.parametrize("seed", range(20))
def test_it_holds_on_discrete_laws_without_noise(seed: int) -> None:
    """W1 on the line is the integral of the distance of the distribution functions."""
    points = 4 * uniform(seed, 7) - 2
    points = points.sort().values
    p, q = (side / side.sum() for side in uniform(seed + 100, 2, 7) ** (1 + seed % 4 * 3))
    w1 = float(((p - q).cumsum(0).abs()[:-1] * points.diff()).sum())
    divergence = float(js(p, q))
    centre = float((points * (p + q) / 2).sum())
    moments = math.sqrt(float((p + q) @ (points - centre).square()) / 2)
    radius = float(points[-1] - points[0]) / 2
    assert w1 <= right(0, moments, divergence) <= right(0, radius, divergence) * (1 + 1e-12)
    triangular = float(((p - q).square() / (p + q)).sum())
    assert triangular <= 4 * divergence
    assert w1 <= math.sqrt(2) * moments * math.sqrt(triangular) + 1e-12


def test_it_holds_on_gaussians_with_the_true_divergence() -> None:
    drawn = uniform(7, 500, 4)
    means, stds = 4 * drawn[:, :2] - 2, 0.05 + 2 * drawn[:, 2:]
    w1 = gaussian_w1(means[:, 0], stds[:, 0], means[:, 1], stds[:, 1])
    tightest = torch.full_like(w1, math.inf)
    for sd in (0.01, 0.1, 0.5, 1.0, 3.0):
        noised = (stds.square() + sd**2).sqrt()
        divergence = gaussian_js(means[:, 0], noised[:, 0], means[:, 1], noised[:, 1])
        centre = means.mean(1, keepdim=True)
        moments = ((means - centre).square() + noised.square()).mean(1).sqrt()
        bounds = noise_bound(torch.full_like(w1, sd**2), moments, divergence)
        assert (w1 <= bounds).all()
        tightest = torch.minimum(tightest, bounds)
    assert (tightest < 10 * w1).double().mean() > 0.5


def test_a_ball_is_that_of_the_box_where_all_lies_in_it() -> None:
    inside = 2 * uniform(0, 30, 4) - 1
    assert ball(inside, inside, (-1.0, 1.0)) == (2.0, True)
    radius, proven = ball(inside, 3 * inside, (-1.0, 1.0))
    assert not proven
    assert radius >= float(torch.linalg.vector_norm(3 * (inside - inside.roll(1, 0)), dim=1).max()) / 2


QUICK: dict[str, Any] = {"generator": "mlp:depth=0", "latent": "normal:dim=1", "device": "cpu", "steps": 1}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the line, N(2, 1), whose generator is affine: its law is N(b, w²)."""
    path = tmp_path_factory.mktemp("bound") / "run"
    ipmgan.train(
        objective="nonsaturating", source="gaussian:mean=[2.0]", critic="mlp:width=8", batch=256, out=path, **QUICK
    )
    return path


def generated(path: Path) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the generator's law."""
    snapshot = load_latest(path / "checkpoints")
    assert snapshot is not None
    return snapshot.tensors["generator.0.bias"][0].double(), snapshot.tensors["generator.0.weight"].abs()[0, 0].double()


def test_what_a_trained_discriminator_makes_of_it(line: Path) -> None:
    """Its JSD is a lower bound, near the truth where it is well trained and far below where not; W1 is below the true
    right-hand side, and below the one for certain."""
    mean, std = generated(line)
    real = number(2.0), number(1.0)
    w1 = float(gaussian_w1(*real, mean, std))
    good = {"critic": "mlp:width=64,depth=2", "critic_optimizer": "Adam:lr=2e-3"}
    found = bound(line, sds=(0.5, 1.0, 2.0), law="gaussian", steps=250, device="cpu", **good)
    for row in found.rows:
        noised = [torch.hypot(s, number(row.sd)) for s in (real[1], std)]
        true = float(gaussian_js(real[0], noised[0], mean, noised[1]))
        assert 0.85 * true - 3 * row.jsd_error < row.jsd < true + 3 * row.jsd_error
        moments = math.sqrt(found.spread**2 + row.variance)
        assert row.by_moments == pytest.approx(right(row.variance, moments, row.jsd))
        assert w1 < right(row.variance, moments, true) * 1.05
        assert w1 < row.certified_by_moments
        assert row.by_ball == row.certified_by_ball == math.inf
        assert row.variance == row.sd**2
    centre = (2 + float(mean)) / 2
    exact = math.sqrt(((2 - centre) ** 2 + 1 + (float(mean) - centre) ** 2 + float(std) ** 2) / 2)
    assert found.spread == pytest.approx(exact, rel=0.05)
    assert found.best.by_moments == min(row.by_moments for row in found.rows)
    untrained = bound(line, sds=(0.5,), law="gaussian", steps=1, device="cpu")
    assert untrained.best.by_moments < w1 < untrained.certified == right(0, untrained.spread, LOG2)
    assert "below the true right-hand side" in untrained.notes[0]


def test_uniform_noise_lies_in_a_ball(line: Path) -> None:
    bounder = Bounder(line, steps=1, samples=100, device="cpu", critic="mlp:width=4")
    assert len(bounder) == 6
    row = next(iter(bounder))
    found = bounder.bound()
    assert row.by_ball == pytest.approx(right(row.variance, found.ball + math.sqrt(3) * row.sd, row.jsd))
    assert row.certified_by_ball > row.certified_by_moments
    assert not found.ball_is_proven
    assert "the ball is that of the samples" in found.notes[-1]
    assert math.sqrt(row.variance) == pytest.approx(0.05 * found.spread)


def test_noise_really_is_added_and_the_seed_decides(line: Path) -> None:
    """Much noise hides the difference, on the same draws otherwise."""
    settings: dict[str, Any] = {"steps": 60, "samples": 100, "critic_optimizer": "Adam:lr=1e-2", "device": "cpu"}
    rows = bound(line, sds=(0.1, 30.0), **settings).rows
    assert rows[0].jsd > 0.1 > abs(rows[1].jsd)
    assert bound(line, sds=(0.1, 30.0), **settings).rows == rows
    assert bound(line, sds=(0.1,), seed=1, **settings).rows[0] != rows[0]


def test_command(line: Path, tmp_path: Path) -> None:
    picture = tmp_path / "bound.png"
    options = ["--sd", "0.3", "--sd", "0.6", "--steps", "2", "--samples", "50", "--device", "cpu"]
    result = CliRunner().invoke(app, ["bound", str(line), *options, "--json", "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    assert [row["sd"] for row in table["rows"]] == [0.3, 0.6]
    assert table["law"] == "uniform"
    assert table["best_sd"] in (0.3, 0.6)
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = CliRunner().invoke(app, ["bound", str(line), *options, "--law", "gaussian"])
    assert "for certain" in printed.stdout
    assert "note: Gaussian noise lies in no ball" in printed.stdout


def test_nothing_is_bounded_before_it_is_computed(line: Path) -> None:
    with pytest.raises(UsageError, match="iterate"):
        Bounder(line, device="cpu").bound()
    with pytest.raises(UsageError, match="sds"):
        Bounder(line, sds=(0.0,), device="cpu")
