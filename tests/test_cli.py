"""The command line as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import interpolate

import ipmgan
from ipmgan.cli.app import main
from ipmgan.config import presets
from ipmgan.engine.step import Step

TINY = ["--generator", "mlp:width=8,depth=1", "--critic", "mlp:width=8,depth=1", "--batch", "16", "--device", "cpu"]
WGAN = ["train", "--objective", "wgan", "--lipschitz", "clip", *TINY]
DIGITS = [*WGAN, "--steps", "4", "--log-every", "2"]
FREE = [*WGAN, "--log-every", "3"]
COMMANDS = [
    [],
    ["train"],
    ["resume"],
    ["sample"],
    ["cite"],
    ["plugins"],
    ["plugins", "list"],
    ["plugins", "show"],
    ["presets"],
    ["presets", "list"],
    ["presets", "show"],
]


@attrs.frozen
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Ipmgan = Callable[..., Done]


def draw_nothing(run: Path) -> Path:
    """Stands in for the curves, which take longer than all else here; `test_live_display` draws real ones."""
    (run / "curves.png").touch()
    return run / "curves.png"


@pytest.fixture
def ipmgan_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ipmgan:
    """Runs the command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ipmgan.cli.display.draw_curves", draw_nothing)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(stopped.value.code or 0, *capsys.readouterr())

    return call


