"""The distance between two fixed sets of samples: its number, its interval, its test, its bracket, its command."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import ipmgan
from ipmgan.cli.app import app
from ipmgan.data import MNIST, Digits, Gaussian, Grid25, ParallelLines, Ring8, Source, SwissRoll
from ipmgan.engine.streams import Streams
from ipmgan.evaluation.bracket import bracket, lower_end
from ipmgan.evaluation.distance import distance
from ipmgan.evaluation.fit import Parted
from ipmgan.evaluation.methods import METHODS, make_method
from ipmgan.evaluation.statistics import bootstrap, jackknife, permutation_p_value
from ipmgan.functional import (
    discrete_energy_distance,
    exact_wasserstein,
    gaussian_js,
    gaussian_tv,
    js,
    mmd2_biased,
    mmd2_unbiased,
    sinkhorn_divergence,
    total_variation,
)
from ipmgan.functional.kernels import Mixture
from ipmgan.functional.programmes import distance_matrix
from ipmgan.perturbations import Noise

QUICK: dict[str, Any] = {
    "samples": 800,
    "matrix_samples": 200,
    "steps": 50,
    "patience": 2,
    "batch": 64,
    "critic": "mlp:width=32,depth=2",
    "device": "cpu",
}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, count: int, *mean: float) -> Tensor:
    return torch.randn(count, len(mean), generator=rng(seed)) + torch.tensor(mean)


def run(arguments: list[str]) -> Any:
    return CliRunner().invoke(app, arguments)


def test_a_critic_trains_only_on_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the test part is, the critic is the same; and the estimate is that of the test part."""
    x, y = normal(0, 400, 0, 0), normal(1, 400, 1, 0)
    first = distance(x, y, lipschitz="sphere", **QUICK)
    real = Parted.of(first.real.samples)
    assert [len(part) for part in (real.fit, real.held_out, real.test)] == [200, 100, 100]
    pieces = torch.cat([real.fit, real.held_out, real.test])
    assert torch.equal(pieces.sort(0).values, x.sort(0).values)
    fake = Parted.of(first.fake.samples)
    gap = first.witness(real.test).mean() - first.witness(fake.test).mean()
    assert first.estimate == pytest.approx(gap.item(), rel=1e-5)
    assert first.counts == {"real": 100, "fake": 100}
    of = Parted.of

    def other(samples: Tensor) -> Parted:
        parted = of(samples)
        parted.test.add_(7)
        return parted

    monkeypatch.setattr(Parted, "of", other)
    second = distance(x, y, lipschitz="sphere", **QUICK)
    points = normal(3, 20, 0, 0)
    assert torch.equal(first.witness(points), second.witness(points))


def test_the_same_seed_gives_the_same_result_and_leaves_no_trace() -> None:
    x, y = normal(0, 300, 0, 0), normal(1, 300, 1, 0)
    before, kept = torch.random.get_rng_state(), x.clone()
    first, again, other = (
        distance(x, y, lipschitz="gp", permutations=9, **QUICK, seed=seed).table() for seed in (0, 0, 1)
    )
    assert first == again
    assert first["estimate"] != other["estimate"]
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(x, kept)


def test_training_stops_once_held_out_samples_say_so_and_keeps_the_best() -> None:
    """On twenty samples to fit a wide critic learns by heart, and what it keeps is from before that."""
    x, y = normal(0, 60, 0, 0), normal(1, 60, 0.5, 0)
    settings = QUICK | {"steps": 1000, "check_every": 10, "patience": 5, "critic": "mlp:width=128,depth=2"}
    found = distance(x, y, objective="nonsaturating", **settings)
    assert found.best_step < found.steps == found.best_step + 50 < 1000
    last = distance(x, y, objective="nonsaturating", **settings | {"steps": 400, "patience": 400})
    assert last.steps == 400
    assert last.held_out == found.held_out
    assert last.best_step == found.best_step


