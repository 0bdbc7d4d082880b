from __future__ import annotations

import gzip
import io
import math
import os
import pickle
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pytest
import torch
from PIL import Image
from torch import Tensor

from ipmgan.data import (
    BUILTIN,
    CIFAR10,
    LSUN,
    MNIST,
    CelebA,
    Digits,
    FashionMNIST,
    Folder,
    Gaussian,
    Grid25,
    ParallelLines,
    Photos,
    Resident,
    Ring8,
    Sampler,
    Source,
    Streamed,
    SwissRoll,
    TensorFile,
    TwoGaussians,
)
from ipmgan.data.arrays import open_array
from ipmgan.data.decode import resize
from ipmgan.data.digits import _levels
from ipmgan.errors import DataError, UsageError

TOYS: tuple[Source, ...] = (Ring8(), Grid25(), SwissRoll(), TwoGaussians(), ParallelLines(), Gaussian())
SPLITS = ("train", "held-out")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(source: Source) -> Callable[[int, torch.Generator], Tensor]:
    samples = source.open("train")
    assert isinstance(samples, Sampler)
    return samples.draw


def rows(source: Source, split: Any = "train") -> Tensor:
    samples = source.open(split)
    assert isinstance(samples, Resident)
    return samples.take(torch.arange(len(samples)))


def shared(a: Tensor, b: Tensor) -> int:
    """How many rows of a are also rows of b."""
    known = {row.numpy().tobytes() for row in b}
    return sum(row.numpy().tobytes() in known for row in a)


def test_builtin_names() -> None:
    names = [cls.name for cls in BUILTIN]
    assert len(set(names)) == 15
    assert names[0] == "digits"
    assert {"photos", "mnist", "fashion-mnist", "cifar10", "celeba", "lsun", "folder", "tensor"} < set(names)


def test_sources_leave_the_critic_to_objective_and_generator() -> None:
    for cls in BUILTIN:
        assert cls.defaults.critic is None
        assert str(cls.defaults.generator).split(":")[0] in ("mlp", "dcgan")


# Toys


@pytest.mark.parametrize("source", [Ring8(), Grid25(), TwoGaussians(dim=3)], ids=lambda source: str(source.name))
def test_mixtures_are_centres_and_noise_draw_after_draw(source: Ring8 | Grid25 | TwoGaussians) -> None:
    law, centres = source.open("train"), source.mode_centres()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mode = torch.randint(len(centres), (50,), generator=generator)
        noise = torch.randn(50, centres.shape[1], generator=generator)
        drawn = law.draw(50, torch.Generator().manual_seed(seed))
        assert torch.equal(drawn, centres[mode] + source.mode_std() * noise)
        drawn.zero_()  # What a caller does to its samples stays its own affair.


@pytest.mark.parametrize(
    ("source", "modes", "reach", "std"),
    [(Ring8(), 8, 2 / 1.414, 0.02 / 1.414), (Grid25(), 25, 4 * math.sqrt(2) / 2.828, 0.05 / 2.828)],
    ids=["ring8", "grid25"],
)
def test_modes_are_distinct_and_published(source: Ring8 | Grid25, modes: int, reach: float, std: float) -> None:
    """Each mode is hit, evenly, with its width: bands of five standard errors, below 1e-4 false alarms in all."""
    centres, n = source.mode_centres(), 20_000
    assert centres.shape == (modes, 2)
    assert torch.pdist(centres).min() > 0.5
    assert centres.norm(dim=1).max().item() == pytest.approx(reach, rel=1e-6)
    assert source.mode_std() == pytest.approx(std)
    x = law(source)(n, seeded())
    distance, nearest = torch.cdist(x, centres).min(dim=1)
    hits = torch.bincount(nearest, minlength=modes)
    assert (hits - n / modes).abs().max() < 5 * math.sqrt(n / modes)
    assert distance.square().mean().item() == pytest.approx(2 * std**2, rel=5 / math.sqrt(n))


