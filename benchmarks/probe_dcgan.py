"""Figures 1 to 3 of the principled-methods paper: fresh discriminators against a DCGAN after 1, 10 and 25 epochs.

    python benchmarks/probe_dcgan.py [--epochs 1 10 25] [--steps 4000] [--every 25] [--nf 64] [--out DIR]

Trains a DCGAN on MNIST, or goes on where that was stopped, and probes it after so many epochs. What the paper trained
on, and with what batch, is not published.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ipmgan

BATCH = 64
DIGITS = 60_000


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
    for count in sorted(asked.epochs):
        step = {"checkpoint": count * epoch, "steps": asked.steps, "every": asked.every}
        report(count, ipmgan.probe(run, device=asked.device, **step))


def report(epochs: int, found: ipmgan.Probe) -> None:
    """How soon the discriminator is right nearly always, and by how much the gradients changed."""
    records = found.records
    right = next((r["step"] for r in records if r["held_out_accuracy"] > 0.999), None)
    print(f"after {epochs} epochs: accuracy above .999 from critic step {right} on; {found.path}")
    for cost in ("minimax", "nonsaturating", "wgan"):
        norms = [record[f"gradient_norm_{cost}"] for record in records]
        print(f"  gradient of {cost:14}: {norms[0]:.3g} at first, {max(norms):.3g} at most, {norms[-1]:.3g} at last")


if __name__ == "__main__":
    main()