def test_the_penalty_counts_when_the_best_is_chosen() -> None:
    """At the optimum the slope is 1 + D/2λ = 1.25, and so the gap 25 % above W1 = 5; the estimate alone likes more."""
    x, y = normal(0, 4000, 0, 0), normal(1, 4000, 3, 4)
    settings = QUICK | {"samples": 4000, "steps": 900, "patience": 5, "critic": "mlp:depth=0"}
    optimizer = "Adam:lr=1e-2,betas=[0.5,0.9]"
    found = distance(x, y, lipschitz="gp", critic_optimizer=optimizer, **settings)
    assert found.estimate == pytest.approx(6.25, rel=0.05)
    assert found.certificate is not None
    assert found.certificate.bound == pytest.approx(1.25, rel=0.02)


@pytest.mark.parametrize(
    ("enforcer", "gap", "steepest"),
    [("clip", 0.07, 0.01 * math.sqrt(2)), ("sphere", 0.01 * math.sqrt(2) * 5, 0.01 * math.sqrt(2))],
)
def test_a_linear_critic_reaches_what_its_constraint_allows(enforcer: str, gap: float, steepest: float) -> None:
    """Clipping gives c‖Δ‖₁, a sphere ρ‖Δ‖₂; divided by K, the second is W1 itself."""
    x, y = normal(0, 8000, 3, 4), normal(1, 8000, 0, 0)
    settings = QUICK | {"samples": 8000, "steps": 400, "critic": "mlp:depth=0"}
    found = distance(x, y, lipschitz=enforcer, **settings)
    assert found.certificate is not None
    assert found.bracket is not None
    assert found.bracket.critic is not None
    assert found.estimate == pytest.approx(gap, rel=0.03)
    assert found.certificate.bound == pytest.approx(steepest, rel=1e-5)
    assert found.bracket.critic.value == pytest.approx(found.estimate / found.certificate.bound, rel=1e-6)
    assert found.bracket.low <= 5 <= found.bracket.high


def one_hot(law: list[float], count: int, seed: int) -> Tensor:
    index = torch.multinomial(torch.tensor(law), count, replacement=True, generator=rng(seed))
    return torch.eye(len(law))[index]


