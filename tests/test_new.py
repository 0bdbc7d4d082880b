"""`ipmgan plugins new`: what it makes installs, passes its own tests and trains as it is; bad names are refused."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from ipmgan.cli.app import main
from ipmgan.cli.new import TITLES, render
from ipmgan.errors import UsageError
from ipmgan.hookspecs import HOOKS

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "ipmgan" / "templates"
BIN = Path(sys.executable).parent


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def install(project: Path, site: Path) -> None:
    """What pip leaves of a project: its module, and a folder of metadata that lists it."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name = about["name"].replace("-", "_")
    info = site / f"{name}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    lines = [f"{key} = {value}" for key, value in about["entry-points"]["ipmgan"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ipmgan]", *lines, ""]), encoding="utf-8")
    (info / "RECORD").write_text(f"{name}.py,,\n{info.name}/METADATA,,\n{info.name}/entry_points.txt,,\n")
    (site / f"{name}.py").write_text((project / f"{name}.py").read_text(encoding="utf-8"), encoding="utf-8")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project of each kind, as the command makes it, and a site where all of them are installed."""
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        for kind in TITLES:
            assert command(patch, "plugins", "new", f"my-{kind}", "--kind", kind, "--into", str(folder)) == 0
            install(folder / f"ipmgan-my-{kind}", folder / "site")
    return folder


def python(workshop: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that finds what is installed in the site, and no other plugins."""
    offered = ",".join(f"ipmgan-my-{kind}" for kind in TITLES)
    environment = os.environ | {"PYTHONPATH": str(workshop / "site"), "IPMGAN_PLUGINS": offered}
    return subprocess.run(
        [sys.executable, *arguments], cwd=workshop, env=environment, capture_output=True, text=True, timeout=300
    )


def test_there_is_a_template_for_every_kind() -> None:
    assert list(TITLES) == [base.kind for base in HOOKS.values()]
    assert {path.name for path in TEMPLATES.iterdir()} == {*TITLES, "shared"}
    for kind in TITLES:
        assert (
            f"def {next(hook for hook, base in HOOKS.items() if base.kind == kind)}("
            in render("x", kind)["ipmgan_x.py"]
        )


@pytest.mark.parametrize("kind", TITLES)
def test_everything_is_there_and_filled_in(workshop: Path, kind: str) -> None:
    project, module = workshop / f"ipmgan-my-{kind}", f"ipmgan_my_{kind}"
    found = [path for path in project.rglob("*.*") if path.is_file()]
    files = {str(path.relative_to(project)): path.read_text(encoding="utf-8") for path in found}
    expected = {"pyproject.toml", "README.md", ".gitignore", "run.toml", f"{module}.py", f"tests/test_{module}.py"}
    assert set(files) == expected | {".github/workflows/ci.yml"}
    assert "licence" in (project / "LICENSE").read_text(encoding="utf-8")
    assert tomllib.loads(files["pyproject.toml"])["project"]["entry-points"] == {"ipmgan": {f"my-{kind}": module}}
    assert "${{ matrix.python }}" in files[".github/workflows/ci.yml"]
    assert not [path for path, text in files.items() if "$" in text.replace("${{ matrix.python }}", "")]
    code = [line for line in files[f"{module}.py"].splitlines() if line.strip()]
    assert len(code) <= 60


