"""How steep a critic is: what is proven from above, and what was found from below."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from ipmgan.errors import UsageError
from ipmgan.functional.penalties import interpolates
from ipmgan.lipschitz.certificate import Certificate, lipschitz_bound
from ipmgan.lipschitz.weights import projected

EFFORT = 1e8
AT_EDGE = 1e-6
"""Relative distance from the edge of a clipping box within which a weight counts as on it."""
FIRST, LAST, LONGEST = 1.0, 0.01, 10.0
"""The first and the last length of a step, and the longest, as shares of the points' mean distance from their mean."""


@attrs.frozen(kw_only=True)
class Slope:
    """The largest gradient norms among points of one kind: as they were, and after the ascent from them."""

    start: float
    found: float


@attrs.frozen(kw_only=True)
class LayerNorms:
    """One layer: its name and type, what it can stretch by at most, and its weight's Frobenius and largest norms."""

    name: str
    layer: str
    bound: float | None
    """None where the certificate has no factor of this name."""
    frobenius: float
    largest: float
    at_edge: float | None
    """The share of its weights and biases at the edge of the clipping box; None where no box was given."""


@attrs.frozen(kw_only=True)
class Audit:
    """How steep a critic is, in evaluation mode."""

    certificate: Certificate
    """Its Lipschitz constant is at most that."""
    empirical: float
    """Its Lipschitz constant is at least that: the largest gradient norm that was found, up to rounding."""
    slopes: Mapping[str, Slope]
    """By the kind of point that the ascent began at."""
    at_edge: float | None
    """The share of all weights and biases at the edge of the clipping box; None where no box was given."""
    layers: tuple[LayerNorms, ...]

    @property
    def tightness(self) -> float:
        """The lower bound as a share of the upper one: 1 means that the constant is known; 0 without an upper one."""
        return self.empirical / self.certificate.bound if self.certificate.bound else 1.0

    def table(self) -> dict[str, Any]:
        """The audit as plain values; what is not finite is None."""
        bound = self.certificate.bound
        return {
            "lipschitz_bound": bound if math.isfinite(bound) else None,
            "unbounded": list(self.certificate.unbounded),
            "empirical": self.empirical,
            "tightness": self.tightness,
            "slopes": {kind: attrs.asdict(slope) for kind, slope in self.slopes.items()},
            "at_edge": self.at_edge,
            "layers": [
                row | {"bound": row["bound"] if row["bound"] is None or math.isfinite(row["bound"]) else None}
                for row in map(attrs.asdict, self.layers)
            ],
        }


def audit(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    clip: float | None = None,
    steps: int = 20,
    seed: int = 0,
    effort: float = EFFORT,
) -> Audit:
    """Bound the Lipschitz constant K of a critic from both sides, as it stands.

        max_t ‖∇f(x_t)‖₂  <=  K  <=  prod_l K_l

    From below, by an ascent from real and generated samples, from points between these, and between two real ones. In
    each step a point x with unit gradient g tries five others at distance h, and goes to the steepest of them if that
    is steeper: x ± h g; x + h d, d along ∇f(x + h g) - ∇f(x - h g), which is the direction of ∇‖∇f‖ seen at the scale
    h; x ± h r, r random. At first h is the points' mean distance from their mean. After a success it is doubled, up to
    10 times that, else halved, down to .01 times that, and then begins anew. Differences at a scale take the place of
    second derivatives, which are 0 almost everywhere for a piecewise linear critic. The starts are moved a little, for
    a gradient at a kink, such as that of a unit which is exactly 0, need not be a slope of anything.

    The critic is not changed; it is audited in evaluation mode, where what is normalised over the batch has fixed
    statistics. For a critic with several outputs, the slopes are those along the difference of the mean outputs on
    either side, which K bounds as well.

    Args:
        critic: from samples (N, ...) to (N,) or (N, K).
        real: samples, (N, ...), in the critic's type and on its device.
        fake: as many generated ones, or None.
        bounds: the box that points stay in; None lets them go anywhere. K over the box may be smaller than K.
        clip: half the width of the box that weights are clipped to, if they are.
        steps: of the ascent, each five gradients a point; 0 looks at the starts only.
        seed: of the random directions and places between.
        effort: of the certificate, as in `lipschitz_bound`.

    Returns:
        Both bounds, where the lower one was found, and the norms of each layer.

    Raises:
        UsageError: for samples that are no batch, or not as many of both kinds.

    >>> critic = nn.Linear(2, 1, bias=False)
    >>> _ = nn.init.constant_(critic.weight, 3.0)
    >>> found = audit(critic, torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    >>> f"{found.empirical:.4f} <= K <= {found.certificate.bound:.4f}"
    '4.2426 <= K <= 4.2426'
    """
    if real.dim() < 2 or not len(real) or (fake is not None and fake.shape != real.shape):
        shapes = [tuple(side.shape) for side in (real, fake) if side is not None]
        raise UsageError(f"samples of shapes {shapes}: an audit needs (N, ...), as many of both kinds")
    twin = copy.deepcopy(critic).eval().requires_grad_(False)
    certificate = lipschitz_bound(twin, shape=tuple(real.shape[1:]), effort=effort)
    generator = torch.Generator(real.device).manual_seed(seed)
    starts = _starts(real.detach(), None if fake is None else fake.detach(), generator)
    other = starts.get("generated", starts["between real"])
    ascent = _Ascent(twin, torch.cat([*starts.values()]), _direction(twin, real, other), bounds, generator)
    before, after = ascent.run(steps)
    ends = torch.tensor([len(points) for points in starts.values()]).cumsum(0)[:-1].tolist()
    parts = zip(starts, before.tensor_split(ends), after.tensor_split(ends), strict=True)
    slopes = {kind: Slope(start=float(first.max()), found=float(last.max())) for kind, first, last in parts}
    return Audit(
        certificate=certificate,
        empirical=max(slope.found for slope in slopes.values()),
        slopes=slopes,
        at_edge=_share_at_edge(projected(twin, biases=True), clip),
        layers=tuple(_layers(twin, certificate, clip)),
    )


