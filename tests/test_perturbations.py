"""Perturbations: the laws of the noise, what it does to distances, and its way through a run."""

from __future__ import annotations

import itertools
import json
import math
import sys
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

import ipmgan
from ipmgan import Minimax, Noise, NoPerturbation, PluginError, Registry, Trainer, UsageError, hookimpl
from ipmgan.cli.app import main
from ipmgan.config import configure, from_table, read_toml, resolve
from ipmgan.engine.state import capture
from ipmgan.functional import wasserstein_1d
from ipmgan.perturbations import Perturbation

TINY: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "clip",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "latent": "normal:dim=2",
    "batch": 16,
    "n_critic": 2,
    "steps": 6,
    "device": "cpu",
    "log_every": 2,
    "held_out_batches": 1,
    "metrics": [],
}
LAWS = ("gaussian", "uniform")
ANNEALING = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
}
RATES = ("steps_per_second", "samples_per_second")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the laws --------------------------------------------------------------------------------------------------------


def test_none_shows_the_samples_themselves() -> None:
    samples = torch.randn(5, 2, generator=seeded())
    drawn = NoPerturbation().draw((5, 2), seeded(), done=0.5)
    assert drawn is None
    assert NoPerturbation().perturb(samples, drawn) is samples


@pytest.mark.parametrize(("law", "kurtosis"), [("gaussian", 3.0), ("uniform", 1.8)])
@pytest.mark.parametrize("sd", [0.3, 2.0])
def test_both_laws_have_the_standard_deviation_that_is_asked_for(law: str, kurtosis: float, sd: float) -> None:
    """Moments of 400,000 draws within six of their standard errors: a false alarm in some 10^8 runs."""
    n = 400_000
    drawn = Noise(sd=sd, law=law, anneal="constant").draw((n // 4, 2, 2), seeded(1), done=0.7)
    assert drawn.shape == (n // 4, 2, 2)
    e = drawn.double().flatten() / sd
    assert abs(e.mean()) < 6 / math.sqrt(n)
    assert abs(e.square().mean() - 1) < 6 * math.sqrt((kurtosis - 1) / n)
    assert abs(e.pow(4).mean() - kurtosis) < 6 * math.sqrt(100 / n)
    flat = drawn.view(-1, 4).double() / sd
    correlations = (flat.T @ flat / len(flat)).fill_diagonal_(0)
    assert correlations.abs().max() < 6 / math.sqrt(len(flat))
    if law == "uniform":
        assert 0.999 * math.sqrt(3) < e.abs().max() <= math.sqrt(3) * (1 + 1e-6)
    # The uniform law on [-sd, sd] itself, an easy slip, has a third of the variance.
    assert abs(1 / 3 - 1) > 100 * math.sqrt((kurtosis - 1) / n)


@pytest.mark.parametrize(("law", "anneal"), list(itertools.product(LAWS, ANNEALING)))
def test_annealing_scales_one_and_the_same_draw(law: str, anneal: str) -> None:
    start = Noise(sd=0.7, law=law, anneal=anneal).draw((50, 3), seeded(2), done=0.0)
    assert start.std() > 0.5
    for done in (0.0, 0.25, 0.5, 0.9, 1.0):
        noise = Noise(sd=0.7, law=law, anneal=anneal)
        assert noise.strength(done) == pytest.approx(0.7 * ANNEALING[anneal](done), abs=1e-15)
        torch.testing.assert_close(noise.draw((50, 3), seeded(2), done=done), start * ANNEALING[anneal](done))


@pytest.mark.parametrize(("law", "anneal"), list(itertools.product(LAWS, ("linear", "cosine"))))
def test_nothing_is_left_of_annealed_noise_at_the_end(law: str, anneal: str) -> None:
    noise = Noise(sd=3.0, law=law, anneal=anneal)
    samples = torch.randn(20, 2, generator=seeded(3))
    assert torch.equal(noise.perturb(samples, noise.draw((20, 2), seeded(), done=1.0)), samples)
    assert noise.strength(0.999) > 0


@pytest.mark.parametrize("law", LAWS)
def test_draws_come_from_the_generator_alone(law: str) -> None:
    noise = Noise(law=law)
    before = torch.random.get_rng_state()
    first, same, other = (noise.draw((9, 2), seeded(seed), done=0.2) for seed in (4, 4, 5))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_pass_and_inputs_stay(dtype: torch.dtype) -> None:
    noise = Noise()
    samples = torch.randn(6, 3, dtype=dtype, generator=seeded(6)).requires_grad_()
    kept = samples.detach().clone()
    drawn = noise.draw((6, 3), seeded(7), done=0.0)
    kept_drawn = drawn.clone()
    perturbed = noise.perturb(samples, drawn)
    assert perturbed.dtype == dtype
    torch.testing.assert_close(perturbed.detach(), kept + kept_drawn)
    weight = torch.arange(18, dtype=dtype).view(6, 3)
    (gradient,) = torch.autograd.grad((weight * perturbed).sum(), samples)
    assert torch.equal(gradient, weight)
    assert torch.equal(samples.detach(), kept)
    assert torch.equal(drawn, kept_drawn)


def test_perturbing_maps_over_a_stack() -> None:
    noise = Noise()
    samples, drawn = torch.randn(3, 4, 2, generator=seeded()), noise.draw((3, 4, 2), seeded(1), done=0.0)
    assert torch.equal(torch.func.vmap(noise.perturb)(samples, drawn), samples + drawn)


# --- what it does to distances ---------------------------------------------------------------------------------------


def density(x: Tensor, at: float, sd: float) -> Tensor:
    return torch.exp(-(((x - at) / sd) ** 2) / 2) / (sd * math.sqrt(2 * math.pi))


def js_of_blurred_points(apart: float, sd: float) -> float:
    """The Jensen-Shannon divergence of N(0, sd^2) and N(apart, sd^2) by quadrature, in nats."""
    x = torch.linspace(-10 * sd, apart + 10 * sd, 200_001, dtype=torch.float64)
    p, q = density(x, 0, sd), density(x, apart, sd)
    integrand = (torch.xlogy(p, 2 * p / (p + q)) + torch.xlogy(q, 2 * q / (p + q))) / 2
    return float(torch.trapezoid(integrand, x))


def test_points_apart_have_a_divergence_with_a_slope_once_blurred() -> None:
    """Two points: JSD = log 2 wherever they lie, and by the best critic of noisy samples that of two normal laws.

    Within six standard errors of 200,000 samples: a false alarm in some 10^8 runs.
    """
    n, sd = 200_000, 0.5
    noise = Noise(sd=sd, anneal="constant")
    values = []
    for apart in (1.0, 1.2):
        real = noise.perturb(torch.zeros(n, 1, dtype=torch.float64), noise.draw((n, 1), seeded(8), done=0.0))
        fake = noise.perturb(torch.full_like(real, apart), noise.draw((n, 1), seeded(9), done=0.0))
        on_real, on_fake = ((apart**2 / 2 - apart * x) / sd**2 for x in (real, fake))  # log p/q
        values.append(float(Minimax().estimate(on_real, on_fake)))
        assert abs(values[-1] - js_of_blurred_points(apart, sd)) < 6 / math.sqrt(n)
        assert values[-1] < 0.9 * math.log(2)
    assert values[1] - values[0] > 0.05


def test_the_bounds_of_the_page_hold_for_points_under_uniform_noise() -> None:
    """Two points D apart, each blurred over an interval of half-width b: all four numbers in closed form."""
    sd = 0.4
    b = math.sqrt(3) * sd
    for apart in (0.01, 0.3, 1.0, 5.0):
        js = math.log(2) * min(apart / (2 * b), 1)
        width = apart + 2 * b
        assert apart <= 2 * sd + 2 * width * math.sqrt(js)
    assert 2 * sd < apart  # Without its second term the bound would be wrong.


@pytest.mark.parametrize("law", LAWS)
def test_blurring_brings_laws_nearer_and_not_too_near(law: str) -> None:
    """W1 of half 0 and half 3 from half 1 and half 2 is 1. By quantiles of 100,000 draws a point, to 0.01."""
    n, sd = 100_000, 1.0
    noise = Noise(sd=sd, law=law, anneal="constant")
    ends, middle = ([float(at) for at in pair] for pair in ((0, 3), (1, 2)))
    blurred = []
    for seed, points in enumerate((ends, middle)):
        samples = torch.tensor(points, dtype=torch.float64).repeat(n)
        blurred.append(noise.perturb(samples, noise.draw((2 * n,), seeded(seed), done=0.0)))
    assert float(wasserstein_1d(torch.tensor(ends), torch.tensor(middle))) == 1.0
    distance = float(wasserstein_1d(*blurred))
    x = torch.linspace(-10, 13, 100_001, dtype=torch.float64)
    below = (lambda z: (z / math.sqrt(12) + 0.5).clamp(0, 1)) if law == "uniform" else torch.special.ndtr
    gap = sum(below((x - at) / sd) for at in ends) / 2 - sum(below((x - at) / sd) for at in middle) / 2
    assert distance == pytest.approx(float(torch.trapezoid(gap.abs(), x)), abs=0.01)
    assert 1 - 2 * sd < distance < 0.95


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("nois", "did you mean 'noise'"),
        ("noise:sd=0", "sd = 0.0: must be above 0"),
        ("noise:sd=nan", "sd"),
        ("noise:law=normal", "no law 'normal'"),
        ("noise:anneal=linaer", "did you mean 'linear'"),
        ("noise:std=1", "did you mean 'sd'"),
        ("none:sd=1", "no option of perturbation none named 'sd'"),
        (3, "perturbation = 3: must be name:key=value"),
    ],
)
def test_what_cannot_be_is_refused(selection: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(**TINY, perturbation=selection)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@attrs.frozen(kw_only=True)
class Unregistered(Perturbation):
    name = "noise"

    def perturb(self, samples: Tensor, drawn: Tensor | None) -> Tensor:
        return samples


def test_another_class_under_the_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = attrs.evolve(configure(**TINY), perturbation=Unregistered())
    with pytest.raises(PluginError, match="the perturbation 'noise' is Noise of ipmgan, not Unregistered"):
        Trainer(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- its way through a run -------------------------------------------------------------------------------------------


def test_the_hook_has_its_own_kind() -> None:
    found = Registry().entries("perturbation")
    assert [entry.plugin for entry in found] == [Noise, NoPerturbation]

    class Offers:
        @hookimpl
        def ipmgan_perturbations(self) -> list[type[Perturbation]]:
            return [Unregistered]

    @attrs.frozen(eq=False)
    class Point:
        dist: Any = None
        name: str = "all"
        module: str = "others"

        def load(self) -> Offers:
            return Offers()

    point: Any = Point()
    (broken,) = Registry([point]).broken
    assert broken.error == "PluginError: the perturbation name 'noise' belongs to ipmgan itself"


def test_a_configuration_has_none_unless_told() -> None:
    config = configure(**TINY)
    assert config.perturbation == NoPerturbation()
    assert config.table()["perturbation"] == {"name": "none"}
    assert config.perturbation in config.plugins


@pytest.mark.parametrize("given", ["noise:sd=0.5,law=uniform", Noise(sd=0.5, law="uniform")])
def test_a_perturbation_comes_back_from_its_file(tmp_path: Path, given: Any) -> None:
    config = configure(**TINY, perturbation=given)
    assert config.perturbation == Noise(sd=0.5, law="uniform", anneal="linear")
    file = tmp_path / "config.toml"
    file.write_text(config.toml())
    table = {"name": "noise", "sd": 0.5, "law": "uniform", "anneal": "linear"}
    assert tomllib.loads(file.read_text())["perturbation"] == table
    assert resolve(read_toml(file)) == from_table(read_toml(file)) == config


def test_files_from_before_there_were_perturbations_load() -> None:
    now = configure(**TINY)
    before = {key: value for key, value in now.table().items() if key not in ("perturbation", "tracker")}
    assert from_table(before) == resolve(before) == now


def lines(run: ipmgan.Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in RATES} for line in run.metrics]


@pytest.mark.parametrize("objective", ["wgan", "mmd"])
def test_a_noisy_run_is_another_one_and_resumes_to_the_bit(tmp_path: Path, objective: str) -> None:
    settings = TINY | {"objective": objective, "perturbation": "noise:sd=0.5,anneal=cosine"}
    if objective == "mmd":
        settings |= {"lipschitz": "none", "critic": "none"}
    whole = Trainer(out=tmp_path / "whole", **settings)
    whole.train()
    half = Trainer(out=tmp_path / "half", **settings)
    for _ in half:
        if half.step == 3:
            half.stop()
    resumed = Trainer.resume(tmp_path / "half")
    resumed.train()
    a, b = (capture(trainer._parts, trainer._step) for trainer in (whole, resumed))
    assert all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors.keys() | b.tensors.keys())
    assert lines(ipmgan.load(tmp_path / "whole")) == lines(ipmgan.load(tmp_path / "half"))
    plain = ipmgan.train(out=tmp_path / "plain", **settings | {"perturbation": "none"})
    noisy = ipmgan.load(tmp_path / "whole")
    assert not torch.equal(plain.sample(10), noisy.sample(10))
    assert lines(plain)[0] != lines(noisy)[0]


def test_the_command_line_takes_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--objective", "wgan", "--lipschitz", "clip", "--source", "ring8"]
    said = call(monkeypatch, capsys, *words, "--perturbation", "noise:sd=0.2,law=uniform", "--dry-run", "--json")
    assert json.loads(said)["config"]["perturbation"]["law"] == "uniform"
    listed = json.loads(call(monkeypatch, capsys, "plugins", "list", "--kind", "perturbation", "--json"))
    assert {row["name"] for row in listed} >= {"none", "noise"}
    page = call(monkeypatch, capsys, "plugins", "show", "noise")
    for part in ("x -> x + s(t) e", "`anneal`", "one of constant, linear, cosine", "Towards Principled Methods"):
        assert part in page


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    return capsys.readouterr().out
