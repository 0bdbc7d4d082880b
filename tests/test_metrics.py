"""The metrics that come with the package, against closed forms and the implementations that others published."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import joblib
import numpy as np
import ot
import prdc
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.ndimage import laplace
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor, nn

from ipmgan import metrics
from ipmgan.errors import DataError, UsageError
from ipmgan.functional import neighbours as nearness
from ipmgan.functional import scores, sliced_wasserstein
from ipmgan.metrics import Comparison, Metric, Modes, Reading, StoredNetwork, networks, two_sample
from ipmgan.metrics.stored import read_network

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore
    from torchmetrics.image.kid import KernelInceptionDistance

MNIST = networks.MNIST
TIGHT = {"rtol": 1e-6, "atol": 1e-6}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int, shift: float = 0.0) -> Tensor:
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64) + shift


def read(metric: Metric, real: Tensor, fake: Tensor, *, seed: int = 0, **facts: Any) -> Reading:
    return metric.read(Comparison(real=real, fake=fake, **facts), generator=rng(seed))


def close(found: object, truth: object, **tolerance: float) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found, dtype=torch.float64), torch.as_tensor(truth, dtype=torch.float64), **(tolerance or TIGHT)
    )


def quietly(call: Callable[[], Any]) -> Any:
    """What others' code returns, without its warnings, its prints and its processes."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), joblib.parallel_config("sequential"):
        warnings.simplefilter("ignore")
        return call()


