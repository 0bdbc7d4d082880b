"""What holds for plugins of every kind: their page, and options that survive a file."""

from __future__ import annotations

import inspect
import itertools
import tomllib
import types
import typing
from collections.abc import Iterator
from typing import Any

import attrs
import tomli_w

from ipmgan.errors import IpmganError
from ipmgan.plugin import Plugin
from ipmgan.references import Reference
from ipmgan.registry import table_of
from ipmgan.selection import build, fields_of, parse_selection, type_name
from ipmgan.testing.base import first_line, require

COMPUTING = ("objective", "lipschitz", "metric", "perturbation")
"""Kinds that compute something, and so have an equation."""
PUBLISHED = ("objective", "lipschitz", "metric")
"""Kinds whose page says where they come from."""
PLAIN = (bool, int, float, str, type(None))


def documented(plugin: Plugin | type[Plugin]) -> None:
    """The docstring is a page: a summary that stands alone, an equation, and where it comes from."""
    cls = plugin if isinstance(plugin, type) else type(plugin)
    text = inspect.cleandoc(cls.__doc__ or "")
    summary, *rest = text.splitlines() or [""]
    made_up = "__doc__" not in vars(cls) or summary.startswith(f"{cls.__name__}(")
    require(summary and not made_up, f"{cls.__name__} has no docstring")
    require(summary.endswith("."), f"the docstring's first line must be a sentence of its own: {summary!r}")
    require(not rest or not rest[0], "the docstring's second line must be empty")
    if cls.kind in COMPUTING:
        blocks = [before == "" and line.startswith("    ") for before, line in itertools.pairwise(rest)]
        require(any(blocks), "the docstring has no equation: a block indented by four, after an empty line")
    for reference in cls.references:
        require(isinstance(reference, Reference), f"references must hold Reference objects, not {reference!r}")
        whole = reference.key and reference.title and reference.authors and reference.venue
        require(whole, f"the reference {reference.key!r} lacks its title, authors or venue")
    if cls.kind in PUBLISHED and getattr(cls, "enforces", True):
        told = cls.references or "Source:" in text
        require(told, "neither references nor a line 'Source: ...' in the docstring say where it comes from")


def options(plugin: Plugin) -> None:
    """Options have plain types, a meaning, and values that come back from TOML and from the command line equal."""
    cls = type(plugin)
    frozen = getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
    require(frozen, f"{cls.__name__} can be changed after it is made: decorate it with @attrs.frozen(kw_only=True)")
    for name, field in fields_of(cls).items():
        require(_is_plain(field.type), f"the option {name} is a {type_name(field.type)}, which TOML cannot hold")
        require(field.kw_only, f"the option {name} must be keyword-only: @attrs.frozen(kw_only=True)")
        require(field.metadata.get("help"), f"the option {name} has no help: make it by option(..., help=...)")
        nothing = type(None) in typing.get_args(field.type) and field.default is not None
        require(not nothing, f"the option {name} may be nothing, which TOML cannot say: make None its default")
    for other in (plugin, *_neighbours(plugin)):
        _comes_back(other)


def variants(plugin: Plugin) -> Iterator[tuple[str, Plugin]]:
    """The plugin, and the plugin with each choice of each option in turn, each with what was chosen."""
    yield "", plugin
    for name, field in fields_of(type(plugin)).items():
        for choice in field.metadata.get("choices", ()):
            if choice != getattr(plugin, name):
                try:
                    yield f"{name}={choice}", _with(plugin, name, choice)
                except IpmganError:
                    continue


def _with(plugin: Any, name: str, value: Any) -> Plugin:
    changed: Plugin = attrs.evolve(plugin, **{name: value})
    return changed


def _is_plain(kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return all(map(_is_plain, parts))
    if origin is tuple:
        return all(part is Ellipsis or part in PLAIN for part in parts)
    return kind in PLAIN


def _neighbours(plugin: Plugin) -> Iterator[Plugin]:
    """The plugin with each option changed in turn, where the option allows it."""
    for name in fields_of(type(plugin)):
        for value in _other_values(getattr(plugin, name)):
            try:
                yield _with(plugin, name, value)
            except IpmganError:
                continue


def _other_values(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case float():
            yield from (value * 1.5, value / 3)
        case tuple():
            yield tuple(next(iter(_other_values(item)), item) for item in value)


def _comes_back(plugin: Plugin) -> None:
    table = table_of(plugin)
    what = f"{plugin.kind} {plugin.name}"
    text = f"{table.pop('name')}:{','.join(f'{key}={_as_toml(value)}' for key, value in table.items())}"
    try:
        from_file = build(type(plugin), tomllib.loads(tomli_w.dumps(table)), what=what)
        from_flag = build(type(plugin), {k: v for k, v in parse_selection(text).items() if k != "name"}, what=what)
    except (IpmganError, TypeError, ValueError) as error:
        require(False, f"{plugin!r} does not come back from TOML: {first_line(error)}")
    for found in (from_file, from_flag):
        require(found == plugin, f"{plugin!r} comes back from TOML as {found!r}")


def _as_toml(value: Any) -> str:
    return tomli_w.dumps({"x": value}, multiline_strings=False).partition("=")[2].strip().replace("\n", " ")
