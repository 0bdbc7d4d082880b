"""The energy-based GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
from torch import Tensor

from ipmgan import references as papers
from ipmgan.errors import PairingError
from ipmgan.functional.adversarial import margin_loss, pulling_away
from ipmgan.functional.tensors import at_least_float32
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, Training, option


@attrs.frozen(kw_only=True)
class EBGAN(Objective):
    """The total variation by an energy E >= 0 that is low on real samples and at least the margin m elsewhere.

        critic:     minimise  L_D = E_r[E(x)] + E_g[max(0, m - E(x))]
        generator:  minimise  E_g[E(x)] + weight · PT,   PT = mean over i != j of cos²(code_i, code_j)
        estimate:   1 - L_D / m  <=  TV(P_r, P_g)  <=  1

    The one kind of critic that is low on real samples: -E is the critic of the others. The hinge is on each sample.
    The estimate is a lower bound of TV = sup_A |P_r(A) - P_g(A)|, met by the best energy, where L_D = m - m·TV and
    L_G = E_g[E] - E_r[E] = m·TV; no TV can be read off a signed critic, whose L_D has no such floor.

    Departs from the paper in the bound: its m/2 holds for the L1 norm ‖P - Q‖₁ = 2 TV. PT (`pulling_away`) joins the
    generator's loss only; it averages over pairs, so that parts of a batch estimate it without bias.
    Source: Zhao et al. (2017), equations 1, 2 and 4.
    """

    name: ClassVar[str] = "ebgan"
    references: ClassVar[tuple[papers.Reference, ...]] = (papers.EBGAN,)
    critic: ClassVar[CriticKind] = CriticKind.ENERGY
    min_batch: ClassVar[int] = 2
    estimates: ClassVar[Quantity] = Quantity(name="TV", unit="probability", high=1, bound="lower bound of TV")
    defaults: ClassVar[Training] = Training(
        batch=64,
        n_critic=1,
        critic="autoencoder",
        generator_optimizer="Adam:lr=1e-3",
        critic_optimizer="Adam:lr=1e-3",
    )

    margin: float = option(10.0, help="m, the energy that fakes are pushed up to, in the energy's unit", above=0)
    pulling_away: float = option(0.0, help="weight of the generator's term that keeps codes apart", at_least=0)

    @property
    def needs_code(self) -> bool:
        return self.pulling_away > 0

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return margin_loss(_energy(real), _energy(fake), self.margin)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = at_least_float32(_energy(fake)).mean()
        if not self.needs_code:
            return loss
        if fake.ndim != 2 or fake.shape[1] < 2:
            raise PairingError("ebgan with pulling_away needs a critic with a code, such as 'autoencoder'")
        return loss + self.pulling_away * pulling_away(fake[:, 1:])

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return 1 - self.critic_loss(real, fake) / self.margin


def _energy(output: Tensor) -> Tensor:
    return output if output.ndim == 1 else output[:, 0]
