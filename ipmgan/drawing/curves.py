"""Draws curves to log scales: those of a probe, and those of a bound over the noise's strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Sequence[Mapping[str, Any]]


@attrs.frozen(kw_only=True)
class Panel:
    """Curves in one frame: what they are of, which keys of the records, under which labels."""

    name: str
    curves: Mapping[str, str]
    log: bool = False


def draw_probe(path: Path, records: Records, costs: Sequence[str], title: str) -> None:
    """Write a PNG of a probe's records over the critic steps, with losses and gradients to log scale."""
    panels = [
        Panel(name="critic loss", curves={"loss": "training", "held_out_loss": "held-out"}, log=True),
        Panel(name="accuracy", curves={"accuracy": "training", "held_out_accuracy": "held-out"}),
        Panel(name="estimate", curves={"estimate": "training", "held_out_estimate": "held-out"}),
        Panel(name="generator's gradient: norm", curves={f"gradient_norm_{c}": c for c in costs}, log=True),
        Panel(name="generator's gradient: variance", curves={f"gradient_variance_{c}": c for c in costs}, log=True),
    ]
    draw(path, records, ("step", "critic steps"), panels, title)


def draw_bound(path: Path, rows: Records, title: str) -> None:
    """Write a PNG of a bound's rows over the noise's strength: the right-hand sides, and the divergence behind them."""
    sides = {
        "by_moments": "trained discriminator, C by moments",
        "by_ball": "trained discriminator, C of a ball",
        "certified_by_moments": "JSD <= log 2, C by moments",
        "certified_by_ball": "JSD <= log 2, C of a ball",
        "noise_term": "2 √V alone",
    }
    panels = [
        Panel(name="right-hand side, data units", curves=sides, log=True),
        Panel(name="JSD of the noised laws, nats", curves={"jsd": "trained discriminator, held-out"}),
    ]
    draw(path, rows, ("sd", "noise: sd of a coordinate"), panels, title, log_x=True)


def draw(
    path: Path, records: Records, x: tuple[str, str], panels: Sequence[Panel], title: str, *, log_x: bool = False
) -> None:
    """Write a PNG of panels over the key and label `x`, in rows of three at most; what no record has is left out."""
    # Loaded here, for nothing else needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [panel for panel in panels if any(r.get(key) is not None for r in records for key in panel.curves)]
    columns = min(max(len(shown), 1), 3)
    rows = max(math.ceil(len(shown) / columns), 1)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for axes, panel in itertools.zip_longest(figure.subplots(rows, columns, squeeze=False).flat, shown):
        if panel is None:
            axes.set_axis_off()
            continue
        axes.set_xlabel(x[1])
        axes.set_title(panel.name, fontsize=10)
        if log_x:
            axes.set_xscale("log")
        _curves(axes, records, x[0], panel)
    figure.savefig(path)


def _curves(axes: Axes, records: Records, x: str, panel: Panel) -> None:
    """Values to log scale where all of them are positive."""
    values = []
    for key, label in panel.curves.items():
        points = [(record[x], record[key]) for record in records if record.get(key) is not None]
        if points:
            values += [y for _, y in points]
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2, marker="o" if len(points) == 1 else "")
    if panel.log and min(values) > 0:
        axes.set_yscale("log")
    axes.legend(fontsize=8, framealpha=0.7, edgecolor="none")
