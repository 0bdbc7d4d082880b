"""Describes a plugin from its class: for ``ipmgan plugins show`` and for the documentation."""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Mapping
from typing import Any

import attrs

from ipmgan.plugin import Plugin, Quantity, limits_text
from ipmgan.registry import Entry
from ipmgan.selection import fields_of, type_name

TITLES = {"lipschitz": "Enforcer"}
PAIRS = {
    "objective": "Enforcers that it goes with",
    "lipschitz": "Objectives that it goes with",
    "network": "Objectives whose critic it can be",
}
REQUIRED = "required"
NOT_CAPABILITIES = ("kind", "name", "aliases", "references", "defaults")


def describe(entry: Entry, pairs: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Everything that a plugin's class says of it, as plain values, and with what it fits where `pairs` tell."""
    plugin = entry.plugin
    about = {
        "kind": plugin.kind,
        "name": plugin.name,
        "aliases": list(plugin.aliases),
        "distribution": entry.distribution,
        "version": entry.version,
        "description": inspect.getdoc(plugin) or "",
        "options": options(plugin),
        "capabilities": capabilities(plugin),
        "defaults": plugin.defaults.settings(),
        "references": [reference.short for reference in plugin.references],
    }
    return about if pairs is None else about | {"pairs": dict(pairs)}


def summary(plugin: type[Plugin]) -> str:
    """The first line of a plugin's documentation."""
    return (inspect.getdoc(plugin) or "").split("\n", 1)[0]


def reads(plugin: type[Plugin]) -> str:
    """What the number is that an objective or a metric puts out; empty for other kinds.

    >>> from ipmgan.registry import registry
    >>> reads(registry().find("objective", "wgan").plugin)
    'K·W1, in data units times K; lower bound of K·W1'
    """
    found = [value for name in ("estimates", "measures") if isinstance(value := getattr(plugin, name, ""), Quantity)]
    return quantity_text(found[0]) if found else ""


def options(plugin: type[Plugin]) -> list[dict[str, Any]]:
    """Name, type, default, limits and meaning of each option."""
    return [
        {
            "name": field.name,
            "type": type_name(field.type),
            "default": REQUIRED if field.default is attrs.NOTHING else default_of(field),
            "allowed": limits_text(field.metadata),
            "meaning": field.metadata.get("help", ""),
        }
        for field in fields_of(plugin).values()
    ]


def default_of(field: attrs.Attribute[Any]) -> Any:
    """A field's default; a factory is called."""
    default: Any = field.default
    value = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
    return list(value) if isinstance(value, tuple) else value


def capabilities(plugin: type[Plugin]) -> dict[str, Any]:
    """The class data of a plugin that its contract names."""
    names = [name for base in reversed(plugin.__mro__) for name in inspect.get_annotations(base)]
    fields = fields_of(plugin)
    found = {}
    for name in dict.fromkeys(names):
        if name.startswith("_") or name in NOT_CAPABILITIES or name in fields or not hasattr(plugin, name):
            continue
        value = getattr(plugin, name)
        if isinstance(value, Quantity):
            value = quantity_text(value)
        found[name] = value.value if isinstance(value, enum.Enum) else value
    return found


def quantity_text(quantity: Quantity) -> str:
    """A quantity in words.

    >>> quantity_text(Quantity(name="TV", unit="probability", high=1, bound="lower bound of TV"))
    'TV, in probability, at most 1; lower bound of TV'
    """
    limits = {"at_least": quantity.low, "at_most": quantity.high}
    finite = {key: f"{limit:g}" for key, limit in limits.items() if math.isfinite(limit)}
    text = ", ".join(part for part in (quantity.name, f"in {quantity.unit}", limits_text(finite)) if part)
    return f"{text}; {quantity.bound}" if quantity.bound else text


def page(entry: Entry, pairs: Mapping[str, str] | None = None) -> str:
    """A plugin as a page of plain Markdown, with what it fits where `pairs` tell."""
    about = describe(entry, pairs)
    names = ", also ".join(f"`{name}`" for name in (about["name"], *about["aliases"]))
    title = TITLES.get(about["kind"], about["kind"].capitalize())
    lines = [
        f"# {about['name']}",
        "",
        f"{title} {names}, from {about['distribution']} {about['version']}.",
        "",
        about["description"],
        "",
    ]
    if about["options"]:
        lines += ["## Options", "", *_option_rows(about["options"]), ""]
    if about["capabilities"]:
        lines += ["## Facts", "", *(f"- `{key}`: {_plain(value)}" for key, value in about["capabilities"].items()), ""]
    if about["defaults"]:
        lines += ["## Settings that it brings along", ""]
        lines += [f"- `{key}`: `{value}`" for key, value in about["defaults"].items()] + [""]
    if pairs:
        lines += [f"## {PAIRS.get(about['kind'], 'Pairs')}", "", *_pair_rows(pairs), ""]
    if about["references"]:
        lines += ["## Sources", "", *(f"- {reference}" for reference in about["references"]), ""]
    return "\n".join(lines)


def _option_rows(options: list[dict[str, Any]]) -> list[str]:
    rows = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for option in options:
        default = REQUIRED if option["default"] == REQUIRED else f"`{_plain(option['default'])}`"
        allowed = ", ".join(part for part in (option["type"], option["allowed"]) if part)
        cells = (f"`{option['name']}`", default, allowed, option["meaning"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _pair_rows(pairs: Mapping[str, str]) -> list[str]:
    shown = {name: " ".join([f"`{first}`", *more]) for name in pairs for first, *more in [name.split(" ")]}
    fits = [shown[name] for name, reason in pairs.items() if not reason]
    lines = [f"- {', '.join(fits)}"] if fits else []
    return lines + [f"- not {shown[name]}: {reason}" for name, reason in pairs.items() if reason]


def _plain(value: Any) -> str:
    """A value as a user would write it."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