@pytest.mark.parametrize(
    ("objective", "truth"), [("ebgan:margin=2", total_variation), ("nonsaturating", js)], ids=["TV", "JS"]
)
def test_a_tabular_critic_is_within_five_per_cent_on_discrete_laws(
    objective: str, truth: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """One free number a point: a linear critic of one-hot samples. 80,000 a side leave 1.3 % of spread."""
    p, q = [0.5, 0.3, 0.2], [0.1, 0.4, 0.5]
    settings = {"samples": 80_000, "batch": 1024, "steps": 600, "critic": "mlp:depth=0", "device": "cpu"}
    optimizer = "Adam:lr=0.05,betas=[0.5,0.9]"
    found = distance(
        one_hot(p, 80_000, 0), one_hot(q, 80_000, 1), objective=objective, critic_optimizer=optimizer, **settings
    )
    value = truth(torch.tensor(p), torch.tensor(q)).item()
    assert found.estimate == pytest.approx(value, rel=0.05)
    assert found.interval[0] < value < found.interval[1] + 0.01 * value
    assert found.bracket is None


@pytest.mark.parametrize(
    ("objective", "truth"), [("ebgan", gaussian_tv), ("nonsaturating", gaussian_js)], ids=["TV", "JS"]
)
def test_a_network_is_within_fifteen_per_cent_on_gaussians(objective: str, truth: Callable[..., Tensor]) -> None:
    x, y = normal(0, 12_000, 0), normal(1, 12_000, 1.5)
    settings = {"samples": 12_000, "steps": 600, "critic": "mlp:width=64,depth=2", "device": "cpu"}
    found = distance(x, y, objective=objective, **settings)
    one = torch.tensor(1.0)
    assert found.estimate == pytest.approx(truth(0 * one, one, 1.5 * one, one).item(), rel=0.15)


def test_a_critic_of_features() -> None:
    """The objective is of the whole batch: groups are left out in turn, and nothing is drawn twice."""
    x, y = normal(0, 300, 0, 0), normal(1, 300, 2, 0)
    found = distance(x, y, objective="mmd", permutations=19, **QUICK)
    assert found.interval[0] < found.estimate < found.interval[1]
    assert found.p_value == 1 / 20
    with pytest.raises(ipmgan.UsageError, match="there is no witness"):
        found.witness(x)


def test_methods_are_what_they_say() -> None:
    """Each against the library, on samples in the given order or not: none depends on the order."""
    x, y = normal(0, 60, 0, 0), normal(1, 50, 1, 0)
    a, b = x.double(), y.double()
    costs = distance_matrix(a, b), distance_matrix(a, a), distance_matrix(b, b)
    masses = [torch.full((len(side),), 1 / len(side), dtype=torch.float64) for side in (a, b)]
    expected = {
        "exact": exact_wasserstein(a, b),
        "sinkhorn:epsilon=0.5": sinkhorn_divergence(*costs, *masses, 0.5),
        "energy": mmd2_biased(a, b, Mixture("energy", (1.0,))),
        "mmd:widths=[1.0]": mmd2_unbiased(a, b, Mixture("rbf", (1.0,))),
        "mmd:kernel=imq,widths=[2.0],estimator=biased": mmd2_biased(a, b, Mixture("imq", (2.0,))),
    }
    for method, value in expected.items():
        found = distance(x, y, method=method)
        assert found.estimate == pytest.approx(value.item(), rel=1e-6), method
        assert found.counts == {"real": 60, "fake": 50}
        assert found.interval[0] < found.estimate < found.interval[1]
    assert (found.certificate, found.bracket, found.steps) == (None, None, 0)
    uniform = torch.full((110,), 1 / 60, dtype=torch.float64)
    uniform[60:] = 0
    other = (1 - 60 * uniform) / 50
    everywhere = distance_matrix(*[torch.cat([a, b])] * 2)
    assert expected["energy"].item() == pytest.approx(
        discrete_energy_distance(uniform, other, everywhere).item(), rel=1e-9
    )


@pytest.mark.parametrize("method", METHODS)
def test_permutations_recompute_the_method_and_the_witness_leans_to_the_real_side(method: str) -> None:
    """In the order given it is the value; in another, that of the sides so made."""
    x, y = normal(0, 40, 0, 0), normal(1, 30, 1, 0)
    made = make_method(method)
    compared = made.compare(x, y, rng(0))
    assert compared.permuted(torch.arange(70)) == pytest.approx(compared.value, rel=1e-6, abs=1e-9)
    order = torch.randperm(70, generator=rng(1))
    pooled = torch.cat([x, y])[order]
    if method != "sinkhorn":  # its ε follows the samples
        again = made.compare(pooled[:40], pooled[40:], rng(0))
        assert compared.permuted(order) == pytest.approx(again.value, rel=1e-6, abs=1e-9)
    assert compared.witness(x).mean() > compared.witness(y).mean()
    far = compared.witness(torch.tensor([[-2.0, 0.0], [3.0, 0.0]]))
    assert far[0] > far[1]


@pytest.mark.parametrize("method", ["exact", "sliced", "energy", "mmd:widths=[1.0]", "sinkhorn:epsilon=0.5"])
def test_standard_errors_are_those_of_repetition(method: str) -> None:
    """Over 60 repetitions the spread is known to 9 %; a factor 1.5 either way is more than four of that."""
    made = make_method(method)
    found = [made.compare(normal(2 * i, 60, 0, 0), normal(2 * i + 1, 60, 2, 0), rng(i)) for i in range(60)]
    spread = torch.tensor([one.value for one in found]).std().item()
    stated = sum(one.error for one in found) / len(found)
    assert 1 / 1.5 < stated / spread < 1.5


def test_intervals_cover() -> None:
    """The gap of means at 90 %: of 100 repetitions 90 cover, of 30 there are 27; five standard deviations off fail."""

    def gap(real: Tensor, fake: Tensor) -> Tensor:
        return real.mean() - fake.mean()

    inside = {"bootstrap": 0, "jackknife": 0}
    for i in range(100):
        real, fake = normal(2 * i, 50, 0)[:, 0], normal(2 * i + 1, 40, 1)[:, 0]
        ends = {"jackknife": jackknife(gap, real, fake, 0.9)}
        if i < 30:
            ends["bootstrap"] = bootstrap(gap, real, fake, 0.9, rng(i))
        for name, (low, high) in ends.items():
            inside[name] += low < -1 < high
    assert inside["jackknife"] >= 75
    assert inside["bootstrap"] >= 19


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    """With 19 permutations, P(p <= .05) = .05 exactly; of 200, 10 are expected, and 25 come up once in 30,000 times."""
    small = 0
    for i in range(200):
        pooled = torch.randn(20, generator=rng(i))

        def gap(order: Tensor, pooled: Tensor = pooled) -> float:
            return float(pooled[order[:10]].mean() - pooled[order[10:]].mean())

        p = permutation_p_value(gap(torch.arange(20)), gap, 20, 19, rng(1000 + i))
        assert 0.05 <= p <= 1
        small += p <= 0.05
    assert 1 <= small < 25


@pytest.mark.parametrize("method", ["critic", "energy", "sliced"])
def test_no_difference(method: str) -> None:
    settings = QUICK if method == "critic" else {"samples": 200}
    same, apart = (
        distance(normal(0, 200, 0, 0), normal(1, 200, shift, 0), method=method, permutations=99, **settings)
        for shift in (0, 1)
    )
    assert same.p_value is not None
    assert same.p_value > 0.02
    assert apart.p_value == 0.01
    assert distance(normal(0, 50, 0), normal(1, 50, 0), method="sliced").p_value is None


def test_the_bias_of_the_exact_distance_is_told() -> None:
    """Between equal laws all of it is bias, and two halves of one side show it."""
    found = distance(normal(0, 400, *[0] * 8), normal(1, 400, *[0] * 8), method="exact", matrix_samples=200)
    assert found.bracket is not None
    assert found.bracket.low == 0
    assert found.bracket.bias == pytest.approx(found.estimate, rel=0.05)
    assert found.bracket.exact.value == pytest.approx(found.estimate, rel=0.05)
    assert found.bracket.samples == 200


def test_the_plug_in_sliced_distance_would_be_no_lower_end() -> None:
    """Between equal laws it is above 0 by many of its standard errors; the fitted witness on other samples is not."""
    beyond, naive = 0, 0
    for seed in range(20):
        x, y = (normal(2 * seed + i, 200, 0, 0) for i in range(2))
        plug_in = make_method("sliced").compare(x, y, rng(seed))
        naive += plug_in.value - 2.58 * plug_in.error > 0
        halves = [(side[:100], side[100:]) for side in (x, y)]
        ends = bracket(*halves, None, matrix_samples=20, confidence=0.99, streams=Streams(seed, torch.device("cpu")))
        beyond += ends.low > 0
    assert naive >= 8
    assert beyond <= 1


def test_lower_ends() -> None:
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([0.0, 2.0])
    end = lower_end(real, fake, 2.0, 0.99)
    assert end.value == 1.5
    assert end.limit == pytest.approx(1.5 - 2.807034 * math.sqrt(2 / 2 + 2 / 2) / 2, abs=1e-5)
    assert lower_end(real, fake, math.inf, 0.99).limit == 0


def test_sides(tmp_path: Path) -> None:
    """Sources, files and memory, and any of them against any other of its shape."""
    rows = normal(0, 60, 0, 0)
    np.save(tmp_path / "rows.npy", rows.numpy())
    np.savez(tmp_path / "rows.npz", rows=rows.numpy())
    values = set()
    for given in (rows, rows.numpy(), str(tmp_path / "rows.npy"), tmp_path / "rows.npz"):
        found = distance(given, "gaussian:mean=[2.0,0.0]", method="energy", samples=60)
        assert sorted(found.real.samples[:, 0].tolist()) == pytest.approx(sorted(rows[:, 0].tolist()))
        values.add(round(found.estimate, 5))
    assert len(values) == 1
    assert distance(rows[:, 0], rows[:, 1], method="exact").counts == {"real": 60, "fake": 60}
    for name in ("numbers.npy", "numbers.npz"):
        (np.save if name.endswith("y") else np.savez)(tmp_path / name, rows[:, 0].numpy())
        assert distance(tmp_path / name, "gaussian:mean=[0.0]", method="sliced").counts["real"] == 60
    assert distance(Ring8(), "ring8:std=0.3", method="sliced", samples=500).counts == {"real": 500, "fake": 500}
    held_out = distance("digits", "digits:held_out=0.5", method="sliced", split="held-out").counts
    assert held_out == {"real": 359, "fake": 898}
    assert distance("digits", "digits:held_out=0.5", method="sliced", samples=50).counts["real"] == 50


def test_a_perturbation_moves_the_distance_to_that_of_the_perturbed_laws() -> None:
    """Noise of sd 1 on N(0, 1) and N(0, 9): W1 falls from 2 E|e| to (√10 - √2) E|e|; between shifted laws it stays."""
    x, y = normal(0, 4000, 0), 3 * normal(1, 4000, 0)
    noise, spread = "noise:sd=1.0,anneal=linear", math.sqrt(2 / math.pi)
    for chosen, truth in ((None, 2.0), (noise, math.sqrt(10) - math.sqrt(2)), (Noise(sd=1.0), 10**0.5 - 2**0.5)):
        found = distance(x, y, method="sliced", perturbation=chosen)
        assert found.estimate == pytest.approx(truth * spread, abs=0.1)
    assert found.settings["perturbation"]["name"] == "noise"
    assert "after that" in found.notes[0]
    again = distance(x, y, method="sliced", perturbation=noise)
    assert again.estimate == found.estimate
    by_critic = distance(x, normal(2, 4000, 2), perturbation=noise, lipschitz="sphere", **QUICK)
    assert by_critic.bracket is not None
    assert by_critic.bracket.low < 2 < by_critic.bracket.high
    with pytest.raises(ipmgan.UsageError, match="did you mean 'noise'"):
        distance(x, y, perturbation="nois")


def test_the_same_finite_samples_on_both_sides_are_halved_and_a_law_is_drawn_from_twice() -> None:
    found = distance("digits", "digits", method="energy", permutations=99)
    assert found.counts == {"real": 898, "fake": 899}
    assert "one half" in found.notes[0]
    assert found.p_value is not None
    assert found.p_value > 0.02
    twice = distance("ring8", "ring8", method="energy", samples=100)
    assert twice.notes == ()
    assert twice.estimate > 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    ipmgan.train(objective="nonsaturating", source="digits", generator="mlp:width=16,depth=1", steps=2, out=path)
    return path


def test_samples_on_both_sides_are_noticed() -> None:
    """In whatever order; but not where values repeat anyway, as those of a discrete law."""
    found = distance("digits", "digits:held_out=0.5", method="energy", matrix_samples=20)
    assert any(note.startswith("1,7") and "are on both sides" in note for note in found.notes)
    assert distance(one_hot([0.5, 0.5], 40, 0), one_hot([0.5, 0.5], 40, 1), method="energy").notes == ()
    assert distance(normal(0, 40, 0), normal(1, 40, 0), method="energy").notes == ()


def test_a_run_is_compared_with_what_it_was_not_trained_on(trained: Path) -> None:
    found = distance("digits", f"run:{trained}", method="sliced", samples=400)
    assert found.counts == {"real": 359, "fake": 400}
    assert found.fake.bounds == (-1.0, 1.0)
    train = distance("digits", ipmgan.load(trained), method="sliced", samples=400, split="train")
    assert train.counts == {"real": 400, "fake": 400}
    again = distance("digits", trained, method="sliced", samples=400)
    assert again.estimate == found.estimate
    assert distance(trained, trained, method="sliced", samples=50).estimate > 0


def test_a_folder_takes_its_size_from_the_other_side(tmp_path: Path) -> None:
    from torchvision.utils import save_image

    for i, image in enumerate(torch.rand(40, 1, 16, 16, generator=rng(0))):
        save_image(image, tmp_path / f"{i}.png")
    for sides in (("digits", tmp_path), (tmp_path, "digits")):
        found = distance(*sides, method="energy")
        assert found.fake.samples.shape[1:] == (1, 8, 8)
        assert found.real.samples.shape[1:] == (1, 8, 8)
    assert distance(tmp_path, tmp_path, method="energy", matrix_samples=12).real.samples.shape == (20, 3, 64, 64)


def test_stored_samples_that_cannot_be_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", real=np.zeros((30, 2)), other=np.zeros((30, 2)))
    np.savez(tmp_path / "words.npz", np.array(["a"] * 30))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:-60])
    np.save(tmp_path / "complex.npy", np.zeros(30, complex))
    (tmp_path / "text.npz").write_text("no numbers")
    for name, words in {
        "two.npz": "no array in .*two.npz named 'samples'.*Allowed: other, real",
        "words.npz": "must be real numbers",
        "cut.npz": "cannot read",
        "text.npz": "cannot read",
        "complex.npy": "must be real numbers",
    }.items():
        with pytest.raises(ipmgan.DataError, match=words):
            distance(tmp_path / name, "ring8")
    np.savez(tmp_path / "named.npz", samples=np.arange(60.0).reshape(30, 2), labels=np.zeros(30))
    assert distance(tmp_path / "named.npz", "ring8", method="sliced").counts["real"] == 30


