"""Feature networks in one file that describes itself: layers as JSON in the header of a .safetensors file.

So a network of anybody's can be read without a line of its code, and without unpickling anything.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ipmgan.errors import DataError, UsageError, choose_from
from ipmgan.metrics.base import FeatureNetwork

LAYERS: Mapping[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus),
        *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity),
    )
}
"""What a stored network may consist of."""
HEADER = "ipmgan-feature-network"


@attrs.frozen(kw_only=True)
class StoredNetwork:
    """A chain of layers, and what its inputs are.

    >>> kept = StoredNetwork(layers=(("Linear", {"in_features": 2, "out_features": 1}),), features=1, shape=(2,))
    >>> kept.module()
    Sequential( (0): Linear(in_features=2, out_features=1, bias=True) )
    """

    layers: tuple[tuple[str, Mapping[str, Any]], ...]
    """Names of `LAYERS`, each with its options."""
    features: int
    """How many of the layers make the features; the others make the logits of classes, if there are any."""
    shape: tuple[int, ...]
    """What an input looks like: (D,) or (channels, height, width)."""
    interval: tuple[float, float] | None = None
    """What the interval of the samples is mapped to; None leaves them as they are."""
    about: Mapping[str, str] = attrs.field(factory=dict)
    """Whatever should be known of it, such as what it was trained on."""

    def module(self) -> nn.Sequential:
        """The layers, with new weights; raises `UsageError` for what is no layer, or no option of it."""
        made = []
        for name, options in self.layers:
            if name not in LAYERS:
                raise UsageError(choose_from("layer", name, LAYERS))
            try:
                made.append(LAYERS[name](**options))
            except (TypeError, ValueError, RuntimeError) as error:
                raise UsageError(f"the layer {name} with {dict(options)}: {error}") from error
        return nn.Sequential(*made)

    def save(self, path: str | Path, module: nn.Module) -> None:
        """Write the description and a module's weights into a .safetensors file."""
        header = {HEADER: json.dumps(attrs.asdict(self), sort_keys=True)}
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path, metadata=header)

    def resizing(self, shape: tuple[int, ...]) -> str:
        """What is done to samples of a shape, in words."""
        words = []
        if len(shape) == 3 and shape[1:] != self.shape[1:]:
            words.append(f"{_size(shape)} to {_size(self.shape)}, bilinear, antialiased")
        if shape[:1] != self.shape[:1]:
            words.append("grey to colour")
        return ", ".join(words) or "none"

    def fit(self, samples: Tensor, bounds: tuple[float, float] | None) -> Tensor:
        """Samples as inputs: cut off at their bounds, mapped to the interval, resized."""
        x = samples.float()
        if self.interval is not None and bounds is not None:
            (low, high), (new_low, new_high) = bounds, self.interval
            x = (x.clamp(low, high) - low).mul((new_high - new_low) / (high - low)).add(new_low)
        if x.dim() == 4 and x.shape[2:] != self.shape[1:]:
            x = F.interpolate(x, self.shape[1:], mode="bilinear", antialias=True)
        return x.expand(-1, self.shape[0], -1, -1) if x.dim() == 4 and x.shape[1] == 1 else x

    def refuses(self, shape: tuple[int, ...]) -> str:
        """Why samples of a shape cannot be its inputs; empty where they can."""
        fits = shape == self.shape or (len(shape) == len(self.shape) == 3 and shape[0] in (1, self.shape[0]))
        return "" if fits else f"it takes samples {self.shape}, and these are {shape}"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))


@attrs.frozen(kw_only=True, eq=False)
class Loaded:
    """A network that was read from a file, with its weights and the file's sha256."""

    stored: StoredNetwork
    module: nn.Sequential
    checksum: str

    def on(self, shape: tuple[int, ...], bounds: tuple[float, float] | None, name: str) -> FeatureNetwork:
        """The network for samples of this shape and interval."""
        body, head = self.module[: self.stored.features], self.module[self.stored.features :]

        def features(samples: Tensor) -> Tensor:
            found: Tensor = body.to(samples.device)(self.stored.fit(samples, bounds)).flatten(1)
            return found

        def logits(found: Tensor) -> Tensor:
            out: Tensor = head.to(found.device)(found)
            return out

        return FeatureNetwork(
            name=name,
            checksum=self.checksum,
            resizing=self.stored.resizing(shape),
            features=features,
            logits=logits if len(head) else None,
        )


def read_network(path: str | Path) -> Loaded:
    """The network in a file; raises `DataError` where it is missing, damaged or describes no network."""
    place = Path(path).expanduser()
    if not place.is_file():
        raise DataError(f"no file {place}: give the path of a feature network")
    return _read(place, place.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, modified: int) -> Loaded:
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        stored = StoredNetwork(
            layers=tuple((name, options) for name, options in header["layers"]),
            features=header["features"],
            shape=tuple(header["shape"]),
            interval=header["interval"] and tuple(header["interval"]),
            about=header["about"],
        )
        with torch.random.fork_rng(devices=[]):
            module = stored.module()
        module.load_state_dict(state)
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, RuntimeError, UsageError) as error:
        reason = "it does not say what its layers are" if isinstance(error, KeyError) else str(error).split("\n")[0]
        raise DataError(f"{path} holds no feature network: {reason}") from error
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Loaded(stored=stored, module=module.eval().requires_grad_(False), checksum=checksum)