def test_ring_with_a_doubled_end_has_seven_modes() -> None:
    """A circle divided with both ends included doubles a mode: the test above would see it."""
    angle = torch.linspace(0, 2 * math.pi, 8)
    doubled = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert torch.pdist(doubled).min() < 1e-6
    angles = torch.atan2(*Ring8().mode_centres().T.flip(0)).sort().values
    torch.testing.assert_close(angles.diff(), torch.full((7,), math.pi / 4))


def test_ring_options_scale_it() -> None:
    ring = Ring8(radius=1.0, std=0.01, scale=1.0)
    torch.testing.assert_close(ring.mode_centres().norm(dim=1), torch.ones(8))
    assert ring.mode_std() == 0.01


def w1_to_the_noised_law(source: Source, seed: int) -> float:
    generator = seeded(seed)
    x = law(source)(1000, generator).double()
    y = x + torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    return float(ot.emd2([], [], torch.cdist(x, y).numpy(), numItermax=10**6))


@pytest.mark.parametrize(
    ("source", "unscaled", "expected"),
    [
        (Ring8(), Ring8(scale=1.0), 0.827),
        (Grid25(), Grid25(scale=1.0), 0.575),
        (SwissRoll(), SwissRoll(scale=1.0), 0.611),
    ],
    ids=["ring8", "grid25", "swiss-roll"],
)
def test_w1_to_the_noised_law(source: Source, unscaled: Source, expected: float) -> None:
    """W1(data, data + N(0, I)), exact on samples of 1,000: a mean of 4, with standard error .01 and bias .01."""
    assert sum(w1_to_the_noised_law(source, seed) for seed in range(4)) / 4 == pytest.approx(expected, abs=0.04)
    assert abs(w1_to_the_noised_law(unscaled, 0) - expected) > 0.08


def test_swiss_roll_is_a_spiral_of_the_published_range() -> None:
    x = law(SwissRoll(noise=0.0))(5000, seeded()).double() * 7.5
    t = x.norm(dim=1)
    torch.testing.assert_close(x, torch.stack([t * t.cos(), t * t.sin()], dim=1), atol=2e-4, rtol=0)
    assert (t.min().item(), t.max().item()) == pytest.approx((1.5 * math.pi, 4.5 * math.pi), abs=0.02)
    assert t.mean().item() == pytest.approx(3 * math.pi, abs=5 * math.pi * math.sqrt(3) / 2 / math.sqrt(5000))
    noisy = law(SwissRoll())(5000, seeded()).double() * 7.5
    assert (noisy - x).std().item() == pytest.approx(0.25, rel=0.05)


def test_parallel_lines_are_theta_apart() -> None:
    x, y = law(ParallelLines())(1000, seeded()), law(ParallelLines(theta=0.7))(1000, seeded())
    torch.testing.assert_close((y - x).norm(dim=1), torch.full((1000,), 0.7))
    assert (x[:, 0] == 0).all()
    assert x[:, 1].min() >= 0
    assert x[:, 1].max() <= 1


def test_gaussians_have_their_moments() -> None:
    """Bands of five standard errors."""
    n = 40_000
    x = law(Gaussian(mean=(1.0, -2.0, 0.5), std=2.0))(n, seeded())
    torch.testing.assert_close(x.mean(0), torch.tensor([1.0, -2.0, 0.5]), atol=5 * 2 / math.sqrt(n), rtol=0)
    torch.testing.assert_close(torch.cov(x.T), 4 * torch.eye(3), atol=5 * 4 * math.sqrt(2 / n), rtol=0)
    two = law(TwoGaussians(dim=3, distance=6.0, std=0.5))(n, seeded())
    assert two.mean(0).abs().max() < 5 * 3.1 / math.sqrt(n)
    assert two[:, 0].var().item() == pytest.approx(9 + 0.25, rel=0.03)
    assert two[:, 1:].var().item() == pytest.approx(0.25, rel=0.05)
    assert TwoGaussians(distance=6.0).mode_centres()[:, 0].tolist() == [-3.0, 3.0]


# Embedded images


