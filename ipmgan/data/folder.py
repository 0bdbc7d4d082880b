"""Any tree of image files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ipmgan.data.base import Resident, SampleSpec, Source, Split, Streamed
from ipmgan.data.decode import read_image
from ipmgan.data.images import TRAINING
from ipmgan.data.split import check_bounds, held_out_count
from ipmgan.errors import DataError, UsageError
from ipmgan.plugin import option

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class _Files(Dataset[Tensor]):
    """Image files as uint8 (channels, size, size)."""

    def __init__(self, paths: tuple[Path, ...], size: int, channels: int) -> None:
        self.paths, self.size, self.channels = paths, size, channels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index], self.size, self.channels)


@attrs.frozen(kw_only=True)
class Folder(Source):
    """All images of a folder and the folders in it, each cut to its largest centred square and resized.

    Files are told by their suffix (.bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp); what is hidden is passed
    over. Held out are the files whose relative paths have the smallest hashes: the same ones on every machine, and
    nearly the same ones after files were added. Images are held in memory where a split takes at most `memory`
    mebibytes, and read as they are needed otherwise. A file that cannot be read is an error that names it.
    """

    name = "folder"
    defaults = TRAINING

    root: str = option(help="the folder")
    size: int = option(64, help="side of an image in pixels", at_least=4, at_most=1024)
    channels: int = option(3, help="3 for colour, 1 for grey", at_least=1, at_most=3)
    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")
    held_out: float = option(0.1, help="share of the images that is held out", above=0, at_most=0.9)
    memory: int = option(1024, help="mebibytes up to which a split is held in memory", at_least=0)

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)
        if self.channels == 2:
            raise UsageError("channels = 2: must be 3 for colour or 1 for grey")

    def spec(self) -> SampleSpec:
        """The channels and size asked for."""
        return SampleSpec(shape=(self.channels, self.size, self.size), bounds=self.bounds)

    def open(self, split: Split) -> Resident | Streamed:
        """The images of the split, in the order of their paths."""
        files = _Files(self.paths(split), self.size, self.channels)
        if len(files) * self.channels * self.size**2 > self.memory * 2**20:
            return Streamed(dataset=files, bounds=self.bounds)
        return Resident(samples=torch.stack([files[i] for i in range(len(files))]), bounds=self.bounds)

    def paths(self, split: Split) -> tuple[Path, ...]:
        """The files of a split, sorted. Raises `DataError` where there is no folder or are fewer than two images."""
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise DataError(f"no folder {root}: give root=DIR")
        found = image_files(root)
        held = held_out_count(len(found), self.held_out, f"the folder {root}")
        ranked = sorted(found, key=lambda name: hashlib.blake2b(name.encode()).digest())
        return tuple(found[name] for name in sorted(ranked[:held] if split == "held-out" else ranked[held:]))


def image_files(root: Path) -> dict[str, Path]:
    """The images of a folder and the folders in it, by their sorted names from there; what is hidden is passed over."""
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if _is_image(path, root)}
    return dict(sorted(found.items()))


def _is_image(path: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()
