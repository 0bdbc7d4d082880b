"""The command line. Heavy imports happen inside the commands, so that help does not load torch."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from ipmgan.cli import audit, bench, bound, cite, distance, evaluate, plugins, presets, probe, resume, sample, train
from ipmgan.cli.output import say
from ipmgan.errors import IpmganError

REFUSED: Any = typer.BadParameter.__bases__[0]
"""What the parser of the command line raises; typer has it from click, or brings its own copy."""

app = typer.Typer(
    name="ipmgan",
    help="Learn a distribution by minimising a distance between it and the model's.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        typer.echo(importlib.metadata.version("ipmgan"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, help="Print the version and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Learn a distribution by minimising a distance between it and the model's."""


app.command("train")(train.train)
app.command("resume")(resume.resume)
app.command("sample")(sample.sample)
app.command("evaluate")(evaluate.evaluate)
app.command("distance")(distance.distance)
app.command("probe")(probe.probe)
app.command("bound")(bound.bound)
app.command("audit")(audit.audit)
app.command("bench")(bench.bench)
app.command("cite")(cite.cite)
app.add_typer(plugins.app, name="plugins")
app.add_typer(presets.app, name="presets")


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    say(f"warning: {message}", err=True)


def main() -> None:
    """Run the command line; an error is one or two lines and an exit code of its own."""
    warnings.showwarning = _warn
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(arguments or ["--help"], prog_name="ipmgan", standalone_mode=False)
    except (IpmganError, REFUSED) as error:
        if debug:
            raise
        say(f"error: {error.format_message() if isinstance(error, REFUSED) else error}", err=True)
        if isinstance(error, REFUSED):
            say(f"see: {error.ctx.command_path if error.ctx else 'ipmgan'} --help", err=True)
        sys.exit(error.exit_code)
    sys.exit(code)
