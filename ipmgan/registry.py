"""Finds plugins, keeps broken ones apart, looks names up, and turns ``name:key=value`` into an object.

A name is only ever looked up here: no string becomes an import.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import os
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import pluggy

import ipmgan.data
import ipmgan.lipschitz
import ipmgan.metrics
import ipmgan.networks
import ipmgan.objectives
from ipmgan import hookspecs
from ipmgan.data.base import Source
from ipmgan.errors import PluginError, UsageError, choose_from
from ipmgan.hookspecs import GROUP, HOOKS, hookimpl
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.metrics.base import Metric
from ipmgan.networks.base import Network
from ipmgan.objectives.base import Objective
from ipmgan.plugin import Plugin
from ipmgan.selection import Table, build, converter, parse_selection

SWITCH = "IPMGAN_PLUGINS"


class Builtins:
    """The built-in plugins, offered through the same hooks as everybody else's."""

    @hookimpl
    def ipmgan_objectives(self) -> Sequence[type[Objective]]:
        return ipmgan.objectives.BUILTIN

    @hookimpl
    def ipmgan_lipschitz(self) -> Sequence[type[LipschitzEnforcer]]:
        return ipmgan.lipschitz.BUILTIN

    @hookimpl
    def ipmgan_networks(self) -> Sequence[type[Network]]:
        return ipmgan.networks.BUILTIN

    @hookimpl
    def ipmgan_sources(self) -> Sequence[type[Source]]:
        return ipmgan.data.BUILTIN

    @hookimpl
    def ipmgan_metrics(self) -> Sequence[type[Metric]]:
        return ipmgan.metrics.BUILTIN


@attrs.frozen(kw_only=True)
class Entry:
    """A plugin class and the distribution that offers it."""

    plugin: type[Plugin]
    distribution: str
    version: str


@attrs.frozen(kw_only=True)
class Broken:
    """A distribution whose plugins could not be loaded, and why."""

    distribution: str
    version: str
    error: str


