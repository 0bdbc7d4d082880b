"""The maximum mean discrepancy, alone or on a learned feature space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
from torch import Tensor

from ipmgan import references as papers
from ipmgan.errors import UsageError
from ipmgan.functional.features import SPECTRAL, fixed_frequencies, mmd2_features
from ipmgan.functional.kernels import GMMN_WIDTHS, IMQ_SCALES, KERNELS, MMD_GAN_WIDTHS, Mixture
from ipmgan.functional.mmd import ESTIMATORS
from ipmgan.functional.tensors import safe_sqrt
from ipmgan.objectives.base import CriticKind, Objective
from ipmgan.plugin import Quantity, Training, option

_WIDTHS: Mapping[str, tuple[float, ...]] = {
    "rbf": MMD_GAN_WIDTHS,
    "laplace": MMD_GAN_WIDTHS,
    "gmmn": GMMN_WIDTHS,
    "rq": (0.2, 0.5, 1.0, 2.0, 5.0),
    "energy": (1.0,),
}
"""The widths of each kernel where none are given; those of imq depend on the dimension."""


@attrs.frozen(kw_only=True)
class MMD(Objective):
    """The maximum mean discrepancy between two batches under a fixed kernel; with a feature critic, MMD GAN.

        MMD²(P, Q) = E k(X, X') - 2 E k(X, Y) + E k(Y, Y')
        generator:  minimise   weight · MMD²
        critic:     minimise  -weight · MMD²(features), where there is one
        estimate:   MMD², or MMD for estimator=root, without the weight

    Without a critic X and Y are the flattened samples. Kernels, each summed over its widths w, d the distance:

        rbf      exp(-d²/2w²)            gmmn     exp(-d²/2w)
        imq      w / (w + d²)            rq       (1 + d²/2w)^(-w)
        laplace  exp(-d/w)               energy   -d/w

    Estimators: `unbiased` (the U-statistic, without diagonals: right on average, negative at times), `biased` (the
    V-statistic, never negative, too high by O(1/N)), `root` (the root of the V-statistic, never of a U-statistic) and
    `linear` (unbiased, O(N), one pair of samples a term, far noisier). With a critic the value is a lower bound of
    the supremum over feature maps. Widths are given numbers: none is fitted to the batch, so the distance does not
    move while it is minimised.

    Value and gradient are exact and take O(N K) memory for N samples of K numbers: no N x N matrix is held, and large
    batches cost time alone, O(N² K). `features=F` takes F random waves for each width instead (the same at every step,
    by `features_seed`): time O(N F K), with an error of MMD² of at most 2 MMD/√F, one standard deviation, for `biased`.
    It is not for `energy`, which has no spectral law, nor for `linear`.

    Departs from MMD GAN in leaving out its decoder and its clipping (an enforcer's work), and from GMMN in nothing
    that `kernel=gmmn,estimator=root` does not restore.
    Source: Gretton et al. (2012), equations 3 and 5, lemma 14; Li et al. (2015), equation 6; Li et al. (2017);
    Tolstikhin et al. (2018), section 4.
    """

    name: ClassVar[str] = "mmd"
    references: ClassVar[tuple[papers.Reference, ...]] = (
        papers.KERNEL_TEST,
        papers.GMMN,
        papers.MMD_GAN,
        papers.WAE,
    )
    critic: ClassVar[CriticKind] = CriticKind.NONE
    generator_uses_real: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True
    min_batch: ClassVar[int] = 2
    estimates: ClassVar[Quantity] = Quantity(
        name="MMD²",
        unit="kernel value (its root, MMD, for estimator=root)",
        bound="exact for the kernel on samples; a lower bound of the supremum over features with a critic",
    )
    defaults: ClassVar[Training] = Training(
        batch=64, n_critic=5, generator_optimizer="Adam:lr=1e-3", critic_optimizer="RMSprop:lr=5e-5"
    )

    kernel: str = option("rbf", help="the kernel", choices=tuple(KERNELS))
    widths: tuple[float, ...] = option(
        (),
        help="w, summed over; none: 1,2,4,8,16 (rbf, laplace), 2,5,10,20,40,80 (gmmn), .2,.5,1,2,5 (rq), 1 (energy), "
        "2K for K numbers a sample, times .1,.2,.5,1,2,5,10 (imq)",
        above=0,
    )
    scales: tuple[float, ...] = option((1.0,), help="each width stands for itself times each of these", above=0)
    estimator: str = option("unbiased", help="how MMD² is estimated from two batches", choices=tuple(ESTIMATORS))
    weight: float = option(1.0, help="factor of both losses", above=0)
    features: int = option(0, help="random features a width, an approximation for large batches; 0: exact", at_least=0)
    features_seed: int = option(0, help="the seed of the random features", at_least=0)

    def __attrs_post_init__(self) -> None:
        if self.features and self.kernel not in SPECTRAL:
            raise UsageError(
                f"features = {self.features}: kernel must be one of {', '.join(SPECTRAL)}, not {self.kernel}"
            )
        if self.features and self.estimator == "linear":
            raise UsageError(f"features = {self.features}: estimator must be unbiased, biased or root, not linear")

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -self.weight * self.estimate(real, fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.weight * self.estimate(real, fake)

    def estimate(self, real: Tensor, fake: Tensor) -> Tensor:
        kernel = Mixture(self.kernel, self.kernel_widths(fake.shape[-1]))
        if not self.features:
            return ESTIMATORS[self.estimator](real, fake, kernel)
        waves = fixed_frequencies(kernel, fake.shape[-1], self.features, seed=self.features_seed).to(fake.device)
        value = mmd2_features(real, fake, waves, unbiased=self.estimator == "unbiased")
        return safe_sqrt(value) if self.estimator == "root" else value

    def kernel_widths(self, dimension: int) -> tuple[float, ...]:
        """The widths that the kernel is summed over, for samples of so many numbers.

        >>> MMD(kernel="imq", widths=(16.0,), scales=(0.5, 1.0)).kernel_widths(8)
        (8.0, 16.0)
        """
        widths = self.widths
        if not widths and self.kernel == "imq":
            widths = tuple(2 * dimension * scale for scale in IMQ_SCALES)
        return tuple(width * scale for width in widths or _WIDTHS[self.kernel] for scale in self.scales)
