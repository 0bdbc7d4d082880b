"""Samples out of one array file."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch
from torch import Tensor

from ipmgan.data.arrays import StoredArray, open_array
from ipmgan.data.base import Resident, SampleSpec, Source, Split
from ipmgan.data.split import check_bounds, split_indices
from ipmgan.errors import DataError, UsageError
from ipmgan.plugin import Training, option


@attrs.frozen(kw_only=True)
class TensorFile(Source):
    """The rows of an array in a .npy or .safetensors file: vectors (N, D) or images (N, channels, height, width).

    Numbers are used as they are, as float32, and must be finite, and inside `bounds` where these are given. uint8 is
    taken for pixels: 0..255 becomes `bounds`, or (-1, 1) where none are given. Nothing is unpickled. A fixed random
    share of the rows is held out.
    """

    name = "tensor"
    defaults = Training(steps=10_000, generator="mlp", latent="normal:dim=32")

    path: str = option(help="the file, .npy or .safetensors")
    key: str | None = option(None, help="name of the tensor in a .safetensors file with several; else samples")
    bounds: tuple[float, float] | None = option(None, help="the interval of the numbers; unbounded if not given")
    held_out: float = option(0.1, help="share of the rows that is held out", above=0, at_most=0.9)

    def __attrs_post_init__(self) -> None:
        if self.bounds is not None:
            check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """The shape of a row, from the file's header."""
        return self._spec(self._array())

    def open(self, split: Split) -> Resident:
        """The rows of the split."""
        array = self._array()
        spec, rows = self._spec(array), array.read()
        if not array.pixels:
            rows = rows.to(torch.float32)
            self._check(rows, spec.bounds)
        return Resident(samples=rows[split_indices(len(rows), self.held_out, split, self.path)], bounds=spec.bounds)

    def _spec(self, array: StoredArray) -> SampleSpec:
        shape = array.shape
        if len(shape) not in (2, 4) or 0 in shape:
            raise DataError(f"{self.path} holds an array {shape}: must be (N, D) or (N, channels, height, width)")
        pixels = array.pixels and self.bounds is None
        return SampleSpec(shape=shape[1:], bounds=(-1.0, 1.0) if pixels else self.bounds)

    def _check(self, rows: Tensor, bounds: tuple[float, float] | None) -> None:
        wrong = ~rows.isfinite()
        rule = "must be a finite float32"
        if bounds is not None:
            wrong |= (rows < bounds[0]) | (rows > bounds[1])
            rule = f"must lie in {bounds}"
        found = wrong.flatten(1).nonzero()
        if len(found):
            row, column = found[0].tolist()
            value = rows.flatten(1)[row, column].item()
            raise DataError(f"{self.path}: row {row}, column {column} (counted from 0) is {value}: {rule}")

    def _array(self) -> StoredArray:
        path = Path(self.path).expanduser()
        if path.suffix not in (".npy", ".safetensors"):
            raise UsageError(f"path = {self.path!r}: must end in .npy or .safetensors")
        if not path.is_file():
            raise DataError(f"no file {path}: give path=FILE")
        return open_array(path, self.key)
