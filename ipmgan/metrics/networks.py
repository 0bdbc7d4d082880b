"""Which feature network a metric compares samples by: embedded, Inception, a file's, or the user's own."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ipmgan.errors import DataError, UsageError, choose_from
from ipmgan.metrics.base import Comparison, FeatureNetwork
from ipmgan.metrics.stored import Loaded, read_network
from ipmgan.plugin import option

MNIST = Path(__file__).parent / "weights" / "mnist.safetensors"
"""The classifier of handwritten digits that comes with the package."""
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of ``weights-inception-2015-12-05-6726825d.pth``, the weights that published FIDs are made with."""
IMAGES = (-1.0, 1.0)
"""The interval of pixels where nothing is known of it: that of the built-in image sources."""
KNOWN = ("auto", "none", "mnist", "inception")
FEATURES_HELP = (
    "what samples are compared by: none (their own values), mnist (the embedded classifier of digits), inception, a "
    ".safetensors file, or a name in networks=; auto: mnist for grey images, else none"
)


def features_option(default: str = "auto") -> Any:
    """The option `features` of a metric."""
    return option(default, help=FEATURES_HELP)


def weights_option() -> Any:
    """The option `weights` of a metric."""
    return option(None, help="for inception: the file weights-inception-2015-12-05-6726825d.pth")


def find_network(comparison: Comparison, features: str, weights: str | None) -> FeatureNetwork | None:
    """The network that an option names, for these samples; None for the samples themselves.

    Raises `UsageError` for a name that is none, or does not fit the samples, and `DataError` for a file that is missing
    or not what it should be.
    """
    shape, bounds = comparison.shape, comparison.bounds
    if features == "auto":
        features = "mnist" if len(shape) == 3 and shape[0] == 1 else "none"
    if features == "none":
        return None
    if features in comparison.networks:
        return _own(features, comparison.networks[features])
    if features == "inception":
        return _inception(comparison, weights)
    if features != "mnist" and not features.endswith(".safetensors"):
        raise UsageError(choose_from("feature network", features, [*KNOWN, *comparison.networks, "FILE.safetensors"]))
    loaded = read_network(MNIST if features == "mnist" else features)
    _check(loaded, features, shape)
    return loaded.on(shape, bounds or (IMAGES if len(shape) == 3 else None), Path(features).name)


def refusal(comparison: Comparison, features: str, weights: str | None, *, classifier: bool = False) -> str:
    """Why a network does not go with samples; empty where it does."""
    try:
        network = find_network(comparison, features, weights)
    except (UsageError, DataError) as error:
        return str(error)
    if classifier and (network is None or network.logits is None):
        return "it needs a classifier: choose features=mnist for grey images, or inception"
    return ""


def _check(loaded: Loaded, features: str, shape: tuple[int, ...]) -> None:
    reason = loaded.stored.refuses(shape)
    if reason:
        raise UsageError(f"features = {features}: {reason}; use features=none, or another network")


def _own(name: str, module: nn.Module) -> FeatureNetwork:
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)

    def features(samples: Tensor) -> Tensor:
        training = module.training
        try:
            found: Tensor = module.eval().to(samples.device)(samples)
        finally:
            module.train(training)
        return found.flatten(1)

    return FeatureNetwork(
        name=name,
        checksum=digest.hexdigest(),
        resizing="left to the network",
        features=features,
        logits=lambda found: found,
    )


def _inception(comparison: Comparison, weights: str | None) -> FeatureNetwork:
    shape = comparison.shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(f"features = inception: it takes grey or colour images, and these are {shape}")
    if weights is None:
        raise UsageError("features = inception needs its weights: weights=weights-inception-2015-12-05-6726825d.pth")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise DataError(f"no file {path}: give weights=FILE")
    network = _read_inception(path, path.stat().st_mtime_ns)
    low, high = comparison.bounds or IMAGES

    def features(samples: Tensor) -> Tensor:
        bytes_ = ((samples.float() - low) * (255 / (high - low))).round_().clamp_(0, 255).to(torch.uint8)
        found: Tensor = network.to(samples.device)(bytes_.expand(-1, 3, -1, -1))[0]
        return found

    return FeatureNetwork(
        name="inception-2015-12-05, pool 2048",
        checksum=INCEPTION_SHA256,
        resizing=f"to 8 bits{', grey to colour' if shape[0] == 1 else ''}, {shape[1]}x{shape[2]} to 299x299, bilinear "
        "as in TensorFlow 1",
        features=features,
        logits=lambda found: found @ network.fc.weight.T.to(found),
    )


@functools.lru_cache(maxsize=1)
def _read_inception(path: Path, modified: int) -> Any:
    """The network with the pinned weights, from a file that is opened only if it is the pinned one.

    torch-fidelity unpickles whatever it loads: it gets an empty table, and the weights are read here, as tensors alone.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != INCEPTION_SHA256:
        raise DataError(f"{path} is not weights-inception-2015-12-05-6726825d.pth: its sha256 is another")
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UsageError('features = inception needs torch-fidelity: pip install "ipmgan[inception]"')
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    unloaded = type("Unloaded", (FeatureExtractorInceptionV3,), {"load_state_dict": lambda module, state: None})
    with torch.random.fork_rng(devices=[]):
        network = unloaded("inception", ["2048"], feature_extractor_weights_path=nothing)
    nn.Module.load_state_dict(network, torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return network
