"""Divergences between laws on a finite set, in nats, and f-divergences with all that their variational form needs.

`p` (the real law) and `q` (the model's) are tensors (..., S) of probabilities that sum to 1 over S; every function
returns (...,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """The Kullback-Leibler divergence Σ p log(p / q); infinite where q misses what p has.

    >>> kl(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor(0.1438)
    """
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def js(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence ½ KL(p‖m) + ½ KL(q‖m), m = (p + q) / 2; at most log 2.

    >>> js(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    tensor(0.6931)
    """
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """The total variation sup_A |p(A) - q(A)| = ½ Σ |p - q|, in [0, 1].

    >>> total_variation(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
    tensor(0.5000)
    """
    return (p - q).abs().sum(-1) / 2


def discrete_energy_distance(p: Tensor, q: Tensor, distances: Tensor) -> Tensor:
    """The energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of laws on points with known distances, in data units.

        -(p - q)ᵀ D (p - q)

    Arguments: `p` and `q` (..., S), `distances` D (S, S), symmetric. Returns (...,).

    >>> line = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> discrete_energy_distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), line)
    tensor(2.)

    Source: Székely and Rizzo (2013), equation 1.
    """
    return -discrete_mmd2(p, q, distances)


def discrete_mmd2(p: Tensor, q: Tensor, gram: Tensor) -> Tensor:
    """The squared maximum mean discrepancy of laws on points with known kernel values.

        (p - q)ᵀ K (p - q)

    Arguments: `p` and `q` (..., S), `gram` K (S, S), symmetric. Returns (...,), in the kernel's unit.

    >>> discrete_mmd2(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.eye(2))
    tensor(2.)

    Source: Gretton et al. (2012), lemma 6.
    """
    return ((p - q) @ gram * (p - q)).sum(-1)


def optimal_logit(p: Tensor, q: Tensor) -> Tensor:
    """The logit of the best discriminator D* = p / (p + q), log(p / q), with the shape of p.

    >>> optimal_logit(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75]))
    tensor([ 0.6931, -0.4055])
    """
    return p.log() - q.log()


@attrs.frozen(kw_only=True)
class FDivergence:
    """A divergence D(p‖q) = Σ q f(p / q), f convex, with its variational lower bound E_p[T] - E_q[f*(T)].

    `f` of the ratio r = p / q; its `conjugate` f*(t) = sup_r (r t - f(r)); the `activation` that takes any real number
    into the domain of f*; the `optimum` T*(r) = f'(r), at which the bound is met; the limits `at_zero` of f(r) for
    r -> 0 and `at_infinity` of f(r) / r for r -> ∞.

    Source: Nowozin, Cseke and Tomioka (2016), f-GAN, tables 1 and 2.
    """

    f: Map
    conjugate: Map
    activation: Map
    optimum: Map
    at_zero: float
    at_infinity: float

    def __call__(self, p: Tensor, q: Tensor) -> Tensor:
        """The value, also where one of the laws has no mass.

        >>> F_DIVERGENCES["tv"](torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5]))
        tensor(0.5000)
        """
        both = (p > 0) & (q > 0)
        ratio = torch.where(both, p, 1) / torch.where(both, q, 1)
        terms = torch.where(both, q * self.f(ratio), 0)
        terms = torch.where((p == 0) & (q > 0), q * self.at_zero, terms)
        return torch.where((p > 0) & (q == 0), p * self.at_infinity, terms).sum(-1)

    def lower_bound(self, real: Tensor, fake: Tensor) -> Tensor:
        """The divergence that a critic proves, E_p[T] - E_q[f*(T)], from raw outputs: T = activation(output).

        Arguments: `real` (N,) outputs on samples of p, `fake` (M,) on samples of q. Returns a scalar.

        >>> F_DIVERGENCES["pearson"].lower_bound(torch.tensor([1.0]), torch.tensor([0.0]))
        tensor(1.)
        """
        return self.activation(real).mean() - self.conjugate(self.activation(fake)).mean()


def _jensen_shannon(r: Tensor) -> Tensor:
    return torch.xlogy(r, r) - (r + 1) * torch.log((1 + r) / 2)


F_DIVERGENCES: Mapping[str, FDivergence] = MappingProxyType(
    {
        "kl": FDivergence(
            f=lambda r: torch.xlogy(r, r),
            conjugate=lambda t: torch.exp(t - 1),
            activation=lambda v: v,
            optimum=lambda r: 1 + r.log(),
            at_zero=0,
            at_infinity=math.inf,
        ),
        "reverse-kl": FDivergence(
            f=lambda r: -r.log(),
            conjugate=lambda t: -1 - torch.log(-t),
            activation=lambda v: -torch.exp(-v),
            optimum=lambda r: -1 / r,
            at_zero=math.inf,
            at_infinity=0,
        ),
        "pearson": FDivergence(
            f=lambda r: (r - 1).square(),
            conjugate=lambda t: t.square() / 4 + t,
            activation=lambda v: v,
            optimum=lambda r: 2 * (r - 1),
            at_zero=1,
            at_infinity=math.inf,
        ),
        "neyman": FDivergence(
            f=lambda r: (1 - r).square() / r,
            conjugate=lambda t: 2 - 2 * torch.sqrt(1 - t),
            activation=lambda v: -torch.expm1(-v),
            optimum=lambda r: 1 - r**-2,
            at_zero=math.inf,
            at_infinity=1,
        ),
        "squared-hellinger": FDivergence(
            f=lambda r: (r.sqrt() - 1).square(),
            conjugate=lambda t: t / (1 - t),
            activation=lambda v: -torch.expm1(-v),
            optimum=lambda r: 1 - r**-0.5,
            at_zero=1,
            at_infinity=1,
        ),
        "js": FDivergence(  # twice the Jensen-Shannon divergence
            f=_jensen_shannon,
            conjugate=lambda t: -torch.log(2 - torch.exp(t)),
            activation=lambda v: math.log(2) - F.softplus(-v),
            optimum=lambda r: torch.log(2 * r / (1 + r)),
            at_zero=math.log(2),
            at_infinity=math.log(2),
        ),
        "gan": FDivergence(  # the game's value, 2 JSD - 2 log 2
            f=lambda r: torch.xlogy(r, r) - (r + 1) * torch.log1p(r),
            conjugate=lambda t: -torch.log(-torch.expm1(t)),
            activation=lambda v: -F.softplus(-v),
            optimum=lambda r: torch.log(r / (1 + r)),
            at_zero=0,
            at_infinity=0,
        ),
        "tv": FDivergence(
            f=lambda r: (r - 1).abs() / 2,
            conjugate=lambda t: t,
            activation=lambda v: torch.tanh(v) / 2,
            optimum=lambda r: torch.sign(r - 1) / 2,
            at_zero=0.5,
            at_infinity=0.5,
        ),
    }
)
"""The f-divergences by name: kl, reverse-kl, pearson, neyman, squared-hellinger, js (= 2 JSD), gan, tv."""
