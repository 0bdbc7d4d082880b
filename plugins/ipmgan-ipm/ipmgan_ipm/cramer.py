"""The Cramér GAN."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from ipmgan.functional import Mixture, energy, mmd2_unbiased, squared_distances
from torch import Tensor

CRAMER = Reference(
    key="bellemare2017cramer",
    title="The Cramer Distance as a Solution to Biased Wasserstein Gradients",
    authors=(
        "Marc G. Bellemare",
        "Ivo Danihelka",
        "Will Dabney",
        "Shakir Mohamed",
        "Balaji Lakshminarayanan",
        "Stephan Hoyer",
        "Rémi Munos",
    ),
    year=2017,
    venue="arXiv preprint",
    arxiv="1705.10743",
)
_ADAM = "Adam:lr=1e-4,betas=[0.5,0.9]"
_DISTANCE = Mixture("energy", (1.0,))


@attrs.frozen(kw_only=True)
class Cramer(Objective):
    """The energy distance between two batches; with a feature critic h, the Cramér GAN.

        ℰ(P_r, P_g) = 2 E‖x - y‖ - E‖x - x'‖ - E‖y - y'‖,   x, x' ~ P_r,  y, y' ~ P_g,  each h(.) where there is an h
        generator:  minimise  ℰ
        critic:     minimise  E_g[f(y)] - E_r[f(x)],   f(x) = E_y‖h(x) - h(y)‖ - ‖h(x)‖
        estimate:   ℰ;   in one dimension 2 ∫ (F_r - F_g)² dx, twice the squared Cramér distance

    Means over pairs leave out the pairs of a sample with itself, so ℰ and its gradient are right on average, and
    negative at times. With a critic it is the distance between laws of features, in the critic's units: they grow with
    its scale, so give it an enforcer (`cramer-gp`, the paper's; `gp` wants one number a sample).

    The paper's f puts ‖h(x)‖ where the witness of ℰ has E‖h(x) - h(x_r)‖, and the critic's loss is not ℰ: it is 0 for
    every law of real features where all generated ones lie at the origin. `surrogate=false` lets the critic ascend ℰ
    itself, as `mmd:kernel=energy` does.

    Departs from the paper in taking all pairs of a batch instead of one x and two y.
    Source: Bellemare et al. (2017), algorithm 1; on f, Bińkowski et al. (2018), Demystifying MMD GANs.
    """

    name: ClassVar[str] = "cramer"
    references: ClassVar[tuple[Reference, ...]] = (CRAMER,)
    critic: ClassVar[CriticKind] = CriticKind.NONE
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    estimates: ClassVar[Quantity] = Quantity(
        name="energy distance", unit="data units, or the critic's", bound="right on average for samples or features"
    )
    defaults: ClassVar[Training] = Training(batch=64, n_critic=5, generator_optimizer=_ADAM, critic_optimizer=_ADAM)

    surrogate: bool = option(True, help="train the critic by the paper's f; false: by the energy distance")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        if not self.surrogate:
            return -self.estimate(real, fake)
        across = -energy(squared_distances(real, fake)).mean()
        within = -energy(squared_distances(fake)).sum() / (len(fake) * (len(fake) - 1))
        return within - across + _mean_length(real) - _mean_length(fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.estimate(real, fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        return mmd2_unbiased(real, fake, _DISTANCE)


def _mean_length(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths.mean()