@pytest.mark.parametrize("moved", [False, True])
def test_digits_are_those_of_scikit_learn_whether_or_not_it_is_imported(
    moved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits

    if moved:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torch.equal(_levels().flatten(1), torch.from_numpy(load_digits().data))


def test_digits_are_exact_and_their_splits_disjoint() -> None:
    train, held = rows(Digits()), rows(Digits(), "held-out")
    assert (train.shape, held.shape) == ((1438, 1, 8, 8), (359, 1, 8, 8))
    levels = (torch.cat([train, held]) + 1) * 8
    assert torch.equal(levels, levels.round())
    assert levels.unique().tolist() == list(range(17))
    assert shared(train, held) == 0
    assert shared(train, train[::2]) == 719
    assert torch.equal(train, rows(Digits()))
    assert rows(Digits(bounds=(0.0, 1.0))).max() == 1
    assert len(rows(Digits(held_out=0.5))) == 899


def test_photos_crop_disjoint_regions() -> None:
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]

    def columns(crops: Tensor) -> list[int]:
        found = []
        for crop in ((crops + 1) * 127.5).round().to(torch.uint8):
            for photo in photos:
                windows = photo.unfold(1, 32, 1).unfold(2, 32, 1)
                near = (windows[:, :, :, 0, ::8] == crop[:, None, None, 0, ::8]).all(-1).all(0).nonzero().tolist()
                found += [left for top, left in near if torch.equal(windows[:, top, left], crop)]
        return found

    for split, low, high in (("train", 0, 448), ("held-out", 448, 640)):
        samples = Photos(size=32).open(split)  # type: ignore[arg-type]
        found = columns(samples.draw(12, seeded()))
        assert len(found) >= 12
        assert min(found) >= low
        assert max(found) + 32 <= high
    assert Photos().spec().shape == (3, 64, 64)


# Collections of torchvision


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def fake_mnist(root: Path, folder: str = "MNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    for part, n in (("train", 7), ("t10k", 5)):
        pictures = numbers.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(n, np.uint8)))
    return raw


@pytest.mark.parametrize(("source", "folder"), [(MNIST, "MNIST"), (FashionMNIST, "FashionMNIST")])
def test_mnist_files_are_read(tmp_path: Path, source: type[MNIST | FashionMNIST], folder: str) -> None:
    raw = fake_mnist(tmp_path, folder)
    pixels = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(7, 1, 28, 28)
    train = source(root=str(tmp_path)).open("train")
    assert train.samples.dtype == torch.uint8
    np.testing.assert_array_equal(train.samples.numpy(), pixels)
    np.testing.assert_allclose(rows(source(root=str(tmp_path))).numpy(), pixels / 127.5 - 1, atol=1e-6)
    assert rows(source(root=str(tmp_path), bounds=(0.0, 1.0))).min() >= 0
    assert len(source(root=str(tmp_path)).open("held-out")) == 5
    assert len(source(root=str(tmp_path), limit=3).open("train")) == 3
    assert len(source(root=str(tmp_path), limit=3).open("held-out")) == 5
    assert source(root=str(tmp_path), size=32).open("train").samples.shape == (7, 1, 32, 32)
    assert source(size=32).spec().shape == (1, 32, 32)


def test_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mnist(tmp_path / "a")
    monkeypatch.setenv("IPMGAN_DATA", str(tmp_path / "a"))
    assert len(MNIST().open("train")) == 7
    with pytest.raises(DataError, match="IPMGAN_DATA"):
        MNIST(root=str(tmp_path / "b")).open("train")
    monkeypatch.delenv("IPMGAN_DATA")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "data")
    assert len(MNIST().open("train")) == 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: good[:10],
        lambda good: good[:-100],
        lambda good: b"<!DOCTYPE html> not found, sorry" * 100,
        lambda good: gzip.compress(good),
        lambda good: idx(np.zeros((7, 14, 14), np.uint8)),
        lambda good: idx(np.zeros((0, 28, 28), np.uint8)),
        lambda good: good[:3] + b"\xff" + good[4:],
    ],
)
def test_damaged_mnist_is_a_data_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = fake_mnist(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match="mnist") as caught:
        MNIST(root=str(tmp_path)).open("train")
    assert caught.value.exit_code == 3
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("source", [MNIST, FashionMNIST, CIFAR10, CelebA, LSUN], ids=lambda s: s.name)
@pytest.mark.parametrize("split", SPLITS)
def test_missing_collections_name_the_remedy(tmp_path: Path, source: Any, split: Any) -> None:
    with pytest.raises(DataError, match="root=DIR"):
        source(root=str(tmp_path)).open(split)


