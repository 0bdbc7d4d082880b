"""How far two laws can be apart, given how well they are told apart once noise is added to both."""

from __future__ import annotations

import math

from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.tensors import at_least_float32


def noise_bound(variance: Tensor, radius: Tensor, jsd: Tensor) -> Tensor:
    """The right-hand side of theorem 3.3 of Arjovsky and Bottou, mended: an upper bound of W1(P, Q).

        W1(P, Q)  <=  2 √V + 2 √2 C √JSD(P * N, Q * N),   V = E‖ε‖²

    The noise moves either law by at most E‖ε‖ <= √V. The rest bounds W1 of the noised laws p, q, of which any of these
    may be C:

    - the radius of a ball that holds both: W1 <= 2 C TV, and TV <= √2 √JSD by Pinsker's inequality;
    - for any centre c, C² = (E_p‖x - c‖² + E_q‖x - c‖²) / 2, which is at most that radius squared, and finite for
      unbounded noise too: W1 <= ∫ ‖x - c‖ |p - q| <= √(2 C²) √(∫ (p - q)² / (p + q)), and the last integral is at
      most 4 JSD (Topsøe 2000).

    The paper prints 2 C √JSD, which is false: on the points ±1 with noise from U(-.05, .05), where W1 = 2 and
    C = 1.05, it is 1.806.

    Args:
        variance: V, that of all coordinates together, in squared data units.
        radius: C, in data units.
        jsd: of the noised laws, in nats. It grows with it, so that a lower bound of JSD gives a lower bound of the
            right-hand side, which proves nothing about W1; log 2 in its place always does. Taken as 0 where it is
            negative, as estimates may be, and as log 2 where it is above.

    Returns:
        The bound, in data units.

    >>> import torch
    >>> noise_bound(torch.tensor(0.05**2 / 3), torch.tensor(1.05), torch.tensor(math.log(2)))
    tensor(2.5303)

    Source: Arjovsky and Bottou (2017), lemma 4 and theorem 3.3; Villani (2009), theorem 6.15.
    """
    variance, radius, jsd = (at_least_float32(part) for part in (variance, radius, jsd))
    return 2 * variance.sqrt() + 2 * math.sqrt(2) * radius * jsd.clamp(0, math.log(2)).sqrt()


def spread(x: Tensor, y: Tensor) -> Tensor:
    """The root of the mean squared distance of two samples from their common centre, which makes it least.

        C² = (mean_i ‖x_i - c‖² + mean_j ‖y_j - c‖²) / 2,   c = (mean_i x_i + mean_j y_j) / 2

    Arguments: `x` (N, ...), `y` (M, ...), of one shape but for the number. Returns a scalar, in data units.

    >>> import torch
    >>> spread(torch.tensor([[3.0, 4.0]]), torch.tensor([[-3.0, -4.0]]))
    tensor(5.)
    """
    if x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 1:
        raise UsageError(f"samples of shapes {tuple(x.shape)} and {tuple(y.shape)}: must be (N, ...) and (M, ...)")
    first, second = (at_least_float32(side).flatten(1) for side in (x, y))
    centre = (first.mean(0) + second.mean(0)) / 2
    squares = [(side - centre).square().sum(1).mean() for side in (first, second)]
    return ((squares[0] + squares[1]) / 2).sqrt()
