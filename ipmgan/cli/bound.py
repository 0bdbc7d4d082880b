"""``ipmgan bound``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ipmgan.evaluation.bound import NoiseBound

SELECTION = "name:key=value,..."


def bound(
    run: Annotated[Path, typer.Argument(help="The directory of a run.")],
    sd: Annotated[list[float] | None, typer.Option(help="A strength of the noise; may be repeated.")] = None,
    law: Annotated[str | None, typer.Option(help="Of the noise: uniform (the default) or gaussian.")] = None,
    steps: Annotated[int | None, typer.Option(help="Critic steps at each strength; else 1000.")] = None,
    critic: Annotated[str | None, typer.Option(help="The discriminator; else the run's.", metavar=SELECTION)] = None,
    critic_optimizer: Annotated[str | None, typer.Option(help="One of torch's.", metavar=SELECTION)] = None,
    samples: Annotated[int | None, typer.Option(help="Samples a side that C is measured on; else 2000.")] = None,
    checkpoint: Annotated[int | None, typer.Option(help="The checkpoint's step; else the last.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every draw.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it to this .png.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bound W1 between a run's data and generator by what tells them apart under noise.

    W1 <= 2 √V + 2 √2 C √JSD, with a discriminator trained at each strength of the noise.
    """
    from ipmgan.cli.output import print_json, say, shown
    from ipmgan.evaluation.bound import Bounder

    if plot is not None and plot.suffix != ".png":
        raise typer.BadParameter(f"{plot}: must end in .png", param_hint="--plot")
    bounder = Bounder(
        run,
        sds=tuple(sd) if sd else None,
        law=law,
        steps=steps,
        critic=critic,
        critic_optimizer=critic_optimizer,
        samples=samples,
        checkpoint=checkpoint,
        seed=seed,
        device=device,
    )
    for number, row in enumerate(bounder, 1):
        say(f"{number}/{len(bounder)}  sd {row.sd:.4g}: JSD {row.jsd:.4f}", err=True)
    found = bounder.bound()
    if plot is not None:
        found.plot(plot)
    if json:
        print_json(found.table() | ({} if plot is None else {"plot": str(plot)}))
        return
    print_bound(found)
    if plot is not None:
        say(f"drawn to {shown(plot)}")


def print_bound(found: NoiseBound) -> None:
    """Print a bound for a person to read."""
    from ipmgan.cli.output import print_table, say, shown

    say(f"{shown(found.run)}, step {found.checkpoint}: W1 <= 2 √V + 2 √2 C √JSD under {found.law} noise")
    rows = [
        {
            "sd": f"{row.sd:.4g}",
            "JSD": f"{row.jsd:.4f} ± {row.jsd_error:.4f}",
            "2 √V": f"{row.noise_term:.4g}",
            "C by moments": f"{row.by_moments:.4g}",
            "C of a ball": f"{row.by_ball:.4g}",
            "and JSD <= log 2": f"{row.certified_by_moments:.4g}, {row.certified_by_ball:.4g}",
        }
        for row in found.rows
    ]
    print_table(rows, wraps="sd")
    least = f"{found.best.by_moments:.4g} at sd {found.best.sd:.4g}, if no discriminator tells more apart"
    say(f"least: {least}; for certain: {found.certified:.4g}")
    for note in found.notes:
        say(f"note: {note}")
