"""The array of real numbers in a .npy, .npz or .safetensors file. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from ipmgan.errors import DataError, choose_from

ALONE = "samples"
"""The array that is taken from among several where none is named."""

_BROKEN = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@attrs.frozen(kw_only=True, eq=False)
class StoredArray:
    """What the header of a file says of its array, and how to read that."""

    shape: tuple[int, ...]
    pixels: bool
    """Its numbers are uint8."""
    read: Callable[[], Tensor]
    """The whole of it, in its own type; raises `DataError` where the file is damaged."""


def open_array(path: Path, key: str | None = None) -> StoredArray:
    """The array in a file; of several, the one named `key`, or else ``samples``.

    Raises `DataError` for a file that cannot be read, without such an array, or of anything but real numbers.
    """
    with _reading(path):
        return _safetensors(path, key) if path.suffix == ".safetensors" else _numpy(path, key)


def tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """An array of any order of axes and bytes as a tensor, copied where it must be."""
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))


def check_real(array: np.ndarray[Any, Any], what: object) -> None:
    """Raise `DataError` where an array holds something else than real numbers."""
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} holds {array.dtype}: must be real numbers")


def _numpy(path: Path, key: str | None) -> StoredArray:
    array: Any
    if path.suffix == ".npz":
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            array = arrays[_key(path, key, arrays.files)]
    else:
        array = np.lib.format.open_memmap(path, mode="r")
    check_real(array, path)

    def read() -> Tensor:
        with _reading(path):
            return tensor_of(np.array(array, order="C"))

    return StoredArray(shape=tuple(array.shape), pixels=array.dtype == np.uint8, read=read)


def _safetensors(path: Path, key: str | None) -> StoredArray:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        name = _key(path, key, list(file.keys()))
        header = file.get_slice(name)
        shape, kind = tuple(header.get_shape()), header.get_dtype()
    if kind.startswith("C"):
        raise DataError(f"{path} holds complex numbers: must be real numbers")

    def read() -> Tensor:
        with _reading(path), safe_open(path, framework="pt") as file:
            rows: Tensor = file.get_tensor(name)
            return rows

    return StoredArray(shape=shape, pixels=kind == "U8", read=read)


def _key(path: Path, key: str | None, keys: Sequence[str]) -> str:
    if key is None:
        key = keys[0] if len(keys) == 1 else ALONE
    if key not in keys:
        raise DataError(choose_from(f"array in {path} named", key, keys))
    return key


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say what cannot be read, whatever a damaged or forged file makes the readers stumble over."""
    from safetensors import SafetensorError

    try:
        yield
    except (*_BROKEN, SafetensorError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
