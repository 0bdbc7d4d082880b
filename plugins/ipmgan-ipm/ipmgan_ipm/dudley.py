"""Dudley's bounded-Lipschitz metric."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from torch import Tensor

BAIRE = Reference(
    key="dudley1966convergence",
    title="Convergence of Baire Measures",
    authors=("Richard M. Dudley",),
    year=1966,
    venue="Studia Mathematica",
)
EMPIRICAL = Reference(
    key="sriperumbudur2012empirical",
    title="On the Empirical Estimation of Integral Probability Metrics",
    authors=(
        "Bharath K. Sriperumbudur",
        "Kenji Fukumizu",
        "Arthur Gretton",
        "Bernhard Schölkopf",
        "Gert R. G. Lanckriet",
    ),
    year=2012,
    venue="Electronic Journal of Statistics",
)
_ADAM = "Adam:lr=1e-4,betas=[0.0,0.9]"


@attrs.frozen(kw_only=True)
class Dudley(Objective):
    """Dudley's bounded-Lipschitz metric, by a critic that an enforcer keeps Lipschitz, divided by its own norm.

        β(P_r, P_g) = sup over ‖f‖_∞ + ‖f‖_L <= 1 of  E_r[f(x)] - E_g[f(x)]
        estimate:   (E_r[f(x)] - E_g[f(x)]) / (B + K)  <=  β,   B = (max f - min f) / 2 over both batches
        critic:     minimise  the negative estimate
        generator:  minimise  the estimate, with B over the real batch, which the generator does not move

    B is the least sup norm that f can have after a shift, which moves no gap; so f / (B + K) is in the ball wherever f
    is K-Lipschitz, and the supremum of the ratio over those is β itself. It is a lower bound for the two batches, for
    any K that is not below the critic's true constant, such as the one that `lipschitz_bound` certifies; a penalised
    critic may be steeper, and the bound is then as good as its penalty. β metrises weak convergence, as W1 does for
    bounded data, and is at most W1, twice the total variation, and 2: far away is no further than far. Two points at a
    distance d are 2d / (2 + d) apart.

    The paper solves a linear programme over the samples instead of training a critic.
    Source: Dudley (1966); Sriperumbudur et al. (2012), section 2.
    """

    name: ClassVar[str] = "dudley"
    aliases: ClassVar[tuple[str, ...]] = ("bounded-lipschitz",)
    references: ClassVar[tuple[Reference, ...]] = (BAIRE, EMPIRICAL)
    critic: ClassVar[CriticKind] = CriticKind.SCORE
    needs_lipschitz: ClassVar[bool] = True
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    estimates: ClassVar[Quantity] = Quantity(
        name="β", unit="critic units of a unit ball", low=-2, high=2, bound="lower bound of β for a K-Lipschitz critic"
    )
    defaults: ClassVar[Training] = Training(batch=64, n_critic=5, generator_optimizer=_ADAM, critic_optimizer=_ADAM)

    slope: float = option(1.0, help="K, to which the enforcer holds the critic's Lipschitz constant", above=0)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.estimate(real, fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (real.mean() - fake.mean()) / self._norm(real)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return (real.mean() - fake.mean()) / self._norm(torch.cat([real, fake]))

    def _norm(self, outputs: Tensor) -> Tensor:
        return (outputs.amax() - outputs.amin()) / 2 + self.slope