@pytest.mark.parametrize(
    ("sides", "settings", "error", "words"),
    [
        (("ring9", "ring8"), {}, ipmgan.UsageError, "did you mean 'ring8'"),
        (("ring8", "digits"), {}, ipmgan.UsageError, "of shape"),
        (("digits", "digits:bounds=[0.0,1.0]"), {}, ipmgan.UsageError, "same bounds"),
        (("ring8", "nowhere.npy"), {}, ipmgan.UsageError, "nowhere.npy"),
        (("ring8", "run:nowhere"), {}, ipmgan.CheckpointError, "nowhere"),
        (("ring8", "grid25"), {"method": "exat"}, ipmgan.UsageError, "did you mean 'exact'"),
        (("ring8", "grid25"), {"method": "exact", "objective": "wgan"}, ipmgan.UsageError, "has no critic"),
        (("ring8", "grid25"), {"sample": 10}, ipmgan.UsageError, "did you mean 'samples'"),
        (("ring8", "grid25"), {"samples": 1}, ipmgan.UsageError, "at least 20"),
        (("ring8", "grid25"), {"lipschitz": "none"}, ipmgan.PairingError, "must be kept Lipschitz"),
        (("ring8", "grid25"), {"split": "test"}, ipmgan.UsageError, "split"),
        ((torch.zeros(5, 2), "ring8"), {}, ipmgan.DataError, "at least 20"),
        ((torch.full((30, 2), math.nan), "ring8"), {}, ipmgan.DataError, "not finite"),
        ((torch.zeros(30, 2, 2), "ring8"), {}, ipmgan.DataError, "has shape"),
    ],
    ids=str,
)
def test_refusals(sides: tuple[Any, Any], settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        distance(*sides, **settings)


@pytest.mark.parametrize("method", ["critic", "exact"])
def test_plots(method: str, tmp_path: Path) -> None:
    """For points of the plane, numbers, vectors and images."""
    from PIL import Image

    settings = QUICK | {"steps": 20} if method == "critic" else {}
    digits = Digits().open("held-out").samples[:60]
    for name, x in (("plane", normal(0, 60, 0, 0)), ("line", normal(0, 60, 0)), ("vectors", normal(0, 60, *[0] * 5))):
        found = distance(x, x + 1, method=method, **settings)
        assert found.plot(tmp_path / f"{name}.png").is_file()
    distance(digits, digits.flip(3), method=method, **settings).plot(tmp_path / "images.png")
    with Image.open(tmp_path / "images.png") as image:
        assert len(image.getcolors(2**24)) > 16


FLAGS = ["--steps", "40", "--samples", "200", "--matrix-samples", "50", "--critic", "mlp:width=16,depth=1"]


def test_the_command(tmp_path: Path) -> None:
    plot = tmp_path / "witness.png"
    done = run(["distance", "ring8", "grid25", *FLAGS, "--permutations", "9", "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    for words in ("K·W1 =", "to ", "untouched", "no difference", "Lipschitz constant is at most", "W1 of the laws"):
        assert words in done.output
    assert plot.is_file()
    exact = run(["distance", "ring8", "grid25", "--method", "exact", *FLAGS[2:6]])
    assert "W1 of the laws" in exact.output
    assert "certified" not in exact.output


def test_the_command_in_json() -> None:
    done = run(
        [
            "distance",
            "ring8",
            "ring8:std=0.1",
            *FLAGS,
            "--objective",
            "nonsaturating",
            "--critic",
            "mlp:norm=batch",
            "--json",
        ]
    )
    table = json.loads(done.output)
    assert table["name"] == "JSD"
    assert table["bracket"] is None
    assert table["p_value"] is None
    assert table["settings"]["lipschitz"] == {"name": "none"}
    again = distance(
        table["real"],
        table["fake"],
        **{key: table["settings"][key] for key in ("steps", "samples", "objective")},
        critic="mlp:norm=batch",
    )
    assert again.estimate == pytest.approx(table["estimate"])


def test_the_command_refuses() -> None:
    for plot in ("witness.jpg", "nowhere/witness.png"):
        assert run(["distance", "ring8", "grid25", "--plot", plot]).exit_code == 2
    assert isinstance(run(["distance", "ring8", "grid25", "--method", "exat"]).exception, ipmgan.UsageError)


def noised(source: Source) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = (source.open("train").draw(count, generator) for _ in range(2))  # type: ignore[union-attr]
        return x, y + torch.randn(y.shape, generator=generator)

    return draw


def two(real: Source, fake: Source) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return tuple(side.open("train").draw(count, generator) for side in (real, fake))  # type: ignore[union-attr, return-value]

    return draw


def translated(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Disjoint sets of digits, MNIST's where they are at hand, one shifted by .25 in a quarter of the pixels."""
    source: Source = MNIST() if os.environ.get("IPMGAN_DATA") else Digits()
    opened = source.open("train")
    index = torch.randperm(len(opened), generator=generator)[: 2 * count]  # type: ignore[arg-type]
    images = opened.take(index)  # type: ignore[union-attr]
    shift = torch.zeros(images.shape[1:])
    side = shift.shape[-1]
    shift[..., : side // 2, : side // 2] = 0.25
    return images[: len(images) // 2], images[len(images) // 2 :] + shift


LAWS: dict[str, tuple[Callable[[int, torch.Generator], tuple[Tensor, Tensor]], float | None]] = {
    "line": (two(Gaussian(mean=(0.0,)), Gaussian(mean=(1.0,), std=2.0)), 1.1666309412),
    "near": (two(Gaussian(), Gaussian(mean=(0.3, 0.4))), 0.5),
    "far": (two(Gaussian(), Gaussian(mean=(3.0, 4.0))), 5.0),
    "equal": (two(Gaussian(), Gaussian()), 0.0),
    "digits": (translated, None),
    "lines": (two(ParallelLines(), ParallelLines(theta=0.7)), 0.7),
    "ring8": (noised(Ring8()), 0.827),
    "grid25": (noised(Grid25()), 0.575),
    "swiss-roll": (noised(SwissRoll()), 0.611),
}
"""How to draw two independent sets of samples, and W1 between their laws; None stands for the norm of the shift."""


def repetitions(law: str, enforcer: str, seeds: Iterator[int] | range) -> list[bool]:
    draw, truth = LAWS[law]
    settings = QUICK | {"lipschitz": enforcer}
    inside = []
    for seed in seeds:
        x, y = draw(QUICK["samples"], rng(seed))
        w1 = truth if truth is not None else 0.25 * math.sqrt(x[0].numel() / 4)
        ends = distance(x, y, seed=seed, **settings).bracket
        assert ends is not None
        inside.append(ends.low <= w1 <= ends.high)
    return inside


@pytest.mark.parametrize("law", LAWS)
def test_the_bracket_holds_w1(law: str) -> None:
    """At 99 %, one of these eighteen fails once in six runs of other seeds; these seeds are fixed."""
    assert all(repetitions(law, "sphere", range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("enforcer", ["clip", "sphere", "gp"])
@pytest.mark.parametrize("law", LAWS)
def test_the_bracket_holds_w1_in_95_of_100_repetitions(law: str, enforcer: str) -> None:
    """At 99 % a repetition, six failures of a hundred come up once in 2,000 times."""
    assert sum(repetitions(law, enforcer, range(100))) >= 95
