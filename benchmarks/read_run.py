"""Figures about finished runs: ``python benchmarks/read_run.py RUN ...``

For every run: how long it trained, and Spearman's rank correlation of the held-out estimate with the sliced Wasserstein
distance to held-out data over all steps at which both were taken. Where the source has modes: how many of them hold at
least 1% of 10,000 samples within three standard deviations, and the share of samples within three of any.
"""

from __future__ import annotations

import sys

from scipy.stats import spearmanr

import ipmgan


def correlation(run: ipmgan.Run) -> str:
    """The rank correlation, with its number of points."""
    both = [r for r in run.metrics if "sliced-wasserstein" in r and r["held_out_estimate"] is not None]
    if len(both) < 3:
        return "too few points"
    result = spearmanr([r["held_out_estimate"] for r in both], [r["sliced-wasserstein"] for r in both])
    return f"{result.statistic:.2f} (p = {result.pvalue:.1g}, {len(both)} points)"


def coverage(run: ipmgan.Run, *, average: bool) -> str:
    """Modes covered and the share of samples within three standard deviations of a mode."""
    evaluator = ipmgan.Evaluator(run, metrics=["modes"], repeats=1, average=average)
    for _ in evaluator:
        pass
    (found,) = evaluator.evaluation().results
    modes, near = (found.more[name].value for name in ("modes", "high_quality"))
    return f"{found.value:.0f} of {modes:.0f} modes, {near:.1%} of samples within 3 standard deviations"


def main() -> None:
    """Print the figures of each run."""
    for path in sys.argv[1:]:
        run = ipmgan.load(path)
        last = [record for record in run.metrics if "sliced-wasserstein" in record][-1]
        print(
            f"{path}: {run.config.title}, {last['step']} steps, held-out estimate {last['held_out_estimate']:.4g}, ",
            end="",
        )
        print(f"sliced Wasserstein {last['sliced-wasserstein']:.4g}")
        print(f"  rank correlation of the two over the run: {correlation(run)}")
        if isinstance(run.config.source, ipmgan.Ring8 | ipmgan.Grid25):
            for average in (False, True) if run.config.schedule.average else (False,):
                print(f"  {'averaged ' if average else ''}generator: {coverage(run, average=average)}")


if __name__ == "__main__":
    main()
