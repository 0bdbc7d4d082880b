"""Laws in few dimensions whose shape is known exactly, with the scalings that the papers published."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from ipmgan.data.base import Sampler, SampleSpec, Source, Split
from ipmgan.plugin import Training, option
from ipmgan.references import WGAN, WGAN_GP

_TRAINING = Training(steps=10_000, generator="mlp", latent="normal:dim=2")


def _mixture(centres_on: Callable[[torch.device], Tensor], std: float) -> Sampler:
    """The uniform mixture of isotropic Gaussians around centres (K, D), which are made once a device."""
    centres_on = functools.cache(centres_on)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        centres = centres_on(device)
        mode = torch.randint(len(centres), (count,), generator=generator, device=device)
        noise = torch.randn(count, centres.shape[1], generator=generator, device=device)
        return noise.mul_(std).add_(centres.index_select(0, mode))

    return Sampler(draw=draw)


@attrs.frozen(kw_only=True)
class Ring8(Source):
    """Eight Gaussians, evenly on a circle.

        x = (r (cos 2 pi k/8, sin 2 pi k/8) + sigma N(0, I)) / s,    k uniform in 0..7

    Scaled as in WGAN-GP's toy experiments. All eight centres are distinct. No end of samples: the held-out ones are
    independent draws.
    """

    name = "ring8"
    references = (WGAN_GP,)
    defaults = _TRAINING

    radius: float = option(2.0, help="radius of the circle, before scaling", above=0)
    std: float = option(0.02, help="standard deviation of a mode, before scaling", above=0)
    scale: float = option(1.414, help="what samples are divided by", above=0)

    def spec(self) -> SampleSpec:
        """Points of the plane, unbounded."""
        return SampleSpec(shape=(2,))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return _mixture(self.mode_centres, self.mode_std())

    def mode_centres(self, device: torch.device | None = None) -> Tensor:
        """The centres of the modes as samples have them, (8, 2)."""
        angle = torch.arange(8, device=device) * (2 * math.pi / 8)
        return torch.stack([angle.cos(), angle.sin()], dim=1) * (self.radius / self.scale)

    def mode_std(self) -> float:
        """The standard deviation of a mode, as samples have it."""
        return self.std / self.scale


@attrs.frozen(kw_only=True)
class Grid25(Source):
    """Twenty-five Gaussians on a square grid.

        x = (h (i, j) + sigma N(0, I)) / s,    i, j uniform in -2..2

    Scaled as in WGAN-GP's toy experiments. No end of samples: the held-out ones are independent draws.
    """

    name = "grid25"
    references = (WGAN_GP,)
    defaults = _TRAINING

    spacing: float = option(2.0, help="distance of neighbouring modes, before scaling", above=0)
    std: float = option(0.05, help="standard deviation of a mode, before scaling", above=0)
    scale: float = option(2.828, help="what samples are divided by", above=0)

    def spec(self) -> SampleSpec:
        """Points of the plane, unbounded."""
        return SampleSpec(shape=(2,))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return _mixture(self.mode_centres, self.mode_std())

    def mode_centres(self, device: torch.device | None = None) -> Tensor:
        """The centres of the modes as samples have them, (25, 2)."""
        line = torch.arange(-2, 3, device=device) * (self.spacing / self.scale)
        return torch.cartesian_prod(line, line)

    def mode_std(self) -> float:
        """The standard deviation of a mode, as samples have it."""
        return self.std / self.scale


@attrs.frozen(kw_only=True)
class SwissRoll(Source):
    """A noisy spiral: the Swiss roll seen from its end.

        x = (t cos t + sigma N, t sin t + sigma N) / s,    t = 3 pi/2 (1 + 2 U[0, 1])

    Scaled as in WGAN-GP's toy experiments. No end of samples: the held-out ones are independent draws.
    """

    name = "swiss-roll"
    references = (WGAN_GP,)
    defaults = _TRAINING

    noise: float = option(0.25, help="standard deviation of the noise, before scaling", at_least=0)
    scale: float = option(7.5, help="what samples are divided by", above=0)

    def spec(self) -> SampleSpec:
        """Points of the plane, unbounded."""
        return SampleSpec(shape=(2,))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return Sampler(draw=self._draw)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        t = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=generator, device=device))
        noise = torch.randn(count, 2, generator=generator, device=device)
        return (torch.stack([t * t.cos(), t * t.sin()], dim=1) + self.noise * noise) / self.scale


@attrs.frozen(kw_only=True)
class TwoGaussians(Source):
    """Two Gaussians of equal width and weight, apart along the first axis.

        x ~ (N(-d/2 e1, sigma^2 I) + N(d/2 e1, sigma^2 I)) / 2

    WGAN's figure of two Gaussians publishes neither means nor widths: these are ours. For one Gaussian against
    another, take `gaussian` for each. No end of samples: the held-out ones are independent draws.
    """

    name = "two-gaussians"
    references = (WGAN,)
    defaults = _TRAINING

    dim: int = option(2, help="dimensions", at_least=1)
    distance: float = option(4.0, help="distance of the means", at_least=0)
    std: float = option(0.5, help="standard deviation of each", above=0)

    def spec(self) -> SampleSpec:
        """Points, unbounded."""
        return SampleSpec(shape=(self.dim,))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return _mixture(self.mode_centres, self.mode_std())

    def mode_centres(self, device: torch.device | None = None) -> Tensor:
        """The two means, (2, dim)."""
        centres = torch.zeros(2, self.dim, device=device)
        centres[0, 0], centres[1, 0] = -self.distance / 2, self.distance / 2
        return centres

    def mode_std(self) -> float:
        """The standard deviation of either."""
        return self.std


@attrs.frozen(kw_only=True)
class ParallelLines(Source):
    """A vertical segment of the plane: the example that tells W1 from the other distances.

        x = (theta, Z),    Z ~ U[0, 1]

    Between the segments at 0 and at theta != 0, W1 = |theta|, while JSD = log 2, TV = 1 and KL is infinite. No end of
    samples: the held-out ones are independent draws.
    """

    name = "parallel-lines"
    references = (WGAN,)
    defaults = _TRAINING

    theta: float = option(0.0, help="where the segment stands on the first axis")

    def spec(self) -> SampleSpec:
        """Points of the plane, unbounded."""
        return SampleSpec(shape=(2,))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return Sampler(draw=self._draw)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        height = torch.rand(count, generator=generator, device=generator.device)
        return torch.stack([torch.full_like(height, self.theta), height], dim=1)


@attrs.frozen(kw_only=True)
class Gaussian(Source):
    """One isotropic Gaussian in as many dimensions as its mean has numbers.

        x ~ N(mean, sigma^2 I)

    No end of samples: the held-out ones are independent draws.
    """

    name = "gaussian"
    defaults = _TRAINING

    mean: tuple[float, ...] = option((0.0, 0.0), help="the mean, one number a dimension")
    std: float = option(1.0, help="standard deviation", above=0)

    def spec(self) -> SampleSpec:
        """Points, unbounded."""
        return SampleSpec(shape=(len(self.mean),))

    def open(self, split: Split) -> Sampler:
        """The law itself, for both splits."""
        return Sampler(draw=self._draw)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        noise = torch.randn(count, len(self.mean), generator=generator, device=generator.device)
        return noise * self.std + torch.tensor(self.mean).to(generator.device, non_blocking=True)
