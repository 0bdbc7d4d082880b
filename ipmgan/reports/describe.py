"""Describes a plugin from its class: for ``ipmgan plugins show`` and for the documentation."""

from __future__ import annotations

import enum
import inspect
from typing import Any

import attrs

from ipmgan.plugin import Plugin, Quantity, limits_text
from ipmgan.registry import Entry
from ipmgan.selection import fields_of, type_name

NOT_CAPABILITIES = ("kind", "name", "aliases", "references", "defaults")


def describe(entry: Entry) -> dict[str, Any]:
    """Everything that a plugin's class says of it, as plain values."""
    plugin = entry.plugin
    return {
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


def options(plugin: type[Plugin]) -> list[dict[str, Any]]:
    """Name, type, default, limits and meaning of each option."""
    return [
        {
            "name": field.name,
            "type": type_name(field.type),
            "default": "required" if field.default is attrs.NOTHING else default_of(field),
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
            value = f"{value.name}, in {value.unit}, from {value.low:g} to {value.high:g}. {value.bound}".strip()
        found[name] = value.value if isinstance(value, enum.Enum) else value
    return found


def page(entry: Entry) -> str:
    """A plugin as a page of plain Markdown."""
    about = describe(entry)
    names = ", ".join(f"`{name}`" for name in (about["name"], *about["aliases"]))
    lines = [f"# {about['name']}", "", f"{about['kind'].capitalize()} {names}, from {about['distribution']}.", ""]
    lines += [about["description"], ""]
    if about["options"]:
        lines += ["## Options", "", "| option | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{row['name']}` | {row['type']} | `{row['default']}` | {row['allowed']} | {row['meaning']} |"
            for row in about["options"]
        ]
        lines.append("")
    if about["capabilities"]:
        lines += ["## Facts", "", *(f"- {key}: {value}" for key, value in about["capabilities"].items()), ""]
    if about["defaults"]:
        lines += ["## Settings that it brings along", ""]
        lines += [f"- {key}: `{value}`" for key, value in about["defaults"].items()] + [""]
    if about["references"]:
        lines += ["## Sources", "", *(f"- {reference}" for reference in about["references"]), ""]
    return "\n".join(lines)
