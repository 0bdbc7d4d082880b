"""The sharpness of images."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan import references as papers
from ipmgan.functional.scores import laplacian_variance
from ipmgan.metrics.base import Comparison, DetailedMetric, Reading
from ipmgan.metrics.networks import IMAGES
from ipmgan.plugin import Quantity


@attrs.frozen(kw_only=True)
class Sharpness(DetailedMetric):
    """The sharpness of generated images: the variance of their Laplacian, averaged over images.

        mean over x of Var over pixels of L * x,    L = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]

    Of grey levels from 0 to 1, inside the borders; values beyond the interval of the pixels are cut off, as in a file.
    Blurred images read lower than real ones, noisy ones higher: the reading has the value of the real images beside it.
    Source: Tolstikhin et al. (2018), appendix B.
    """

    name: ClassVar[str] = "sharpness"
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.WAE,)
    measures: ClassVar[Quantity] = Quantity(
        name="sharpness", unit="squared grey levels", low=0, bound="neither: equal to the real images' at equal laws"
    )
    samples: ClassVar[int] = 5000

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        real, fake = (self._of(side, comparison.bounds or IMAGES) for side in (comparison.real, comparison.fake))
        return Reading(value=fake, more={"real": float(real)})

    def _of(self, images: Tensor, bounds: tuple[float, float]) -> Tensor:
        low, high = bounds
        parts = [laplacian_variance((part.clamp(low, high) - low) / (high - low)) for part in torch.split(images, 1024)]
        return torch.cat(parts).double().mean()

    def refuses(self, comparison: Comparison) -> str:
        shape = comparison.shape
        fits = len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 3
        return "" if fits else f"it is for grey and colour images, and these samples are {shape}"
