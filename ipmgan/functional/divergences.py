"""Every divergence whose value is known: in closed form, from sorted samples, or as the optimum of a linear programme.

| | laws on a finite set | samples on the line | samples | Gaussians |
|---|---|---|---|---|
| KL | `kl` | | | `gaussian_kl` |
| JS | `js` | | | `gaussian_js` |
| TV | `total_variation` | | | `gaussian_tv` |
| f-divergences | `F_DIVERGENCES` | | | `gaussian_f_divergence` |
| W1, W2 | `optimal_transport` | `wasserstein_1d` | `exact_wasserstein` | `gaussian_w1`, `gaussian_w2`, `frechet` |
| energy | `discrete_energy_distance` | `energy_distance_1d` | `mmd2_biased` | `gaussian_energy_distance` |
| MMD | `discrete_mmd2` | | `mmd2_unbiased`, `mmd2_biased` | `gaussian_mmd2_rbf`, `gaussian_mmd2_imq` |
| Sinkhorn | `sinkhorn`, `sinkhorn_divergence` | | | |

The discrete transport problem stands as three linear programmes with one value: `transport_primal`, `transport_dual`,
and over one function on all points, `kantorovich_rubinstein`; `optimal_transport` solves it by the network simplex.
"""

from ipmgan.functional.discrete import (
    F_DIVERGENCES,
    FDivergence,
    discrete_energy_distance,
    discrete_mmd2,
    js,
    kl,
    optimal_logit,
    total_variation,
)
from ipmgan.functional.gaussians import (
    frechet,
    gaussian_energy_distance,
    gaussian_f_divergence,
    gaussian_js,
    gaussian_kl,
    gaussian_mmd2_imq,
    gaussian_mmd2_rbf,
    gaussian_norm,
    gaussian_tv,
    gaussian_w1,
    gaussian_w2,
)
from ipmgan.functional.mmd import mmd2_biased, mmd2_unbiased, mmd_root
from ipmgan.functional.programmes import (
    Transport,
    exact_wasserstein,
    kantorovich_rubinstein,
    optimal_transport,
    transport_dual,
    transport_primal,
)
from ipmgan.functional.sinkhorn import sinkhorn, sinkhorn_divergence
from ipmgan.functional.transport import energy_distance_1d, sliced_wasserstein, sliced_witness, wasserstein_1d

__all__ = [
    "F_DIVERGENCES",
    "FDivergence",
    "Transport",
    "discrete_energy_distance",
    "discrete_mmd2",
    "energy_distance_1d",
    "exact_wasserstein",
    "frechet",
    "gaussian_energy_distance",
    "gaussian_f_divergence",
    "gaussian_js",
    "gaussian_kl",
    "gaussian_mmd2_imq",
    "gaussian_mmd2_rbf",
    "gaussian_norm",
    "gaussian_tv",
    "gaussian_w1",
    "gaussian_w2",
    "js",
    "kantorovich_rubinstein",
    "kl",
    "mmd2_biased",
    "mmd2_unbiased",
    "mmd_root",
    "optimal_logit",
    "optimal_transport",
    "sinkhorn",
    "sinkhorn_divergence",
    "sliced_wasserstein",
    "sliced_witness",
    "total_variation",
    "transport_dual",
    "transport_primal",
    "wasserstein_1d",
]
