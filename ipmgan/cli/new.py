"""``ipmgan plugins new``."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

TITLES = {
    "objective": "objective",
    "lipschitz": "enforcer",
    "network": "network",
    "source": "source",
    "metric": "metric",
    "perturbation": "perturbation",
    "tracker": "tracker",
}
"""What each kind of plugin is called."""
SHARED = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "ci.yml": ".github/workflows/ci.yml",
    "gitignore": ".gitignore",
    "tests.py": "tests/test_{module}.py",
}
"""Where the templates of every kind go."""
OWN = {"module.py": "{module}.py", "run.toml": "run.toml"}
"""Where the templates of one kind go."""
PREFIX = "ipmgan-"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 50


def new(
    name: Annotated[str, typer.Argument(help="The plugin's name, such as energy-distance.")],
    kind: Annotated[str, typer.Option(help="What it is.", metavar="|".join(TITLES))],
    into: Annotated[Path, typer.Option(help="The folder in which the new one is made.")] = Path(),
) -> None:
    """Start a plugin: a distribution that installs, passes its tests and trains as it is, to be made yours."""
    from ipmgan.cli.output import say, shown

    plugin = name.removeprefix(PREFIX)
    files = render(plugin, kind)
    folder = into / f"{PREFIX}{plugin}"
    write(folder, files)
    say(f"{shown(folder)}: the {TITLES[kind]} {plugin}, which trains as it is; README.md says how to make it yours")
    say(f"  cd {shown(folder)}\n  pip install -e '.[test]'\n  pytest\n  ipmgan train --config run.toml")


def render(name: str, kind: str) -> dict[str, str]:
    """The files of a distribution with one plugin, by their paths in it; raises `UsageError` for a name it cannot have.

    >>> sorted(render("energy", "metric"))[3:6]
    ['README.md', 'ipmgan_energy.py', 'pyproject.toml']
    """
    import importlib.metadata
    import importlib.resources
    import string

    check_name(name, kind)
    cls = "".join(word.capitalize() for word in name.split("-"))
    folder = importlib.resources.files("ipmgan") / "templates"
    values = {"name": name, "distribution": f"{PREFIX}{name}", "cls": cls, "title": TITLES[kind]}
    values |= {"module": values["distribution"].replace("-", "_"), "version": importlib.metadata.version("ipmgan")}

    def filled(place: str, template: str) -> str:
        text = (folder / place / f"{template}.template").read_text(encoding="utf-8")
        return string.Template(text).substitute(values)

    values["known"] = filled(kind, "known.py")
    places = {template: ("shared", path) for template, path in SHARED.items()}
    places |= {template: (kind, path) for template, path in OWN.items()}
    files = {path.format_map(values): filled(place, template) for template, (place, path) in places.items()}
    check_class(cls, values["module"], [text for path, text in files.items() if path.endswith(".py")])
    return files


def check_name(name: str, kind: str) -> None:
    """Raise `UsageError` for a name that is no name of a plugin, distribution and module, or is not free."""
    from ipmgan.errors import UsageError, choose_from
    from ipmgan.registry import registry

    if kind not in TITLES:
        raise UsageError(choose_from("kind of plugin", kind, TITLES))
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} is no name for a plugin: allowed are words of lower-case letters and digits, joined by '-', the "
            f"first letter no digit, at most {LONGEST} letters, such as energy-distance"
        )
    if name in registry().names(kind):
        taken = registry().find(kind, name)
        raise UsageError(
            f"the {kind} name {name!r} is taken, by {taken.distribution} {taken.version}: choose another name"
        )


def check_class(cls: str, module: str, sources: Iterable[str]) -> None:
    """Raise `UsageError` where the class's name has another meaning in Python, or in these sources."""
    import ast

    from ipmgan.errors import UsageError

    taken = {*keyword.kwlist}
    for source in sources:
        body = [] if cls in taken else ast.parse(source).body
        imports = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        other = [node for node in imports if getattr(node, "module", None) != module]
        taken |= {alias.asname or alias.name for node in other for alias in node.names}
        classes = [node.name for node in body if isinstance(node, ast.ClassDef)]
        taken |= {name for name in classes if classes.count(name) > 1 or name != cls}
    if cls in taken:
        raise UsageError(f"its class would be {cls}, which has a meaning already: choose another name, such as my-...")


def write(folder: Path, files: dict[str, str]) -> None:
    """Write the files into a new folder; raises `UsageError` where it exists or cannot be written."""
    from ipmgan.errors import UsageError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already: choose another name, or another folder with --into"
        ) from error
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
