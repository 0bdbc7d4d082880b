"""Samples that somebody has stored: what a path stands for, and the samples in files and folders of images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ipmgan.data import Folder, Resident, SampleSpec, Source, TensorFile, to_interval
from ipmgan.data.arrays import open_array
from ipmgan.data.decode import read_image
from ipmgan.data.folder import image_files
from ipmgan.engine.run import Run, load
from ipmgan.engine.rundir import RunDir, seeds_at
from ipmgan.errors import DataError, UsageError

FILES = (".npy", ".npz", ".safetensors")
PIXELS = (-1.0, 1.0)
"""The interval of pixels where nothing says another."""


def find(path: Path) -> Run | Source | Tensor | None:
    """What lies at a path: a run, a source of its images or rows, samples that no source holds; None for nothing.

    Files of numbers (N,), and .npz, are no source that anything is trained on, so that no part of them is held out.
    """
    if path.is_dir():
        return load(path) if is_run(path) else Folder(root=str(path))
    if not path.is_file() or path.suffix not in FILES:
        return None
    array = open_array(path)
    if path.suffix == ".npz" or len(array.shape) == 1:
        return samples_of(array.read(), str(path))
    return TensorFile(path=str(path))


def is_run(what: str | Path | Run) -> bool:
    """Whether this is a run, or the directory of one or of several seeds."""
    return isinstance(what, Run) or RunDir.at(what) or bool(seeds_at(what))


def read_samples(path: Path, spec: SampleSpec) -> Resident:
    """All samples in a .npy, .npz or .safetensors file, or in a folder of images, as those of a source.

    Raises `DataError` for what is missing, unreadable or of another shape than the source's samples.
    """
    if path.is_dir():
        return Resident(samples=_images(path, spec), bounds=spec.bounds)
    if not path.is_file():
        raise DataError(f"no run, file or folder {path}")
    if path.suffix not in FILES:
        raise UsageError(f"{path}: samples are read from {', '.join(FILES)} or a folder of images")
    return as_samples(open_array(path).read(), str(path), spec)


def samples_of(rows: Tensor, what: str) -> Tensor:
    """Rows as samples of their own shape, float32, by `as_samples`."""
    held = as_samples(rows, what)
    return to_interval(held.samples, held.bounds)


def as_samples(rows: Tensor, what: str, like: SampleSpec | None = None) -> Resident:
    """Rows as samples (N, *shape): numbers as vectors of one; vectors and images, of the shape of `like` where given.

    uint8 is taken for pixels, 0..255 for the interval of `like`, or -1..1; then channels may be last, and that of grey
    images left out. Raises `DataError` for rows of another shape, and numbers that are not real and finite.
    """
    if rows.is_complex():
        raise DataError(f"{what} holds complex numbers: must be real")
    if rows.dim() == 1:
        rows = rows[:, None]
    if like is not None:
        rows = _shaped(rows, like.shape, what)
    elif rows.dim() not in (2, 4) or 0 in rows.shape:
        shape = tuple(rows.shape)
        raise DataError(f"{what} has shape {shape}: must be (N,), (N, D) or (N, channels, height, width)")
    if rows.dtype != torch.uint8:
        rows = rows.detach().to(torch.float32)
        if not bool(rows.isfinite().all()):
            raise DataError(f"{what} holds numbers that are not finite")
    return Resident(samples=rows, bounds=PIXELS if like is None else like.bounds)


def _shaped(rows: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    found = tuple(rows.shape[1:])
    if found == shape:
        return rows
    if len(shape) == 3 and found == (*shape[1:], shape[0]):
        return rows.permute(0, 3, 1, 2).contiguous()
    if len(shape) == 3 and shape[0] == 1 and found == shape[1:]:
        return rows.unsqueeze(1)
    raise DataError(f"{what} holds samples of shape {found}, and those of the source are {shape}: give --source")


def _images(folder: Path, spec: SampleSpec) -> Tensor:
    shape = spec.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise DataError(f"{folder} is a folder, and the source's samples {shape} are no square images")
    files = image_files(folder)
    if not files:
        raise DataError(f"{folder} is no run (it has no config.toml) and holds no images")
    return torch.stack([read_image(path, shape[1], shape[0]) for path in files.values()])
