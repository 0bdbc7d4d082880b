"""Every random draw of a run as a pure function of (seed, stream, step), so that a resumed run needs no history."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_of(seed: int, stream: str, step: int = 0) -> int:
    """A 63-bit seed; different streams and steps are independent for all practical purposes.

    >>> seed_of(0, "latent", 1) == seed_of(0, "latent", 1) != seed_of(0, "latent", 2)
    True
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Streams:
    """The random streams of one run on one device."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self._generators: dict[str, torch.Generator] = {}

    def at(self, stream: str, step: int) -> torch.Generator:
        """The stream's generator, put to this step; it stays valid until the stream is asked for again."""
        generator = self._generators.get(stream)
        if generator is None:
            generator = self._generators[stream] = torch.Generator(self.device)
        return generator.manual_seed(seed_of(self.seed, stream, step))

    def initialising(self, stream: str) -> contextlib.AbstractContextManager[None]:
        """Let torch's global generator, which weight initialisation draws from, follow a stream."""
        return self.global_draws(stream, 0)

    @contextlib.contextmanager
    def global_draws(self, stream: str, step: int) -> Iterator[None]:
        """Let torch's global generators, which layers such as dropout draw from, follow a stream, then put them back.

        So a run neither depends on what was drawn elsewhere nor disturbs it.
        """
        cuda = []
        if self.device.type == "cuda":
            cuda = [torch.cuda.current_device() if self.device.index is None else self.device.index]
        seed = seed_of(self.seed, stream, step)
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)
            for index in cuda:
                torch.cuda.default_generators[index].manual_seed(seed)
            yield
