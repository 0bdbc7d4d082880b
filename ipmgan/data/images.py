"""Image collections that torchvision knows and that fit into memory."""

from __future__ import annotations

import csv
import os
import pickle
import warnings
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan.data.base import Resident, SampleSpec, Source, Split
from ipmgan.data.decode import resize
from ipmgan.data.split import check_bounds
from ipmgan.errors import DataError
from ipmgan.plugin import Training, option

TRAINING = Training(steps=10_000, generator="dcgan", latent="normal:dim=100")
ROOT_HELP = "folder that holds the data; else the environment variable IPMGAN_DATA, else 'data'"
_BROKEN = (
    RuntimeError,
    AssertionError,
    ValueError,
    TypeError,
    OSError,
    EOFError,
    LookupError,
    pickle.PickleError,
    csv.Error,
)


def data_root(root: str | None) -> Path:
    """The folder given, or IPMGAN_DATA, or ``data``."""
    return Path(root or os.environ.get("IPMGAN_DATA") or "data").expanduser()


def load(what: str, root: Path, make: Callable[[], Any], *, remedy: str) -> Any:
    """What `make` returns; where the files are missing or damaged, a `DataError` that says what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except _BROKEN as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot read {what} under {root} ({reason}): {remedy}") from error


@attrs.frozen(kw_only=True)
class ResidentImages(Source):
    """The parent of the collections that fit: torchvision's test split is held out."""

    native: ClassVar[tuple[int, int, int]]

    root: str | None = option(None, help=ROOT_HELP)
    download: bool = option(False, help="fetch the files if they are missing")
    size: int | None = option(None, help="side of an image in pixels, if not its own", at_least=4, at_most=512)
    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")
    limit: int | None = option(None, help="train on the first so many images only", at_least=1)

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """Square images of the collection's size, or the one asked for."""
        channels, side, _ = self.native
        side = self.size or side
        return SampleSpec(shape=(channels, side, side), bounds=self.bounds)

    def open(self, split: Split) -> Resident:
        """All images of the split, uint8."""
        root = data_root(self.root)
        remedy = "give root=DIR or set IPMGAN_DATA to where intact files are, or fetch them with download=true"
        images: Tensor = load(self.name, root, lambda: self._images(root, train=split == "train"), remedy=remedy)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.native or not len(images):
            raise DataError(f"{self.name} under {root} holds {tuple(images.shape)} instead of images {self.native}")
        if split == "train":
            images = images[: self.limit]
        return Resident(samples=resize(images, self.spec().shape[1]), bounds=self.bounds)

    @abstractmethod
    def _images(self, root: Path, *, train: bool) -> Tensor:
        """The images as torchvision reads them, uint8 (N, C, H, W)."""


@attrs.frozen(kw_only=True)
class MNIST(ResidentImages):
    """70,000 handwritten digits of 28x28 grey pixels (LeCun, Cortes and Burges); 10,000 held out."""

    name = "mnist"
    defaults = TRAINING
    native = (1, 28, 28)

    def _images(self, root: Path, *, train: bool) -> Tensor:
        from torchvision import datasets

        images: Tensor = datasets.MNIST(root, train=train, download=self.download).data
        return images.unsqueeze(1)


@attrs.frozen(kw_only=True)
class FashionMNIST(ResidentImages):
    """70,000 pieces of clothing of 28x28 grey pixels (Xiao, Rasul and Vollgraf); 10,000 held out."""

    name = "fashion-mnist"
    defaults = TRAINING
    native = (1, 28, 28)

    def _images(self, root: Path, *, train: bool) -> Tensor:
        from torchvision import datasets

        images: Tensor = datasets.FashionMNIST(root, train=train, download=self.download).data
        return images.unsqueeze(1)


@attrs.frozen(kw_only=True)
class CIFAR10(ResidentImages):
    """60,000 photographs of ten kinds of things in 32x32 colour pixels (Krizhevsky); 10,000 held out."""

    name = "cifar10"
    defaults = TRAINING
    native = (3, 32, 32)

    def _images(self, root: Path, *, train: bool) -> Tensor:
        from torchvision import datasets

        pixels = datasets.CIFAR10(root, train=train, download=self.download).data
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
