"""The rules of the house: style, types, layers, sizes, public names, and what is in the wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
import subprocess
import sys
import tomllib
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipmgan
import ipmgan.api

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PACKAGE = sorted((ROOT / "ipmgan").rglob("*.py"))
PLUGINS = sorted(path for path in (ROOT / "plugins").rglob("*.py") if "tests" not in path.parts)
TOOLS = {
    "style": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}
LONGEST_FILE, LONGEST_FUNCTION = 300, 40


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef, path: Path) -> int:
    """Lines of code: without the docstring, and in the command line without the signature, one line an option."""
    documented = ast.get_docstring(node) is not None and isinstance(node.body[0], ast.Expr)
    docstring = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1 if documented else 0
    first = node.body[0].lineno if "cli" in path.parts else node.lineno
    return (node.end_lineno or 0) - first + 1 - docstring


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_is_content(tool: str) -> None:
    program, *arguments = TOOLS[tool]
    done = subprocess.run([BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("plugin", sorted((ROOT / "plugins").glob("*/")), ids=lambda path: path.name)
def test_plugin_distribution_is_typed(plugin: Path) -> None:
    package = plugin / plugin.name.replace("-", "_")
    command = [BIN / "mypy", "--strict", "--config-file", os.devnull, package]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*PACKAGE, *PLUGINS], ids=relative)
def test_sizes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    for node in functions(path):
        assert length(node, path) <= LONGEST_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize("path", PACKAGE, ids=relative)
def test_no_module_inside_imports_the_root(path: Path) -> None:
    if path.parent == ROOT / "ipmgan" and path.name in ("__init__.py", "api.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert "ipmgan" not in [alias.name for alias in node.names]
            assert "ipmgan.api" not in [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            assert node.module != "ipmgan.api"
            if node.module == "ipmgan":
                for alias in node.names:
                    module = ROOT / "ipmgan" / alias.name
                    assert module.is_dir() or module.with_suffix(".py").is_file(), f"{alias.name} comes from the root"


@pytest.mark.parametrize("path", [*PACKAGE, *PLUGINS], ids=relative)
def test_modules_say_what_they_are_and_leave_nothing_undone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text))
    assert not [word for word in ("TODO", "FIXME", "XXX", "NotImplementedError") if word in text]


def test_public_names_are_listed_once_and_sorted_by_the_linter() -> None:
    names = ipmgan.api.__all__
    assert len(names) == len(set(names))
    tree = ast.parse((ROOT / "ipmgan" / "api.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported - {"annotations"} == set(names)


@pytest.mark.parametrize("name", ipmgan.api.__all__)
def test_public_name_is_documented_and_typed(name: str) -> None:
    public = getattr(ipmgan, name)
    assert public is getattr(ipmgan.api, name)
    assert name in dir(ipmgan)
    documented = inspect.getdoc(public if inspect.isroutine(public) or inspect.isclass(public) else type(public))
    assert documented
    if isinstance(public, types.FunctionType):
        hints = inspect.get_annotations(public)
        assert set(hints) == {*inspect.signature(public).parameters, "return"}
    if inspect.isclass(public):
        for member, value in vars(public).items():
            if not member.startswith("_") and isinstance(value, types.FunctionType):
                parameters = [key for key in inspect.signature(value).parameters if key != "self"]
                assert set(inspect.get_annotations(value)) == {*parameters, "return"}, member
                assert inspect.getdoc(getattr(public, member)), f"{name}.{member} has no docstring"


def test_importing_the_package_loads_nothing_heavy() -> None:
    text = "import sys, ipmgan; print([m for m in ('torch', 'numpy', 'ipmgan.api', 'pluggy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_version_is_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert importlib.metadata.version("ipmgan") == project["version"]
    assert f"\n## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_holds_what_a_user_needs(tmp_path: Path) -> None:
    """Built from the sources of today: every module, preset and the mark of typed code; no tests, no runs."""
    command = [BIN / "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = [
        path for path in (ROOT / "ipmgan").rglob("*") if path.suffix in (".py", ".toml") or path.name == "py.typed"
    ]
    assert {relative(path) for path in wanted} <= held
    assert "ipmgan/presets/wgan-gp-toy.toml" in held
    assert not [name for name in held if not name.startswith("ipmgan")]
    assert any(name.endswith("licenses/LICENSE") for name in held)