def test_cifar_and_celeba_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)

    class Cifar:
        def __init__(self, root: Path, *, train: bool, download: bool) -> None:
            self.data = pixels[:4] if train else pixels[4:]

    class Faces:
        def __init__(self, root: Path, *, split: str, download: bool) -> None:
            self.count = {"train": 3, "test": 2}[split]

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            picture = np.zeros((218, 178, 3), np.uint8)
            picture[20:-20] = index + 1
            return Image.fromarray(picture), 0

    monkeypatch.setattr(datasets, "CIFAR10", Cifar)
    monkeypatch.setattr(datasets, "CelebA", Faces)
    train = CIFAR10(root=str(tmp_path)).open("train")
    np.testing.assert_array_equal(train.samples.numpy(), pixels[:4].transpose(0, 3, 1, 2))
    assert len(CIFAR10(root=str(tmp_path)).open("held-out")) == 2
    faces = CelebA(root=str(tmp_path)).open("train")
    assert isinstance(faces, Streamed)
    assert (len(faces), len(CelebA(root=str(tmp_path)).open("held-out"))) == (3, 2)
    assert faces.dataset[2].shape == CelebA().spec().shape
    assert (faces.dataset[2] == 3).all()


def test_lsun_says_which_package_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bedroom_train_lmdb").mkdir()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install lmdb"):
        LSUN(root=str(tmp_path)).open("train")


@pytest.fixture
def real_data() -> Path:
    root = os.environ.get("IPMGAN_DATA")
    if not root:
        pytest.skip("IPMGAN_DATA does not say where real data is")
    return Path(root)


