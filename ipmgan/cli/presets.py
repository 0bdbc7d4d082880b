"""``ipmgan presets``."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Settings of published experiments, ready to train.")


@app.command("list")
def list_presets(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the presets, each with its first line."""
    from ipmgan.cli.output import print_json, print_table
    from ipmgan.config import load_preset, presets

    rows = [{"preset": name, "what": load_preset(name)[0].splitlines()[0].lstrip("# ")} for name in presets()]
    if json:
        print_json(rows)
    else:
        print_table(rows, wraps="what")


@app.command()
def show(name: str) -> None:
    """Print a preset as TOML; change it and give it to ipmgan train --config."""
    from ipmgan.config import load_preset

    typer.echo(load_preset(name)[0], nl=False)
