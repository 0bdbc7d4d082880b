"""The handwritten digits that scikit-learn carries with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

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
        low, high = self.bounds
        levels = _levels()
        pixels = (low + (high - low) * (levels / 16)).to(torch.float32)
        return Resident(samples=pixels[split_indices(len(pixels), self.held_out, split, "digits")], bounds=self.bounds)


def _levels() -> Tensor:
    """All digits in scikit-learn's order, (1797, 1, 8, 8), 0..16.

    From the file that scikit-learn's `load_digits` reads, if it is where it always was: importing scikit-learn takes
    most of the time in which a run on digits starts.
    """
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "datasets", "data", "digits.csv.gz")
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 8, 8)
    from sklearn.datasets import load_digits

    return torch.from_numpy(load_digits().images).unsqueeze(1)
