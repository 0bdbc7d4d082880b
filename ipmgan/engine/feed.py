"""Hands out real batches by number: batch k is a pure function of (seed, k), whatever was handed out before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ipmgan.data.base import Resident, Sampler, Samples, Streamed, to_interval
from ipmgan.engine.blocks import Blocks, StackedBlocks
from ipmgan.engine.streams import Streams
from ipmgan.errors import DataError

POLL = 5.0
"""Seconds between looks whether the loader processes live."""
LOADER_TIMEOUT = 120.0
"""Seconds after which a loader that gives nothing is an error."""
FINGERPRINT_SAMPLES = 64


class Feed:
    """Batches of one split: drawn without end from a law, or without replacement, epoch after epoch, from a set."""

    def __init__(self, samples: Samples, batch: int, streams: Streams, stream: str, workers: int = 0) -> None:
        self._samples = samples.to(streams.device) if isinstance(samples, Resident) else samples
        self._batch = batch
        self._streams = streams
        self._stream = stream
        self._workers = workers
        self._loader: Iterator[Tensor] | None = None
        self._loader_next = -1
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)
        self._law = Blocks(samples.draw, batch, streams, stream) if isinstance(samples, Sampler) else None
        if not isinstance(samples, Sampler) and len(samples) < batch:
            raise DataError(f"the {stream} split has {len(samples)} samples, fewer than one batch of {batch}")
        self.some = functools.cache(self._some)

    def batch(self, number: int) -> Tensor:
        """Batch `number` on the device, (batch, *shape), float32."""
        if self._law is not None:
            return self._law.batch(number)
        if isinstance(self._samples, Resident):
            return self._samples.take(self.indices(number))
        assert isinstance(self._samples, Streamed)
        return self._stream_batch(self._samples, number)

    def _some(self, count: int) -> Tensor:
        """A fixed random set of `count` samples, or all where there are fewer."""
        if isinstance(self._samples, Sampler):
            return self._samples.draw(count, self._streams.at(f"{self._stream}-some", 0))
        index = self._order(-1)[:count]
        if isinstance(self._samples, Resident):
            return self._samples.take(index)
        dataset = self._samples.dataset
        return to_interval(torch.stack([dataset[int(i)] for i in index]), self._samples.bounds).to(index.device)

    def indices(self, number: int) -> Tensor:
        """Which samples batch `number` holds; where an epoch ends inside it, the next one begins."""
        assert not isinstance(self._samples, Sampler)
        epoch, start = divmod(number * self._batch, len(self._samples))
        first = self._order(epoch)[start : start + self._batch]
        if len(first) == self._batch:
            return first
        return torch.cat([first, self._order(epoch + 1)[: self._batch - len(first)]])

    def _draw_order(self, epoch: int) -> Tensor:
        assert not isinstance(self._samples, Sampler)
        generator = self._streams.at(f"{self._stream}-order", epoch)
        return torch.randperm(len(self._samples), generator=generator, device=generator.device)

    def _stream_batch(self, samples: Streamed, number: int) -> Tensor:
        if self._loader is None or number != self._loader_next:
            with _handler_kept():
                self._loader = iter(self._make_loader(samples, number))
        self._loader_next = number + 1
        try:
            batch = _patiently(self._loader)
        except (RuntimeError, DataError, OSError, EOFError) as error:
            # What a loader process raised comes as a traceback, whose last line is the error; one that was killed while
            # it handed over a batch leaves a broken connection.
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            reason = reason.removeprefix("ipmgan.errors.DataError: ")
            raise DataError(f"the {self._stream} split could not be read: {reason}") from error
        return to_interval(batch.to(self._streams.device, non_blocking=True), samples.bounds)

    def _make_loader(self, samples: Streamed, number: int) -> DataLoader[Any]:
        def numbers() -> Iterator[list[int]]:
            current = number
            while True:
                yield self.indices(current).tolist()
                current += 1

        return DataLoader(
            samples.dataset,
            batch_sampler=numbers(),
            num_workers=self._workers,
            pin_memory=self._streams.device.type == "cuda",
            timeout=POLL if self._workers else 0,
            generator=torch.Generator(),
            worker_init_fn=_leave_group,
        )


class StackedFeed:
    """The batches of several seeds from the same samples, stacked: (seeds, batch, *shape)."""

    def __init__(self, seeds: Sequence[Feed]) -> None:
        self._seeds, self._samples = list(seeds), seeds[0]._samples
        laws = [feed._law for feed in seeds if feed._law is not None]
        self._law = StackedBlocks(laws) if laws else None

    def batch(self, number: int) -> Tensor:
        """Batch `number` of each seed."""
        if self._law is not None:
            return self._law.batch(number)
        if isinstance(self._samples, Resident):
            return self._samples.take(torch.stack([feed.indices(number) for feed in self._seeds]))
        return torch.stack([feed.batch(number) for feed in self._seeds])


def _patiently(loader: Iterator[Tensor]) -> Tensor:
    """The loader's next batch; every few seconds without one torch looks whether its processes live."""
    for _ in range(round(LOADER_TIMEOUT / POLL) - 1):
        try:
            return next(loader)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
    return next(loader)


@contextlib.contextmanager
def _handler_kept() -> Iterator[None]:
    """Take back the signal handler that torch installs with a loader.

    It raises wherever the program happens to be when a loader process dies, such as in the midst of an error message.
    """
    child = getattr(signal, "SIGCHLD", None)
    before = None if child is None else signal.getsignal(child)
    yield
    if child is not None and before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(child, before)


def _leave_group(worker: int) -> None:
    """Leave signals to the whole process group to the run itself, which still needs its loaders in order to save."""
    os.setpgid(0, 0)


def fingerprint(samples: Samples) -> str:
    """What tells one set of training samples from another: a sum over samples, their number and their interval.

    Over all samples that are held, over some of those that are streamed, and over a few draws from a law.
    """
    if isinstance(samples, Resident):
        data, facts = samples.samples, (len(samples), samples.bounds)
    elif isinstance(samples, Streamed):
        chosen = range(0, len(samples), max(1, len(samples) // FINGERPRINT_SAMPLES))
        data, facts = torch.stack([samples.dataset[i] for i in chosen]), (len(samples), samples.bounds)
    else:
        data, facts = samples.draw(FINGERPRINT_SAMPLES, torch.Generator().manual_seed(0)), (0, None)
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(data.contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()
