"""The hooks that a plugin distribution may implement, one a kind; each takes nothing and returns classes.

A distribution offers a module with implementations under the entry-point group ``ipmgan``::

    # pyproject.toml
    [project.entry-points.ipmgan]
    my-distances = "my_distances"

    # my_distances.py
    from ipmgan import hookimpl

    @hookimpl
    def ipmgan_objectives():
        return [Energy]
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from ipmgan.data.base import Source
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.metrics.base import Metric
from ipmgan.networks.base import Network
from ipmgan.objectives.base import Objective
from ipmgan.perturbations.base import Perturbation
from ipmgan.plugin import Plugin
from ipmgan.trackers.base import Tracker

GROUP = "ipmgan"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def ipmgan_objectives() -> Sequence[type[Objective]]:  # type: ignore[empty-body]
    """Objectives. The whole of one, the distance between means of the critic's outputs::

    @attrs.frozen(kw_only=True)
    class MeanGap(Objective):
        name = "mean-gap"
        critic = CriticKind.SCORE
        needs_lipschitz = True
        estimates = Quantity(name="gap of means", unit="data units x K")

        def critic_loss(self, real, fake):
            return fake.mean() - real.mean()

        def generator_loss(self, real, fake):
            return -fake.mean()

        def estimate(self, real, fake):
            return real.mean() - fake.mean()
    """


@hookspec
def ipmgan_lipschitz() -> Sequence[type[LipschitzEnforcer]]:  # type: ignore[empty-body]
    """Enforcers. One that halves whatever leaves the box [-1, 1]::

    @attrs.frozen(kw_only=True)
    class Halve(LipschitzEnforcer):
        name = "halve"

        def after_step(self, critic):
            for p in critic.parameters():
                p.copy_(torch.where(p.abs() > 1, p / 2, p))
    """


@hookspec
def ipmgan_networks() -> Sequence[type[Network]]:  # type: ignore[empty-body]
    """Network families. A generator that is one affine map::

    @attrs.frozen(kw_only=True)
    class Affine(Network):
        name = "affine"

        def generator(self, latent, sample):
            return nn.Sequential(nn.Linear(latent, math.prod(sample.shape)), nn.Unflatten(1, sample.shape))
    """


@hookspec
def ipmgan_sources() -> Sequence[type[Source]]:  # type: ignore[empty-body]
    """Sources of real samples. The unit interval::

    @attrs.frozen(kw_only=True)
    class Interval(Source):
        name = "interval"

        def spec(self):
            return SampleSpec(shape=(1,), bounds=(0.0, 1.0))

        def open(self, split):
            return Sampler(draw=lambda n, generator: torch.rand(n, 1, generator=generator, device=generator.device))
    """


@hookspec
def ipmgan_metrics() -> Sequence[type[Metric]]:  # type: ignore[empty-body]
    """Metrics. The distance between the means::

    @attrs.frozen(kw_only=True)
    class MeanDistance(Metric):
        name = "mean-distance"
        measures = Quantity(name="distance of means", unit="data units", low=0)
        samples = 1000

        def compute(self, real, fake, *, generator):
            return (real.mean(0) - fake.mean(0)).norm()
    """


@hookspec
def ipmgan_perturbations() -> Sequence[type[Perturbation]]:  # type: ignore[empty-body]
    """Perturbations. One that hides a share of the coordinates::

    @attrs.frozen(kw_only=True)
    class Hide(Perturbation):
        name = "hide"
        share: float = option(0.1, help="of the coordinates", at_least=0, at_most=1)

        def draw(self, shape, generator, *, done):
            return torch.rand(shape, generator=generator, device=generator.device) >= self.share

        def perturb(self, samples, drawn):
            return samples * drawn
    """


@hookspec
def ipmgan_trackers() -> Sequence[type[Tracker]]:  # type: ignore[empty-body]
    """Trackers. One that prints::

    class Printing(Tracking):
        def log(self, record):
            print(record["step"], record["held_out_estimate"])

    @attrs.frozen(kw_only=True)
    class Print(Tracker):
        name = "print"

        def open(self, run, settings):
            return Printing()
    """


HOOKS: dict[str, type[Plugin]] = {
    "ipmgan_objectives": Objective,
    "ipmgan_lipschitz": LipschitzEnforcer,
    "ipmgan_networks": Network,
    "ipmgan_sources": Source,
    "ipmgan_metrics": Metric,
    "ipmgan_perturbations": Perturbation,
    "ipmgan_trackers": Tracker,
}
