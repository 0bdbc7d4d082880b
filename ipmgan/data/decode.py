"""Image files into tensors, and tensors of images to another size."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ipmgan.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_CHUNK = 4096


def read_image(path: Path, size: int, channels: int) -> Tensor:
    """An image file as uint8 (channels, size, size); see `fit`.

    Raises `DataError`, naming the file, where it cannot be decoded, is so large that decoding it could exhaust the
    memory, or has more than 8 bits a channel.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode[0] in "IF":
                    raise DataError(f"{path} has more than 8 bits a channel: save it with 8, or use the tensor source")
                return fit(image, size, channels)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is too large to be decoded safely: {error}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DataError(f"cannot read the image {path}: {error}; repair or remove it") from error


def fit(image: Image.Image, size: int, channels: int) -> Tensor:
    """A PIL image as uint8 (channels, size, size): upright, its largest centred square, resized bilinearly."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image).convert("RGB" if channels == 3 else "L")
    square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(square, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous() if channels == 3 else pixels.unsqueeze(0)


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 images (N, C, H, W) as uint8 (N, C, size, size): antialiased, bilinear; unchanged where they fit.

    >>> import torch
    >>> resize(torch.full((2, 1, 28, 28), 7, dtype=torch.uint8), 32).unique()
    tensor([7], dtype=torch.uint8)
    """
    if images.shape[-2:] == (size, size):
        return images
    chunks = [
        F.interpolate(chunk.to(torch.float32), (size, size), mode="bilinear", antialias=True).round().clamp(0, 255)
        for chunk in torch.split(images, _CHUNK)
    ]
    return torch.cat([chunk.to(torch.uint8) for chunk in chunks])
