"""Finds plugins, keeps broken ones apart, looks names up, and turns ``name:key=value`` into an object.

A name is only ever looked up here: no string becomes an import.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import re
import sys
import typing
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import ipmgan.data
import ipmgan.lipschitz
import ipmgan.metrics
import ipmgan.networks
import ipmgan.objectives
import ipmgan.perturbations
import ipmgan.trackers
from ipmgan.data.base import Source
from ipmgan.discovery import Broken as Broken
from ipmgan.discovery import Entry as Entry
from ipmgan.discovery import load, names_of, offers, owner, patience, told
from ipmgan.errors import PluginError, UsageError, choose_from
from ipmgan.hookspecs import GROUP, HOOKS, hookimpl
from ipmgan.lipschitz.base import LipschitzEnforcer
from ipmgan.metrics.base import Metric
from ipmgan.networks.base import Network
from ipmgan.objectives.base import Objective
from ipmgan.perturbations.base import Perturbation
from ipmgan.plugin import Plugin
from ipmgan.selection import Table, build, converter, parse_selection
from ipmgan.trackers.base import Tracker

SWITCH = "IPMGAN_PLUGINS"
OWN = "ipmgan"
NO_CRITIC = ("network", "none")
"""What `--critic none` stands for."""


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

    @hookimpl
    def ipmgan_perturbations(self) -> Sequence[type[Perturbation]]:
        return ipmgan.perturbations.BUILTIN

    @hookimpl
    def ipmgan_trackers(self) -> Sequence[type[Tracker]]:
        return ipmgan.trackers.BUILTIN


class Registry:
    """All plugins that can be selected, by kind and name.

    Built-ins come first and keep their names. Every other distribution is loaded on its own, in the order of the
    names: if anything about it fails, nothing of it stays, and it is listed in `broken`. `left_out` are those that may
    not be loaded.
    """

    def __init__(
        self,
        entry_points: Iterable[EntryPoint] = (),
        *,
        left_out: Iterable[EntryPoint] = (),
    ) -> None:
        self.broken: list[Broken] = []
        self.left_out = sorted({owner(point) for point in left_out})
        self._entries: dict[str, dict[str, list[Entry]]] = {base.kind: {} for base in HOOKS.values()}
        self._add(offers([Builtins()], OWN, importlib.metadata.version(OWN)))
        self._reserved = {(kind, name) for kind, names in self._entries.items() for name in names} | {NO_CRITIC}
        points = sorted(
            {(*owner(point), point) for point in entry_points}, key=lambda owned: (*owned[:2], owned[2].name)
        )
        for (distribution, version), owned in itertools.groupby(points, key=lambda owned: owned[:2]):
            self._load(distribution, version, [point for *_, point in owned])

    def _load(self, distribution: str, version: str, points: Sequence[EntryPoint]) -> None:
        seconds = patience()
        try:
            entries = load(points, distribution, version, seconds=seconds)
            self._check_names(entries)
        except KeyboardInterrupt:
            raise
        # A plugin is somebody else's code: whatever it raises, `sys.exit` included, must not stop the others.
        except BaseException as error:  # noqa: BLE001
            self.broken.append(Broken(distribution=distribution, version=version, error=told(error)))
        else:
            self._add(entries)

    def _check_names(self, entries: Iterable[Entry]) -> None:
        seen = set()
        for entry in entries:
            for name in names_of(entry.plugin):
                key = (entry.plugin.kind, name)
                if key in self._reserved:
                    raise PluginError(f"the {entry.plugin.kind} name {name!r} belongs to ipmgan itself")
                if key in seen:
                    raise PluginError(f"it offers the {entry.plugin.kind} {name!r} twice")
                seen.add(key)

    def _add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            for name in names_of(entry.plugin):
                self._entries[entry.plugin.kind].setdefault(name, []).append(entry)

    def entries(self, kind: str | None = None) -> list[Entry]:
        """All plugins of a kind, or of all kinds, in the order of registration, each once."""
        kinds = self._entries if kind is None else {kind: self._entries[kind]}
        found = {id(entry): entry for names in kinds.values() for several in names.values() for entry in several}
        return list(found.values())

    @property
    def kinds(self) -> list[str]:
        """The kinds of plugins."""
        return list(self._entries)

    def rivals(self, entry: Entry) -> list[str]:
        """The other distributions that claim a name of this plugin."""
        names = self._entries[entry.plugin.kind]
        claims = {other.distribution for name in names_of(entry.plugin) for other in names[name] if other is not entry}
        return sorted(claims)

    def names(self, kind: str) -> list[str]:
        """The names and aliases of a kind."""
        return sorted(self._entries[kind])

    def find(self, kind: str, name: str) -> Entry:
        """The entry for a name; raises `UsageError` for an unknown name, `PluginError` for one claimed twice."""
        entries = self._entries[kind].get(name, [])
        if not entries:
            raise self.unknown(kind, name, self._entries[kind])
        if len(entries) > 1:
            claims = " and ".join(entry.distribution for entry in entries)
            raise PluginError(
                f"the {kind} {name!r} is offered by {claims}: uninstall one, or set {SWITCH} to the other"
            )
        return entries[0]

    def unknown(self, kind: str, name: str, allowed: Iterable[str]) -> UsageError:
        """The refusal of a name that nobody offers, with whatever could not be loaded."""
        missing = [f"{broken.distribution} {broken.version}: {broken.error}" for broken in self.broken]
        if self.left_out:
            missing.append(f"left out by {SWITCH}: {', '.join(' '.join(owner) for owner in self.left_out)}")
        note = f"\nNot loaded, and perhaps what you want: {'; '.join(missing)}" if missing else ""
        return UsageError(choose_from(kind, name, allowed) + note)

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


@functools.cache
def registry() -> Registry:
    """The registry of this process: built-ins and, as far as ``IPMGAN_PLUGINS`` (all, none or names) allows, others.

    Raises `UsageError` where ``IPMGAN_PLUGINS`` names a distribution that offers no plugins.
    """
    allowed = os.environ.get(SWITCH, "").strip() or "all"
    points = list(importlib.metadata.entry_points(group=GROUP))
    if allowed == "all":
        return Registry(points)
    wanted = {_normal_name(name) for name in allowed.split(",") if name.strip()} if allowed != "none" else set()
    owners = {_normal_name(owner(point)[0]) for point in points}
    for name in sorted(wanted - owners):
        raise UsageError(choose_from(f"distribution of plugins, as {SWITCH} has it,", name, owners))
    chosen = [point for point in points if _normal_name(owner(point)[0]) in wanted]
    return Registry(chosen, left_out=[point for point in points if point not in chosen])


def _normal_name(distribution: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


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