def test_real_mnist(real_data: Path) -> None:
    if not (real_data / "MNIST").is_dir():
        pytest.skip("no MNIST under IPMGAN_DATA")
    train, held = MNIST().open("train"), MNIST().open("held-out")
    assert (train.samples.shape, held.samples.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert train.samples.float().mean().item() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert held.samples.float().mean().item() / 255 == pytest.approx(0.1325, abs=1e-4)


def test_real_photographs_in_a_folder(real_data: Path, tmp_path: Path) -> None:
    archive = real_data / "cifar10-jpg.tar.xz"
    if not archive.is_file():
        pytest.skip("no cifar10-jpg.tar.xz under IPMGAN_DATA")
    with tarfile.open(archive) as tar:
        taken = 0
        for member in tar:
            if member.isfile() and taken < 20:
                tar.extract(member, tmp_path, filter="data")
                taken += 1
            elif taken == 20:
                break
    source = Folder(root=str(tmp_path), size=32)
    train, held = rows(source), rows(source, "held-out")
    assert (train.shape, held.shape) == ((18, 3, 32, 32), (2, 3, 32, 32))
    assert shared(train, held) == 0
    assert train.std() > 0.2


# Folders


def picture(path: Path, value: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for i in range(20):
        picture(root / f"{'ab'[i % 2]}" / f"{i}.png", i)
    picture(root / ".hidden" / "x.png", 99)
    (root / "readme.txt").write_text("not an image")
    return root


def test_folder_reads_a_tree(tree: Path) -> None:
    source = Folder(root=str(tree), size=16, held_out=0.25)
    train, held = source.open("train"), source.open("held-out")
    assert isinstance(train, Resident)
    assert isinstance(held, Resident)
    assert train.samples.shape == (15, 3, 16, 16)
    values = [set(part.samples[:, 0, 0, 0].tolist()) for part in (train, held)]
    assert values[0] | values[1] == set(range(20))
    assert not values[0] & values[1]
    assert (train.samples[:, 1] == 0).all()
    assert (train.samples[:, 2] == 255).all()
    assert torch.equal(train.samples, source.open("train").samples)


def test_folder_split_survives_a_move_and_more_files(tree: Path) -> None:
    held = {path.name for path in Folder(root=str(tree), held_out=0.25).paths("held-out")}
    moved = tree.rename(tree.parent / "elsewhere")
    assert {path.name for path in Folder(root=str(moved), held_out=0.25).paths("held-out")} == held
    for i in range(4):
        picture(moved / f"more{i}.png", i)
    assert len(held & {path.name for path in Folder(root=str(moved), held_out=0.25).paths("held-out")}) >= 2


def test_folder_streams_what_does_not_fit(tree: Path) -> None:
    resident = Folder(root=str(tree), size=16).open("train")
    streamed = Folder(root=str(tree), size=16, memory=0).open("train")
    assert isinstance(resident, Resident)
    assert isinstance(streamed, Streamed)
    dataset = pickle.loads(pickle.dumps(streamed.dataset))
    assert torch.equal(torch.stack([dataset[i] for i in range(len(streamed))]), resident.samples)
    assert streamed.bounds == (-1.0, 1.0)


def test_folder_crops_the_centre_and_turns_grey(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    samples = Folder(root=str(tmp_path), size=20, channels=1).open("train")
    assert isinstance(samples, Resident)
    assert samples.samples.shape == (1, 1, 20, 20)
    assert (samples.samples == 200).all()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_cut_short() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[:1500]


def sixteen_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((30, 30), 40_000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot read"),
        (b"no image at all", "cannot read"),
        (jpeg_cut_short(), "cannot read"),
        (png_header(30, 30), "cannot read"),
        (png_header(10_000, 10_000), "too large"),
        (png_header(60_000, 60_000), "too large"),
        (sixteen_bits(), "more than 8 bits"),
    ],
    ids=["empty", "text", "cut", "pixels-missing", "large", "bomb", "16-bit"],
)
@pytest.mark.parametrize("memory", [0, 1024])
def test_unreadable_images_are_named(tree: Path, content: bytes, reason: str, memory: int) -> None:
    bad = Folder(root=str(tree), size=16).paths("train")[3]
    bad.write_bytes(content)

    def read() -> None:
        samples = Folder(root=str(tree), size=16, memory=memory).open("train")
        if isinstance(samples, Streamed):
            samples.dataset[3]

    with pytest.raises(DataError, match=reason) as caught:
        read()
    assert str(bad) in str(caught.value)


def test_folder_without_enough_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        Folder(root=str(tmp_path / "none")).open("train")
    with pytest.raises(DataError, match=r"0 sample\(s\)"):
        Folder(root=str(tmp_path)).open("train")
    picture(tmp_path / "one.png", 1)
    with pytest.raises(DataError, match=r"1 sample\(s\)"):
        Folder(root=str(tmp_path)).open("train")


# Array files


def save(path: Path, array: Any) -> str:
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        from safetensors.numpy import save_file

        save_file(array, path)
    return str(path)


def test_tensor_reads_vectors(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(50, 3))
    for kind, array in (("<f8", table), (">f4", table), ("<f2", table), ("<i4", table * 100)):
        stored = array.astype(kind)
        source = TensorFile(path=save(tmp_path / "x.npy", stored))
        train, held = rows(source), rows(source, "held-out")
        assert source.spec().shape == (3,)
        assert source.spec().bounds is None
        assert (len(train), len(held), shared(train, held)) == (45, 5, 0)
        both = torch.cat([train, held]).numpy()
        expected = stored.astype(np.float32)
        np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])


def test_tensor_reads_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), dtype=np.uint8)
    path = save(tmp_path / "x.npy", pixels)
    assert TensorFile(path=path).spec().bounds == (-1.0, 1.0)
    assert rows(TensorFile(path=path, bounds=(0.0, 1.0))).max().item() == pytest.approx(pixels.max() / 255, abs=0.01)
    samples = TensorFile(path=path).open("train")
    assert samples.samples.dtype == torch.uint8
    assert samples.samples.shape == (9, 3, 8, 8)


