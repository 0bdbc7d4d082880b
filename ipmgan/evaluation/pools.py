"""Draws sets of samples for evaluation: from a split of a source, or from files that hold samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ipmgan.data.base import Resident, Sampler, Samples, SampleSpec, to_interval
from ipmgan.data.decode import read_image
from ipmgan.data.folder import SUFFIXES
from ipmgan.engine.streams import Streams
from ipmgan.errors import DataError, UsageError, choose_from

FILES = (".npy", ".npz", ".safetensors")
PASS = 8192
"""Samples that a pass over all of them has in memory at a time."""


class Pool:
    """Sets of samples, one a repeat, each a pure function of seed, name and repeat.

    Repeats share no samples where there are enough for all of them. Of a finite set, fewer are the first of more.
    """

    def __init__(self, samples: Samples, streams: Streams, name: str, repeats: int) -> None:
        self._samples, self._streams, self._name, self._repeats = samples, streams, name, repeats
        self.size = None if isinstance(samples, Sampler) else len(samples)
        """How many samples there are; None where there is no end of them."""

    def draw(self, count: int, repeat: int) -> Tensor:
        """`count` samples in random order, or all where there are fewer, (count, *shape), float32 on the device."""
        if isinstance(self._samples, Sampler):
            return self._samples.draw(count, self._streams.at(self._name, repeat))
        generator = self._streams.at(self._name, 0)
        order = torch.randperm(len(self._samples), generator=generator, device=generator.device)
        parts = [order[(repeat + number) % self._repeats :: self._repeats] for number in range(self._repeats)]
        return _take(self._samples, torch.cat(parts)[:count]).to(self._streams.device)

    def how(self, count: int) -> str:
        """How the sets of the repeats lie to each other, in words."""
        if self.size is None:
            return "fresh"
        if count >= self.size:
            return "all"
        return "disjoint" if count * self._repeats <= self.size else "overlapping"


def passes(samples: Samples) -> Callable[[], Iterable[Tensor]] | None:
    """All samples, a batch at a time, as often as they are asked for; None where there is no end of them."""
    if isinstance(samples, Sampler):
        return None
    finite = samples

    def batches() -> Iterator[Tensor]:
        length = PASS if isinstance(finite, Resident) else 512
        for start in range(0, len(finite), length):
            yield _take(finite, torch.arange(start, min(start + length, len(finite))))

    return batches


def _take(samples: Samples, index: Tensor) -> Tensor:
    assert not isinstance(samples, Sampler)
    if isinstance(samples, Resident):
        return samples.take(index.to(samples.samples.device))
    return to_interval(torch.stack([samples.dataset[int(i)] for i in index]), samples.bounds)


def read_samples(path: Path, spec: SampleSpec) -> Resident:
    """The samples in a .npy, .npz or .safetensors file, or in a folder of images, as those of a source.

    uint8 is taken for pixels, with channels first or last. Nothing is unpickled. Raises `DataError` for what is
    missing, unreadable or of another shape than the source's samples.
    """
    if path.is_dir():
        return Resident(samples=_images(path, spec), bounds=spec.bounds)
    if not path.is_file():
        raise DataError(f"no run, file or folder {path}")
    if path.suffix not in FILES:
        raise UsageError(f"{path}: samples are read from {', '.join(FILES)} or a folder of images")
    found = _shaped(_rows(path), spec, path)
    if found.dtype != torch.uint8:
        found = found.to(torch.float32)
        if not bool(found.isfinite().all()):
            raise DataError(f"{path} holds numbers that are not finite")
    return Resident(samples=found, bounds=spec.bounds)


def _images(folder: Path, spec: SampleSpec) -> Tensor:
    shape = spec.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise DataError(f"{folder} is a folder, and the source's samples {shape} are no square images")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError(f"{folder} is no run (it has no config.toml) and holds no images")
    return torch.stack([read_image(path, shape[1], shape[0]) for path in paths])


def _rows(path: Path) -> Tensor:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                rows: Tensor = file.get_tensor(_key(path, list(file.keys())))
                return rows
        loaded: Any = np.load(path, allow_pickle=False)
        array = loaded[_key(path, list(loaded))] if path.suffix == ".npz" else loaded
    except (OSError, ValueError, EOFError, SyntaxError, SafetensorError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if array.dtype.kind not in "biuf" or array.dtype == np.float16:
        array = array.astype(np.float32) if array.dtype == np.float16 else _refuse(path, array.dtype)
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))


def _refuse(path: Path, kind: object) -> Any:
    raise DataError(f"{path} holds {kind}: must be real numbers")


def _key(path: Path, keys: list[str]) -> str:
    if len(keys) == 1:
        return keys[0]
    if "samples" in keys:
        return "samples"
    raise DataError(choose_from(f"array in {path} named", "samples", keys))


def _shaped(rows: Tensor, spec: SampleSpec, path: Path) -> Tensor:
    shape, found = spec.shape, tuple(rows.shape[1:])
    if found == shape:
        return rows
    if len(shape) == 3 and found == (*shape[1:], shape[0]):
        return rows.permute(0, 3, 1, 2).contiguous()
    if len(shape) == 3 and shape[0] == 1 and found == shape[1:]:
        return rows.unsqueeze(1)
    raise DataError(f"{path} holds samples of shape {found}, and those of the source are {shape}: give --source")
