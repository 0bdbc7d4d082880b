"""Distances between two sets of samples that no critic has to be trained for."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError, choose_from
from ipmgan.functional.kernels import KERNELS, Mixture, squared_distances
from ipmgan.functional.programmes import Transport, distance_matrix, optimal_transport
from ipmgan.functional.sinkhorn import sinkhorn, softmin, symmetric_potential
from ipmgan.functional.transport import sliced_witness, wasserstein_1d
from ipmgan.objectives.mmd import MMD
from ipmgan.plugin import Quantity, option
from ipmgan.selection import build, parse_selection

Witness = Callable[[Tensor], Tensor]
"""From points (B, K) to numbers (B,), high where the first side has more."""


@attrs.frozen(kw_only=True, eq=False)
class Comparison:
    """What a method finds in two sets of samples."""

    value: float
    error: float
    """Its standard error, to first order: that of the means of the witness."""
    witness: Witness
    permuted: Callable[[Tensor], float]
    """The value for the pooled samples in another order, given as indices (N + M,)."""


class Method(ABC):
    """A distance between samples (N, K) and (M, K)."""

    name: ClassVar[str]
    quantity: ClassVar[Quantity]
    matrix: ClassVar[bool] = True
    """Holds a matrix of all pairs, which limits the number of samples."""

    @abstractmethod
    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        """The comparison."""


@attrs.frozen(kw_only=True)
class Exact(Method):
    """W1 by the network simplex. Its witness is the Kantorovich potential, min_j ‖z - y_j‖ - v_j."""

    name = "exact"
    quantity = Quantity(
        name="W1", unit="data units", low=0, bound="W1 of the samples, on average above that of the laws"
    )

    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        solved = _transport(distance_matrix(x, y))
        pooled = functools.cache(lambda: distance_matrix(*[torch.cat([x, y])] * 2))

        def permuted(order: Tensor) -> float:
            return float(_transport(pooled()[order[: len(x)]][:, order[len(x) :]]).cost)

        return Comparison(
            value=float(solved.cost),
            error=mean_error(solved.u, solved.v),
            witness=lambda z: (distance_matrix(z, y) - solved.v).min(1).values,
            permuted=permuted,
        )


@attrs.frozen(kw_only=True)
class Sinkhorn(Method):
    """The debiased Sinkhorn divergence S_ε, by POT."""

    name = "sinkhorn"
    quantity = Quantity(
        name="Sinkhorn divergence", unit="data units", low=0, bound="between W1 and half the energy distance"
    )

    epsilon: float | None = option(None, help="ε, in data units; left open, 0.05 of the mean distance", above=0)

    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        across = distance_matrix(x, y)
        epsilon = self.epsilon or 0.05 * float(across.mean())
        within = [distance_matrix(side, side) for side in (x, y)]
        solved = _sinkhorn(across, epsilon)
        own = [_own(cost, epsilon) for cost in within]
        f, g = solved.u - own[0], solved.v - own[1]
        pooled = functools.cache(lambda: distance_matrix(*[torch.cat([x, y])] * 2))

        def permuted(order: Tensor) -> float:
            first, second = order[: len(x)], order[len(x) :]
            entropic = _sinkhorn(pooled()[first][:, second], epsilon)
            sides = [_own(pooled()[side][:, side], epsilon) for side in (first, second)]
            return float((entropic.u - sides[0]).mean() + (entropic.v - sides[1]).mean())

        def witness(z: Tensor) -> Tensor:
            to_y = softmin(distance_matrix(z, y), solved.v, _uniform(y), epsilon)
            return to_y - softmin(distance_matrix(z, x), own[0], _uniform(x), epsilon)

        return Comparison(value=float(f.mean() + g.mean()), error=mean_error(f, g), witness=witness, permuted=permuted)


@attrs.frozen(kw_only=True)
class Sliced(Method):
    """W1 of projections on random directions, averaged. Its witness is the mean of the projections' potentials."""

    name = "sliced"
    quantity = Quantity(
        name="sliced W1", unit="data units", low=0, bound="at most W1; on average above that of the laws"
    )
    matrix = False

    directions: int = option(256, help="how many random directions", at_least=1)

    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        witness = sliced_witness(x, y, directions=self.directions, generator=generator)
        on_x, on_y = witness(x), witness(y)
        projected = torch.cat([x, y]).to(witness.lines) @ witness.lines

        def permuted(order: Tensor) -> float:
            return float(wasserstein_1d(projected[order[: len(x)]], projected[order[len(x) :]]).mean())

        value = float(on_x.mean() - on_y.mean())
        return Comparison(value=value, error=mean_error(on_x, on_y), witness=witness, permuted=permuted)


