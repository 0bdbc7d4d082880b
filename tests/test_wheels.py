"""Each plugin distribution as a user gets it: its built wheel and ipmgan's, in a fresh environment, pass its tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
SETTINGS = """
[pytest]
addopts = --import-mode=importlib --strict-markers -p no:cacheprovider
filterwarnings = error
markers =
    slow: takes minutes
    gpu: needs a CUDA device
"""


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project."""
    command = [Path(sys.executable).parent / "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob(f"{project.name.replace('-', '_')}-*.whl" if project != ROOT else "ipmgan-*.whl")
    return wheel


def environment(folder: Path, wheels: list[Path]) -> Path:
    """The Python of a new environment with these wheels; what they depend on is lent by the one that tests run in."""
    venv.create(folder)
    python = folder / "bin" / "python"
    held = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site = Path(held.stdout.strip())
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, *wheels]
    subprocess.run(install, check=True, capture_output=True)
    # A path that is added so is searched last, and what it says of editable installations is not followed.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.mark.parametrize("project", PLUGINS, ids=lambda project: project.name)
def test_a_plugin_passes_its_tests_from_wheels(project: Path, tmp_path: Path) -> None:
    wheels = [build(one, tmp_path / "wheels") for one in (ROOT, project)]
    python = environment(tmp_path / "environment", wheels)
    shutil.copytree(project / "tests", tmp_path / "run" / "tests")
    (tmp_path / "run" / "pytest.ini").write_text(SETTINGS)
    found = subprocess.run(
        [python, "-c", f"import ipmgan, {project.name.replace('-', '_')} as p; print(ipmgan.__file__, p.__file__)"],
        cwd=tmp_path / "run",
        check=True,
        capture_output=True,
        text=True,
    )
    assert all(str(tmp_path / "environment") in path for path in found.stdout.split())
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-m", "not slow", "tests"], cwd=tmp_path / "run", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
