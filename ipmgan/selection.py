"""Reads what a user wrote, ``name:key=value,...`` or a table, strictly into typed objects."""

from __future__ import annotations

import re
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from ipmgan.errors import UsageError, choose_from
from ipmgan.plugin import limits_text

Table = dict[str, Any]


def parse_selection(text: str) -> Table:
    """``name:key=value,...`` as a table. A value is read as TOML, ``.1`` and ``1.`` as numbers, the rest as strings.

    >>> parse_selection("mlp:width=[64,32],norm=layer")
    {'name': 'mlp', 'width': [64, 32], 'norm': 'layer'}
    """
    name, _, rest = text.partition(":")
    table: Table = {"name": name.strip()} if name.strip() else {}
    for part in _split(rest):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{text!r}: {part!r} is not key=value; write name:key=value,key=value")
        if key.strip() in table:
            raise UsageError(f"{text!r}: {key.strip()} is given twice")
        table[key.strip()] = _value(value.strip())
    return table


def _split(text: str) -> list[str]:
    parts, depth, quoted = [""], 0, ""
    for letter in text:
        if letter in "\"'" and quoted in ("", letter):
            quoted = "" if quoted else letter
        depth += 0 if quoted else (letter in "[{") - (letter in "}]")
        if letter == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
        if depth < 0:
            break
    if depth or quoted:
        raise UsageError(f'{text!r}: brackets or quotes without their partner; write a string with them as "..."')
    return [part for part in parts if part.strip()]


def _value(text: str) -> Any:
    # As the one item of a list, so that nothing behind the value, such as a comment or a second line, goes unseen.
    try:
        items = tomllib.loads(f"items = [{text}]")["items"]
    except (ValueError, RecursionError):
        return float(text) if re.fullmatch(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?", text) else text
    return items[0] if len(items) == 1 and "\n" not in text else text


def build(cls: type, table: Mapping[str, Any], *, what: str) -> Any:
    """An attrs object from a table; unknown keys and values of another type are refused, with what is allowed."""
    fields = fields_of(cls)
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise UsageError(choose_from(f"option of {what} named", key, fields))
        field = fields[key]
        try:
            values[key] = converter.structure(value, typing.cast(Any, field.type))
        except (ValueError, TypeError, OverflowError, cattrs.BaseValidationError) as error:
            limits = limits_text(field.metadata)
            allowed = (
                limits if "choices" in field.metadata else ", ".join(filter(None, (type_name(field.type), limits)))
            )
            raise UsageError(f"{what}: {key} = {value!r}: must be {allowed}") from error
    missing = [name for name, field in fields.items() if field.default is attrs.NOTHING and name not in values]
    if missing:
        raise UsageError(f"{what} needs {', '.join(missing)}: write {what.split()[-1]}:{missing[0]}=...")
    try:
        return cls(**values)
    except UsageError as error:
        raise type(error)(f"{what}: {error}") from error


def fields_of(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    """The options of an attrs class by name, their types resolved."""
    return {field.name: field for field in attrs.fields(attrs.resolve_types(cls)) if field.init}


def type_name(kind: Any) -> str:
    """A type as a user would write it.

    >>> type_name(tuple[int, ...] | None)
    'a list of int, or nothing'
    """
    if kind is type(None):
        return "nothing"
    if _origin(kind) in (types.UnionType, typing.Union):
        names = sorted(map(type_name, typing.get_args(kind)), key=lambda name: (name == "nothing", name))
        return " or ".join(names).replace(" or nothing", ", or nothing")
    if _origin(kind) is tuple:
        return f"a list of {type_name(typing.get_args(kind)[0])}"
    return str(getattr(kind, "__name__", kind))


def _origin(kind: Any) -> Any:
    return typing.get_origin(kind)


def _strict(*accepted: type) -> Any:
    def structure(value: Any, kind: Any) -> Any:
        if isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool)):
            return accepted[0](value)
        raise TypeError(value)

    return structure


def _structure_union(value: Any, kind: Any) -> Any:
    for part in typing.get_args(kind):
        if part is type(None):
            if value is None:
                return None
            continue
        try:
            return converter.structure(value, part)
        except (ValueError, TypeError, OverflowError, cattrs.BaseValidationError):
            continue
    raise TypeError(value)


def _structure_tuple(value: Any, kind: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise TypeError(value)
    parts = typing.get_args(kind)
    if parts[-1] is not Ellipsis and len(parts) != len(value):
        raise ValueError(value)
    return tuple(converter.structure(item, parts[0]) for item in value)


def _make_converter() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True)
    made.register_structure_hook(bool, _strict(bool))
    made.register_structure_hook(int, _strict(int))
    made.register_structure_hook(float, _strict(float, int))
    made.register_structure_hook(str, _strict(str))
    made.register_structure_hook_func(lambda kind: _origin(kind) in (types.UnionType, typing.Union), _structure_union)
    made.register_structure_hook_func(lambda kind: _origin(kind) is tuple, _structure_tuple)
    return made


converter = _make_converter()
