"""Finds what the installed distributions offer, each within a time limit, and checks it before it is registered."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
import re
import signal
import sys
import threading
import time
import typing
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import attrs
import pluggy

from ipmgan import hookspecs
from ipmgan.errors import PluginError, UsageError
from ipmgan.hookspecs import GROUP, HOOKS
from ipmgan.plugin import Plugin
from ipmgan.selection import fields_of

PATIENCE = "IPMGAN_PLUGIN_SECONDS"
SECONDS = 60.0
"""How long a distribution may take to load: a cold import of a large library over a network takes half of it."""
LONGEST_REASON = 500
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


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


class TooLongError(BaseException):
    """Loading takes too long. No `Exception`, so that code which passes over those does not pass over this."""


def owner(point: EntryPoint) -> tuple[str, str]:
    """The name and version of the distribution that an entry point belongs to."""
    name, version = "", ""
    with contextlib.suppress(Exception):  # What a damaged distribution's metadata raises is not specified.
        name, version = (point.dist.name, point.dist.version) if point.dist else ("", "")
    return name or point.module, version or "unknown"


def load(points: Iterable[EntryPoint], distribution: str, version: str, *, seconds: float) -> list[Entry]:
    """What a distribution offers, imported and checked; raises whatever that raises, `TooLongError` after `seconds`.

    What it prints meanwhile goes to standard error, out of the way of tables and JSON.
    """
    with limited(seconds), contextlib.redirect_stdout(sys.stderr):
        modules = {id(module): module for module in (point.load() for point in points)}
        return offers(modules.values(), distribution, version)


def patience() -> float:
    """How many seconds a distribution may take to load; raises `UsageError` for what is no such number."""
    text = os.environ.get(PATIENCE, "").strip()
    try:
        seconds = float(text) if text else SECONDS
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise UsageError(f"{PATIENCE} = {text!r}: must be a number of seconds above 0 and at most 86400")
    return seconds


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooLongError` in a body that takes longer, by a signal, which also ends a sleep or a wait for a socket.

    Only the main thread, and not on Windows, can be interrupted so; elsewhere there is no limit.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer") or signal.getsignal(signal.SIGALRM) is None:
        yield
        return

    def expire(*_: object) -> None:
        raise TooLongError(f"it takes longer than {seconds:g} s ({PATIENCE}) to load")

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, expire)
    # Again every second: code that cannot raise, such as a finaliser, swallows what is raised in it.
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # Once more, should the signal have come between those two lines.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 1e-3), interval)


def told(error: BaseException) -> str:
    """An error in one line, of a length that can be read.

    >>> told(ValueError("no licence\\nfound"))
    'ValueError: no licence found'
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (somebody else's class)
        text = ""
    line = " ".join(f"{type(error).__name__}: {text}".split()).removesuffix(":")
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."


def names_of(plugin: type[Plugin]) -> tuple[str, ...]:
    """The name of a plugin, and its aliases."""
    return (plugin.name, *plugin.aliases)


def offers(modules: Iterable[object], distribution: str, version: str) -> list[Entry]:
    """What the hooks of a distribution's modules return, checked; a manager of its own, so that nothing can linger."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for module in modules:
        name = manager.register(module)
        if not manager.get_hookcallers(module):
            raise PluginError(f"{name} implements no hook: one of {', '.join(HOOKS)}")
    manager.check_pending()
    entries = []
    for hook, base in HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            offered = implementation.function()
            if not isinstance(offered, Iterable):
                raise PluginError(f"{hook} must return a sequence of classes, not {offered!r}")
            for plugin in offered:
                _check_class(plugin, base, hook)
                entries.append(Entry(plugin=plugin, distribution=distribution, version=version))
    return entries


def _check_class(plugin: Any, base: type[Plugin], hook: str) -> None:
    if not (isinstance(plugin, type) and attrs.has(plugin) and issubclass(plugin, base)):
        raise PluginError(f"{hook} must return attrs classes derived from {base.__name__}, not {plugin!r}")
    abstract = sorted(getattr(plugin, "__abstractmethods__", ()))
    missing = [name for name in ("name", *_declared(base)) if not hasattr(plugin, name)] + abstract
    if missing:
        raise PluginError(f"{plugin.__name__} lacks {', '.join(missing)}")
    if plugin.kind != base.kind:
        raise PluginError(f"{plugin.__name__}: its kind is {base.kind!r}, not {plugin.kind!r}")
    for name, kind in _class_data(base).items():
        _check_data(plugin, name, kind)
    for name in names_of(plugin):
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise PluginError(f"{plugin.__name__}: {name!r} is no name: lower-case letters, digits, '-', '_' and '.'")
    fields_of(plugin)


def _declared(base: type) -> list[str]:
    return [name for name in inspect.get_annotations(base) if not hasattr(base, name)]


@functools.cache
def _class_data(base: type[Plugin]) -> dict[str, Any]:
    """The types of the class data that a contract names; names have a check of their own."""
    hints = typing.get_type_hints(base)
    held = {name: hint for name, hint in hints.items() if typing.get_origin(hint) is typing.ClassVar}
    return {name: typing.get_args(hint)[0] for name, hint in held.items() if name != "name"}


def _check_data(plugin: type[Plugin], name: str, kind: Any) -> None:
    value = getattr(plugin, name)
    if isinstance(value, property):  # It depends on the options.
        return
    several = typing.get_origin(kind) is tuple
    one = typing.get_args(kind)[0] if several else kind
    if several:
        fits = isinstance(value, tuple) and (one is str or all(isinstance(item, one) for item in value))
    else:
        fits = isinstance(value, one)
    if not fits:
        wanted = f"a tuple of {one.__name__}" if several else f"a {one.__name__}"
        raise PluginError(f"{plugin.__name__}: {name} must be {wanted}, not {value!r}")
