"""Sources of real samples: embedded ones, collections, folders, files, and toys whose law is known."""

from __future__ import annotations

from ipmgan.data.base import Resident, Sampler, Samples, SampleSpec, Source, Split, Streamed, to_interval
from ipmgan.data.digits import Digits
from ipmgan.data.folder import Folder
from ipmgan.data.images import CIFAR10, MNIST, FashionMNIST
from ipmgan.data.photos import Photos
from ipmgan.data.streamed import LSUN, CelebA
from ipmgan.data.tensor import TensorFile
from ipmgan.data.toy import Gaussian, Grid25, ParallelLines, Ring8, SwissRoll, TwoGaussians

BUILTIN: tuple[type[Source], ...] = (
    Digits,
    Photos,
    MNIST,
    FashionMNIST,
    CIFAR10,
    CelebA,
    LSUN,
    Folder,
    TensorFile,
    Ring8,
    Grid25,
    SwissRoll,
    TwoGaussians,
    ParallelLines,
    Gaussian,
)

__all__ = [
    "BUILTIN",
    "CIFAR10",
    "LSUN",
    "MNIST",
    "CelebA",
    "Digits",
    "FashionMNIST",
    "Folder",
    "Gaussian",
    "Grid25",
    "ParallelLines",
    "Photos",
    "Resident",
    "Ring8",
    "SampleSpec",
    "Sampler",
    "Samples",
    "Source",
    "Split",
    "Streamed",
    "SwissRoll",
    "TensorFile",
    "TwoGaussians",
    "to_interval",
]