class Same(nn.Module):
    """A feature network that leaves its inputs as they are; torchmetrics tries it on bytes."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x if x.is_floating_point() and x.dim() == 2 else x.flatten(1)[:, :6].double()


# --- the contract ----------------------------------------------------------------------------------------------------


def test_builtin_is_a_tuple_of_metrics() -> None:
    names = [metric.name for metric in metrics.BUILTIN]
    assert names[0] == "sliced-wasserstein"
    assert len(names) == len(set(names)) == 14
    assert all(issubclass(metric, Metric) for metric in metrics.BUILTIN)


def test_compute_alone_is_a_metric() -> None:
    @attrs.frozen(kw_only=True)
    class Gap(Metric):
        def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
            return fake.mean() - real.mean()

    assert read(Gap(), torch.zeros(2, 1), torch.ones(3, 1)) == Reading(value=torch.tensor(1.0))
    assert Gap().refuses(Comparison(real=torch.zeros(0), fake=torch.zeros(0))) == ""
    assert Gap().most((1,)) is None


@pytest.mark.parametrize("kind", metrics.BUILTIN, ids=lambda kind: kind.name)
def test_what_is_not_refused_can_be_computed(kind: type[Metric]) -> None:
    metric, images = kind(), torch.rand(40, 1, 8, 8, generator=rng())
    for real, fake in ((images, images.flip(2)), (images.flatten(1), images.flip(2).flatten(1))):
        reason = metric.refuses(Comparison(real=real, fake=fake))
        if reason:
            assert "\n" not in reason
        else:
            value = metric.compute(real, fake, generator=rng())
            assert value.dim() == 0
            assert metric.measures.low <= value <= metric.measures.high
            assert metric.measures.bound


def test_features_are_computed_once_and_extended() -> None:
    seen = []

    def features(samples: Tensor) -> Tensor:
        seen.append(len(samples))
        return samples + 1

    network = metrics.FeatureNetwork(name="plus", checksum="", resizing="none", features=features)
    whole = Comparison(real=normal(10, 2, seed=0), fake=normal(8, 2, seed=1))
    for count in (3, 2, 7):
        real, fake = whole.first(count, count).features(network)
        assert torch.equal(real, whole.real[:count] + 1)
        assert torch.equal(fake, whole.fake[:count] + 1)
    assert seen == [3, 3, 4, 4]


# --- Wasserstein -----------------------------------------------------------------------------------------------------


def test_sliced_wasserstein_is_that_of_the_library_and_knows_its_error() -> None:
    real, fake = torch.randn(2, 30, 1, 4, 4, generator=rng())
    value = metrics.SlicedWasserstein(directions=64).compute(real, fake[:20], generator=rng(5))
    flat = real.reshape(30, 16), fake[:20].reshape(20, 16)
    assert value == sliced_wasserstein(*flat, directions=64, generator=rng(5))
    reading = read(metrics.SlicedWasserstein(directions=64), real, fake[:20], seed=5)
    close(reading.value, value)
    many = [float(read(metrics.SlicedWasserstein(directions=64), real, fake, seed=seed).value) for seed in range(200)]
    assert reading.standard_error == pytest.approx(np.std(many), rel=0.35)


def test_sliced_wasserstein_grows_with_the_shift() -> None:
    real = torch.randn(200, 5, generator=rng())
    values = [metrics.SlicedWasserstein().compute(real, real + shift, generator=rng(1)) for shift in (0, 1, 2)]
    assert values[0] == 0
    torch.testing.assert_close(values[2], 2 * values[1])
    with pytest.raises(UsageError, match="directions"):
        metrics.SlicedWasserstein(directions=0)


@pytest.mark.parametrize(("metric", "power"), [(metrics.ExactW1(), 1), (metrics.ExactW2(), 2)])
def test_exact_transport_is_pot_s(metric: Metric, power: int) -> None:
    for n, m in ((30, 30), (20, 31)):
        x, y = normal(n, 3, seed=n), normal(m, 3, seed=m + 1, shift=0.5)
        cost = ot.dist(x.numpy(), y.numpy(), metric="euclidean") ** power
        close(metric.compute(x, y, generator=rng()), ot.emd2([], [], cost) ** (1 / power))
    x = normal(40, 2, seed=3)
    close(metric.compute(x, x + torch.tensor([3.0, 4.0]), generator=rng()), 5.0)
    coins = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[5.0], [6.0], [8.0]])
    close(metric.compute(*coins, generator=rng()), 5.0)


def test_exact_transport_refuses_what_does_not_fit_and_names_what_does() -> None:
    metric = metrics.ExactW1(memory=1)
    most = metric.most((2,))
    assert most is not None
    with pytest.raises(UsageError, match=f"largest size that fits is {most} a side"):
        metric.compute(torch.zeros(most + 1, 2), torch.zeros(most + 1, 2), generator=rng())
    assert metric.compute(torch.zeros(most, 2), torch.ones(most, 2), generator=rng()) == pytest.approx(2**0.5)


# --- MMD and KID -----------------------------------------------------------------------------------------------------


def test_mmd_is_the_u_statistic_of_scikit_learn_s_kernel() -> None:
    x, y = normal(40, 3, seed=0), normal(30, 3, seed=1, shift=0.3)
    xx, yy, xy = (rbf_kernel(a, b, gamma=1 / (2 * 1.5**2)) for a, b in ((x, x), (y, y), (x, y)))
    truth = (xx.sum() - 40) / (40 * 39) + (yy.sum() - 30) / (30 * 29) - 2 * xy.mean()
    close(read(metrics.MMDMetric(widths=(1.5,)), x, y).value, truth)
    median = torch.pdist(x).median()
    fitted = read(metrics.MMDMetric(scales=(1.0, 2.0)), x, y)
    assert fitted.more == {"median_distance": pytest.approx(float(median))}
    given = metrics.MMDMetric(widths=(float(median), 2 * float(median)))
    close(fitted.value, read(given, x, y).value)


def test_the_median_is_of_random_samples() -> None:
    """Of 1,000 of 4,000 in the plane, the median distance is within 3% of that of all; of neighbours it is far less."""
    x = normal(4000, 2, seed=0)
    found = read(metrics.MMDMetric(), x, x[:10]).more["median_distance"]
    assert found == pytest.approx(math.sqrt(2) * math.sqrt(2 * math.log(2)), rel=0.04)


def test_kid_of_one_subset_is_torchmetrics_s() -> None:
    x, y = normal(50, 6, seed=0), normal(50, 6, seed=1, shift=0.4)
    theirs = quietly(lambda: KernelInceptionDistance(feature=Same(), subsets=1, subset_size=50)).double()
    theirs.real_features, theirs.fake_features = [x], [y]
    close(read(metrics.KID(), x, y).value, quietly(theirs.compute)[0])


def test_kid_averages_subsets_and_is_right_on_average() -> None:
    """Two laws that are equal: of 60 subsets the mean is 0 within four standard errors, or once in 15,000 seeds not."""
    x, y = normal(4000, 4, seed=0), normal(4000, 4, seed=1)
    reading = read(metrics.KID(subsets=60, subset=40), x, y)
    assert reading.standard_error is not None
    assert abs(float(reading.value)) < 4 * reading.standard_error
    biased = scores.polynomial_mmd2(x[:40], y[:40]) + 2 / 40 * ((x[:40] ** 2).sum(1) / 4 + 1).pow(3).mean()
    assert float(biased) > 4 * reading.standard_error


# --- Inception machinery ---------------------------------------------------------------------------------------------


def test_fid_is_torchmetrics_s() -> None:
    x, y = normal(80, 6, seed=0), normal(70, 6, seed=1, shift=0.4) * 1.3
    theirs = FrechetInceptionDistance(feature=Same(), normalize=False).set_dtype(torch.float64)
    for side, real in ((x, True), (y, False)):
        theirs.update(side, real=real)
    close(read(metrics.FID(), x, y).value, theirs.compute())
    apart = read(metrics.FID(), x, x + torch.tensor([3.0, 4.0, 0, 0, 0, 0], dtype=torch.float64)).value
    close(apart, 25.0)


def test_fid_holds_for_fewer_samples_than_features() -> None:
    x = normal(5, 20, seed=0)
    close(read(metrics.FID(), x, x + 1).value, 20.0, rtol=1e-6, atol=1e-6)


def test_inception_score_is_torchmetrics_s() -> None:
    logits = 3 * normal(200, 6, seed=0)
    theirs = quietly(lambda: InceptionScore(feature=Same(), splits=1)).double()
    theirs.features = [logits]
    mine = {"networks": {"same": Same()}}
    close(read(metrics.InceptionScore(features="same"), logits, logits, **mine).value, quietly(theirs.compute)[0])
    sure = 100 * torch.eye(6, dtype=torch.float64).repeat(5, 1)
    close(read(metrics.InceptionScore(features="same"), sure, sure, **mine).value, 6.0)
    split = read(metrics.InceptionScore(features="same", splits=5), logits, logits, **mine)
    assert 1 < float(split.value) < float(scores.inception_score(logits))


def fake_inception(path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Inception with random weights, in a file that stands in for the pinned one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    made = type("Random", (FeatureExtractorInceptionV3,), {"load_state_dict": lambda module, state: None})
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = made("inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=empty)
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(networks, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return network


def test_inception_is_torch_fidelity_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    theirs = fake_inception(path, monkeypatch)
    pixels = torch.randint(0, 256, (1, 1, 20, 20), generator=rng(), dtype=torch.uint8)
    grey = pixels.float() / 127.5 - 1
    network = networks.find_network(Comparison(real=grey, fake=grey, bounds=(-1.0, 1.0)), "inception", str(path))
    assert network is not None
    assert network.logits is not None
    pool, logits = theirs(pixels.expand(-1, 3, -1, -1))
    torch.testing.assert_close(network.features(grey), pool)
    torch.testing.assert_close(network.logits(pool), logits)
    assert network.resizing == "to 8 bits, grey to colour, 20x20 to 299x299, bilinear as in TensorFlow 1"


def test_inception_opens_no_other_file(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    path = tmp_path / "weights.pth"
    torch.save({"weights": Trap()}, path)
    images = Comparison(real=torch.zeros(0, 3, 8, 8), fake=torch.zeros(0, 3, 8, 8))
    with pytest.raises(DataError, match="its sha256 is another"):
        networks.find_network(images, "inception", str(path))
    assert not (tmp_path / "sprung").exists()
    assert (
        metrics.FID(features="inception", weights="nowhere.pth").refuses(images)
        == "no file nowhere.pth: give weights=FILE"
    )
    assert "needs its weights" in metrics.FID(features="inception").refuses(images)
    assert networks.INCEPTION_SHA256.startswith("6726825d")


# --- feature networks ------------------------------------------------------------------------------------------------


def test_the_embedded_classifier_is_small_and_says_how_good_it_is() -> None:
    assert MNIST.stat().st_size < 2_000_000
    about = read_network(MNIST).stored.about
    assert float(about["test accuracy"]) > 0.99


def test_the_embedded_classifier_knows_digits() -> None:
    """scikit-learn's 8x8 digits, another data set, resized: most are recognised."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images[:300]).float().unsqueeze(1) / 8 - 1
    network = networks.find_network(Comparison(real=images, fake=images, bounds=(-1.0, 1.0)), "auto", None)
    assert network is not None
    assert network.logits is not None
    right = network.logits(network.features(images)).argmax(1) == torch.from_numpy(found.target[:300])
    assert right.double().mean() > 0.8
    assert network.resizing == "8x8 to 28x28, bilinear, antialiased"
    assert network.checksum == hashlib.sha256(MNIST.read_bytes()).hexdigest()


