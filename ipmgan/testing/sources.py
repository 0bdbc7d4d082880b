"""The properties of sources and metrics: what is handed out, and the numbers about it."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ipmgan.data.base import Resident, Sampler, Samples, Source, Split, Streamed, to_interval
from ipmgan.testing.base import NotApplicable, no_global_draws, require, rng

SPLITS: tuple[Split, ...] = ("train", "held-out")
SEEN = 64


def some(samples: Samples, seed: int = 0) -> Tensor:
    """A few samples as a run would see them."""
    if isinstance(samples, Sampler):
        return samples.draw(SEEN, rng(seed))
    if isinstance(samples, Resident):
        return samples.take(torch.arange(min(SEEN, len(samples))))
    rows = [samples.dataset[k] for k in range(min(SEEN, len(samples)))]
    return to_interval(torch.stack(rows), samples.bounds)


def as_specified(plugin: Source) -> None:
    """Samples have the shape and lie in the bounds that `spec` names, finite and in float32."""
    spec = plugin.spec()
    for split in SPLITS:
        samples = plugin.open(split)
        known = isinstance(samples, Resident | Sampler | Streamed)
        require(known, f"open({split!r}) gives a {type(samples).__name__}, not Resident, Sampler or Streamed")
        x = some(samples)
        shape = tuple(x.shape[1:])
        require(shape == spec.shape, f"{split} samples have shape {shape}, and spec() says {spec.shape}")
        require(x.dtype == torch.float32, f"{split} samples are {x.dtype}, not torch.float32")
        require(torch.isfinite(x).all(), f"{split} samples hold numbers that are not finite")
        if spec.bounds is not None:
            low, high = spec.bounds
            inside = x.min() >= low - 1e-6 and x.max() <= high + 1e-6
            require(inside, f"{split} samples lie in {float(x.min()):.4g}..{float(x.max()):.4g}, outside {spec.bounds}")
            held = getattr(samples, "bounds", spec.bounds)
            require(held == spec.bounds, f"{split} samples have bounds {held}, and spec() says {spec.bounds}")


def same_every_time(plugin: Source) -> None:
    """Samples are the same each time, and draws follow the generator that is given, alone."""
    for split in SPLITS:
        plugin.open(split)
        with no_global_draws("the source"):
            samples = plugin.open(split)
            first, second = some(samples), some(plugin.open(split))
        require(torch.equal(first, second), f"{split} samples differ from one opening to the next")
        if isinstance(samples, Sampler):
            require(not torch.equal(first, some(samples, seed=1)), "draw does not follow its generator")
            require(torch.equal(first, some(samples)), "draw depends on what was drawn before")


def splits_apart(plugin: Source) -> None:
    """The two splits of a finite set share no sample."""
    sides = [plugin.open(split) for split in SPLITS]
    if any(isinstance(side, Sampler) for side in sides):
        raise NotApplicable("a law has no end of samples: the splits are independent draws")
    train, held_out = (_digests(side) for side in sides)
    shared = len(train & held_out)
    require(not shared, f"{shared} samples are in both splits: hold out others than are trained on")


def _digests(samples: Samples) -> set[bytes]:
    """What tells samples apart: of all that are held, of some that are streamed."""
    if isinstance(samples, Resident):
        rows = samples.samples
    else:
        assert isinstance(samples, Streamed)
        rows = torch.stack([samples.dataset[k] for k in range(min(1000, len(samples)))])
    plain = rows.contiguous().flatten(1).cpu().numpy()
    return {hashlib.blake2b(row.tobytes()).digest() for row in plain}
