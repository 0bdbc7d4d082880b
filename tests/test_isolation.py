"""Distributions of others, installed as pip leaves them: whatever they do, the rest works, and they are named."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import torch

import ipmgan
from ipmgan.cli.app import main
from ipmgan.discovery import PATIENCE, TooLongError, limited, told
from ipmgan.errors import CheckpointError
from ipmgan.registry import SWITCH, registry

HEAD = """
import attrs, torch
from ipmgan import *
from ipmgan import hookimpl
"""
GAP = '''
@attrs.frozen(kw_only=True)
class Gap(Objective):
    """The gap between two means.

        E_r[f(x)] - E_g[f(x)]
    """

    name = "gap"
    critic = CriticKind.SCORE
    estimates = Quantity(name="gap", unit="data units", bound="lower bound of the largest gap")
    references = (Reference(key="gap2020", title="A Gap", authors=("Ada One", "Bo Two"), year=2020, venue="Journal"),)

    def critic_loss(self, real, fake):
        return fake.mean() - real.mean()

    def generator_loss(self, real, fake):
        return -fake.mean()

    def estimate(self, real, fake):
        return real.mean() - fake.mean()

@hookimpl
def ipmgan_objectives():
    return [Gap]
'''
GOOD = HEAD + GAP
HALVE = '''
@attrs.frozen(kw_only=True)
class Halve(LipschitzEnforcer):
    """Halves the weights."""

    name = "halve"
    references = (Reference(key="halve2021", title="Halves", authors=("Cy Three",), year=2021, venue="Journal"),)

    def after_step(self, critic):
        for weight in critic.parameters():
            weight.mul_(0.5)

@hookimpl
def ipmgan_lipschitz():
    return [Halve]
'''
TINY = ["--generator", "mlp:width=8,depth=1", "--critic", "mlp:width=8,depth=1", "--batch", "16", "--device", "cpu"]
GAP_RUN = ["train", "--objective", "gap", "--source", "ring8", *TINY, "--steps", "4", "--checkpoint-every", "2"]


class Site:
    """A folder of installed distributions: modules, and a real ``dist-info`` folder for each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, source: str, version: str = "1.2") -> None:
        """A distribution of one module, which an entry point leads to; in place of another version of it."""
        self.uninstall(name)
        module = name.replace("-", "_")
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ipmgan]\n{name} = {module}\n")
        (self.path / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        files = [f"{module}.py", *(f"{info.name}/{file}" for file in ("METADATA", "entry_points.txt", "RECORD"))]
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
        self.forget(module)

    def uninstall(self, name: str) -> None:
        """Take away what its RECORD lists."""
        module = name.replace("-", "_")
        for info in self.path.glob(f"{module}-*.dist-info"):
            for line in (info / "RECORD").read_text().splitlines():
                (self.path / line.split(",")[0]).unlink(missing_ok=True)
            info.rmdir()
        shutil.rmtree(self.path / "__pycache__", ignore_errors=True)
        self.forget(module)

    def forget(self, module: str) -> None:
        """As in a new process."""
        sys.modules.pop(module, None)
        registry.cache_clear()


@attrs.frozen
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Ipmgan = Callable[..., Done]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv(SWITCH, raising=False)
    made = Site(folder)
    registry.cache_clear()
    yield made
    for path in folder.glob("*.py"):
        made.forget(path.stem)
    registry.cache_clear()


@pytest.fixture
def ipmgan_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ipmgan:
    """Runs the command line in this process, in a folder of its own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("ipmgan.cli.display.draw_curves", lambda run: run / "curves.png")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped, warnings.catch_warnings():  # noqa: PT012
            warnings.simplefilter("default")  # As outside of tests: said, and no error.
            main()
        return Done(int(stopped.value.code or 0), *capsys.readouterr())

    return run


def script_in(site: Site, *script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own that finds the site's distributions."""
    return subprocess.run(
        [sys.executable, "-c", *script],
        cwd=site.path.parent,
        env=os.environ | {"PYTHONPATH": str(site.path), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def refused(done: Done, code: int, *parts: str) -> None:
    """An error of one or two lines, with these words in it."""
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) <= 2
    for part in parts:
        assert part in done.err


# What a distribution may do at import

NASTY = {
    "a-raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "b-exits": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "c-hangs": ("import time; time.sleep(100)", "TooLongError: it takes longer than 1.5 s"),
    "d-spins": ("while True:\n    try:\n        1 / 0\n    except Exception:\n        pass", "TooLongError"),
    "e-base": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "f-signature": (HEAD + "@hookimpl\ndef ipmgan_objectives(registry): return []", "PluginValidationError"),
    "g-taken": (GOOD.replace('"gap"', '"wgan"', 1), "'wgan' belongs to ipmgan itself"),
    "h-no-critic": (
        HEAD + "@attrs.frozen\nclass N(Network):\n    name = 'none'\n@hookimpl\ndef ipmgan_networks(): return [N]",
        "the network name 'none' belongs to ipmgan itself",
    ),
    "i-other-kind": (GOOD.replace("critic = ", "kind = 'metric'; critic = ", 1), "its kind is 'objective'"),
    "j-quantity": (GOOD.replace("estimates = ", "estimates = 'gap' or ", 1), "estimates must be a Quantity, not 'gap'"),
    "k-reference": (GOOD.replace("references = (", "references = (1, "), "references must be a tuple of Reference"),
    "l-unspeakable": ("class Mute(Exception):\n    def __str__(self): 1 / 0\nraise Mute", "Mute"),
    "m-hook-hangs": (HEAD + "import time\n@hookimpl\ndef ipmgan_objectives(): time.sleep(100)", "TooLongError"),
}  # fmt: skip


def test_whatever_they_do_the_rest_works(site: Site) -> None:
    """One process with all of them at once, and a good one that prints."""
    for name, (source, _) in NASTY.items():
        site.install(name, source)
    site.install("z-good", "print('hello')\n" + GOOD)
    script = "import ipmgan.api; from ipmgan.cli.app import main; main()"
    done = script_in(site, script, "plugins", "list", "--json", **{PATIENCE: "1.5"})
    assert (done.returncode, done.stderr) == (0, "hello\n")
    rows = json.loads(done.stdout)
    broken = {row["from"]: row for row in rows if row["status"] == "broken"}
    assert set(broken) >= {f"{name} 1.2" for name in NASTY}
    for name, (_, reason) in NASTY.items():
        row = broken[f"{name} 1.2"]
        assert reason in row["error"], name
        assert row["name"] == ""
    (good,) = [row for row in rows if row["from"] == "z-good 1.2"]
    assert (good["kind"], good["name"], good["status"]) == ("objective", "gap", "ok")
    assert good["estimates"] == "gap, in data units; lower bound of the largest gap"


def test_training_goes_on_beside_a_broken_one(site: Site, ipmgan_: Ipmgan) -> None:
    site.install("a-raises", "raise RuntimeError('no licence')")
    site.install("good", GOOD)
    assert ipmgan_(*GAP_RUN, "--out", "run").code == 0
    refused(ipmgan_("train", "--objective", "gpa"), 2, "did you mean 'gap'", "a-raises 1.2: RuntimeError: no licence")
    assert (
        len(ipmgan_("plugins", "list").out.splitlines())
        == len(json.loads(ipmgan_("plugins", "list", "--json").out)) + 1
    )


def test_what_is_claimed_twice_is_listed_so(site: Site, ipmgan_: Ipmgan) -> None:
    site.install("one", GOOD)
    site.install("two", GOOD)
    rows = [row for row in json.loads(ipmgan_("plugins", "list", "--json").out) if row["name"] == "gap"]
    assert [(row["from"], row["status"]) for row in rows] == [
        ("one 1.2", "claimed twice"),
        ("two 1.2", "claimed twice"),
    ]
    assert "two offer it too" in rows[0]["error"]
    assert ipmgan_("plugins", "show", "gap").out.count("# gap") == 2
    refused(ipmgan_(*GAP_RUN, "--out", "run"), 2, "offered by one and two")


# The limit on time


def test_the_limit_ends_a_wait_and_leaves_no_alarm() -> None:
    start, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(TooLongError, match=r"longer than 0\.05 s"), limited(0.05):
        time.sleep(30)
    assert time.monotonic() - start < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_limit_comes_again_where_it_is_swallowed() -> None:
    def load() -> None:
        try:
            time.sleep(30)
        except BaseException:  # noqa: BLE001
            time.sleep(30)

    with pytest.raises(TooLongError), limited(0.05):
        load()


def test_somebody_else_s_alarm_still_rings() -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with limited(30):
            time.sleep(0.1)
        assert rung == []
        time.sleep(0.05)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_load_without_a_limit() -> None:
    done: list[bool] = []

    def load() -> None:
        with limited(0.01):
            time.sleep(0.05)
        done.append(True)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert done == [True]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_limit_that_is_none_is_refused(
    site: Site, ipmgan_: Ipmgan, monkeypatch: pytest.MonkeyPatch, seconds: str
) -> None:
    site.install("good", GOOD)
    monkeypatch.setenv(PATIENCE, seconds)
    refused(ipmgan_("plugins", "list"), 2, f"{PATIENCE} = '{seconds}'")


def test_long_errors_are_cut() -> None:
    assert len(told(ValueError("x" * 10_000))) < 600


# What may be imported at all

WATCH = """
import sys  # Imports by name raise no event of their own, so the opening of a module's file is watched for too.
seen = []
def watch(event, arguments):
    if event in ("import", "open", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen"):
        seen.append((event, str(arguments[0] if event in ("import", "open") else arguments)))
sys.addaudithook(watch)
"""
FILES = {
    "a name": 'objective = "kanarie"',
    "a dotted path": 'objective = "kanarie.Thing"',
    "an entry point": 'objective = "kanarie:Thing"',
    "os.system": 'objective = "os.system:command=kanarie"',
    "a command": """objective = { name = "os.system", command = "touch kanarie-was-here" }""",
    "a tag": """objective = "!!python/object/apply:kanarie.Thing []" """,
    "a table": """objective = { name = "kanarie", __class__ = "kanarie.Thing", _target_ = "kanarie.Thing" }""",
    "an enforcer": 'objective = "wgan"\nlipschitz = "kanarie"',
    "a source": 'objective = "wgan"\nlipschitz = "clip"\nsource = "kanarie"',
    "a critic": 'objective = "wgan"\nlipschitz = "clip"\ncritic = "kanarie.Thing"',
    "a metric": 'objective = "wgan"\nlipschitz = "clip"\nmetrics = ["kanarie"]',
    "a tracker": 'objective = "wgan"\nlipschitz = "clip"\ntracker = ["kanarie"]',
    "a perturbation": 'objective = "wgan"\nlipschitz = "clip"\nperturbation = "kanarie"',
    "an optimiser": 'objective = "wgan"\nlipschitz = "clip"\ncritic_optimizer = "kanarie.Thing:lr=1"',
    "torch's own": 'objective = "wgan"\nlipschitz = "clip"\ncritic_optimizer = "lr_scheduler:lr=1"',
    "an option": """objective = { name = "mmd", kernel = "kanarie.Thing" }""",
    "a latent": 'objective = "wgan"\nlipschitz = "clip"\nlatent = "kanarie:dim=2"',
    "a device": 'objective = "wgan"\nlipschitz = "clip"\ndevice = "kanarie"',
    "a preset": 'preset = "kanarie"',
    "a version": "VERSION",
}
"""Files that name code. Each is refused, and nothing of that name is imported."""


def test_no_name_in_a_file_becomes_an_import(site: Site, tmp_path: Path) -> None:
    """An audit hook sees every import and every command of a process that reads them all, as files and as runs."""
    (site.path / "kanarie.py").write_text("class Thing: pass\n")
    run = ipmgan.train(objective="wgan", lipschitz="clip", source="ring8", steps=1, device="cpu", out=tmp_path / "good")
    for number, text in enumerate(FILES.values()):
        shutil.copytree(run.path, tmp_path / f"run{number}")
        (tmp_path / f"{number}.toml").write_text(text)
        if text != "VERSION":
            (tmp_path / f"run{number}" / "config.toml").write_text(text)
            continue
        for path in tmp_path.glob(f"run{number}/checkpoints/*/*.json"):
            path.write_text(path.read_text().replace('"ipmgan"', '"kanarie.Thing"').replace("exp_avg", "kanarie"))
    script = WATCH + textwrap.dedent(f"""
        import ipmgan, ipmgan.cli.app, pathlib, sys
        from ipmgan.registry import registry
        registry()
        for number in range({len(FILES)}):
            run = f"run{{number}}"
            for words in (["train", "--config", f"{{number}}.toml"], ["resume", run], ["cite", run]):
                sys.argv = ["ipmgan", *words]
                try:
                    ipmgan.cli.app.main()
                except SystemExit as stopped:
                    print("CODE", words[0], number, stopped.code)
        print("SEEN", [name for _, name in seen if "kanarie" in name])
        print("RUN", [event for event, _ in seen if event == "os.system"])
        print("MODULES", [name for name in sys.modules if "kanarie" in name])
    """)
    done = script_in(site, script, **{SWITCH: "none"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    codes = {tuple(line.split()[1:3]): line.split()[3] for line in lines if line.startswith("CODE")}
    for number, what in enumerate(FILES):
        assert codes["train", str(number)] == "2", what
        assert codes["resume", str(number)] == "4", what
    told = [line for line in lines if line.startswith(("SEEN", "RUN", "MODULES"))]
    assert told == ["SEEN []", "RUN []", "MODULES []"]
    assert not (tmp_path / "kanarie-was-here").exists()


def test_others_are_never_imported(site: Site) -> None:
    """Neither to list nor to train; those that are left out are listed, and named where their plugin is asked for."""
    for name in ("one", "other-two", "third"):
        site.install(name, GOOD.replace('"gap"', f'"gap-{name}"', 1))
    script = WATCH + textwrap.dedent("""
        import ipmgan.cli.app
        for words in (["plugins", "list"], ["train", "--objective", "gap-third"]):
            sys.argv = ["ipmgan", *words]
            try:
                ipmgan.cli.app.main()
            except SystemExit as stopped:
                pass
        stems = {name.rpartition("/")[2].removesuffix(".py") for _, name in seen}
        print("SEEN", sorted(stems & {"one", "other_two", "third"}))
    """)
    done = script_in(site, script, **{SWITCH: "One,other_two"})
    assert done.stdout.splitlines()[-1] == "SEEN ['one', 'other_two']"
    third = next(line for line in done.stdout.splitlines() if "third 1.2" in line)
    assert third.split()[0] == "off"
    assert re.search(rf"left out by {SWITCH}: .*third 1\.2", done.stderr)


# Runs of plugins that come and go


def test_a_run_outlives_its_plugins(site: Site, ipmgan_: Ipmgan) -> None:
    """Without them it is read, sampled from and cited as far as that goes; with them it goes on to the bit."""
    site.install("acme-gap", GOOD)
    site.install("acme-halve", HEAD + HALVE)
    flags = ["--lipschitz", "halve", "--source", "ring8"]
    assert ipmgan_(*GAP_RUN, *flags, "--out", "run").code == 0
    assert ipmgan_(*GAP_RUN, *flags, "--steps", "8", "--out", "whole").code == 0
    before, cited = ipmgan.load("run"), ipmgan_("cite", "run").out
    samples, metrics = before.sample(5), before.metrics
    assert "% objective gap\n@article{gap2020," in cited
    site.uninstall("acme-gap")
    site.uninstall("acme-halve")

    run = ipmgan.load("run")
    assert run.metrics == metrics
    assert run.settings["objective"] == {"name": "gap"}
    assert torch.equal(run.sample(5), samples)
    assert ipmgan_("sample", "run", "--out", "points.npy").code == 0
    left = ipmgan_("cite", "run")
    assert (left.code, "gap2020" in left.out, "bonneel2015sliced" in left.out) == (0, False, True)
    assert "the objective gap is not known" in left.err
    with pytest.raises(CheckpointError, match=r"acme-gap 1\.2, which is not installed"):
        _ = run.config
    refused(ipmgan_("resume", "run", "--steps", "8"), 4, "no objective 'gap'", "acme-gap 1.2, which is not installed")

    site.install("acme-gap", GOOD)
    site.install("acme-halve", HEAD + HALVE)
    assert ipmgan_("cite", "run").out == cited
    assert ipmgan_("resume", "run", "--steps", "8").code == 0
    assert torch.equal(ipmgan.load("run").sample(5), ipmgan.load("whole").sample(5))


def test_samples_need_the_generator_s_plugin(site: Site, ipmgan_: Ipmgan) -> None:
    network = '''
        @attrs.frozen(kw_only=True)
        class Affine(Network):
            """One affine map."""

            name = "affine"

            def generator(self, latent, sample):
                return torch.nn.Linear(latent, sample.shape[0])

        @hookimpl
        def ipmgan_networks():
            return [Affine]
    '''
    site.install("acme-affine", HEAD + textwrap.dedent(network))
    flags = ["--generator", "affine", "--lipschitz", "clip", "--out", "run"]
    assert ipmgan_("train", "--objective", "wgan", "--source", "ring8", *TINY, "--steps", "2", *flags).code == 0
    site.uninstall("acme-affine")
    assert ipmgan.load("run").metrics[-1]["step"] == 2
    refused(ipmgan_("sample", "run"), 4, "no network 'affine'", "acme-affine 1.2, which is not installed")


@pytest.mark.parametrize("version", ["1.1", "1.10", "2.0rc1"])
def test_another_version_is_refused_by_name(site: Site, ipmgan_: Ipmgan, version: str) -> None:
    site.install("acme-gap", GOOD)
    assert ipmgan_(*GAP_RUN, "--out", "run").code == 0
    site.install("acme-gap", GOOD, version=version)
    refused(ipmgan_("resume", "run", "--steps", "6"), 4, f"saved with acme-gap 1.2, here {version}")
    assert ipmgan_("sample", "run", "--out", "points.npy").code == 0
    site.install("acme-gap", GOOD.replace('"gap"', '"gap-2"', 1), version=version)
    refused(ipmgan_("resume", "run", "--steps", "6"), 4, "no objective 'gap'", f"acme-gap 1.2, here it is {version}")
    site.install("acme-gap", "raise ImportError('gone')", version="1.2")
    refused(ipmgan_("resume", "run", "--steps", "6"), 4, "no objective 'gap'", "acme-gap 1.2: ImportError: gone")
    site.install("acme-gap", GOOD)
    assert ipmgan_("resume", "run", "--steps", "6").code == 0


def test_a_run_says_that_its_plugin_is_left_out(site: Site, ipmgan_: Ipmgan, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("acme-gap", GOOD)
    assert ipmgan_(*GAP_RUN, "--out", "run").code == 0
    monkeypatch.setenv(SWITCH, "none")
    registry.cache_clear()
    refused(ipmgan_("resume", "run"), 4, f"left out by {SWITCH}: acme-gap 1.2")


# Plugins that break their contract in a run

LOSSES = {
    "a batch": ("return fake - real", "critic loss of gap", "scalar"),
    "a number": ("return 0.5", "critic loss of gap", "float"),
    "nothing": ("pass", "critic loss of gap", "NoneType"),
    "cut off": ("return (fake.mean() - real.mean()).detach()", "critic loss of gap", "requires_grad=False"),
    "whole numbers": ("return (fake.mean() - real.mean()).long()", "critic loss of gap", "int64"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_is_none_names_its_plugin(site: Site, ipmgan_: Ipmgan, case: str) -> None:
    source, *parts = LOSSES[case]
    site.install("acme-gap", GOOD.replace("return fake.mean() - real.mean()", source, 1))
    done = ipmgan_(*GAP_RUN, "--out", "run")
    assert done.code == 2
    for part in parts:
        assert part in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


ONCE = '''
class Once(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient):
        return 2 * context.saved_tensors[0] * gradient

class Square(torch.nn.Module):
    def forward(self, x):
        return Once.apply(x)

@attrs.frozen(kw_only=True)
class OnceNetwork(Network):
    """A critic whose gradient has none."""

    name = "once"
    norm: str = option("none", help="normalisation", choices=("none", "batch"))

    @property
    def critic_kinds(self):
        return frozenset({CriticKind.SCORE})

    def critic(self, sample, kind, *, per_sample):
        norm = [torch.nn.BatchNorm1d(8)] if self.norm == "batch" else []
        return torch.nn.Sequential(torch.nn.Linear(2, 8), *norm, Square(), torch.nn.Linear(8, 1), torch.nn.Flatten(0))

@hookimpl
def ipmgan_networks():
    return [OnceNetwork]
'''


@pytest.mark.parametrize(
    ("critic", "parts"),
    [
        ("once", ("gp differentiates the critic twice", "once")),
        ("once:norm=batch", ("depends on that sample alone", "once has batch norm")),
    ],
)
def test_a_penalty_on_a_critic_that_it_is_wrong_for_is_refused(
    site: Site, ipmgan_: Ipmgan, critic: str, parts: tuple[str, str]
) -> None:
    site.install("acme-once", HEAD + ONCE)
    arguments = ["train", "--objective", "wgan", "--lipschitz", "gp", "--source", "ring8", *TINY, "--critic", critic]
    refused(ipmgan_(*arguments, "--steps", "2", "--out", "run"), 2, *parts)
    assert not Path("run").exists()
    clipped = [word if word != "gp" else "clip" for word in arguments]
    assert ipmgan_(*clipped, "--steps", "2", "--out", "run").code == 0


TRACKER = """
class Failing(Tracking):
    def log(self, record):
        torch.rand(1)
        raise ConnectionError("offline")

@attrs.frozen(kw_only=True)
class Offline(Tracker):
    name = "offline"
    late: bool = option(True, help="fails when it logs, not when it opens")

    def open(self, run, settings):
        if not self.late:
            raise ConnectionError("offline")
        return Failing()

@hookimpl
def ipmgan_trackers():
    return [Offline]
"""


def test_a_tracker_that_fails_changes_nothing(site: Site, ipmgan_: Ipmgan) -> None:
    site.install("acme-offline", HEAD + TRACKER)
    wgan = ["train", "--objective", "wgan", "--lipschitz", "clip", "--source", "ring8", *TINY, "--steps", "6"]
    assert ipmgan_(*wgan, "--log-every", "2", "--out", "alone").code == 0
    for late in ("true", "false"):
        done = ipmgan_(*wgan, "--log-every", "2", "--tracker", f"offline:late={late}", "--out", late)
        assert done.code == 0
        (warning,) = [line for line in done.err.splitlines() if "offline" in line]
        assert warning.startswith("warning: ")
        assert torch.equal(ipmgan.load(late).sample(9), ipmgan.load("alone").sample(9))
