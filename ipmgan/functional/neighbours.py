"""Nearest neighbours between samples, a block of rows at a time: no N x M matrix is held.

Distances within a block come from one matrix product about the mean of the samples, in the samples' own type; those of
the neighbours that were found are computed once more by subtraction. So a distance that is returned is right to
rounding, and which of two neighbours is the nearer may be mistaken where their squared distances agree to some 1e-6 of
the squared radius of the samples in float32, or 1e-15 in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from ipmgan.errors import UsageError
from ipmgan.functional.tensors import at_least_float32, check_samples

HELD = 2**24
"""Distances that are held at a time."""


@attrs.frozen(kw_only=True, eq=False)
class Neighbours:
    """The k nearest of others for each sample, nearest first: `distances` in data units and `index`, both (N, k)."""

    distances: Tensor
    index: Tensor


@attrs.frozen(kw_only=True)
class Overlap:
    """How two samples overlap: shares in [0, 1], and a density that is 1 on average at equal laws."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


@torch.no_grad()
def neighbours(x: Tensor, y: Tensor | None = None, *, k: int = 1) -> Neighbours:
    """The k nearest rows of y for each row of x, or of the other rows of x where there is no y.

    Arguments: `x` (N, K); `y` (M, K); `k` at most M, or N - 1 without y. Returns `Neighbours`; time O(N M K). Raises
    `UsageError` on other shapes or numbers.

    >>> neighbours(torch.tensor([[0.0], [1.0]]), torch.tensor([[4.0], [3.0]])).distances
    tensor([[3.],
            [2.]])
    """
    others = x if y is None else y
    check_samples(x, others)
    most = len(others) - (y is None)
    if not 1 <= k <= most:
        raise UsageError(f"{k} nearest neighbours among {most}: must be from 1 to {most}")
    found = []
    for start, block, squared in _blocks(x, others):
        if y is None:
            squared.diagonal(start).fill_(torch.inf)
        index = squared.argmin(1, keepdim=True) if k == 1 else squared.topk(k, largest=False, sorted=False).indices
        distances, order = _exact(block, others, index).sort(dim=1)
        found.append(Neighbours(distances=distances, index=index.gather(1, order)))
    return Neighbours(
        distances=torch.cat([part.distances for part in found]), index=torch.cat([part.index for part in found])
    )


@torch.no_grad()
def overlap(real: Tensor, fake: Tensor, *, k: int = 5) -> Overlap:
    """Precision, recall, density and coverage: how balls around samples hold the samples of the other side.

        precision  share of fake samples in some ball around a real one
        recall     share of real samples in some ball around a fake one
        density    mean over fake samples of the number of balls around real ones that hold it, divided by k
        coverage   share of real samples whose own ball holds a fake one

    where a ball reaches, without its surface, to the k-th nearest sample of its own side.

    Arguments: `real` (N, K) and `fake` (M, K), each with more than k samples. Returns `Overlap`, scalars in float64.

    >>> same = torch.arange(6.0)[:, None]
    >>> overlap(same, same + 100, k=2).precision
    tensor(0., dtype=torch.float64)

    Source: Kynkäänniemi et al. (2019), equation 2; Naeem et al. (2020), equations 1, 3 and 5.
    """
    check_samples(real, fake)
    inner = neighbours(real, k=k).distances[:, -1].square()
    outer = neighbours(fake, k=k).distances[:, -1].square()
    holding = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = [], []
    for start, block, squared in _blocks(real, fake):
        recalled.append((squared < outer).any(1))
        inside = squared < inner[start : start + len(block), None]
        covered.append(inside.any(1))
        holding += inside.sum(0)
    return Overlap(
        precision=(holding > 0).double().mean(),
        recall=torch.cat(recalled).double().mean(),
        density=holding.double().mean() / k,
        coverage=torch.cat(covered).double().mean(),
    )


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Blocks of rows of x, with their number of the first and their squared distances to y, rounded as above."""
    x, y = at_least_float32(x), at_least_float32(y)
    centre = y.mean(0)
    columns = y - centre
    norms = columns.square().sum(1)
    length = max(1, HELD // len(y))
    with torch.autocast(x.device.type, enabled=False):
        for start in range(0, len(x), length):
            block = x[start : start + length]
            rows = block - centre
            squared = torch.addmm(norms, rows, columns.T, alpha=-2)
            yield start, block, squared.add_(rows.square().sum(1, keepdim=True)).clamp_min_(0)


def _exact(block: Tensor, others: Tensor, index: Tensor) -> Tensor:
    """The distances (B, k) from the rows of a block to their neighbours, by subtraction."""
    columns = [torch.linalg.vector_norm(block - others[one], dim=1) for one in index.unbind(1)]
    return at_least_float32(torch.stack(columns, dim=1))
