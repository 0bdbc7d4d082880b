"""Figures 1 to 3 of the principled-methods paper: fresh discriminators against a DCGAN after 1, 10 and 25 epochs.

    python benchmarks/probe_dcgan.py [--epochs 1 10 25] [--steps 4000] [--every 25] [--nf 64] [--out DIR]

Trains a DCGAN on MNIST, or goes on where that was stopped, and probes it after so many epochs, with batch and optimiser
of the DCGAN's own paper (Radford et al. 2016): that of the principled methods names neither them nor its data.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipmgan
from ipmgan.drawing.curves import Panel, draw

BATCH = 128
DIGITS = 60_000
COSTS = ("minimax", "nonsaturating", "wgan")
SHOWN = {
    "held_out_accuracy": "held-out accuracy",
    "held_out_loss": "held-out loss",
    "gradient_norm_minimax": "gradient of E log(1 - D): norm",
    "gradient_norm_nonsaturating": "gradient of E[-log D]: norm",
    "gradient_variance_nonsaturating": "gradient of E[-log D]: variance",
    "gradient_norm_wgan": "gradient of -E of the log-odds: norm",
}


def main() -> None:
    """Train or go on, then probe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 10, 25])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--nf", type=int, default=64, help="features of the layers next to the pixels")
    parser.add_argument("--out", type=Path, default=Path("runs/probe-dcgan"))
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    epoch, last = DIGITS // BATCH, max(asked.epochs)
    if (asked.out / "config.toml").exists():
        run = ipmgan.resume(asked.out)
    else:
        network = f"dcgan:nf={asked.nf}"
        settings = {"source": "mnist", "generator": network, "critic": network, "batch": BATCH, "metrics": []}
        kept = {"steps": last * epoch, "checkpoint_every": epoch, "keep": last}
        run = ipmgan.train(objective="nonsaturating", device=asked.device, out=asked.out, **settings, **kept)
    found = {}
    for count in sorted(asked.epochs):
        found[count] = ipmgan.probe(
            run, checkpoint=count * epoch, steps=asked.steps, every=asked.every, device=asked.device
        )
        report(count, found[count])
    picture(asked.out / "probes.png", {count: probe.records for count, probe in found.items()})


def report(epochs: int, found: ipmgan.Probe) -> None:
    """How soon the discriminator is right nearly always, and by how much the gradients changed."""
    records = found.records
    right = next((r["step"] for r in records if r["held_out_accuracy"] > 0.999), None)
    print(f"after {epochs} epochs: accuracy first above .999 at critic step {right}; {found.path}")
    for cost in COSTS:
        norms = [record[f"gradient_norm_{cost}"] for record in records]
        print(f"  gradient of {cost:14}: {norms[0]:.3g} at first, {max(norms):.3g} at most, {norms[-1]:.3g} at last")


def picture(path: Path, probes: Mapping[int, Sequence[Mapping[str, float]]]) -> None:
    """Draw what the paper shows, a curve for each number of epochs."""
    rows: dict[float, dict[str, float]] = {}
    for epochs, records in probes.items():
        for record in records:
            row = rows.setdefault(record["step"], {"step": record["step"]})
            row |= {f"{key} {epochs}": value for key, value in record.items() if key in SHOWN}
    panels = [
        Panel(name=name, curves={f"{key} {n}": f"epoch {n}" for n in probes}, log=key != "held_out_accuracy")
        for key, name in SHOWN.items()
    ]
    draw(path, list(rows.values()), ("step", "critic steps"), panels, "fresh discriminators against a frozen DCGAN")


if __name__ == "__main__":
    main()
