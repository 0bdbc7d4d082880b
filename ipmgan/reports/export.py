"""Writes generated samples to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from ipmgan.drawing.samples import draw_samples
from ipmgan.errors import UsageError

FORMATS = (".png", ".npy", ".safetensors")


def check_format(path: Path) -> None:
    """Raise `UsageError` unless the file's ending is one of `FORMATS` and its folder exists."""
    if path.suffix not in FORMATS:
        raise UsageError(f"{path}: the ending must be one of {', '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist")


def export(samples: Tensor, path: Path, bounds: tuple[float, float] | None) -> None:
    """Write samples (N, ...) as a picture, or their float32 values as .npy or .safetensors (key ``samples``)."""
    check_format(path)
    try:
        if path.suffix == ".png":
            draw_samples(path, samples, bounds=bounds)
        elif path.suffix == ".npy":
            np.save(path, samples.numpy(), allow_pickle=False)
        else:
            save_file({"samples": samples.contiguous()}, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error}") from error