def test_bounds_are_part_of_the_input() -> None:
    unit = torch.rand(4, 1, 28, 28, generator=rng())
    found = []
    for samples, bounds in ((unit, (0.0, 1.0)), (2 * unit - 1, (-1.0, 1.0)), (2 * unit - 1, None), (unit, None)):
        network = networks.find_network(Comparison(real=samples, fake=samples, bounds=bounds), "mnist", None)
        assert network is not None
        found.append(network.features(samples))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[1], found[2])
    assert not torch.allclose(found[0], found[3])


def test_pixels_are_not_rescaled_by_the_batch_they_come_in() -> None:
    dark = torch.rand(4, 1, 28, 28, generator=rng()) / 2
    bright = torch.cat([dark, torch.ones(4, 1, 28, 28)])
    network = networks.find_network(Comparison(real=dark, fake=dark, bounds=(0.0, 1.0)), "mnist", None)
    assert network is not None
    torch.testing.assert_close(network.features(dark), network.features(bright)[:4])
    rescaled = [(side - side.min()) / (side.max() - side.min()) for side in (dark, bright)]
    assert not torch.allclose(network.features(rescaled[0]), network.features(rescaled[1])[:4])


def test_a_network_in_a_file_describes_itself(tmp_path: Path) -> None:
    layers = (("Flatten", {}), ("Linear", {"in_features": 12, "out_features": 5}), ("ReLU", {}))
    stored = StoredNetwork(layers=layers, features=2, shape=(3, 2, 2), interval=(0.0, 1.0), about={"task": "none"})
    with torch.random.fork_rng(devices=[]):
        module = stored.module().eval()
    path = tmp_path / "mine.safetensors"
    stored.save(path, module)
    loaded = read_network(path)
    assert loaded.stored == stored
    grey = torch.rand(4, 1, 2, 2, generator=rng())
    fid = metrics.FID(features=str(path))
    reading = read(fid, grey, grey.flip(0), bounds=(0.0, 1.0))
    assert (reading.network, reading.resizing) == ("mine.safetensors", "grey to colour")
    assert reading.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
    network = loaded.on((1, 2, 2), (0.0, 1.0), "mine")
    torch.testing.assert_close(network.features(grey), module[:2](grey.expand(-1, 3, -1, -1)))
    assert "it takes samples (3, 2, 2)" in fid.refuses(Comparison(real=torch.zeros(0, 4), fake=torch.zeros(0, 4)))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="does not say what its layers are"):
        read_network(path)
    stored = StoredNetwork(layers=(("Sequential", {}),), features=1, shape=(2,))
    with pytest.raises(UsageError, match="no layer 'Sequential'"):
        stored.module()
    stored.save(path, nn.Linear(2, 2))
    with pytest.raises(DataError, match="no layer 'Sequential'"):
        read_network(path)
    with pytest.raises(DataError, match="no file"):
        read_network(tmp_path / "nothing.safetensors")


