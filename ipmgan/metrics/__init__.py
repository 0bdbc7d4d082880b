"""Metrics: numbers about generated samples that no critic has a hand in."""

from ipmgan.metrics.base import Comparison, DetailedMetric, FeatureNetwork, Metric, Modes, Reading
from ipmgan.metrics.exact import ExactW1, ExactW2
from ipmgan.metrics.inception import FID, InceptionScore
from ipmgan.metrics.memorisation import Memorisation
from ipmgan.metrics.mmd import KID, MMDMetric
from ipmgan.metrics.modes import Classes, ModesCovered
from ipmgan.metrics.ngrams import NgramJSD
from ipmgan.metrics.overlap import PRDC
from ipmgan.metrics.sharpness import Sharpness
from ipmgan.metrics.sliced import SlicedWasserstein
from ipmgan.metrics.stored import StoredNetwork
from ipmgan.metrics.two_sample import TwoSampleTest

BUILTIN: tuple[type[Metric], ...] = (
    SlicedWasserstein,
    ExactW1,
    ExactW2,
    MMDMetric,
    KID,
    FID,
    InceptionScore,
    PRDC,
    TwoSampleTest,
    ModesCovered,
    Classes,
    Memorisation,
    Sharpness,
    NgramJSD,
)
"""The metrics that come with the package."""

__all__ = [
    "BUILTIN",
    "FID",
    "KID",
    "PRDC",
    "Classes",
    "Comparison",
    "DetailedMetric",
    "ExactW1",
    "ExactW2",
    "FeatureNetwork",
    "InceptionScore",
    "MMDMetric",
    "Memorisation",
    "Metric",
    "Modes",
    "ModesCovered",
    "NgramJSD",
    "Reading",
    "Sharpness",
    "SlicedWasserstein",
    "StoredNetwork",
    "TwoSampleTest",
]
