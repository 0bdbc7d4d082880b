"""``ipmgan sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    run: Annotated[Path, typer.Argument(help="The run's directory.")],
    count: Annotated[int, typer.Option(help="How many samples.")] = 64,
    out: Annotated[Path, typer.Option(help="A .png picture, or all values as .npy or .safetensors.")] = Path(
        "samples.png"
    ),
    seed: Annotated[int, typer.Option(help="Decides the latents.")] = 0,
    average: Annotated[bool, typer.Option(help="Use the averaged generator where the run has one.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Draw samples from a run's generator."""
    from ipmgan.cli.output import say, shown
    from ipmgan.engine.run import load
    from ipmgan.reports.export import check_format, export

    check_format(out)
    opened = load(run)
    export(opened.sample(count, seed=seed, average=average, device=device), out, opened.source.spec().bounds)
    say(f"{count} samples of {shown(run)}: {shown(out)}")
