"""The two photographs that scikit-learn carries with it."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from ipmgan.data.base import Sampler, SampleSpec, Source, Split, to_interval
from ipmgan.data.split import check_bounds
from ipmgan.plugin import Training, option

_BORDER = 448
"""The column, of 640, at which the held-out region begins."""


@attrs.frozen(kw_only=True)
class Photos(Source):
    """Random square crops of scikit-learn's two photographs (427x640, colour): real textures with nothing to fetch.

    Crops to train on come from the left 70% of the pictures, held-out ones from the other 30%; they share no pixel.
    """

    name = "photos"
    defaults = Training(steps=10_000, generator="dcgan", latent="normal:dim=100")

    size: int = option(64, help="side of a crop, in pixels", at_least=4, at_most=128)
    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """Three channels of size x size."""
        return SampleSpec(shape=(3, self.size, self.size), bounds=self.bounds)

    def open(self, split: Split) -> Sampler:
        """Crops without end, from the split's own region."""
        from sklearn.datasets import load_sample_images

        photos = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
        region = photos[:, :, _BORDER:] if split == "held-out" else photos[:, :, :_BORDER]
        return Sampler(draw=_Crops(region.permute(0, 3, 1, 2).contiguous(), self.size, self.bounds))


class _Crops:
    """Uniform crops of pictures (K, C, H, W), which it keeps on the device that it last drew on."""

    def __init__(self, pictures: Tensor, size: int, bounds: tuple[float, float]) -> None:
        self.pictures, self.size, self.bounds = pictures, size, bounds

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        device, size = generator.device, self.size
        if self.pictures.device != device:
            self.pictures = self.pictures.to(device)
        pictures, channels, height, width = self.pictures.shape

        def draw(most: int) -> Tensor:
            return torch.randint(most, (count, 1, 1, 1), generator=generator, device=device)

        picture, top, left = draw(pictures), draw(height - size + 1), draw(width - size + 1)
        channel = torch.arange(channels, device=device).view(1, -1, 1, 1)
        offset = torch.arange(size, device=device)
        crops = self.pictures[picture, channel, top + offset.view(1, 1, -1, 1), left + offset]
        return to_interval(crops, self.bounds)
