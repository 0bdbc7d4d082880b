"""``ipmgan plugins``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ipmgan.registry import Entry

app = typer.Typer(help="The plugins that are installed.")


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Option(help="Only one kind, such as objective.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the plugins: kind, name, what it is, and the distribution that offers it."""
    from ipmgan.cli.output import print_json, print_table
    from ipmgan.registry import registry

    rows: list[dict[str, Any]] = [
        {
            "kind": entry.plugin.kind,
            "name": entry.plugin.name,
            "also": ", ".join(entry.plugin.aliases),
            "what": (inspect.getdoc(entry.plugin) or "").split("\n", 1)[0],
            "from": f"{entry.distribution} {entry.version}",
        }
        for entry in _entries(kind)
    ]
    rows += [
        {
            "kind": "broken",
            "name": "",
            "also": "",
            "what": broken.error,
            "from": f"{broken.distribution} {broken.version}",
        }
        for broken in registry().broken
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        also = row.pop("also")
        row["name"] += f", {also}" if also else ""
    print_table(rows, wraps="what")


@app.command()
def show(
    name: str,
    kind: Annotated[str | None, typer.Option(help="Where a name stands for several kinds.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a plugin: its equation, options, defaults and sources."""
    from ipmgan.cli.output import print_json, say
    from ipmgan.registry import registry
    from ipmgan.reports.describe import describe, page

    known = _entries(kind)
    found = [entry for entry in known if name in (entry.plugin.name, *entry.plugin.aliases)]
    if not found:
        raise registry().unknown(kind or "plugin", name, [entry.plugin.name for entry in known])
    if json:
        print_json([describe(entry) for entry in found])
    else:
        say("\n".join(page(entry) for entry in found))


def _entries(kind: str | None) -> list[Entry]:
    from ipmgan.errors import UsageError, choose_from
    from ipmgan.registry import registry

    kinds = {entry.plugin.kind for entry in registry().entries()}
    if kind is not None and kind not in kinds:
        raise UsageError(choose_from("kind of plugin", kind, kinds))
    return registry().entries(kind)