def test_rendered_tests_pass(workshop: Path) -> None:
    """All kinds in one process: the conformance suite, the known values, and a run that stops and resumes."""
    folders = [f"ipmgan-my-{kind}/tests" for kind in TITLES]
    done = python(workshop, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-rf", *folders)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_rendered_plugins_are_there_on_the_command_line(workshop: Path) -> None:
    """All are listed, their names are taken, and a run of one trains by its configuration file."""
    script = """
import sys
from ipmgan.cli.app import main
for words in (
    ["plugins", "new", "my-metric", "--kind", "metric"],
    ["train", "--config", "ipmgan-my-tracker/run.toml", "--steps", "2", "--device", "cpu", "--out", "run"],
    ["plugins", "list", "--json"],
):
    sys.argv = ["ipmgan", *words]
    try:
        main()
    except SystemExit as stopped:
        print(words[:2], stopped.code)
"""
    done = python(workshop, "-c", script)
    assert "['plugins', 'new'] 2\n" in done.stdout
    assert "'my-metric' is taken, by ipmgan-my-metric 0.1.0" in done.stderr
    listed = done.stdout[done.stdout.index("\n[\n") : done.stdout.rindex("\n]\n") + 2]
    mine = {row["kind"]: row for row in json.loads(listed) if row["from"].startswith("ipmgan-my-")}
    expected = {kind: (f"my-{kind}", "ok") for kind in TITLES}
    assert {kind: (row["name"], row["status"]) for kind, row in mine.items()} == expected
    assert (workshop / "run" / "my-tracker.tsv").read_text(encoding="utf-8").startswith("2\t")


def test_rendered_code_is_in_style(workshop: Path) -> None:
    for kind in TITLES:
        project = workshop / f"ipmgan-my-{kind}"
        for arguments in (["check"], ["format", "--check"]):
            call = [BIN / "ruff", *arguments, "--no-cache", "--config", ROOT / "pyproject.toml", "."]
            done = subprocess.run(call, cwd=project, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


def test_rendered_project_builds_a_wheel(workshop: Path, tmp_path: Path) -> None:
    project = workshop / "ipmgan-my-objective"
    done = subprocess.run(
        [BIN / "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        info = "ipmgan_my_objective-0.1.0.dist-info"
        assert {"ipmgan_my_objective.py", f"{info}/licenses/LICENSE"} <= set(archive.namelist())
        assert not [name for name in archive.namelist() if not name.startswith("ipmgan_my_objective")]
        assert "[ipmgan]\nmy-objective = ipmgan_my_objective" in archive.read(f"{info}/entry_points.txt").decode()


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("", "objective", "'' is no name"),
        ("Gap", "objective", "'Gap' is no name"),
        ("2d", "objective", "'2d' is no name"),
        ("two words", "objective", "is no name"),
        ("gap-", "objective", "is no name"),
        ("gap--two", "objective", "is no name"),
        ("gap_two", "objective", "is no name"),
        ("../gap", "objective", "is no name"),
        ("gäp", "objective", "is no name"),
        ("gap\n", "objective", "is no name"),
        ("g" * 51, "objective", "at most 50"),
        ("wgan", "objective", "'wgan' is taken, by ipmgan"),
        ("nsgan", "objective", "'nsgan' is taken"),
        ("none", "lipschitz", "'none' is taken"),
        ("none", "network", "None, which has a meaning"),
        ("quantity", "objective", "Quantity, which has a meaning"),
        ("path", "metric", "Path, which has a meaning"),
        ("squash", "network", "Squash, which has a meaning"),
        ("gap", "objectiv", "did you mean 'objective'"),
    ],
)
def test_bad_names_are_refused(name: str, kind: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        render(name, kind)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("wgan", "metric"), ("squash", "metric"), ("a1-b2", "source"), ("x", "tracker")]
)
def test_other_names_are_not(name: str, kind: str) -> None:
    for path, text in render(name, kind).items():
        if path.endswith(".py"):
            ast.parse(text)


def test_what_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "plugins", "new", "ipmgan-gap", "--kind", "metric") == 0
    told = capsys.readouterr().out
    assert told.splitlines()[1:3] == ["  cd ipmgan-gap", "  pip install -e '.[test]'"]
    before = (tmp_path / "ipmgan-gap" / "ipmgan_gap.py").read_text(encoding="utf-8")
    (tmp_path / "file").touch()
    for arguments in (["gap", "--kind", "source"], ["hat", "--kind", "source", "--into", "file"]):
        assert command(monkeypatch, "plugins", "new", *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert len(error.splitlines()) == 1
    assert (tmp_path / "ipmgan-gap" / "ipmgan_gap.py").read_text(encoding="utf-8") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "ipmgan-gap"]