def process(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from ipmgan.cli.app import main; main()", *arguments]


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoints").iterdir())[-1] / "state.safetensors")


def assert_same_run(one: Path, two: Path) -> None:
    """Same weights and optimisers to the bit, and the same numbers at the same steps but for the speed."""
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert ipmgan.load(one).metrics[-1]["step"] == ipmgan.load(two).metrics[-1]["step"]
    for key in ("estimate", "held_out_estimate", "critic_loss", "generator_loss"):
        assert ipmgan.load(one).metrics[-1][key] == ipmgan.load(two).metrics[-1][key]


# Help and tables


def test_no_help_loads_torch(tmp_path: Path) -> None:
    """One process asks every command for help; at its end torch, matplotlib and the plugins are still not there."""
    text = f"""
import sys
from ipmgan.cli.app import main
for words in {COMMANDS!r}:
    sys.argv = ["ipmgan", *words, "--help"]
    try:
        main()
    except SystemExit as stopped:
        assert stopped.code in (0, None), words
sys.argv = ["ipmgan", "--version"]
try:
    main()
except SystemExit:
    pass
heavy = [name for name in ("torch", "torchvision", "numpy", "matplotlib", "sklearn", "pluggy") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: ipmgan") == len(COMMANDS)
    assert done.stdout.endswith(ipmgan.Registry().find("objective", "wgan").version + "\n")


def test_the_package_is_its_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ipmgan", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.endswith(ipmgan.Registry().find("objective", "wgan").version + "\n")


@pytest.mark.parametrize("more", [["--lipschitz", "clip"], ["--lipschitz", "gp", "--average", "0.9"]])
def test_training_starts_without_what_it_needs_later(tmp_path: Path, more: list[str]) -> None:
    """Torch's compiler and checkpoints, sympy and matplotlib would double the time to the first step."""
    text = f"""
import sys
from ipmgan.cli.app import main
sys.argv = ["ipmgan", "train", "--objective", "wgan", "--source", "ring8", "--steps", "2", "--compile", "off"]
sys.argv += [*{more!r}, "--device", "cpu", "--out", "run"]
from ipmgan.engine.step import Step
run = Step.run
def first(self):
    run(self)
    later = ("torch._dynamo", "torch._inductor", "torch.distributed.checkpoint", "sympy", "matplotlib", "torchvision",
             "sklearn", "scipy", "PIL", "ot")
    heavy = [name for name in later if name in sys.modules]
    sys.exit(f"loaded: {{heavy}}")
Step.run = first
main()
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == "loaded: []\n"


def test_bare_command_shows_help(ipmgan_: Ipmgan) -> None:
    assert ipmgan_().out.startswith("Usage: ipmgan")


def test_plugins(ipmgan_: Ipmgan) -> None:
    rows = json.loads(ipmgan_("plugins", "list", "--json").out)
    own = {(row["kind"], row["name"]) for row in rows if row["from"].startswith("ipmgan 0")}
    assert own == {(entry.plugin.kind, entry.plugin.name) for entry in ipmgan.Registry().entries()}
    assert all(row["what"].endswith(".") for row in rows)
    only = json.loads(ipmgan_("plugins", "list", "--kind", "lipschitz", "--json").out)
    assert {row["kind"] for row in only} == {"lipschitz"}
    lines = ipmgan_("plugins", "list").out.splitlines()
    assert len(lines) == 1 + len(rows)
    shown = ipmgan_("plugins", "show", "nsgan").out
    for part in ("nonsaturating", "E_g[", "Adam:lr=2e-4", "Goodfellow"):
        assert part in shown
    (about,) = json.loads(ipmgan_("plugins", "show", "gp", "--json").out)
    assert (about["kind"], about["name"]) == ("lipschitz", "gp")
    assert {option["name"] for option in about["options"]} >= {"weight", "target"}


def test_presets(ipmgan_: Ipmgan) -> None:
    listed = json.loads(ipmgan_("presets", "list", "--json").out)
    assert [row["preset"] for row in listed] == presets()
    for name in presets():
        assert tomllib.loads(ipmgan_("presets", "show", name).out)["objective"]
        assert name in ipmgan_("presets", "list").out


# Training


def test_train_says_what_was_measured_and_where_everything_lies(ipmgan_: Ipmgan) -> None:
    done = ipmgan_(*DIGITS)
    assert (done.code, done.err) == (0, "")
    run = Path("runs/wgan-clip-digits")
    last = ipmgan.load(run).metrics[-1]
    assert f"K·W1 = {last['held_out_estimate']:.4g} on held-out data" in done.out
    assert f"at most {last['lipschitz_bound']:.4g}" in done.out
    for word in re.findall(r"runs/\S+", done.out):
        assert Path(word).exists()
    for expected in ("config.toml", "metrics.jsonl", "curves.png", "samples/000000004.png", "checkpoints/000000004"):
        assert (run / expected).exists()
    again = f"ipmgan sample {run}"
    assert again in done.out
    assert ipmgan_(*again.split()[1:]).code == 0


def test_a_second_run_gets_a_name_of_its_own(ipmgan_: Ipmgan) -> None:
    for _ in range(3):
        assert ipmgan_(*DIGITS).code == 0
    names = ["wgan-clip-digits", "wgan-clip-digits-2", "wgan-clip-digits-3"]
    assert sorted(path.name for path in Path("runs").iterdir()) == names
    assert_same_run(Path("runs", names[0]), Path("runs", names[2]))


def test_out_that_holds_something_is_refused_and_left_alone(ipmgan_: Ipmgan) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    done = ipmgan_(*DIGITS, "--out", "mine")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]
    Path("empty").mkdir()
    assert ipmgan_(*DIGITS, "--out", "empty").code == 0
    Path("file").touch()
    assert ipmgan_(*DIGITS, "--out", "file").code == 2


def test_plain_lines_one_a_logging_interval(ipmgan_: Ipmgan) -> None:
    lines = ipmgan_(*FREE, "--steps", "9").out.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert [line.split()[1] for line in steps] == ["3/9", "6/9", "9/9"]
    assert all("steps/s" in line and "s left" in line for line in steps)
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_dry_run_creates_nothing(ipmgan_: Ipmgan) -> None:
    done = ipmgan_(*DIGITS, "--dry-run")
    assert (done.code, list(Path().iterdir())) == (0, [])
    resolved = tomllib.loads(done.out)
    assert (resolved["critic_optimizer"]["name"], resolved["n_critic"]) == ("RMSprop", 5)
    planned = json.loads(ipmgan_(*DIGITS, "--dry-run", "--json").out)
    assert planned["config"] == resolved
    assert planned["generator_parameters"] == resolved["latent"]["dim"] * 8 + 8 + 8 * 64 + 64
    assert planned["critic_parameters"] == 64 * 8 + 8 + 8 + 1
    assert list(Path().iterdir()) == []
    assert ipmgan_(*WGAN, "--preset", "wgan-gp", "--dry-run").code != 0


def test_a_runs_own_config_reproduces_it(ipmgan_: Ipmgan) -> None:
    assert ipmgan_(*DIGITS, "--out", "one", "--seed", "3", "--average", "0.9").code == 0
    assert ipmgan_("train", "--config", "one/config.toml", "--out", "two").code == 0
    assert_same_run(Path("one"), Path("two"))
    assert Path("one/config.toml").read_bytes() == Path("two/config.toml").read_bytes()
    assert ipmgan_("train", "--config", "one/config.toml", "--out", "three", "--seed", "4").code == 0
    assert not all(
        torch.equal(a, b) for a, b in zip(*(weights(Path(run)).values() for run in ("one", "three")), strict=True)
    )


def test_preset_then_flag(ipmgan_: Ipmgan) -> None:
    done = ipmgan_("train", "--preset", "wgan-gp-toy", *TINY, "--steps", "3", "--n-critic", "1", "--out", "toy")
    assert done.code == 0
    config = tomllib.loads(Path("toy/config.toml").read_text())
    assert (config["steps"], config["n_critic"], config["lipschitz"]["weight"]) == (3, 1, 0.1)


# Going on


def test_resume_is_as_if_never_stopped(ipmgan_: Ipmgan) -> None:
    assert ipmgan_(*FREE, "--steps", "9", "--out", "whole").code == 0
    assert ipmgan_(*FREE, "--steps", "4", "--out", "parts").code == 0
    done = ipmgan_("resume", "parts", "--steps", "9")
    assert (done.code, "from step 4" in done.out) == (0, True)
    assert_same_run(Path("whole"), Path("parts"))
    assert [m["step"] for m in ipmgan.load("parts").metrics if m["step"] != 4] == [3, 6, 9]
    before = files(Path("parts", "checkpoints"))
    assert ipmgan_("resume", "parts").code == 0
    assert files(Path("parts", "checkpoints")) == before
    assert ipmgan_("resume", "parts", "--steps", "5").code == 2


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Plans signals that arrive within a given step."""
    run = Step.run
    planned: dict[int, tuple[int, ...]] = {}

    def step(self: Step) -> None:
        for number in planned.pop(self.steps, ()):
            signal.raise_signal(number)
        run(self)

    monkeypatch.setattr(Step, "run", step)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield lambda at, *numbers: planned.update({at: numbers})
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_saves_and_says_how_to_go_on(
    ipmgan_: Ipmgan, signals: Callable[..., None], number: int, code: int
) -> None:
    flags = [*FREE, "--steps", "12"]
    assert ipmgan_(*flags, "--out", "whole").code == 0
    signals(5, number)
    done = ipmgan_(*flags, "--out", "cut")
    assert done.code == code
    assert "saved at step 6" in done.out + done.err
    (command,) = re.findall(r"ipmgan (resume \S+)", done.out + done.err)
    assert ipmgan_(*command.split()).code == 0
    assert_same_run(Path("whole"), Path("cut"))


def test_two_interrupts_stop_at_once_and_leave_the_last_checkpoint(
    ipmgan_: Ipmgan, signals: Callable[..., None]
) -> None:
    flags = [*FREE, "--steps", "12", "--checkpoint-every", "4"]
    assert ipmgan_(*flags, "--out", "whole").code == 0
    signals(6, signal.SIGINT, signal.SIGINT)
    done = ipmgan_(*flags, "--out", "cut")
    assert (done.code, "ipmgan resume cut" in done.err) == (130, True)
    assert [path.name for path in Path("cut/checkpoints").iterdir()] == ["000000004"]
    assert ipmgan_("resume", "cut").code == 0
    assert_same_run(Path("whole"), Path("cut"))


def test_interrupt_from_outside(tmp_path: Path) -> None:
    """A real process, a real Ctrl-C after its first line, and a real exit code."""
    arguments = [*WGAN, "--steps", "1000000", "--log-every", "1", "--out", "run"]
    with subprocess.Popen(
        process(*arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step "):
                child.send_signal(signal.SIGINT)
                break
        rest = child.stdout.read()
    assert child.returncode == 130
    assert "go on with: ipmgan resume run" in rest
    step = ipmgan.load(tmp_path / "run").metrics[-1]["step"]
    assert (tmp_path / f"run/checkpoints/{step:09d}/manifest.json").exists()


def test_live_display(tmp_path: Path) -> None:
    """On a terminal: a line that is redrawn, with rate and time left, and no markup from names that look like it."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    arguments = process(*WGAN, "--steps", "60", "--log-every", "10", "--out", "[bold]run")
    child = subprocess.Popen(arguments, cwd=tmp_path, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    shown = bytearray()
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                piece = terminal.read(65536)
            except OSError:  # what Linux says when the other side of a pseudo-terminal is closed
                break
            if not piece:
                break
            shown += piece
    assert child.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "steps/s" in text
    assert re.search(r"60/60.*0:00:\d\d.*0:00:00", text)
    assert "[bold]run/metrics.jsonl" in text
    assert (tmp_path / "[bold]run" / "curves.png").stat().st_size > 1000
    assert "Traceback" not in text


# Samples and citations


@pytest.fixture
def run(ipmgan_: Ipmgan) -> str:
    assert ipmgan_(*DIGITS, "--out", "run").code == 0
    return "run"


def test_sample(ipmgan_: Ipmgan, run: str) -> None:
    expected = ipmgan.load(run).sample(10, seed=5)
    for name in ("a.npy", "a.safetensors", "a.png"):
        done = ipmgan_("sample", run, "--count", "10", "--seed", "5", "--out", name)
        assert (done.code, name in done.out) == (0, True)
    values = np.load("a.npy", allow_pickle=False)
    assert (values.shape, values.dtype) == ((10, 1, 8, 8), np.float32)
    assert np.array_equal(values, expected.numpy())
    assert torch.equal(load_file("a.safetensors")["samples"], expected)
    picture = torch.from_numpy(np.array(Image.open("a.png"), dtype=np.float64))[..., 0] / 255
    scale = 7
    assert picture.shape == (3 * (8 * scale + 2) + 2, 4 * (8 * scale + 2) + 2)
    low, high = ipmgan.Digits().spec().bounds or (0.0, 1.0)
    for index in (0, 5, 9):
        row, column = divmod(index, 4)
        top, left = 2 + row * (8 * scale + 2), 2 + column * (8 * scale + 2)
        tile = picture[top : top + 8 * scale, left : left + 8 * scale]
        unit = ((expected[index : index + 1].double() - low) / (high - low)).clamp(0, 1)
        wanted = interpolate(unit, scale_factor=scale, mode="bicubic").clamp(0, 1)[0, 0]
        torch.testing.assert_close(tile, wanted, atol=1 / 255, rtol=0)


def test_sample_writes_its_default_picture_here(ipmgan_: Ipmgan, run: str) -> None:
    assert ipmgan_("sample", run).code == 0
    assert Path("samples.png").stat().st_size > 100


@pytest.mark.parametrize(
    "arguments", [["--count", "0"], ["--count", "-3"], ["--out", "a.pt"], ["--out", "no/such/folder/a.npy"]]
)
def test_sample_refuses(ipmgan_: Ipmgan, run: str, arguments: list[str]) -> None:
    done = ipmgan_("sample", run, *arguments)
    assert (done.code, len(done.err.splitlines())) == (2, 1)


def test_cite(ipmgan_: Ipmgan) -> None:
    flags = [
        "--generator",
        "dcgan:nf=2",
        "--critic",
        "dcgan:nf=2,norm=none",
        "--batch",
        "4",
        "--source",
        "photos:size=32",
    ]
    arguments = ["train", "--objective", "wgan", "--lipschitz", "gp", *flags, "--n-critic", "1", "--steps", "1"]
    assert ipmgan_(*arguments, "--device", "cpu", "--out", "run").code == 0
    cited = ipmgan_("cite", "run").out
    for key in ("arjovsky2017wasserstein", "gulrajani2017improved", "radford2016unsupervised", "bonneel2015sliced"):
        assert cited.count(f"{{{key},") == 1
    assert cited.count("@") == cited.count("\n}")


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'"),
        (["train", "--stesp", "3"], "--steps"),
        (["train", "--steps"], "requires an argument"),
        (["train"], "choose an objective"),
        (["train", "--objective", "wgna"], "did you mean 'wgan'"),
        ([*DIGITS, "--lipschitz", "clp"], "did you mean 'clip'"),
        ([*DIGITS, "--lipschitz", "clip:d=1"], "Allowed: c"),
        ([*DIGITS, "--lipschitz", "clip:c=-1"], "above 0"),
        ([*DIGITS, "--lipschitz", "clip:c=nan"], "above 0"),
        ([*DIGITS, "--lipschitz", "clip:c=true"], "must be"),
        ([*DIGITS, "--lipschitz", "clip:c"], "key=value"),
        ([*DIGITS, "--lipschitz", "clip:c=1,c=2"], "given twice"),
        ([*DIGITS, "--lipschitz", "clip:=1"], "key=value"),
        ([*DIGITS, "--critic", "mlp:width=[8"], "width"),
        ([*DIGITS, "--preset", "wgan-toy"], "did you mean 'wgan-gp-toy'"),
        ([*DIGITS, "--lr", "nan"], "above 0"),
        ([*DIGITS, "--lr", "inf"], "above 0"),
        ([*DIGITS, "--lr", "-1"], "above 0"),
        ([*DIGITS, "--lr", "1e400"], "above 0"),
        ([*DIGITS, "--lr", "fast"], "number"),
        ([*DIGITS, "--steps", "0"], "at least 1"),
        ([*DIGITS, "--batch", "0"], "at least 1"),
        ([*DIGITS, "--seed", "-1"], "at least 0"),
        ([*DIGITS, "--average", "1"], "at most"),
        ([*DIGITS, "--critic-optimizer", "RMSporp:lr=1"], "did you mean 'RMSprop'"),
        ([*DIGITS, "--device", "toaster"], "cpu"),
        ([*DIGITS, "--precision", "float8"], "float32"),
        ([*DIGITS, "--lipschitz", "none"], "Choose an enforcer"),
        ([*DIGITS, "--config", "nowhere.toml"], "nowhere.toml"),
        (["plugins", "show", "wgna"], "did you mean 'wgan'"),
        (["plugins", "list", "--kind", "objectiv"], "did you mean 'objective'"),
        (["plugins", "show", "wgan", "--kind", "objectiv"], "did you mean 'objective'"),
        (["presets", "show", "wgan"], "did you mean 'wgan-gp'"),
        (["plugins"], "Missing command"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else None,
)
def test_usage_errors(ipmgan_: Ipmgan, arguments: list[str], message: str) -> None:
    done = ipmgan_(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) <= 2
    assert list(Path().iterdir()) == []


def test_other_errors_have_codes_of_their_own(ipmgan_: Ipmgan) -> None:
    for code, arguments in (
        (3, [*WGAN, "--source", "folder:root=nowhere,size=32,channels=3"]),
        (3, [*WGAN, "--source", "tensor:path=nowhere.npy"]),
        (4, ["resume", "nowhere"]),
        (4, ["sample", "nowhere"]),
        (4, ["cite", "nowhere"]),
        (5, ["train", "--objective", "minimax", *TINY, "--source", "ring8", "--lr", "1e30", "--out", "diverged"]),
    ):
        done = ipmgan_(*arguments)
        assert (done.code, done.err[:7]) == (code, "error: "), arguments
        assert 1 <= len(done.err.splitlines()) <= 2
        assert "Traceback" not in done.err


def test_debug_shows_the_traceback(ipmgan_: Ipmgan, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (["--debug", "resume", "nowhere"], ["resume", "nowhere", "--debug"]):
        monkeypatch.setattr(sys, "argv", ["ipmgan", *place])
        with pytest.raises(ipmgan.CheckpointError):
            main()


NASTY = ["[bold]run[/bold] [/]", "two\nlines", "it's\x1b[2J\x1b]0;title\x07 \u202egnp"]


def harmless(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_names_cannot_steer_the_terminal(ipmgan_: Ipmgan, name: str) -> None:
    done = ipmgan_(*DIGITS, "--out", name)
    assert (done.code, harmless(done.out + done.err)) == (0, True)
    for part in re.split(r"[\n\x1b'\x07\u202e]", name):
        assert part in done.out
    assert len([line for line in done.out.splitlines() if not line.startswith(("  ", "step"))]) == 2
    assert ipmgan_("sample", name, "--out", "a.png").code == 0
    assert ipmgan_("resume", name, "--steps", "5").code == 0
    for arguments in ([*DIGITS, "--out", name], ["resume", name + "x"], ["train", "--objective", name], [name]):
        error = ipmgan_(*arguments)
        assert error.code in (2, 4)
        assert harmless(error.err)
