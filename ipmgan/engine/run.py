"""A run on disk: its configuration, metrics and generator."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ipmgan.config import RunConfig
from ipmgan.data.base import Source
from ipmgan.engine.build import choose_device
from ipmgan.engine.measure import generate
from ipmgan.engine.rundir import RunDir
from ipmgan.engine.state import put_weights
from ipmgan.engine.streams import Streams
from ipmgan.errors import UsageError
from ipmgan.networks.base import Network
from ipmgan.settings import Latent


class Run:
    """A run that was trained, opened for reading; raises `CheckpointError` where there is none to open.

    It opens, and gives its settings, metrics and, where generator and source are there, samples, even if another plugin
    that it was trained with is not installed any more; only `config` needs them all.
    """

    def __init__(self, path: str | Path) -> None:
        self.dir = RunDir(path)
        self.settings: dict[str, Any] = self.dir.table()
        """What ``config.toml`` says."""
        self._generators: dict[tuple[bool, torch.device], nn.Module] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.dir.path)!r})"

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.dir.path

    @functools.cached_property
    def config(self) -> RunConfig:
        """The configuration; raises `CheckpointError` where a plugin of it is missing."""
        return self.dir.config()

    @functools.cached_property
    def source(self) -> Source:
        """Where the run's real samples come from; raises `CheckpointError` where that plugin is missing."""
        source: Source = self.dir.part("source")
        return source

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics, oldest first."""
        return self.dir.metrics()

    def generator(self, *, average: bool = True, device: str = "auto") -> nn.Module:
        """The generator of the last valid checkpoint, in evaluation mode.

        With `average`, the averaged generator where the run has one.
        """
        place = choose_device(device)
        if (average, place) not in self._generators:
            self._generators[average, place] = self._load(average).to(place).eval()
        return self._generators[average, place]

    def _load(self, average: bool) -> nn.Module:
        snapshot = self.dir.snapshot()
        family: Network = self.dir.part("generator")
        with Streams(0, torch.device("cpu")).initialising("generator-weights"):
            generator = family.generator(self.dir.part("latent").dim, self.source.spec())
        put_weights(generator, snapshot, "average.module" if average and self.settings.get("average") else "generator")
        return generator

    def sample(self, count: int, *, seed: int = 0, average: bool = True, device: str = "auto") -> Tensor:
        """`count` generated samples, (count, *shape), float32 on the CPU; the same seed gives the same samples."""
        if count < 1:
            raise UsageError(f"count = {count}: must be at least 1")
        generator = self.generator(average=average, device=device)
        place = choose_device(device)
        latent: Latent = self.dir.part("latent")
        latents = latent.draw(count, Streams(seed, place).at("sample", 0))
        return generate(generator, latents).cpu()


def load(path: str | Path) -> Run:
    """Open a run; raises `CheckpointError` where there is none."""
    return Run(path)
