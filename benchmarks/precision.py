"""Whether bf16 costs quality: ``python benchmarks/precision.py [--seeds 4] [--steps 1000] key=value ...``

The same seeds in float32 and in bf16; the rest are settings of a run. Prints, for the held-out estimate and each metric
at the last step, mean and standard deviation over seeds of either, and the mean of the paired differences with its
standard error. bf16 costs nothing that seeds do not where that difference is within two of those, and well within one
standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import ipmgan


def last_lines(precision: str, options: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """The last line of metrics of every seed."""
    settings = dict(setting.split("=", 1) for setting in options.settings)
    steps = {"steps": options.steps, "log_every": options.steps, "sample_every": options.steps}
    runs = ipmgan.train(
        **settings, **steps, held_out_batches=50, precision=precision, replicates=options.seeds, out=folder / precision
    )
    return [dict(run.metrics[-1]) for run in runs]


def compare(options: argparse.Namespace) -> None:
    """Train, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        found = {precision: last_lines(precision, options, Path(folder)) for precision in ("float32", "bf16")}
    told = ("step", "critic_steps", "steps_per_second", "samples_per_second")
    names = [name for name in found["float32"][0] if name not in told and "norm" not in name]
    for name in names:
        exact, rough = ([line[name] for line in found[precision]] for precision in ("float32", "bf16"))
        apart = [b - a for a, b in zip(exact, rough, strict=True)]
        error = statistics.stdev(apart) / len(apart) ** 0.5
        print(
            f"{name}: float32 {statistics.fmean(exact):.4g} (sd {statistics.stdev(exact):.2g}), "
            f"bf16 {statistics.fmean(rough):.4g} (sd {statistics.stdev(rough):.2g}), "
            f"difference {statistics.fmean(apart):+.2g} (standard error {error:.2g})"
        )


def main() -> None:
    """Read the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("settings", nargs="+", metavar="key=value")
    compare(parser.parse_args())


if __name__ == "__main__":
    main()