class Registry:
    """All plugins that can be selected, by kind and name.

    Built-ins come first and keep their names. Every other distribution is loaded on its own: if anything about it
    fails, nothing of it stays, and it is listed in `broken`.
    """

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] = ()) -> None:
        self.broken: list[Broken] = []
        self._entries: dict[str, dict[str, list[Entry]]] = {base.kind: {} for base in HOOKS.values()}
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        for entry in self._load("ipmgan", importlib.metadata.version("ipmgan"), Builtins()):
            self._add(entry)
        for point in sorted(entry_points, key=lambda point: (point.dist.name if point.dist else "", point.name)):
            self._load_external(point)

    def _load_external(self, point: importlib.metadata.EntryPoint) -> None:
        distribution, version = (point.dist.name, point.dist.version) if point.dist else (point.name, "unknown")
        try:
            entries = self._load(f"{distribution}:{point.name}", version, point.load())
            for entry in entries:
                self._refuse_builtin_names(entry)
        # A plugin is somebody else's code: whatever it raises, `sys.exit` included, must not stop the others.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            self._manager.unregister(name=f"{distribution}:{point.name}")
            self.broken.append(
                Broken(distribution=distribution, version=version, error=f"{type(error).__name__}: {error}")
            )
            return
        for entry in entries:
            self._add(entry)

    def _load(self, name: str, version: str, module: object) -> list[Entry]:
        self._manager.register(module, name=name)
        distribution = name.split(":")[0]
        entries = []
        for hook, base in HOOKS.items():
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin_name != name:
                    continue
                for plugin in implementation.function():
                    _check_class(plugin, base, hook)
                    entries.append(Entry(plugin=plugin, distribution=distribution, version=version))
        return entries

    def _refuse_builtin_names(self, entry: Entry) -> None:
        for name in (entry.plugin.name, *entry.plugin.aliases):
            for holder in self._entries[entry.plugin.kind].get(name, ()):
                if holder.distribution == "ipmgan":
                    raise PluginError(f"the {entry.plugin.kind} name {name!r} belongs to ipmgan itself")

    def _add(self, entry: Entry) -> None:
        for name in (entry.plugin.name, *entry.plugin.aliases):
            self._entries[entry.plugin.kind].setdefault(name, []).append(entry)

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All plugins of a kind, or of all kinds, in the order of registration, each once."""
        kinds = self._entries if kind is None else {kind: self._entries[kind]}
        found = {id(entry): entry for names in kinds.values() for several in names.values() for entry in several}
        return list(found.values())

    def names(self, kind: str) -> list[str]:
        """The names and aliases of a kind."""
        return sorted(self._entries[kind])

    def find(self, kind: str, name: str) -> Entry:
        """The entry for a name; raises `UsageError` for an unknown name, `PluginError` for one claimed twice."""
        entries = self._entries[kind].get(name, [])
        if not entries:
            missing = "; ".join(f"{broken.distribution} {broken.version}: {broken.error}" for broken in self.broken)
            note = f"\nNot loaded, and perhaps what you want: {missing}" if missing else ""
            raise UsageError(choose_from(kind, name, self._entries[kind]) + note)
        if len(entries) > 1:
            claims = " and ".join(entry.distribution for entry in entries)
            raise PluginError(
                f"the {kind} {name!r} is offered by {claims}: uninstall one, or set {SWITCH} to the other"
            )
        return entries[0]

    def entry_of(self, plugin: Plugin) -> Entry:
        """The entry that a plugin object came from; raises `PluginError` where its name stands for another class."""
        entry = self.find(plugin.kind, plugin.name)
        if entry.plugin is not type(plugin):
            raise PluginError(
                f"the {plugin.kind} {plugin.name!r} is {entry.plugin.__qualname__} of {entry.distribution}, not "
                f"{type(plugin).__qualname__}: give yours another name, and register it"
            )
        return entry

    def make(self, kind: str, selection: str | Mapping[str, Any]) -> Plugin:
        """The plugin for ``name:key=value,...`` or for a table with a ``name``.

        >>> registry().make("lipschitz", "clip:c=0.02")
        Clip(c=0.02)
        """
        table = dict(parse_selection(selection) if isinstance(selection, str) else selection)
        name = table.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"the {kind} needs a name: one of {', '.join(self.names(kind))}")
        return typing.cast(Plugin, build(self.find(kind, name).plugin, table, what=f"{kind} {name}"))


def _check_class(plugin: object, base: type[Plugin], hook: str) -> None:
    if not (isinstance(plugin, type) and issubclass(plugin, base) and attrs.has(plugin)):
        raise PluginError(f"{hook} must return attrs classes derived from {base.__name__}, not {plugin!r}")
    abstract = sorted(getattr(plugin, "__abstractmethods__", ()))
    missing = [name for name in ("name", *_declared(base)) if not hasattr(plugin, name)] + abstract
    if missing:
        raise PluginError(f"{plugin.__name__} lacks {', '.join(missing)}")


def _declared(base: type) -> list[str]:
    return [name for name in inspect.get_annotations(base) if not hasattr(base, name)]


@functools.cache
def registry() -> Registry:
    """The registry of this process: built-ins and, as far as ``IPMGAN_PLUGINS`` (all, none or names) allows, others."""
    allowed = os.environ.get(SWITCH, "all").strip()
    points = [] if allowed == "none" else list(importlib.metadata.entry_points(group=GROUP))
    if allowed not in ("all", "none"):
        names = {name.strip() for name in allowed.split(",")}
        points = [point for point in points if point.dist and point.dist.name in names]
    return Registry(points)


def table_of(plugin: Plugin) -> Table:
    """A plugin as a table that `Registry.make` turns back into an equal plugin; options that are None are left out."""
    options = {key: value for key, value in converter.unstructure(plugin).items() if value is not None}
    return {"name": plugin.name} | options


def versions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Distribution -> version of everything that these plugins come from, with Python, torch and ipmgan."""
    found = {"python": sys.version.split()[0], "torch": importlib.metadata.version("torch")}
    for plugin in plugins:
        entry = registry().entry_of(plugin)
        found[entry.distribution] = entry.version
    return found