def test_tensor_reads_safetensors(tmp_path: Path) -> None:
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    one = save(tmp_path / "one.safetensors", {"x": table})
    two = save(tmp_path / "two.safetensors", {"x": table, "other": table[:, :1].astype(np.uint8).copy()})
    assert TensorFile(path=one).spec().shape == (2,)
    assert rows(TensorFile(path=two, key="x")).shape == (9, 2)
    assert TensorFile(path=two, key="other").spec().bounds == (-1.0, 1.0)
    for key in (None, "othr"):
        with pytest.raises(DataError, match="Allowed: other, x"):
            TensorFile(path=two, key=key).open("train")


def test_tensor_names_the_first_bad_number(tmp_path: Path) -> None:
    table = np.zeros((10, 4))
    for bad in (np.nan, np.inf, 1e300):
        table[7, 2] = bad
        for split in SPLITS:
            with pytest.raises(DataError, match=r"row 7, column 2 .* must be a finite"):
                TensorFile(path=save(tmp_path / "x.npy", table)).open(split)  # type: ignore[arg-type]
    table[7, 2] = 1.5
    assert rows(TensorFile(path=save(tmp_path / "x.npy", table))).shape == (9, 4)
    with pytest.raises(DataError, match=r"row 7, column 2 .* is 1.5: must lie in \(-1.0, 1.0\)"):
        TensorFile(path=str(tmp_path / "x.npy"), bounds=(-1.0, 1.0)).open("train")


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.target), "w"))


def test_tensor_never_unpickles(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    array = np.empty(1, dtype=object)
    array[0] = Payload(target)
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match="cannot read"):
        TensorFile(path=str(tmp_path / "x.npy")).open("train")
    (tmp_path / "y.npy").write_bytes(pickle.dumps(Payload(target)))
    with pytest.raises(DataError, match="cannot read"):
        TensorFile(path=str(tmp_path / "y.npy")).open("train")
    assert not target.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_damaged_arrays_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    """Whatever bytes are wrong: the readers fail in a dozen ways, and users see one."""
    path, rng = tmp_path / f"x{suffix}", random.Random(0)
    table = np.random.default_rng(0).normal(size=(20, 2))
    if suffix == ".npz":
        np.savez_compressed(path, table)
    else:
        save(path, {"x": table} if suffix == ".safetensors" else table)
    whole, refused = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(min(len(whole), rng.choice((150, len(whole)))))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            open_array(path).read()
        except DataError:
            refused += 1
    assert refused > 100


def test_tensor_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.npy or \.safetensors"):
        TensorFile(path=str(tmp_path / "x.csv")).spec()
    with pytest.raises(DataError, match="no file"):
        TensorFile(path=str(tmp_path / "x.npy")).spec()
    for array in (np.zeros(5), np.zeros((5, 2, 2)), np.zeros((0, 2)), np.zeros((1, 2)), np.zeros((4, 2), complex)):
        with pytest.raises(DataError):
            TensorFile(path=save(tmp_path / "x.npy", array)).open("train")
    np.save(tmp_path / "x.npy", np.zeros((100, 2)))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-64])
    with pytest.raises(DataError, match="cannot read"):
        TensorFile(path=str(tmp_path / "x.npy")).open("train")
    (tmp_path / "x.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(DataError, match="cannot read"):
        TensorFile(path=str(tmp_path / "x.safetensors")).open("train")


# Shared parts


@pytest.mark.parametrize("bounds", [(1.0, -1.0), (0.0, 0.0)])
@pytest.mark.parametrize("source", [Digits, Photos, MNIST, CelebA, LSUN], ids=lambda s: s.name)
def test_bounds_are_checked_when_a_source_is_made(source: Any, bounds: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="the lower first"):
        source(bounds=bounds)


def test_resize_averages_over_the_area() -> None:
    board = (torch.arange(32).view(-1, 1) + torch.arange(32)) % 2 * 255
    small = resize(board.to(torch.uint8).expand(3, 1, 32, 32), 8)
    assert small.dtype == torch.uint8
    assert (small.float() - 127.5).abs().max() < 16
