"""McGAN's covariance matching."""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from ipmgan import CriticKind, Objective, Quantity, Reference, Training, option
from torch import Tensor

from ipmgan_ipm.mean_matching import MCGAN


@attrs.frozen(kw_only=True)
class CovarianceMatching(Objective):
    """The distance between the covariances of a critic's features: the IPM over k products of their linear functions.

        D = E_r ΦΦᵀ - E_g ΦΦᵀ
        ‖D‖_k = σ_1(D) + ... + σ_k(D) = max over orthonormal u_1..u_k and v_1..v_k of  Σ_j ⟨u_j, D v_j⟩
        critic:     minimise  -‖D‖_k
        generator:  minimise   ‖D‖_k
        estimate:   ‖D‖_k  <=  the supremum over all features that the enforcer allows

    σ are the singular values, the largest first; with k at least the number of features, the nuclear norm. D is of raw
    second moments, as in the paper, so that laws of one covariance and other means differ. Features scaled by s scale
    it by s²: an enforcer must hold them. On two batches it is exact for these, and too large for the laws behind them,
    by the noise of the moments.

    D is symmetric, and σ are the sizes of its eigenvalues: these have a gradient where singular values coincide, too.
    On a GPU finding them makes the host wait, once a step.

    Departs from the paper in solving for u and v, instead of by steps of u and v of their own on the Stiefel manifold.
    Source: Mroueh, Sercu and Goel (2017), section 4, the primal form.
    """

    name: ClassVar[str] = "covariance-matching"
    aliases: ClassVar[tuple[str, ...]] = ("mcgan-covariance",)
    references: ClassVar[tuple[Reference, ...]] = (MCGAN,)
    critic: ClassVar[CriticKind] = CriticKind.FEATURES
    needs_lipschitz: ClassVar[bool] = True
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    estimates: ClassVar[Quantity] = Quantity(
        name="distance of second moments",
        unit="the critic's, squared",
        low=0,
        bound="lower bound of the supremum over features",
    )
    defaults: ClassVar[Training] = Training(
        batch=64, n_critic=5, generator_optimizer="RMSprop:lr=5e-5", critic_optimizer="RMSprop:lr=5e-5"
    )

    k: int = option(16, help="singular values that count, the largest first", at_least=1)

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.estimate(real, fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.estimate(real, fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        with torch.autocast(real.device.type, enabled=False):  # No product in half precision, nor its eigenvalues.
            difference = real.T @ real / len(real) - fake.T @ fake / len(fake)
            sizes: Tensor = torch.linalg.eigvalsh(difference).abs()
        return sizes.topk(min(self.k, len(sizes))).values.sum()
