"""Properties that only a run shows: that it resumes to the bit, and that a tracker leaves no trace in it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ipmgan.config import configure
from ipmgan.engine import checkpoint
from ipmgan.engine.checks import check
from ipmgan.engine.loop import Trainer
from ipmgan.engine.run import Run
from ipmgan.errors import PairingError, UsageError
from ipmgan.plugin import Plugin
from ipmgan.registry import registry
from ipmgan.testing.base import ConformanceError, NotApplicable, require
from ipmgan.trackers.base import Tracker

STEPS = 4
RATES = ("steps_per_second", "samples_per_second")
TOY: dict[str, Any] = {
    "objective": "nonsaturating",
    "lipschitz": "none",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "critic": "mlp:width=8,depth=2",
    "latent": "normal:dim=3",
    "batch": 8,
    "n_critic": 2,
    "steps": STEPS,
    "seed": 1,
    "device": "cpu",
    "workers": 0,
    "compile": "off",
    "log_every": 1,
    "sample_every": STEPS,
    "held_out_batches": 1,
    "metrics": [],
}
CRITICS = ("mlp:width=8,depth=2", "autoencoder:hidden=8,code=2", "autoencoder:hidden=8,code=2,with_code=true")


def resumes(plugin: Plugin) -> None:
    """A run that was stopped half-way and resumed ends like one that was not, to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        settings = toy(plugin, Path(folder))
        try:
            trainer = Trainer(out=Path(folder, "whole"), **settings)
        except UsageError as error:
            raise NotApplicable(f"it cannot be used here: {str(error).splitlines()[0]}") from error
        whole = trainer.train()
        half = Trainer(out=Path(folder, "half"), **settings)
        for _ in half:
            if half.step == STEPS // 2:
                half.stop()
        before = lines(Run(half.run_dir.path))
        require(before == lines(whole)[: len(before)], "two runs of one seed differ: something is drawn from elsewhere")
        compare(whole, Trainer.resume(half.run_dir.path).train(), "a resumed run")


def leaves_no_trace(plugin: Plugin) -> None:
    """A run that is tracked ends like one that is not, to the bit."""
    with tempfile.TemporaryDirectory() as folder:
        settings = toy(plugin, Path(folder))
        tracked = Trainer(out=Path(folder, "tracked"), **settings).train()
        alone = Trainer(out=Path(folder, "alone"), **settings | {"tracker": []}).train()
        compare(alone, tracked, "a tracked run", scalars=False)


def compare(one: Run, other: Run, what: str, *, scalars: bool = True) -> None:
    """Fail where the last checkpoints or the lines of metrics differ."""
    a, b = (checkpoint.load_latest(run.dir.checkpoints) for run in (one, other))
    if a is None or b is None:
        raise ConformanceError(f"{what} leaves no checkpoint")
    require(a.tensors.keys() == b.tensors.keys(), f"{what} saves other tensors than one in a single piece")
    apart = [name for name, tensor in a.tensors.items() if not torch.equal(tensor, b.tensors[name])]
    told = f"{what} ends with another {apart[0] if apart else ''} than one in a single piece"
    require(not apart, f"{told}: what changes from step to step belongs into state()")
    require(not scalars or a.scalars == b.scalars, f"{what} ends with other counters than one in a single piece")
    require(lines(one) == lines(other), f"{what} logs other metrics than one in a single piece")


def lines(run: Run) -> list[dict[str, Any]]:
    """A run's lines of metrics, without how fast it was."""
    return [{key: repr(value) for key, value in line.items() if key not in RATES} for line in run.metrics]


def toy(plugin: Plugin, folder: Path) -> dict[str, Any]:
    """The settings of a tiny run with this plugin; the first of those that fit."""
    refusals = []
    if isinstance(plugin, Tracker):
        try:
            plugin.check()
        except UsageError as error:
            raise NotApplicable(str(error).splitlines()[0]) from error
    for choice in _choices(plugin, folder):
        settings = TOY | choice
        try:
            check(configure(**settings))
        except PairingError as error:
            refusals.append(str(error).splitlines()[0])
        else:
            return settings
    if plugin.kind == "metric":
        raise NotApplicable(refusals[-1])
    raise ConformanceError(f"it fits into no run: {refusals[-1] if refusals else 'nothing to try'}")


def _choices(plugin: Plugin, folder: Path) -> Iterator[dict[str, Any]]:
    match plugin.kind:
        case "objective":
            enforcers = [entry.plugin.name for entry in registry().entries("lipschitz")]
            first = ["clip", "none"] if getattr(plugin, "needs_lipschitz", False) else ["none"]
            for enforcer in [*first, *enforcers]:
                yield {"objective": plugin, "lipschitz": enforcer, "critic": None}
                for critic in CRITICS:
                    yield {"objective": plugin, "lipschitz": enforcer, "critic": critic}
        case "lipschitz":
            first = ["wgan"] if getattr(plugin, "enforces", True) else []
            for objective in [*first, *(entry.plugin.name for entry in registry().entries("objective"))]:
                for critic in CRITICS:
                    yield {"objective": objective, "lipschitz": plugin, "critic": critic}
        case "network":
            yield from _networks(plugin, folder)
        case "metric":
            for source in (f"{pictures(folder)},held_out=0.5", "ring8"):  # Few samples first, which take less time.
                yield {"metrics": [plugin], "sample_every": STEPS // 2, "source": source}
        case "tracker":
            yield {"tracker": [plugin]}
        case kind:
            yield {kind: plugin}


def _networks(plugin: Plugin, folder: Path) -> Iterator[dict[str, Any]]:
    """Runs with the family on both sides, then on one; on points and on pictures."""
    for source in ("ring8", pictures(folder)):
        for sides in ({"generator": plugin, "critic": plugin}, {"generator": plugin}, {"critic": plugin}):
            for objective in ("nonsaturating", "ebgan", "mmd"):
                yield {"objective": objective, "source": source, "batch": 4, "n_critic": 1, **sides}


def pictures(folder: Path, size: int = 28) -> str:
    """A source of grey pictures, made up and written into this folder."""
    path = folder / "pictures.npy"
    if not path.exists():
        noise = np.random.default_rng(0).integers(0, 255, (64, 1, size, size), dtype=np.uint8)
        np.save(path, noise)
    return f'tensor:path="{path.as_posix()}"'
