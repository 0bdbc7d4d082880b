"""The tutorial's blocks, run in the order of the page by somebody with a fresh environment and an empty folder.

Blocks of ``py`` and ``toml`` are files, whose first line is a comment with the path; those of ``bash`` are commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial-ipm.md"
BLOCK = re.compile(r"^```(bash|py|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEN_MINUTES = 600


def environment(folder: Path) -> dict[str, str]:
    """Variables of a shell in a virtual environment of its own, which sees what this one has installed."""
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = (f"import site; site.addsitedir({path!r})\n" for path in sorted(seen))
    (packages / "outer.pth").write_text("".join(lines))
    script = folder / "bin" / "ipmgan"
    script.write_text(f"#!{python}\nfrom ipmgan.cli.app import main\nmain()\n")
    script.chmod(0o755)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("IPMGAN", "PYTEST", "PYTHON"))}
    offline = {"PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return alone | offline | {"PATH": path, "VIRTUAL_ENV": str(folder), "OMP_NUM_THREADS": "1"}


def shell(code: str, folder: Path, variables: dict[str, str]) -> Path:
    """Run commands, stopping at the first that fails; returns the folder in which they end."""
    script = f"set -euo pipefail\n{code}\npwd -P >&3\n"
    with (folder / ".pwd").open("w+") as last:
        done = subprocess.run(
            ["bash", "-c", script.replace(">&3", f">&{last.fileno()}")],
            cwd=folder,
            env=variables,
            pass_fds=[last.fileno()],
            capture_output=True,
            text=True,
            check=False,
            timeout=TEN_MINUTES,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        last.seek(0)
        return Path(last.read().strip())


@pytest.mark.skipif(sys.platform == "win32", reason="the blocks are bash")
def test_the_tutorial_works_from_an_empty_folder_in_ten_minutes(tmp_path: Path) -> None:
    variables, folder, begun = environment(tmp_path / "venv"), tmp_path / "empty", time.monotonic()
    folder.mkdir()
    written = []
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "bash":
            folder = shell(code, folder, variables)
        else:
            named = re.match(r"# (\S+\.\w+)\n", code)
            assert named is not None, f"no path on the first line of a file: {code[:60]}"
            (folder / named.group(1)).write_text(code, encoding="utf-8")
            written.append(named.group(1))
    assert time.monotonic() - begun < TEN_MINUTES
    assert folder.name == "ipmgan-my-fisher"
    assert {"ipmgan_my_fisher.py", "tests/test_ipmgan_my_fisher.py", "run.toml"} <= set(written)
    assert list(folder.glob("dist/ipmgan_my_fisher-*.whl"))


def test_the_tutorial_s_objective_is_under_forty_lines() -> None:
    """Of code: from the class on, without its docstrings and blank lines."""
    (code,) = [code for _, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if "class MyFisher" in code]
    body = code[code.index("class MyFisher") : code.index("@hookimpl")]
    bare = re.sub(r'""".*?"""', "", body, flags=re.DOTALL)
    assert len([line for line in bare.splitlines() if line.strip()]) < 40
