"""The two sides of a comparison: samples from a source, a file, a folder of images, a run, or memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from ipmgan.data import Folder, Sampler, SampleSpec, Source, Split
from ipmgan.data.arrays import check_real, tensor_of
from ipmgan.engine.feed import Feed
from ipmgan.engine.run import Run, load
from ipmgan.engine.streams import Streams
from ipmgan.errors import DataError, UsageError, choose_from
from ipmgan.evaluation.stored import PIXELS, find, samples_of
from ipmgan.perturbations.base import Perturbation
from ipmgan.registry import registry

Given = Tensor | np.ndarray[Any, Any] | Source | Run | str | Path
"""What may stand on a side: samples (N, ...), a source, a run, or the text for one of them."""
RUN = "run:"
SPLITS = ("all", "train", "held-out")
LEAST = 20
"""Samples a side, with fewer of which nothing can be fitted, checked and tested."""


@attrs.frozen(kw_only=True, eq=False)
class Side:
    """Samples (N, *shape) in random order, on their device, and where they come from."""

    label: str
    samples: Tensor = attrs.field(repr=False)
    bounds: tuple[float, float] | None

    def perturbed(self, perturbation: Perturbation, generator: torch.Generator) -> Side:
        """Every sample perturbed once, by a draw of its own, as strongly as at the start of a run."""
        drawn = perturbation.draw(tuple(self.samples.shape), generator, done=0.0)
        return attrs.evolve(self, samples=perturbation.perturb(self.samples, drawn))


@attrs.frozen(kw_only=True, eq=False)
class Opened:
    """What a side stands for, before any sample is taken."""

    label: str
    origin: Tensor | Source | Run
    bare: bool = False
    """It is a folder of images, given without their size."""

    def like(self, other: SampleSpec) -> Opened:
        """A bare folder with the size, the channels and the interval of other images; anything else as it is."""
        if not (self.bare and isinstance(self.origin, Folder) and len(other.shape) == 3):
            return self
        channels, size, _ = other.shape
        folder = attrs.evolve(self.origin, size=size, channels=channels, bounds=other.bounds or PIXELS)
        return attrs.evolve(self, origin=folder)

    @property
    def spec(self) -> SampleSpec:
        """The shape and the interval of a sample."""
        if isinstance(self.origin, Tensor):
            return SampleSpec(shape=tuple(self.origin.shape[1:]))
        return (self.origin.source if isinstance(self.origin, Run) else self.origin).spec()

    def take(self, count: int, split: str, streams: Streams, stream: str) -> Tensor:
        """So many samples, or all where there are fewer, in random order."""
        if isinstance(self.origin, Run):
            seed = int(torch.randint(2**62, (), generator=streams.at(f"{stream}-run", 0), device=streams.device))
            return self.origin.sample(count, seed=seed, device=str(streams.device)).to(streams.device)
        if isinstance(self.origin, Source):
            return _from_source(self.origin, count, split, streams, stream)
        return _shuffled(self.origin, streams, stream)[:count].to(streams.device)

    @property
    def endless(self) -> bool:
        """Whether new samples can be drawn without end."""
        return isinstance(self.origin, Run) or (
            isinstance(self.origin, Source) and isinstance(self.origin.open("held-out"), Sampler)
        )

    def same(self, other: Opened) -> bool:
        """Whether the other side holds these very samples."""
        if self.endless:
            return False
        if isinstance(self.origin, Tensor) and isinstance(other.origin, Tensor):
            return self.origin.shape == other.origin.shape and torch.equal(self.origin, other.origin)
        return type(self.origin) is type(other.origin) and self.origin == other.origin


def open_sides(real: Given, fake: Given) -> tuple[Opened, Opened]:
    """Both sides; a bare folder of images takes its size and channels from the other side.

    Raises `UsageError` for what is no source, file, folder or run, and where the sides' samples are not alike.
    """
    first, second = _open(real), _open(fake)
    first, second = first.like(second.spec), second.like(first.spec)
    one, other = first.spec, second.spec
    if one.shape != other.shape:
        raise UsageError(
            f"{first.label} has samples of shape {one.shape}, {second.label} of {other.shape}: must be the same"
        )
    if None not in (one.bounds, other.bounds) and one.bounds != other.bounds:
        raise UsageError(
            f"{first.label} has values in {one.bounds}, {second.label} in {other.bounds}: give both the same bounds"
        )
    return first, second


def take_sides(
    real: Opened, fake: Opened, count: int, split: str | None, streams: Streams
) -> tuple[Side, Side, tuple[str, ...]]:
    """So many samples of either side, or all where there are fewer, and what should be known about them.

    Beside a run's samples, a source gives those that it holds out, unless it is told otherwise. The same finite samples
    on both sides are divided into halves. Raises `DataError` where there are too few.
    """
    runs = isinstance(real.origin, Run) or isinstance(fake.origin, Run)
    split = split or ("held-out" if runs else "all")
    if split not in SPLITS:
        raise UsageError(choose_from("split", split, SPLITS))
    notes = []
    if real.same(fake):
        both = real.take(2 * count, split, streams, "real")
        taken = [both[: len(both) // 2], both[len(both) // 2 :]]
        notes.append("the same samples on both sides: one half is compared with the other")
    else:
        taken = [side.take(count, split, streams, stream) for side, stream in ((real, "real"), (fake, "fake"))]
    sides = []
    for opened, samples in zip((real, fake), taken, strict=True):
        if len(samples) < LEAST:
            raise DataError(f"{opened.label} gives {len(samples)} samples: at least {LEAST} are needed")
        sides.append(Side(label=opened.label, samples=samples, bounds=opened.spec.bounds))
    shared = _shared(*taken)
    if shared:
        notes.append(f"{shared:,} samples are on both sides, which interval, test and bracket take to be independent")
    return sides[0], sides[1], tuple(notes)


def _shared(real: Tensor, fake: Tensor) -> int:
    """How many samples are on both sides; 0 where that says nothing, since values repeat within a side too."""
    rows = [{row.tobytes() for row in side.cpu().numpy()} for side in (real, fake)]
    repeats = any(len(found) < 0.9 * len(side) for found, side in zip(rows, (real, fake), strict=True))
    return 0 if repeats else len(rows[0] & rows[1])


def _open(given: Given) -> Opened:
    if isinstance(given, Tensor):
        return Opened(label=f"a tensor {tuple(given.shape)}", origin=samples_of(given, "the tensor"))
    if isinstance(given, np.ndarray):
        check_real(given, "the array")
        return Opened(label=f"an array {given.shape}", origin=samples_of(tensor_of(given), "the array"))
    if isinstance(given, Run):
        return Opened(label=f"{RUN}{given.path}", origin=given)
    if isinstance(given, Source):
        return Opened(label=given.name, origin=given)
    text = str(given)
    if text.startswith(RUN):
        return Opened(label=text, origin=load(text.removeprefix(RUN)))
    if text.partition(":")[0] in registry().names("source"):
        made = registry().make("source", text)
        assert isinstance(made, Source)
        return Opened(label=text, origin=made)
    path = Path(text).expanduser()
    found = find(path)
    if found is None:
        known = choose_from("source", text.partition(":")[0], registry().names("source"))
        raise UsageError(f"{known}\nNor is {text!r} a folder, a .npy, .npz or .safetensors file, or {RUN}DIRECTORY")
    return Opened(label=text, origin=found, bare=isinstance(found, Folder))


def _from_source(source: Source, count: int, split: str, streams: Streams, stream: str) -> Tensor:
    splits: list[Split] = ["train", "held-out"]
    opened = [source.open(part) for part in splits if split in ("all", part)]
    if isinstance(opened[0], Sampler):
        return Feed(opened[0], 1, streams, stream).some(count)
    total = sum(len(part) for part in opened if not isinstance(part, Sampler))
    taken = []
    for number, part in enumerate(opened):
        assert not isinstance(part, Sampler)
        share = min(len(part), -(-count * len(part) // total))
        taken.append(Feed(part, 1, streams, f"{stream}-{number}").some(share))
    return _shuffled(torch.cat(taken), streams, stream)[:count]


def _shuffled(samples: Tensor, streams: Streams, stream: str) -> Tensor:
    generator = streams.at(f"{stream}-shuffle", 0)
    order = torch.randperm(len(samples), generator=generator, device=generator.device)
    return samples[order.to(samples.device)]
