"""``ipmgan resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def resume(
    run: Annotated[Path, typer.Argument(help="The run's directory.")],
    steps: Annotated[int | None, typer.Option(help="A new total of generator steps.")] = None,
) -> None:
    """Go on with a run, or with replicates, from the last valid checkpoint, as if it had not stopped."""
    from ipmgan.cli.display import follow
    from ipmgan.engine.loop import Trainer
    from ipmgan.engine.replicates import Replicates

    kind = Replicates if Replicates.at(run) else Trainer
    raise typer.Exit(follow(kind.resume(run, steps=steps)))