def _starts(real: Tensor, fake: Tensor | None, generator: torch.Generator) -> dict[str, Tensor]:
    """The points that the ascent begins at, by kind."""

    def between(x: Tensor, y: Tensor) -> Tensor:
        epsilon = torch.rand(len(x), generator=generator, device=x.device, dtype=torch.float32)
        return interpolates(x, y, epsilon.to(x.dtype)).to(x.dtype)

    found = {"real": real, "between real": between(real, real.roll(1, 0))}
    if fake is None:
        return found
    return found | {"generated": fake, "interpolates": between(real, fake)}


@torch.no_grad()
def _direction(critic: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The unit vector along which the mean outputs differ; the first axis where they do not."""
    means = [critic(side).reshape(len(side), -1).mean(0) for side in (x, y)]
    difference = means[0] - means[1]
    length, first = torch.linalg.vector_norm(difference), torch.zeros_like(difference)
    first[0] = 1
    return torch.where(length > 0, difference / length, first)


class _Ascent:
    """Goes from each point to steeper ones."""

    def __init__(
        self,
        critic: nn.Module,
        points: Tensor,
        along: Tensor,
        bounds: tuple[float, float] | None,
        generator: torch.Generator,
    ) -> None:
        self._critic, self._along, self._bounds, self._generator = critic, along, bounds, generator
        flat = points.flatten(1)
        self._scale = float(torch.linalg.vector_norm(flat - flat.mean(0), dim=1).mean()) or 1.0
        self._points = self._inside(points + self._random(points) * (1e-3 * FIRST * self._scale))

    def run(self, steps: int) -> tuple[Tensor, Tensor]:
        """The norms at the starts, and the largest that each led to, (N,)."""
        points, gradients = self._points, self._gradients(self._points)
        before = norms = _norms(gradients)
        lengths = torch.full_like(norms, FIRST * self._scale)
        for _ in range(steps):
            found, slopes, best = self._best_of(self._tried(points, gradients, lengths))
            better = best > norms
            points = torch.where(_like(better, points), found, points)
            gradients = torch.where(_like(better, points), slopes, gradients)
            norms = torch.maximum(norms, best)
            lengths = torch.where(better, 2 * lengths, lengths / 2).clamp_max(LONGEST * self._scale)
            lengths = torch.where(lengths < LAST * self._scale, FIRST * self._scale, lengths)
        return before, norms

    def _tried(self, points: Tensor, gradients: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The points that one step tries, with their gradients."""
        step = _like(lengths, points)
        uphill, random = step * _unit(gradients), step * self._random(points)
        pair = [self._with_gradient(points + uphill), self._with_gradient(points - uphill)]
        steeper = step * _unit(pair[0][1] - pair[1][1])
        others = [self._with_gradient(points + move) for move in (steeper, random, -random)]
        return [*pair, *others]

    def _best_of(self, tried: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """For each point the steepest that was tried, with its gradient and norm."""
        points, gradients = (torch.stack(parts) for parts in zip(*tried, strict=True))
        norms = torch.stack([_norms(part) for part in gradients])
        best, which = norms.max(0)
        rows = torch.arange(len(which), device=which.device)
        return points[which, rows], gradients[which, rows], best

    def _with_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        inside = self._inside(points)
        return inside, self._gradients(inside)

    def _gradients(self, points: Tensor) -> Tensor:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            out = self._critic(points)
            along = out.flatten(1) @ self._along if out.dim() > 1 else out
            (gradient,) = torch.autograd.grad(along.sum(), points, materialize_grads=True)
        return gradient

    def _random(self, points: Tensor) -> Tensor:
        """A unit vector for each point."""
        drawn = torch.randn(points.shape, generator=self._generator, device=points.device, dtype=torch.float32)
        return _unit(drawn.to(points.dtype))

    def _inside(self, points: Tensor) -> Tensor:
        return points if self._bounds is None else points.clamp(*self._bounds)


def _norms(gradients: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
    return norms


def _unit(vectors: Tensor) -> Tensor:
    """Each divided by its norm; zeros stay zeros."""
    norms = _norms(vectors)
    return vectors * _like(torch.where(norms > 0, norms.reciprocal(), 0), vectors)


def _like(each: Tensor, points: Tensor) -> Tensor:
    return each.reshape(-1, *[1] * (points.dim() - 1))


def _layers(critic: nn.Module, certificate: Certificate, clip: float | None) -> Iterator[LayerNorms]:
    """The layers with a weight, in the order of the module."""
    factors = {factor.name: factor for factor in certificate.factors}
    for name, module in critic.named_modules():
        weight = getattr(module, "weight", None)
        if "parametrizations" in name.split(".") or not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        factor = factors.get(name)
        own = [part for part in (weight, getattr(module, "bias", None)) if isinstance(part, Tensor)]
        yield LayerNorms(
            name=name,
            layer=factor.layer if factor else type(module).__name__,
            bound=factor.bound if factor else None,
            frobenius=float(torch.linalg.vector_norm(weight)),
            largest=float(weight.abs().max()),
            at_edge=_share_at_edge(own, clip),
        )


def _share_at_edge(weights: list[Tensor], clip: float | None) -> float | None:
    """The share of numbers within rounding of ±clip, or beyond."""
    count = sum(weight.numel() for weight in weights)
    if clip is None or not count:
        return None
    return sum(int((weight.abs() >= clip * (1 - AT_EDGE)).sum()) for weight in weights) / count