def test_a_network_of_ones_own_is_named_with_its_checksum() -> None:
    x = normal(30, 6, seed=0)
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5)).double()
    reading = read(metrics.FID(features="mine"), x, x + 1, networks={"mine": module})
    assert reading.network == "mine"
    assert len(reading.checksum) == 64
    assert module.training
    with torch.no_grad():
        module[0].weight += 1
    assert read(metrics.FID(features="mine"), x, x + 1, networks={"mine": module}).checksum != reading.checksum
    with pytest.raises(UsageError, match="no feature network 'mien': did you mean 'mine'"):
        read(metrics.FID(features="mien"), x, x, networks={"mine": module})


# --- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [2**24, 100])
def test_neighbours_are_scikit_learn_s(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "HELD", held)
    x, y = normal(37, 4, seed=0), normal(23, 4, seed=1)
    distances, index = NearestNeighbors(n_neighbors=3).fit(y.numpy()).kneighbors(x.numpy())
    found = nearness.neighbours(x, y, k=3)
    close(found.distances, distances)
    assert np.array_equal(found.index.numpy(), index)
    own, _ = NearestNeighbors(n_neighbors=3).fit(x.numpy()).kneighbors()
    close(nearness.neighbours(x, k=3).distances, own)
    close(nearness.neighbours(x).distances, own[:, :1])
    with pytest.raises(UsageError, match="37 nearest neighbours among 36"):
        nearness.neighbours(x, k=37)


