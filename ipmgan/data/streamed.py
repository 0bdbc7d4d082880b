"""Image collections that torchvision knows and that are read from the disk as they are needed."""

from __future__ import annotations

import importlib.util
from typing import Any

import attrs
from torch import Tensor
from torch.utils.data import Dataset

from ipmgan.data.base import SampleSpec, Source, Split, Streamed
from ipmgan.data.decode import fit
from ipmgan.data.images import ROOT_HELP, TRAINING, data_root, load
from ipmgan.data.split import check_bounds
from ipmgan.errors import DataError
from ipmgan.plugin import option


class _Pictures(Dataset[Tensor]):
    """The pictures of a labelled torchvision dataset, uint8 (3, size, size)."""

    def __init__(self, labelled: Any, size: int) -> None:
        self.labelled, self.size = labelled, size

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, index: int) -> Tensor:
        try:
            image = self.labelled[index][0]
            return fit(image, self.size, 3)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"cannot read image {index} of {type(self.labelled).__name__}: {error}") from error


@attrs.frozen(kw_only=True)
class CelebA(Source):
    """202,599 faces of celebrities (Liu et al.), centre-cropped and resized; the test split of 19,962 is held out."""

    name = "celeba"
    defaults = TRAINING

    root: str | None = option(None, help=ROOT_HELP)
    download: bool = option(False, help="fetch the files if they are missing")
    size: int = option(64, help="side of an image in pixels", at_least=4, at_most=178)
    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """Three channels of size x size."""
        return SampleSpec(shape=(3, self.size, self.size), bounds=self.bounds)

    def open(self, split: Split) -> Streamed:
        """The faces of the split, read as they are needed."""
        from torchvision import datasets

        root = data_root(self.root)
        faces = load(
            self.name,
            root,
            lambda: datasets.CelebA(root, split="train" if split == "train" else "test", download=self.download),
            remedy="give root=DIR or set IPMGAN_DATA to where intact files are, or fetch them with download=true",
        )
        return Streamed(dataset=_Pictures(faces, self.size), bounds=self.bounds)


@attrs.frozen(kw_only=True)
class LSUN(Source):
    """Photographs of one kind of scene (Yu et al.), centre-cropped and resized; the validation split is held out.

    Reads the published LMDB folders, such as `bedroom_train_lmdb`, through the package lmdb. They are not fetched.
    """

    name = "lsun"
    defaults = TRAINING

    category: str = option("bedroom", help="the kind of scene, as in the folders' names")
    root: str | None = option(None, help=ROOT_HELP)
    size: int = option(64, help="side of an image in pixels", at_least=4, at_most=256)
    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """Three channels of size x size."""
        return SampleSpec(shape=(3, self.size, self.size), bounds=self.bounds)

    def open(self, split: Split) -> Streamed:
        """The scenes of the split, read as they are needed."""
        from torchvision import datasets

        root, folder = data_root(self.root), f"{self.category}_{'train' if split == 'train' else 'val'}"
        if not (root / f"{folder}_lmdb").is_dir():
            raise DataError(f"no folder {folder}_lmdb under {root}: fetch LSUN from its authors and give root=DIR")
        if importlib.util.find_spec("lmdb") is None:
            raise DataError("lsun is read through the package lmdb, which is missing: pip install lmdb")
        scenes = load(
            self.name, root, lambda: datasets.LSUN(root, classes=[folder]), remedy="give root=DIR with intact folders"
        )
        return Streamed(dataset=_Pictures(scenes, self.size), bounds=self.bounds)
