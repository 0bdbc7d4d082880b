"""The documentation: it builds strictly, covers every built-in plugin, and its examples work."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
import typer.main
from typer.testing import CliRunner

import ipmgan
from ipmgan.cli.app import app
from ipmgan.config import presets
from ipmgan.engine.checks import check
from ipmgan.registry import Entry, registry

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BUILTIN = [entry for entry in registry().entries() if entry.distribution == "ipmgan"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_FLAGS = ("out", "replicates", "dry_run", "json")


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def commands() -> Iterator[Any]:
    for page in PAGES:
        for code in blocks(page, "sh"):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if ">" in words:
                    words = words[: words.index(">")]
                if words[:1] == ["ipmgan"]:
                    yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words[1:])}")


def names(entry: Entry) -> str:
    return entry.plugin.name


class Text(HTMLParser):
    """The words of a page's content, by the innermost element they stand in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("br", "hr", "img", "input", "link", "meta"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.words.append((self.stack[-1] if self.stack else "", data))

    def inside(self, tag: str) -> list[str]:
        return [data for stands_in, data in self.words if stands_in == tag]

    @property
    def everything(self) -> str:
        return " ".join(" ".join(data for _, data in self.words).split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_builtin_plugin_has_a_page_that_names_all_its_options(site: Path) -> None:
    for entry in BUILTIN:
        plugin = entry.plugin
        text = Text((site / "plugins" / plugin.kind / plugin.name / "index.html").read_text(encoding="utf-8"))
        code = text.inside("code")
        assert plugin.name in text.inside("h1")
        for word in (*plugin.aliases, *(field.name for field in attrs.fields(plugin) if field.init)):
            assert word in code, f"{plugin.name}: {word}"
        for reference in plugin.references:
            assert reference.short in text.everything


def test_every_equation_is_a_block_of_its_page(site: Path) -> None:
    for entry in BUILTIN:
        if entry.plugin.kind in ("objective", "lipschitz"):
            path = site / "plugins" / entry.plugin.kind / entry.plugin.name / "index.html"
            text = Text(path.read_text(encoding="utf-8"))
            assert equation(entry) in "\n".join(text.inside("code"))


def test_the_list_of_plugins_leads_to_every_page(site: Path) -> None:
    html = (site / "plugins" / "index.html").read_text(encoding="utf-8")
    for entry in BUILTIN:
        assert f'href="{entry.plugin.kind}/{entry.plugin.name}/"' in html


def test_presets_are_on_their_page(site: Path) -> None:
    headings = Text((site / "presets" / "index.html").read_text(encoding="utf-8")).inside("h2")
    assert [heading for heading in headings if heading in presets()] == presets()


def test_no_page_is_left_raw(site: Path) -> None:
    """Markdown that was not understood shows as its own marks."""
    for path in site.rglob("index.html"):
        text = Text(path.read_text(encoding="utf-8"))
        prose = " ".join(word for tag, word in text.words if tag in ("p", "li", "td"))
        for mark in ("```", "|--", "**", "](", "!!!"):
            assert mark not in prose, f"{path}: {mark}"


def equation(entry: Entry) -> str:
    """The first line of the first indented block of a docstring."""
    lines = (inspect.getdoc(entry.plugin) or "").splitlines()
    return next((line[4:] for line in lines if line.startswith("    ")), "")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPMGAN_DATA", str(tmp_path))
    scope: dict[str, object] = {"__name__": "example"}
    with torch.random.fork_rng(devices=[]):
        for code in blocks(page, "python"):
            exec(compile(code, str(page), "exec"), scope)


@pytest.mark.parametrize("arguments", list(commands()))
def test_shell_examples_are_commands(arguments: list[str]) -> None:
    """Each names a command with flags that exist; what it would train resolves, and fits together."""
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        assert rest[0] in command.commands
        command = command.commands[rest.pop(0)]
    values = command.make_context(command.name, rest).params
    if command.name == "train":
        check(ipmgan.configure(**{key: value for key, value in values.items() if key not in NOT_FLAGS}))


def test_the_table_of_pairs_is_what_the_checks_say() -> None:
    lines = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8").splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| objective | `clip`"))
    enforcers = re.findall(r"`([^`]+)`", lines[header])
    seen: dict[str, set[str]] = {"objective": set(), "lipschitz": set(enforcers)}
    for line in lines[header + 2 :]:
        if not line.startswith("|"):
            break
        row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        objective, *critic = re.findall(r"`([^`]+)`", row)
        seen["objective"].add(objective)
        choice = {"critic": critic[0].removeprefix("--critic ")} if critic else {}
        for enforcer, verdict in zip(enforcers, cells, strict=True):
            assert allowed(objective=objective, lipschitz=enforcer, **choice) == verdict.startswith("yes"), line
    for kind, named in seen.items():
        assert named == {entry.plugin.name for entry in BUILTIN if entry.plugin.kind == kind}


def allowed(**settings: str) -> bool:
    try:
        check(ipmgan.configure(source="ring8", **settings))
    except ipmgan.PairingError:
        return False
    return True


def test_flags_and_commands_named_in_prose_exist() -> None:
    command: Any = typer.main.get_command(app)
    flags = {"--debug", "--help", "--version"}
    for sub in list(command.commands.values()):
        for leaf in getattr(sub, "commands", {"": sub}).values():
            flags |= {flag for parameter in leaf.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for code in re.findall(r"`([^`\n]+)`", text):
            if code.startswith(("--", "ipmgan ")):
                unknown = set(re.findall(r"(?<!\S)--[a-z-]+", code)) - flags
                assert not unknown, f"{page.name}: {unknown}"


def test_the_tutorial_s_plugin_works_as_a_distribution(tmp_path: Path) -> None:
    page = ROOT / "docs" / "writing-a-plugin.md"
    (tmp_path / "hinge.py").write_text(blocks(page, "python")[0])
    entry_points = re.search(r"\[project\.entry-points\.ipmgan\]\n(.*)", blocks(page, "toml")[0])
    assert entry_points is not None
    info = tmp_path / "ipmgan_hinge-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ipmgan-hinge\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[ipmgan]\n{entry_points.group(1).replace(chr(34), '')}\n")
    script = (
        "import json, ipmgan\nfrom ipmgan.registry import registry\n"
        "run = ipmgan.train(objective='hinge:margin=0.5', source='ring8', steps=2, device='cpu', out='run')\n"
        "print(json.dumps([registry().find('objective', 'hinge').distribution, run.metrics[-1]]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "IPMGAN_PLUGINS": "ipmgan-hinge"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    distribution, metrics = json.loads(done.stdout.splitlines()[-1])
    assert distribution == "ipmgan-hinge"
    assert metrics["step"] == 2
    assert metrics["held_out_estimate"] <= 1


def test_plugins_show_prints_the_page() -> None:
    shown = CliRunner().invoke(app, ["plugins", "show", "gp"])
    assert shown.exit_code == 0
    assert "| `weight` | `10.0` | float, above 0 | lambda |" in shown.stdout


def test_every_internal_link_of_the_papers_leads_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (ROOT / target).exists(), f"{page.name}: {target}"
