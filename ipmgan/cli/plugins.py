"""``ipmgan plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ipmgan.cli import check, new

if TYPE_CHECKING:
    from ipmgan.registry import Entry, Registry

app = typer.Typer(help="The plugins that are installed, and a start for one of your own.")


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Option(help="Only one kind, such as objective.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the plugins: kind, name, whether they can be used, what they estimate or are, and where they come from."""
    from ipmgan.cli.output import is_terminal, print_json, print_table
    from ipmgan.registry import registry

    rows = [*_good(_entries(kind), registry()), *_bad(registry())]
    if json:
        print_json(rows)
        return
    shown = [
        {
            "kind": row["kind"],
            "name": ", ".join(filter(None, (row["name"], row["also"]))),
            "status": row["status"],
            "from": row["from"],
            "what": row["error"] or row["estimates"] or row["what"],
        }
        for row in rows
    ]
    if is_terminal():
        _print_groups(shown)
    else:
        print_table(shown, wraps="what")


def _print_groups(rows: list[dict[str, str]]) -> None:
    """The rows under headings, a kind and a distribution each, so that a narrow terminal has room for what they are."""
    import itertools

    from ipmgan.cli.output import print_list, say

    usable = [row for row in rows if row["name"]]
    for kind, of_kind in itertools.groupby(usable, key=lambda row: row["kind"]):
        say(kind if new.TITLES[kind] == kind else f"{kind} ({new.TITLES[kind]})")
        for origin, offered in itertools.groupby(of_kind, key=lambda row: row["from"]):
            say(f"  from {origin}")
            print_list([(row["name"], _with_status(row)) for row in offered], indent=4)
    bad = [(row["from"], _with_status(row)) for row in rows if not row["name"]]
    if bad:
        say("not loaded")
        print_list(bad, indent=4)


def _with_status(row: dict[str, str]) -> str:
    return row["what"] if row["status"] == "ok" else f"{row['status']}: {row['what']}"


def _good(entries: list[Entry], registry: Registry) -> list[dict[str, str]]:
    from ipmgan.reports.describe import reads, summary

    return [
        {
            "kind": entry.plugin.kind,
            "name": entry.plugin.name,
            "also": ", ".join(entry.plugin.aliases),
            "status": "claimed twice" if (rivals := registry.rivals(entry)) else "ok",
            "what": summary(entry.plugin),
            "estimates": reads(entry.plugin),
            "from": f"{entry.distribution} {entry.version}",
            "error": f"{' and '.join(rivals)} offer it too: uninstall all but one" if rivals else "",
        }
        for entry in entries
    ]


def _bad(registry: Registry) -> list[dict[str, str]]:
    """The distributions that offer nothing here: those that could not be loaded, and those that may not be."""
    from ipmgan.registry import SWITCH

    found = [("broken", broken.distribution, broken.version, broken.error) for broken in registry.broken]
    found += [("off", distribution, version, f"left out by {SWITCH}") for distribution, version in registry.left_out]
    empty = dict.fromkeys(("kind", "name", "also", "status", "what", "estimates"), "")
    return [
        empty | {"status": status, "from": f"{distribution} {version}", "error": error}
        for status, distribution, version, error in found
    ]


@app.command()
def show(
    name: str,
    kind: Annotated[str | None, typer.Option(help="Where a name stands for several kinds.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a plugin: its equation, options, facts, defaults, what it goes with, and its sources."""
    from ipmgan.cli.output import print_json, print_page
    from ipmgan.engine.pairing import pairs
    from ipmgan.registry import registry
    from ipmgan.reports.describe import describe, page

    known = _entries(kind)
    found = [entry for entry in known if name in (entry.plugin.name, *entry.plugin.aliases)]
    if not found:
        raise registry().unknown(kind or "plugin", name, {entry.plugin.name for entry in known})
    if json:
        print_json([describe(entry, pairs(entry.plugin)) for entry in found])
    else:
        print_page("\n".join(page(entry, pairs(entry.plugin)) for entry in found))


app.command("check")(check.check)
app.command("new")(new.new)


def _entries(kind: str | None) -> list[Entry]:
    from ipmgan.errors import UsageError, choose_from
    from ipmgan.registry import registry

    if kind is not None and kind not in registry().kinds:
        raise UsageError(choose_from("kind of plugin", kind, registry().kinds))
    return registry().entries(kind)
