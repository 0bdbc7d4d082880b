"""TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w

from ipmgan.errors import UsageError
from ipmgan.plugin import option
from ipmgan.trackers.base import Tracker, Tracking, last_step


@attrs.frozen(kw_only=True)
class TensorBoard(Tracker):
    """Writes a run's metrics, pictures and settings for TensorBoard, into ``tensorboard/`` in the run's directory.

        pip install "ipmgan[tensorboard]"
        tensorboard --logdir runs

    shows all runs under ``runs/`` beside each other. Lines that a resumed run makes again replace those that were
    written before.
    """

    name = "tensorboard"

    pictures: bool = option(True, help="whether to write the pictures of samples too")

    def check(self) -> None:
        """Raise `UsageError` where TensorBoard is not installed."""
        if importlib.util.find_spec("tensorboard") is None:
            raise UsageError('the tracker tensorboard needs a package: pip install "ipmgan[tensorboard]"')

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        """Write the settings, and what follows."""
        self.check()
        from torch.utils.tensorboard import SummaryWriter  # An optional package, which takes seconds to load.

        writer = SummaryWriter(str(run / "tensorboard"), purge_step=last_step(run) + 1)
        writer.add_text("settings", f"```\n{tomli_w.dumps(settings)}```")
        return Writing(writer, pictures=self.pictures)


class Writing(Tracking):
    """A run whose event file is open."""

    def __init__(self, writer: Any, *, pictures: bool) -> None:
        self._writer = writer
        self._pictures = pictures

    def log(self, record: Mapping[str, Any]) -> None:
        """Write every number."""
        for name, value in record.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()

    def picture(self, step: int, path: Path) -> None:
        """Write the picture, where pictures are wanted."""
        if self._pictures:
            from PIL import Image  # Not needed before there are pictures, and training starts sooner.

            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image("samples", pixels, step, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