def test_neighbours_far_from_the_origin_are_exact_in_float32() -> None:
    """The matrix form about the origin has lost all digits here."""
    x = normal(50, 3, seed=0) * 1e-2 + 1e3
    found = nearness.neighbours(x.float(), k=2).distances
    truth = nearness.neighbours(x.float().double(), k=2).distances
    close(found, truth, rtol=1e-5, atol=0)
    raw = x.float()
    naive = (raw.square().sum(1)[:, None] + raw.square().sum(1) - 2 * raw @ raw.T).clamp_min(0).sqrt()
    assert not torch.allclose(naive.topk(3, largest=False).values[:, 1:].double(), truth, rtol=1e-1)


@pytest.mark.parametrize("held", [2**24, 200])
def test_overlap_is_prdc_s(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearness, "HELD", held)
    x, y = normal(90, 3, seed=0), normal(70, 3, seed=1, shift=0.7)
    theirs = quietly(lambda: prdc.compute_prdc(x.numpy(), y.numpy(), nearest_k=4))
    reading = read(metrics.PRDC(k=4), x, y)
    for name, value in (reading.more | {"coverage": float(reading.value)}).items():
        assert value == pytest.approx(theirs[name], abs=1e-9)


# --- two-sample test -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["nearest", "logistic"])
def test_two_sample_classifiers_are_scikit_learn_s(kind: str) -> None:
    train, test = torch.cat([normal(30, 3, seed=0), normal(30, 3, seed=1, shift=1.0)]), normal(80, 3, seed=2, shift=0.5)
    labels = np.arange(60) < 30
    if kind == "nearest":
        theirs = KNeighborsClassifier(n_neighbors=1).fit(train.numpy(), labels).predict(test.numpy())
        mine = two_sample._nearest(train, 30, test)
    else:
        mean, scale = train.mean(0), train.std(0)
        model = LogisticRegression(max_iter=1000).fit(((train - mean) / scale).numpy(), labels)
        theirs = model.predict(((test - mean) / scale).numpy())
        mine = two_sample._logistic(train, 30, test)
    assert np.array_equal(mine.numpy(), theirs)