@attrs.frozen(kw_only=True)
class KernelMMD(Method):
    """MMD² under a kernel of the objective `mmd`, unbiased by default. Its witness is E k(z, x) - E k(z, y)."""

    name = "mmd"
    quantity = Quantity(
        name="MMD²", unit="kernel value", bound="right on average (unbiased), too high by O(1/N) (biased)"
    )

    kernel: str = option("rbf", help="the kernel", choices=tuple(KERNELS))
    widths: tuple[float, ...] = option((), help="summed over; none: those of the objective mmd", above=0)
    estimator: str = option("unbiased", help="how it is estimated", choices=("unbiased", "biased"))

    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        kernel = Mixture(self.kernel, MMD(kernel=self.kernel, widths=self.widths).kernel_widths(x.shape[1]))
        pooled = torch.cat([x, y]).double()
        gram = kernel(squared_distances(pooled))
        n, m = len(x), len(y)
        diagonal = kernel.at_zero if self.estimator == "unbiased" else None
        value = functools.partial(_mmd2, gram, float(gram.sum()), n, diagonal)
        order = torch.arange(n + m, device=x.device)
        w = gram[:, :n].mean(1) - gram[:, n:].mean(1)

        def witness(z: Tensor) -> Tensor:
            values = kernel(_squared(z, pooled))
            return values[:, :n].mean(1) - values[:, n:].mean(1)

        return Comparison(value=value(order), error=2 * mean_error(w[:n], w[n:]), witness=witness, permuted=value)


@attrs.frozen(kw_only=True)
class Energy(Method):
    """The energy distance 2E‖X-Y‖ - E‖X-X'‖ - E‖Y-Y'‖, as a V-statistic. Its witness is E‖z - y‖ - E‖z - x‖."""

    name = "energy"
    quantity = Quantity(name="energy distance", unit="data units", low=0, bound="too high by O(1/N)")

    def compare(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Comparison:
        return KernelMMD(kernel="energy", estimator="biased").compare(x, y, generator)


METHODS: Mapping[str, type[Method]] = {cls.name: cls for cls in (Exact, Sinkhorn, Sliced, Energy, KernelMMD)}
"""By name."""


def make_method(selection: str) -> Method:
    """The method for ``name:key=value,...``.

    >>> make_method("sliced:directions=8")
    Sliced(directions=8)
    """
    table = parse_selection(selection)
    name = str(table.pop("name", ""))
    if name not in METHODS:
        raise UsageError(choose_from("method", name, ("critic", *METHODS)))
    made: Method = build(METHODS[name], table, what=f"method {name}")
    return made


def mean_error(x: Tensor, y: Tensor) -> float:
    """The standard error of mean x - mean y."""
    return float((x.double().var() / len(x) + y.double().var() / len(y)).sqrt())


def _uniform(side: Tensor) -> Tensor:
    return torch.full((len(side),), 1 / len(side), dtype=torch.float64, device=side.device)


def _transport(cost: Tensor) -> Transport:
    return optimal_transport(cost, _uniform(cost), _uniform(cost.T))


def _sinkhorn(cost: Tensor, epsilon: float) -> Transport:
    return sinkhorn(cost, _uniform(cost), _uniform(cost.T), epsilon)


def _own(cost: Tensor, epsilon: float) -> Tensor:
    return symmetric_potential(cost, _uniform(cost), epsilon)


def _squared(z: Tensor, pooled: Tensor) -> Tensor:
    return squared_distances(z.double(), pooled)


def _mmd2(gram: Tensor, total: float, n: int, diagonal: float | None, order: Tensor) -> float:
    """MMD² of the first n samples in this order and the others; without diagonals where their value is given."""
    m = len(gram) - n
    first = torch.zeros(len(gram), dtype=gram.dtype, device=gram.device)
    first[order[:n]] = 1
    row = gram @ first
    xx, both = float(first @ row), float(row.sum())
    xy = both - xx
    yy = total - xx - 2 * xy
    if diagonal is None:
        return xx / n**2 + yy / m**2 - 2 * xy / (n * m)
    return (xx - n * diagonal) / (n * (n - 1)) + (yy - m * diagonal) / (m * (m - 1)) - 2 * xy / (n * m)
