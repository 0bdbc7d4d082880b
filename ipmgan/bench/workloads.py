"""Workloads with names, whose figures can be compared between machines and versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from ipmgan.config import RunConfig, configure
from ipmgan.errors import UsageError, choose_from
from ipmgan.selection import Table

_ADAM = "Adam:lr=1e-4,betas=[0.5,0.9]"
_RMSPROP = "RMSprop:lr=5e-5"
_COMMON: Table = {"objective": "wgan", "n_critic": 5, "batch": 64}
_CLIPPED: Table = {
    **_COMMON,
    "lipschitz": "clip:c=0.01",
    "generator_optimizer": _RMSPROP,
    "critic_optimizer": _RMSPROP,
}
_PENALISED: Table = {**_COMMON, "lipschitz": "gp", "generator_optimizer": _ADAM, "critic_optimizer": _ADAM}
_TOY: Table = {"source": "ring8", "latent": "normal:dim=2", "generator": "mlp", "critic": "mlp"}
_IMAGES: Table = {"latent": "normal:dim=100", "generator": "dcgan", "critic": "dcgan"}


@attrs.frozen(kw_only=True)
class Workload:
    """A run's settings under a name; `noise` is the shape of the random images that it trains on, if any."""

    name: str
    what: str
    settings: Table
    noise: tuple[int, ...] | None = None

    def config(self, folder: Path, **more: Any) -> RunConfig:
        """The run, whose images, where it has any, are written into `folder`; `more` are settings beside its own."""
        source: Table = {}
        if self.noise is not None:
            path = folder / f"noise-{'x'.join(map(str, self.noise))}.npy"
            if not path.exists():
                np.save(path, np.random.default_rng(0).integers(0, 256, self.noise, dtype=np.uint8))
            source = {"source": {"name": "tensor", "path": str(path)}}
        return configure(**{**self.settings, **source, **more})


WORKLOADS = (
    Workload(
        name="toy-gp",
        what="MLPs of 3 x 512 on the ring of eight, batch 256, gradient penalty, Adam",
        settings={**_PENALISED, **_TOY, "lipschitz": "gp:weight=0.1", "batch": 256},
    ),
    Workload(
        name="toy-clip",
        what="MLPs of 3 x 512 on the ring of eight, batch 64, clipping, RMSprop",
        settings={**_CLIPPED, **_TOY},
    ),
    Workload(
        name="small-toy",
        what="MLPs of 3 x 64 on the ring of eight, batch 64, clipping, RMSprop",
        settings={**_CLIPPED, **_TOY, "generator": "mlp:width=64", "critic": "mlp:width=64"},
    ),
    Workload(
        name="image-mlp",
        what="MLPs of 3 x 512 on 28 x 28 images, batch 64, clipping, RMSprop",
        settings={**_CLIPPED, "latent": "normal:dim=100", "generator": "mlp:output=identity", "critic": "mlp"},
        noise=(6400, 1, 28, 28),
    ),
    Workload(
        name="dcgan",
        what="DCGAN on 64 x 64 x 3 images, batch 64, clipping, RMSprop",
        settings={**_CLIPPED, **_IMAGES},
        noise=(640, 3, 64, 64),
    ),
    Workload(
        name="dcgan-gp",
        what="DCGAN on 64 x 64 x 3 images, critic without norm, batch 64, gradient penalty, Adam",
        settings={**_PENALISED, **_IMAGES, "lipschitz": "gp:weight=10.0", "critic": "dcgan:norm=none"},
        noise=(640, 3, 64, 64),
    ),
)
QUICK = ("toy-gp", "toy-clip", "small-toy", "image-mlp")
"""Those of which a round takes about a second each on a small machine."""


def workload(name: str) -> Workload:
    """The workload of this name; raises `UsageError` where there is none."""
    known = {held.name: held for held in WORKLOADS}
    if name not in known:
        raise UsageError(choose_from("workload", name, known))
    return known[name]