def test_two_sample_test_holds_its_level_and_has_power() -> None:
    """At equal laws p-values are uniform: of 60, those below 0.1 are at most 15, or once in 1,000 seeds not."""
    small = [
        read(metrics.TwoSampleTest(), normal(80, 2, seed=2 * i), normal(80, 2, seed=2 * i + 1), seed=i).more["p_value"]
        < 0.1
        for i in range(60)
    ]
    assert sum(small) <= 15
    apart = read(metrics.TwoSampleTest(), normal(200, 2, seed=0), normal(200, 2, seed=1, shift=2.0))
    assert apart.more["p_value"] < 1e-6
    close(apart.value, (apart.more["real"] + apart.more["generated"]) / 2)


# --- modes, classes, copies, sharpness, n-grams ----------------------------------------------------------------------


def test_modes_are_counted_by_hand() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    fake = torch.cat(
        [torch.zeros(50, 2), centres[1] + torch.tensor([[0.0, 0.29]]), centres[2:].repeat(9, 1), 5 * torch.ones(40, 2)]
    )
    facts: dict[str, Any] = {"modes": Modes(centres=centres, std=0.1)}
    reading = read(metrics.ModesCovered(), fake, fake, **facts)
    assert (reading.value, reading.more) == (3.0, {"modes": 3, "high_quality": pytest.approx(0.6)})
    assert read(metrics.ModesCovered(least=0.05), fake, fake, **facts).value == 2
    assert read(metrics.ModesCovered(within=2.0), fake, fake, **facts).value == 2
    with pytest.raises(UsageError, match="no modes that are known"):
        read(metrics.ModesCovered(), fake, fake)


def test_classes_are_those_of_the_classifier() -> None:
    mine = {"networks": {"same": Same()}}
    real = 10 * torch.eye(6, dtype=torch.float64).repeat(10, 1)
    fake = torch.cat([real[:1].repeat(30, 1), real[1:2].repeat(30, 1)])
    fake[0] = 0
    reading = read(metrics.Classes(features="same"), real, fake, **mine)
    shares = torch.stack([side.softmax(1).mean(0) for side in (real, fake)])
    close(reading.value, (shares[0] - shares[1]).abs().sum() / 2)
    assert abs(float(reading.value) - 2 / 3) < 0.02
    assert reading.more == {
        "covered": 2,
        "classes": 6,
        "sure": pytest.approx(59 / 60),
        "sure_real": 1,
    }
    assert "needs a classifier" in metrics.Classes().refuses(Comparison(real=real, fake=fake))


def test_memorisation_tells_copies_from_new_samples() -> None:
    train, held_out, new = (normal(600, 3, seed=seed) for seed in range(3))
    facts: dict[str, Any] = {"train": lambda: train.split(250)}
    copies = read(metrics.Memorisation(tail=0.05), held_out, train[:200] + 1e-4, **facts)
    honest = read(metrics.Memorisation(tail=0.05), held_out, new, **facts)
    assert float(copies.value) < 1e-2
    assert copies.more["copies"] == 1
    assert float(honest.value) == pytest.approx(1, abs=0.15)
    assert honest.more["copies"] == pytest.approx(0.05, abs=0.04)
    distances = NearestNeighbors(n_neighbors=1).fit(train.numpy()).kneighbors(new.numpy())[0]
    close(honest.more["median"], torch.from_numpy(distances).median(), rtol=1e-6, atol=0)
    with pytest.raises(UsageError, match="leave out --split train"):
        read(metrics.Memorisation(), held_out, new, split="train", **facts)
    with pytest.raises(UsageError, match="no training samples"):
        read(metrics.Memorisation(), held_out, new)


