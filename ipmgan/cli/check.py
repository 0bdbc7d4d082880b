"""``ipmgan plugins check``."""

from __future__ import annotations

from typing import Annotated

import typer


def check(
    name: Annotated[
        str | None, typer.Argument(help="A plugin, as name or name:key=value, or a distribution; all without.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that plugins do what they must: orientation, gradients, ranges, resuming; exit code 1 where one fails."""
    import attrs

    from ipmgan.cli.output import print_json, print_table, say
    from ipmgan.testing.suite import cases

    outcomes = [case.run() for case in cases(*([] if name is None else [name]))]
    rows = [attrs.asdict(outcome) for outcome in outcomes]
    if json:
        print_json(rows)
    else:
        print_table(rows, wraps="reason")
        counts = [sum(outcome.result == result for outcome in outcomes) for result in ("pass", "fail", "skip")]
        say("{} passed, {} failed, {} skipped".format(*counts))
    if any(outcome.result == "fail" for outcome in outcomes):
        raise typer.Exit(1)
