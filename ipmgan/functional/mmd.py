"""The maximum mean discrepancy between two samples, by four estimators.

    MMD²(P, Q) = E k(X, X') - 2 E k(X, Y) + E k(Y, Y')

the squared supremum of E f(X) - E f(Y) over the unit ball ‖f‖_H ≤ 1 of the kernel's space. X are N samples, Y are M, of
K numbers each. In float32 the value is a difference of means near k(0), so that its absolute error is some 1e-7 · k(0).

Under a `Mixture` (a kernel of `KERNELS` with its widths) no N x M matrix is held: value and gradient are summed tile by
tile in one pass, in O((N + M) K) memory beyond the inputs (`tiles`). Any other function of squared distances takes the
matrix, and so do second derivatives, small batches in compiled or stacked code or on a GPU, and devices without tiles.
Which way is taken changes the result by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ipmgan.functional.kernels import Kernel, Mixture
from ipmgan.functional.tensors import at_least_float32, check_samples, safe_sqrt
from ipmgan.functional.tiled import matrix_mmd2, tiled_mmd2, tiles_pay


def mmd2_unbiased(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The U-statistic: both diagonals left out, so that its mean is MMD², and it is negative half the time at P = Q.

        Σ_{i≠j} k(x_i, x_j) / N(N-1) - 2 Σ k(x_i, y_j) / NM + Σ_{i≠j} k(y_i, y_j) / M(M-1)

    Arguments: `x` (N, K), `y` (M, K), `kernel` from squared distances to values. Returns a scalar, in the kernel's
    unit. Raises `UsageError` for fewer than two samples a side.

    >>> from ipmgan.functional import Mixture
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    >>> mmd2_unbiased(x, y, Mixture("rbf", (1.0,)))
    tensor(-0.4323)

    Source: Gretton et al. (2012), equation 3.
    """
    check_samples(x, y, 2)
    return _mmd2(x, y, kernel, unbiased=True)


def mmd2_biased(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The V-statistic: MMD² of the two empirical laws, never negative, above MMD² on average.

        Σ k(x_i, x_j) / N² - 2 Σ k(x_i, y_j) / NM + Σ k(y_i, y_j) / M²

    Arguments: `x` (N, K), `y` (M, K), `kernel` from squared distances to values. Returns a scalar, in the kernel's
    unit; rounding may leave it a few 1e-7 · k(0) below 0 in float32. Raises `UsageError` for no samples.

    >>> from ipmgan.functional import Mixture
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    >>> mmd2_biased(x, y, Mixture("rbf", (1.0,)))
    tensor(0.1967)

    Source: Gretton et al. (2012), equation 5.
    """
    check_samples(x, y)
    return _mmd2(x, y, kernel, unbiased=False)


def mmd_root(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The MMD itself, the root of the V-statistic; 0 with gradient 0 where that is 0.

        √(Σ k(x_i, x_j) / N² - 2 Σ k(x_i, y_j) / NM + Σ k(y_i, y_j) / M²)

    There is no root of a U-statistic: that is negative half the time where it matters. Arguments, unit and errors are
    those of `mmd2_biased`.

    >>> from ipmgan.functional import GMMN_WIDTHS, Mixture
    >>> mmd_root(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]]), Mixture("gmmn", GMMN_WIDTHS))
    tensor(0.4519)

    Source: Li et al. (2015), equation 6.
    """
    return safe_sqrt(mmd2_biased(x, y, kernel))


def mmd2_linear(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The unbiased estimate that looks at each sample once: time and memory O(N), at the price of variance.

        mean over i of k(x_2i, x_2i+1) + k(y_2i, y_2i+1) - k(x_2i, y_2i+1) - k(x_2i+1, y_2i)

    Arguments: `x` (N, K), `y` (M, K), `kernel` from squared distances to values; samples without a partner (beyond the
    largest even number that both have) are left out. Returns a scalar, in the kernel's unit. Raises `UsageError` for
    fewer than two samples a side.

    >>> from ipmgan.functional import Mixture
    >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    >>> mmd2_linear(x, y, Mixture("rbf", (1.0,)))
    tensor(0.)

    Source: Gretton et al. (2012), lemma 14.
    """
    check_samples(x, y, 2)
    count = min(len(x), len(y)) // 2 * 2
    x, y = at_least_float32(x), at_least_float32(y)
    x1, x2, y1, y2 = x[:count:2], x[1:count:2], y[:count:2], y[1:count:2]
    squared = torch.stack([(a - b).square().sum(1) for a, b in ((x1, x2), (y1, y2), (x1, y2), (x2, y1))])
    terms = kernel(squared)
    return (terms[0] + terms[1] - terms[2] - terms[3]).mean()


ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor, Kernel], Tensor]] = {
    "unbiased": mmd2_unbiased,
    "biased": mmd2_biased,
    "root": mmd_root,
    "linear": mmd2_linear,
}


def _mmd2(x: Tensor, y: Tensor, kernel: Kernel, *, unbiased: bool) -> Tensor:
    if isinstance(kernel, Mixture) and tiles_pay(x, y):
        return tiled_mmd2(x, y, kernel, unbiased=unbiased)
    return matrix_mmd2(x, y, kernel, unbiased=unbiased)