def test_sharpness_is_scipy_s_laplacian() -> None:
    images = torch.rand(3, 1, 7, 9, generator=rng(), dtype=torch.float64)
    theirs = [laplace(image.numpy())[1:-1, 1:-1].var() for image in images[:, 0]]
    close(scores.laplacian_variance(images), theirs)
    reading = read(metrics.Sharpness(), images, images, bounds=(0.0, 1.0))
    close(reading.value, np.mean(theirs))
    close(read(metrics.Sharpness(), images, 2 * images - 1, bounds=(-1.0, 1.0)).value, np.mean(theirs))
    grey = torch.tensordot(torch.tensor(scores.LUMA).double(), images.expand(-1, 3, -1, -1), dims=([0], [1]))
    close(scores.laplacian_variance(images.expand(-1, 3, -1, -1)), scores.laplacian_variance(grey[:, None]))


def test_sharpness_of_a_delta_and_of_a_checkerboard() -> None:
    delta = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    delta[..., 2, 2] = 1
    board = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    close(scores.laplacian_variance(delta), [20 / 9])
    close(scores.laplacian_variance(board.double()[None, None]), [16.0])
    with pytest.raises(UsageError, match="H and W at least 3"):
        scores.laplacian_variance(torch.zeros(1, 1, 2, 5))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngram_jsd_is_scipy_s(n: int) -> None:
    real, fake = (torch.randint(0, 4, (20, 8), generator=rng(seed)) for seed in (0, 1))

    def law(rows: Tensor) -> dict[tuple[int, ...], int]:
        counts: dict[tuple[int, ...], int] = {}
        for row in rows.tolist():
            for start in range(len(row) - n + 1):
                gram = tuple(row[start : start + n])
                counts[gram] = counts.get(gram, 0) + 1
        return counts

    p, q = law(real), law(fake)
    grams = sorted({*p, *q})
    theirs = jensenshannon([p.get(g, 0) for g in grams], [q.get(g, 0) for g in grams], base=2) ** 2
    reading = read(metrics.NgramJSD(n=n), real.float(), fake.float())
    close(reading.value, theirs)
    soft = nn.functional.one_hot(fake, 4).float()
    close(read(metrics.NgramJSD(n=n), nn.functional.one_hot(real, 4).float(), soft).value, theirs)
    assert sorted(reading.more) == [f"n={shorter}" for shorter in range(1, n)]


def test_ngrams_refuse_what_is_no_sequence() -> None:
    metric = metrics.NgramJSD()
    assert "whole numbers" in metric.refuses(Comparison(real=torch.full((2, 9), 0.5), fake=torch.zeros(2, 9)))
    assert "at least 4" in metric.refuses(Comparison(real=torch.zeros(2, 2), fake=torch.zeros(2, 2)))
    with pytest.raises(UsageError, match="choose a smaller n"):
        scores.ngram_jsd(torch.arange(400)[None], torch.arange(400)[None], n=9)
    assert math.isclose(float(scores.ngram_jsd(torch.zeros(1, 4), torch.ones(1, 4), n=4)), 1)


def test_the_order_of_samples_decides_nothing() -> None:
    x, y = normal(60, 3, seed=0), normal(60, 3, seed=1, shift=0.3)
    for metric in (metrics.KID(subset=20, subsets=5), metrics.TwoSampleTest(), metrics.MMDMetric()):
        close(read(metric, x, y).value, read(metric, x.flip(0), y.roll(7, 0)).value)


def test_the_header_of_the_embedded_classifier_is_plain_json() -> None:
    with safe_open(MNIST, framework="pt") as file:
        assert set(file.metadata()) == {"ipmgan-feature-network"}
