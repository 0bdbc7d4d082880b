"""Draws samples: images as a grid, points as a scatter plot."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

SMALL = 56
"""Images are magnified to about so many pixels."""


def draw_samples(
    path: Path, fake: Tensor, real: Tensor | None = None, bounds: tuple[float, float] | None = None
) -> None:
    """Write a PNG of samples: a grid for images (N, C, H, W); for others, (N, D), a scatter plot of the first two
    coordinates over the real samples, or a histogram where D = 1.

    Images with values in `bounds` fill the grey scale; without bounds the picture's own range does. Small images are
    magnified smoothly, as a person would look at them.
    """
    if fake.dim() == 4:
        _draw_grid(path, fake, bounds)
    else:
        _draw_points(path, fake.flatten(1), None if real is None else real.flatten(1))


def _draw_grid(path: Path, images: Tensor, bounds: tuple[float, float] | None) -> None:
    import torchvision.utils

    low, high = bounds or (float(images.min()), float(images.max()))
    unit = ((images.detach().float().cpu() - low) / max(high - low, 1e-12)).clamp(0, 1)
    if unit.shape[1] not in (1, 3):
        unit = unit[:, :1]
    if unit.shape[-1] <= SMALL // 2:
        unit = interpolate(unit, scale_factor=SMALL // unit.shape[-1], mode="bicubic").clamp(0, 1)
    torchvision.utils.save_image(unit, path, nrow=math.ceil(math.sqrt(len(unit))), padding=2, pad_value=1.0)


def _draw_points(path: Path, fake: Tensor, real: Tensor | None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.07, 0.87, 0.9))
    groups = [("real", real, "0.6")] if real is not None else []
    for label, points, colour in (*groups, ("generated", fake, "tab:blue")):
        values = torch.nan_to_num(points.detach().float().cpu()).numpy()
        if values.shape[1] == 1:
            axes.hist(values[:, 0], bins=60, density=True, alpha=0.6, color=colour, label=label)
        else:
            axes.scatter(values[:, 0], values[:, 1], s=4, alpha=0.6, color=colour, label=label, linewidths=0)
            axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path)
