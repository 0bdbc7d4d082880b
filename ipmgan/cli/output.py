"""What the command line prints: text made harmless for a terminal, tables, JSON. Loads no torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NAMES = 22
"""The width of a column of names on a terminal; longer ones are wrapped."""
WIDE = 10_000
"""The width of what is no terminal, so that a row of a table stays on one line."""


def plain(text: str) -> str:
    r"""The text with control characters, which could steer a terminal, written out; line breaks stay.

    >>> plain("a\x1b[1mb")
    'a\\x1b[1mb'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def say(text: str, *, err: bool = False) -> None:
    """Print text, harmless for a terminal, to standard output or error."""
    typer.echo(plain(text), err=err)


def shown(path: str | Path) -> str:
    r"""A path as a person would type it in a shell; on one line, whatever is in it.

    >>> print(shown("runs/my run"))
    'runs/my run'
    """
    return plain(shlex.quote(str(path))).replace("\n", "\\n")


def print_table(rows: Sequence[Mapping[str, Any]], *, wraps: str) -> None:
    """Print rows of equal keys as a table, whose column `wraps` takes what the others leave of the width."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key in rows[0] if rows else ():
        table.add_column(key, overflow="fold", no_wrap=key != wraps)
    for row in rows:
        table.add_row(*(Text(plain(str(value))) for value in row.values()))
    console.print(table)


def is_terminal() -> bool:
    """Whether somebody looks at what is printed, and not a program."""
    return Console().is_terminal


def print_list(rows: Sequence[tuple[str, str]], *, indent: int) -> None:
    """Print names, and beside them what they are, within the width of the terminal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=NAMES, overflow="fold")
    table.add_column(overflow="fold")
    for name, what in rows:
        table.add_row(Text(plain(name), style="bold"), Text(plain(what)))
    Console(highlight=False).print(Padding(table, (0, 0, 0, indent)))


def print_page(markdown: str) -> None:
    """Print a page: laid out on a terminal, as Markdown elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        say(markdown)
        return
    from rich.markdown import Markdown

    console.print(Markdown(plain(markdown), code_theme="bw", inline_code_theme=None, hyperlinks=False))


def print_json(value: Any) -> None:
    """Print plain values as JSON; what JSON has no word for becomes a string."""
    typer.echo(json.dumps(value, indent=2, default=str))
