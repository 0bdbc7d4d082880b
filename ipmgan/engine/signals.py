"""Ctrl-C and SIGTERM: the first asks the run to save and stop, a second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

import attrs


class Stoppable(Protocol):
    """What can be asked to save and stop."""

    def stop(self) -> None:
        """Save and stop after the current step."""


@attrs.define
class Caught:
    """The signal that came, or None."""

    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells have it; 0 without a signal."""
        return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def stopping(trainer: Stoppable) -> Iterator[Caught]:
    """Turn the first SIGINT or SIGTERM into `trainer.stop()` while the block runs."""
    caught = Caught()

    def handle(number: int, frame: FrameType | None) -> None:
        if caught.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.signal = number
        trainer.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
