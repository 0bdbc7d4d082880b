"""The handwritten digits that scikit-learn carries with it."""

from __future__ import annotations

import attrs
import torch

from ipmgan.data.base import Resident, SampleSpec, Source, Split
from ipmgan.data.split import check_bounds, split_indices
from ipmgan.plugin import Training, option


@attrs.frozen(kw_only=True)
class Digits(Source):
    """1,797 real handwritten digits of 8x8 grey pixels, embedded in scikit-learn: nothing to fetch.

        x = low + (high - low) k / 16,    k in 0..16

    Pixels have 17 levels and are kept exactly, as float32. A fixed random share is held out.
    """

    name = "digits"
    defaults = Training(steps=1_600, generator="mlp:width=512,depth=2", latent="normal:dim=32")

    bounds: tuple[float, float] = option((-1.0, 1.0), help="the interval of the pixels")
    held_out: float = option(0.2, help="share of the samples that is held out", above=0, at_most=0.9)

    def __attrs_post_init__(self) -> None:
        check_bounds(self.bounds)

    def spec(self) -> SampleSpec:
        """One channel of 8x8."""
        return SampleSpec(shape=(1, 8, 8), bounds=self.bounds)

    def open(self, split: Split) -> Resident:
        """1,438 to train on, 359 held out, as the share stands."""
        from sklearn.datasets import load_digits

        low, high = self.bounds
        levels = torch.from_numpy(load_digits().images).unsqueeze(1)
        pixels = (low + (high - low) * (levels / 16)).to(torch.float32)
        return Resident(samples=pixels[split_indices(len(pixels), self.held_out, split, "digits")], bounds=self.bounds)
