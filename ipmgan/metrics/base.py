"""The contract of a metric: a number about generated samples that no critic has a hand in."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import attrs
import torch
from torch import Tensor, nn

from ipmgan.plugin import Plugin, Quantity

BATCH = 512
"""Samples that go through a feature network at a time."""


@attrs.frozen(kw_only=True, eq=False)
class Modes:
    """The modes of a mixture, where the law of the real samples has any: `centres` (K, D) and their `std`."""

    centres: Tensor
    std: float


@attrs.frozen(kw_only=True, eq=False)
class FeatureNetwork:
    """A network whose features samples are compared by, and how they are made its inputs."""

    name: str
    checksum: str
    """sha256 of its weights."""
    resizing: str
    """What is done to samples before it, in words."""
    features: Callable[[Tensor], Tensor]
    """From samples (N, ...) as they come to features (N, K)."""
    logits: Callable[[Tensor], Tensor] | None = None
    """From features to the logits of its classes (N, C), where it is a classifier."""


@attrs.frozen(kw_only=True, eq=False)
class Comparison:
    """Real samples (N, ...) and generated ones (M, ...), and what is known of them."""

    real: Tensor
    fake: Tensor
    bounds: tuple[float, float] | None = None
    """The interval of their values."""
    split: str = "held-out"
    """Where the real ones come from, ``held-out`` or ``train``."""
    modes: Modes | None = None
    train: Callable[[], Iterable[Tensor]] | None = None
    """All training samples, a batch at a time; None where there is no end of them, or nobody has them."""
    networks: Mapping[str, nn.Module] = attrs.field(factory=dict)
    """The user's own feature networks, by name."""
    _known: dict[tuple[str, str, str], Tensor] = attrs.field(factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a sample."""
        return tuple(self.real.shape[1:])

    def first(self, real: int, fake: int) -> Comparison:
        """The first so many samples of each side; features are computed once for both."""
        return attrs.evolve(self, real=self.real[:real], fake=self.fake[:fake])

    def features(self, network: FeatureNetwork | None) -> tuple[Tensor, Tensor]:
        """The features of both sides, (N, K) and (M, K); without a network the flattened samples."""
        if network is None:
            return self.real.flatten(1), self.fake.flatten(1)
        return self._features(network, "real", self.real), self._features(network, "fake", self.fake)

    @torch.no_grad()
    def _features(self, network: FeatureNetwork, side: str, samples: Tensor) -> Tensor:
        key = network.name, network.checksum, side
        parts = [self._known[key]] if key in self._known else []
        rest = samples[len(parts[0]) if parts else 0 :]
        parts += [network.features(part) for part in torch.split(rest, BATCH) if len(part)]
        self._known[key] = torch.cat(parts)
        return self._known[key][: len(samples)]


@attrs.frozen(kw_only=True)
class Reading:
    """What a metric found: its value, what else the same computation tells, and what samples were compared by."""

    value: Tensor | float
    more: Mapping[str, float] = attrs.field(factory=dict)
    """Further numbers, by name."""
    standard_error: float | None = None
    """Of the value, for these samples, where the metric itself draws at random."""
    resizing: str = "none"
    network: str = "none"
    """The feature network; none where the samples themselves are compared."""
    checksum: str = ""

    @classmethod
    def by(cls, network: FeatureNetwork | None, value: Tensor | float, **more: float) -> Reading:
        """A reading by the features of a network, or by the samples themselves."""
        reading = cls(value=value, more=more)
        if network is None:
            return reading
        return attrs.evolve(reading, resizing=network.resizing, network=network.name, checksum=network.checksum)


class Metric(Plugin):
    """A comparison of held-out real samples with generated ones.

    `compute` is enough. One that needs more than the samples, or has more than a number to tell, is a `DetailedMetric`;
    one that does not go with all samples overrides `refuses`.
    """

    kind = "metric"
    measures: ClassVar[Quantity]
    samples: ClassVar[int]
    """How many samples of each side a computation takes."""

    @abstractmethod
    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        """The value, a scalar, from samples (N, ...) and (M, ...)."""

    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading:
        """The value, with what else there is to tell; random numbers come from the generator."""
        return Reading(value=self.compute(comparison.real, comparison.fake, generator=generator))

    def refuses(self, comparison: Comparison) -> str:
        """Why it says nothing about such samples, with the remedy; empty where it does. There may be none yet."""
        return ""

    def most(self, shape: tuple[int, ...]) -> int | None:
        """The largest number of samples a side, of this shape, that it can take; None without a limit."""
        return None


class DetailedMetric(Metric):
    """A metric that overrides `read`; its value is what `compute` gives for samples of which nothing else is known."""

    @abstractmethod
    def read(self, comparison: Comparison, *, generator: torch.Generator) -> Reading: ...

    def compute(self, real: Tensor, fake: Tensor, *, generator: torch.Generator) -> Tensor:
        """The value, a scalar, from samples (N, ...) and (M, ...)."""
        value = self.read(Comparison(real=real, fake=fake), generator=generator).value
        return torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)


def ordered(samples: Tensor, generator: torch.Generator) -> Tensor:
    """The samples by their projection on a random line: what is drawn from them then hangs on no order they came in.

    >>> ordered(torch.tensor([[2.0], [1.0]]), torch.Generator().manual_seed(0)).flatten().sort().values
    tensor([1., 2.])
    """
    flat = samples.flatten(1)
    line = torch.randn(flat.shape[1], generator=generator, device=generator.device).to(flat)
    return samples[(flat @ line).argsort()]
