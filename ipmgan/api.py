"""The public names."""

from __future__ import annotations

from ipmgan.config import RunConfig, configure
from ipmgan.data import (
    CIFAR10,
    LSUN,
    MNIST,
    CelebA,
    Digits,
    FashionMNIST,
    Folder,
    Gaussian,
    Grid25,
    ParallelLines,
    Photos,
    Resident,
    Ring8,
    Sampler,
    SampleSpec,
    Source,
    Streamed,
    SwissRoll,
    TensorFile,
    TwoGaussians,
)
from ipmgan.engine.loop import Trainer, resume, train
from ipmgan.engine.plan import Plan, plan
from ipmgan.engine.replicates import Replicates
from ipmgan.engine.run import Run, load
from ipmgan.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    IpmganError,
    PairingError,
    PluginError,
    UsageError,
)
from ipmgan.hookspecs import hookimpl
from ipmgan.lipschitz import (
    Certificate,
    Clip,
    GradientPenalty,
    LipschitzEnforcer,
    NoEnforcer,
    Sphere,
    lipschitz_bound,
    lipschitz_rule,
)
from ipmgan.metrics import Metric, SlicedWasserstein
from ipmgan.networks import DCGAN, MLP, AutoEncoder, DCGANConstant, Network
from ipmgan.objectives import EBGAN, MMD, WGAN, CriticKind, Minimax, NonSaturating, Objective
from ipmgan.perturbations import Noise, NoPerturbation, Perturbation
from ipmgan.plugin import Plugin, Quantity, Training, option
from ipmgan.references import Reference
from ipmgan.registry import Registry
from ipmgan.settings import Latent, Optimizer
from ipmgan.trackers import CSV, TensorBoard, Tracker, Tracking

__all__ = [
    "CIFAR10",
    "CSV",
    "DCGAN",
    "EBGAN",
    "LSUN",
    "MLP",
    "MMD",
    "MNIST",
    "WGAN",
    "AutoEncoder",
    "CelebA",
    "Certificate",
    "CheckpointError",
    "Clip",
    "CriticKind",
    "DCGANConstant",
    "DataError",
    "Digits",
    "DivergedError",
    "FashionMNIST",
    "Folder",
    "Gaussian",
    "GradientPenalty",
    "Grid25",
    "IpmganError",
    "Latent",
    "LipschitzEnforcer",
    "Metric",
    "Minimax",
    "Network",
    "NoEnforcer",
    "NoPerturbation",
    "Noise",
    "NonSaturating",
    "Objective",
    "Optimizer",
    "PairingError",
    "ParallelLines",
    "Perturbation",
    "Photos",
    "Plan",
    "Plugin",
    "PluginError",
    "Quantity",
    "Reference",
    "Registry",
    "Replicates",
    "Resident",
    "Ring8",
    "Run",
    "RunConfig",
    "SampleSpec",
    "Sampler",
    "SlicedWasserstein",
    "Source",
    "Sphere",
    "Streamed",
    "SwissRoll",
    "TensorBoard",
    "TensorFile",
    "Tracker",
    "Tracking",
    "Trainer",
    "Training",
    "TwoGaussians",
    "UsageError",
    "configure",
    "hookimpl",
    "lipschitz_bound",
    "lipschitz_rule",
    "load",
    "option",
    "plan",
    "resume",
    "train",
]
