"""Draws the curves of a run from its metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "estimate": "estimate, training batch",
    "held_out_estimate": "estimate, held-out data",
    "critic_loss": "critic loss",
    "generator_loss": "generator loss",
    "critic_gradient_norm": "critic gradient norm",
    "generator_gradient_norm": "generator gradient norm",
}
PANELS = (
    ("estimate", "held_out_estimate"),
    ("critic_loss", "generator_loss"),
    ("critic_gradient_norm", "generator_gradient_norm"),
)
NOT_METRICS = {
    *("step", "critic_steps", "penalty", "lipschitz_bound", "lipschitz_found", "weights_at_edge"),
    *("steps_per_second", "samples_per_second"),
}


def draw_curves(run: Path) -> Path:
    """Write ``curves.png`` into a run's directory: estimates, losses, gradient norms and metrics over the steps."""
    # Loaded here, for training starts without it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    known = NOT_METRICS | {key for panel in PANELS for key in panel}
    metrics = tuple(dict.fromkeys(key for record in records for key in record if key not in known))
    panels = [panel for panel in (*PANELS, metrics) if any(key in record for record in records for key in panel)]
    width, height = 4.2 * len(panels), 3.4
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    # Margins in inches: finding the best ones takes as long as drawing.
    figure.subplots_adjust(0.75 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.25 / height, wspace=0.9 / 3.3)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, records, panel)
    path = run / "curves.png"
    figure.savefig(path)
    return path


def _draw(axes: Axes, records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    for key in keys:
        points = [(record["step"], record[key]) for record in records if record.get(key) is not None]
        if points:
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), label=LABELS.get(key, key), linewidth=1.2, marker=marker)
    axes.set_xlabel("generator steps")
    axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.legend(frameon=False, fontsize=8)
