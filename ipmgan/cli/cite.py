"""``ipmgan cite``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ipmgan.references import Reference
    from ipmgan.registry import Entry


def cite(what: Annotated[str, typer.Argument(metavar="RUN|NAME", help="A run's directory, or a plugin.")]) -> None:
    """Print BibTeX for everything that a run used, or for one plugin; above each entry, what it is cited for."""
    from ipmgan.cli.output import say

    entries = list(_of_run(Path(what)) if Path(what).exists() else _of_name(what))
    cited: dict[str, tuple[Reference, list[str]]] = {}
    for entry in entries:
        for reference in entry.plugin.references:
            uses = cited.setdefault(reference.bibtex(), (reference, []))[1]
            uses.append(f"{entry.plugin.kind} {entry.plugin.name}")
    if not cited:
        say(f"warning: nothing to cite: {_listed(entries)} refer to no paper", err=True)
        return
    blocks = sorted(cited.values(), key=lambda block: block[0].key)
    say("\n\n".join(f"% {', '.join(dict.fromkeys(uses))}\n{reference.bibtex()}" for reference, uses in blocks))


def _listed(entries: Iterable[Entry]) -> str:
    return ", ".join(dict.fromkeys(f"{entry.plugin.kind} {entry.plugin.name}" for entry in entries))


def _of_run(path: Path) -> Iterator[Entry]:
    """The plugins of a run, or of replicates, of which a first one stands for all; a warning for each that is gone."""
    from ipmgan.cli.output import say
    from ipmgan.engine.run import load
    from ipmgan.engine.rundir import RunDir, seeds_at
    from ipmgan.errors import UsageError
    from ipmgan.registry import registry

    for kind, name in _selected(load(next(filter(RunDir.at, seeds_at(path)), path)).settings):
        try:
            yield registry().find(kind, name)
        except UsageError as error:
            say(f"warning: what to cite for the {kind} {name} is not known: {str(error).splitlines()[0]}", err=True)


def _selected(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The kind and name of each plugin that a run's settings select, whether it is installed or not."""
    from ipmgan.config import LISTS, PLUGINS
    from ipmgan.registry import NO_CRITIC
    from ipmgan.selection import parse_selection

    chosen = [(kind, settings.get(key)) for key, kind in {**PLUGINS, "critic": "network"}.items()]
    chosen += [(kind, item) for key, kind in LISTS.items() for item in settings.get(key, ())]
    for kind, item in chosen:
        table = parse_selection(item) if isinstance(item, str) else item
        if isinstance(table, Mapping) and "name" in table and (kind, table["name"]) != NO_CRITIC:
            yield kind, str(table["name"])


def _of_name(name: str) -> list[Entry]:
    """The plugins of this name."""
    from ipmgan.errors import CheckpointError, choose_from
    from ipmgan.registry import registry

    known = registry().entries()
    found = [entry for entry in known if name in (entry.plugin.name, *entry.plugin.aliases)]
    if not found:
        unknown, _, _ = choose_from("plugin", name, {entry.plugin.name for entry in known}).partition(" Allowed")
        raise CheckpointError(f"no run is in {name!r}, and {unknown} See: ipmgan plugins list")
    return found
