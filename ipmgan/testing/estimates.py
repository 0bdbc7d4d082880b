"""What an objective's estimate says of itself: its range, and on which side of the truth it falls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ipmgan import functional as fn
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.testing.base import NotApplicable, normal, require, rng
from ipmgan.testing.objectives import SAMPLES, level, outputs, with_code

SLACK = 1e-6
TRUTHS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "JSD": fn.js,
    "TV": fn.total_variation,
    "KL": fn.kl,
}
"""The divergences of discrete laws, by the names that quantities go by."""


def estimate_range(plugin: Objective) -> None:
    """The estimate has a unit, says on which side of the truth it falls, and stays within its range."""
    said = plugin.estimates
    require(said.name and said.unit, "estimates lacks its name or its unit")
    require(said.bound, "estimates does not say on which side of the truth it falls: give bound='lower bound of ...'")
    require(said.low < said.high, f"estimates has an empty range, from {said.low} to {said.high}")
    for scale in (0.1, 1.0, 10.0, 100.0):
        for seed in range(3):
            real, fake = scale * outputs(plugin, seed=seed), scale * outputs(plugin, seed=seed + 10)
            for value in (float(plugin.estimate(real, fake)), float(plugin.estimate(real, real))):
                slack = SLACK * max(1.0, abs(value))
                inside = said.low - slack <= value <= said.high + slack
                require(inside, f"estimate is {value:.6g}, outside its range from {said.low:g} to {said.high:g}")


def estimate_bound(plugin: Objective) -> None:
    """The estimate falls on the side of the truth that it states, on laws whose distance is known."""
    side = _side(plugin.estimates.bound)
    seen = 0
    for what, value, truth in _known(plugin):
        gap = side * (value - truth) / max(1.0, abs(truth))
        word = "above" if side > 0 else "below"
        require(gap <= SLACK, f"estimate is {value:.6g}, {word} the truth of {truth:.6g}, {what}")
        seen += 1
    require(seen, "no law was tried")


def _side(bound: str) -> int:
    """1 for what is never above the truth, -1 for what is never below."""
    if re.search(r"lower bound|at most", bound):
        return 1
    if re.search(r"upper bound|at least", bound):
        return -1
    raise NotApplicable(f"bound = {bound!r} names no side")


def _known(plugin: Objective) -> Iterator[tuple[str, float, float]]:
    """Estimates whose truth is known: what they are of, the value, the truth."""
    for scale in (0.3, 3.0):
        for seed in range(3):
            real = scale * outputs(plugin, seed=seed)
            yield "between equal laws", float(plugin.estimate(real, real)), 0.0
    if plugin.critic in SAMPLES:
        return
    if plugin.estimates.name.endswith("W1"):
        yield from _shifts(plugin)
    if plugin.estimates.name in TRUTHS:
        yield from _tables(plugin, TRUTHS[plugin.estimates.name])


def _shifts(plugin: Objective) -> Iterator[tuple[str, float, float]]:
    """W1 between a law on the line and itself shifted, by critics of slope K."""
    points = normal(64)
    for slope, shift in ((1.0, 2.0), (3.0, -0.5)):
        for f in (lambda x: -x, torch.sin, torch.abs):
            value = float(plugin.estimate(slope * f(points), slope * f(points + shift)))
            yield f"K·W1 of a shift by {shift} for K = {slope}", value, slope * abs(shift)


def _tables(plugin: Objective, truth: Callable[[Tensor, Tensor], Tensor]) -> Iterator[tuple[str, float, float]]:
    """Laws on five points, by critics drawn at random, and by the one that makes most of the estimate."""
    for seed in range(3):
        counts = torch.randint(1, 9, (2, 5), generator=rng(seed))
        p, q = (side.double() / side.sum() for side in counts)
        exact = float(truth(p, q))

        def estimate(table: Tensor, counts: Tensor = counts) -> Tensor:
            sides = [table.repeat_interleave(side) for side in counts]
            return plugin.estimate(*(with_code(side) if plugin.needs_code else side for side in sides))

        for scale in (0.3, 1.0, 3.0, 10.0):
            table = scale * normal(5, seed=seed)
            yield "by a critic drawn at random", float(estimate(_allowed(plugin, table))), exact
        yield "by the critic with the largest estimate", float(estimate(_best(plugin, estimate))), exact


def _allowed(plugin: Objective, table: Tensor) -> Tensor:
    return table.abs() if plugin.critic is CriticKind.ENERGY else table


def _best(plugin: Objective, estimate: Callable[[Tensor], Tensor]) -> Tensor:
    """The critic, one number a point, whose estimate a long ascent makes largest."""
    table = level(plugin, 0.0, 5)
    table = (table[:, 0] if plugin.needs_code else table).clone().requires_grad_()
    ascent = torch.optim.Adam([table], lr=0.3)
    for _ in range(60):
        (slope,) = torch.autograd.grad(-estimate(_allowed(plugin, table)), table)
        table.grad = slope
        ascent.step()
    return _allowed(plugin, table.detach())
