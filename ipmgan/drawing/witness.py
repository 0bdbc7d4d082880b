"""Draws a witness: where a function that tells two sets of samples apart is high, and where low."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Witness = Callable[[Tensor], Tensor]
"""From samples (N, ...) to numbers (N,), high where there is more of the real ones."""
EXTREMES = 36
GRID = 128
SHOWN = 600
LEVELS = 21
SMALL = 56
REAL, FAKE = "black", "tab:orange"


def draw_witness(
    path: Path, witness: Witness, real: Tensor, fake: Tensor, *, bounds: tuple[float, float] | None = None
) -> None:
    """Write a PNG of what the witness sees in samples (N, ...).

    In the plane, (N, 2), its value surface under both sets of samples; on the line, (N, 1), the function over both
    histograms; for images, (N, C, H, W), the real samples where it is highest, which the other side lacks most, and the
    others where it is lowest, which the real side lacks; for other vectors the histograms of its values.
    """
    real, fake = real.detach().float(), fake.detach().float()
    if real.dim() == 4:
        figure = _images(witness, real, fake, bounds)
    elif real.shape[1] == 2:
        figure = _surface(witness, real, fake)
    elif real.shape[1] == 1:
        figure = _line(witness, real, fake)
    else:
        figure = _values(witness, real, fake)
    figure.savefig(path)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _surface(witness: Witness, real: Tensor, fake: Tensor) -> Figure:
    figure = _figure(6.2, 5)
    axes = figure.add_subplot()
    both = torch.cat([real, fake])
    low, high = (both.quantile(share, dim=0) for share in (0.01, 0.99))
    middle, reach = (low + high) / 2, 0.65 * float((high - low).max().clamp_min(1e-6))
    x, y = (torch.linspace(float(c) - reach, float(c) + reach, GRID, device=both.device) for c in middle)
    points = torch.cartesian_prod(x, y)
    values = torch.cat([witness(part) for part in torch.split(points, 4096)]).reshape(GRID, GRID).T.cpu()
    levels = _levels(values)
    drawn = axes.contourf(x.cpu(), y.cpu(), values, levels=levels, cmap="Blues", norm=_norm(levels))
    axes.contour(x.cpu(), y.cpu(), values, levels=levels, colors="0.35", linewidths=0.4, linestyles="solid")
    figure.colorbar(drawn, label="witness", format="%.3g")
    for label, points, colour in (("real", real, REAL), ("other", fake, FAKE)):
        some = points[:SHOWN].cpu()
        axes.scatter(some[:, 0], some[:, 1], s=6, alpha=0.8, color=colour, linewidths=0, label=label)
    axes.set_xlim(float(x[0]), float(x[-1]))
    axes.set_ylim(float(y[0]), float(y[-1]))
    axes.set_aspect("equal")
    axes.legend(loc="upper right", markerscale=3)
    return figure


def _levels(values: Tensor) -> list[float]:
    """As much of the plane between any two: a steep witness is flat among the samples, and that is where one looks."""
    shares = torch.linspace(0, 1, LEVELS, dtype=torch.float64)
    found = sorted(set(values.flatten().double().quantile(shares).tolist()))
    return found if len(found) > 2 else [found[0] - 1, found[0], found[0] + 1]


def _norm(levels: list[float]) -> Any:
    from matplotlib.colors import BoundaryNorm

    return BoundaryNorm(levels, 256)


def _line(witness: Witness, real: Tensor, fake: Tensor) -> Figure:
    figure = _figure(6.2, 4)
    axes = figure.add_subplot()
    both = torch.cat([real, fake])[:, 0]
    low, high = float(both.quantile(0.002)), float(both.quantile(0.998))
    margin = 0.1 * max(high - low, 1e-6)
    points = torch.linspace(low - margin, high + margin, 512, device=both.device)
    _histograms(axes, real[:, 0], fake[:, 0], (low - margin, high + margin))
    axes.set_xlabel("sample")
    curve = axes.twinx()
    curve.plot(points.cpu(), witness(points[:, None]).cpu(), color="tab:purple", label="witness")
    curve.set_ylabel("witness", color="tab:purple")
    axes.legend(loc="upper left", frameon=False)
    return figure


def _values(witness: Witness, real: Tensor, fake: Tensor) -> Figure:
    figure = _figure(6.2, 4)
    axes = figure.add_subplot()
    _histograms(axes, witness(real), witness(fake), None)
    axes.set_xlabel("witness")
    axes.legend(frameon=False)
    return figure


def _histograms(axes: Axes, real: Tensor, fake: Tensor, span: tuple[float, float] | None) -> None:
    if span is None:
        both = torch.cat([real, fake])
        span = float(both.min()), float(both.max())
    for label, values, colour in (("real", real, REAL), ("other", fake, FAKE)):
        axes.hist(values.cpu().numpy(), bins=60, range=span, density=True, alpha=0.55, color=colour, label=label)
    axes.set_ylabel("density")


def _images(witness: Witness, real: Tensor, fake: Tensor, bounds: tuple[float, float] | None) -> Figure:
    low, high = bounds or (float(min(real.min(), fake.min())), float(max(real.max(), fake.max())))
    figure = _figure(9, 5.1)
    missed = real[witness(real).topk(min(EXTREMES, len(real))).indices]
    invented = fake[witness(fake).neg().topk(min(EXTREMES, len(fake))).indices]
    titles = (
        "real, where the witness is highest:\nwhat the other side misses",
        "other, where it is lowest:\nwhat it invents",
    )
    for axes, images, title in zip(figure.subplots(1, 2), (missed, invented), titles, strict=True):
        axes.imshow(_grid((images - low) / max(high - low, 1e-12)), interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return figure


def _grid(unit: Tensor) -> Any:
    """Images in [0, 1] side by side, (height, width, 3)."""
    from torchvision.utils import make_grid

    unit = unit.clamp(0, 1).cpu()
    if unit.shape[1] not in (1, 3):
        unit = unit[:, :1]
    if unit.shape[-1] <= SMALL // 2:
        unit = interpolate(unit, scale_factor=SMALL // unit.shape[-1], mode="bicubic").clamp(0, 1)
    return make_grid(unit, nrow=6, padding=2, pad_value=1.0).permute(1, 2, 0).numpy()
