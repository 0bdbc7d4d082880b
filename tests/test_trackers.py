"""Trackers: what they are told, and that nothing they do reaches the run."""

from __future__ import annotations

import csv
import importlib.machinery
import importlib.metadata
import json
import math
import random
import sys
import tomllib
import types
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ipmgan
from ipmgan import CSV, DivergedError, PluginError, Registry, TensorBoard, Trainer, UsageError, hookimpl, option
from ipmgan.cli.app import main
from ipmgan.config import configure, from_table, read_toml, resolve
from ipmgan.engine import checkpoint
from ipmgan.engine.rundir import RunDir
from ipmgan.engine.state import capture
from ipmgan.engine.step import Step
from ipmgan.registry import registry
from ipmgan.trackers import Tracker, Tracking

TINY: dict[str, Any] = {
    "objective": "wgan",
    "lipschitz": "clip",
    "source": "ring8",
    "generator": "mlp:width=8,depth=1",
    "latent": "normal:dim=2",
    "batch": 16,
    "n_critic": 1,
    "steps": 6,
    "device": "cpu",
    "log_every": 1,
    "sample_every": 2,
    "checkpoint_every": 2,
    "held_out_batches": 1,
    "metrics": [],
}
RATES = ("steps_per_second", "samples_per_second")
PLACES = ("open", "log", "picture", "close")
Event = tuple[str, Any]
EVENTS: list[Event] = []
"""What the trackers of these tests were told, in order; emptied before each test."""


class Noting(Tracking):
    """Notes all it is told."""

    def log(self, record: Mapping[str, Any]) -> None:
        EVENTS.append(("log", record))

    def picture(self, step: int, path: Path) -> None:
        EVENTS.append(("picture", (step, path, path.is_file())))

    def close(self) -> None:
        EVENTS.append(("close", None))


@attrs.frozen(kw_only=True)
class Note(Tracker):
    """Notes all it is told."""

    name = "note"

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        EVENTS.append(("open", (run, settings)))
        return Noting()


class Fails(Tracking):
    """Notes what it is told, until it raises."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    def log(self, record: Mapping[str, Any]) -> None:
        if record["step"] >= self._fail.step:
            self._fail.at("log")

    def picture(self, step: int, path: Path) -> None:
        self._fail.at("picture")

    def close(self) -> None:
        self._fail.at("close")


@attrs.frozen(kw_only=True)
class Fail(Tracker):
    """Raises at one place."""

    name = "fail"

    where: str = option("log", help="the method that raises", choices=(*PLACES, "check"))
    how: str = option("offline", help="what it raises", choices=("offline", "exit", "warning"))
    step: int = option(0, help="the first line of metrics at which `log` does")

    def at(self, place: str) -> None:
        EVENTS.append((f"fail {place}", None))
        if place == self.where and self.how == "warning":
            warnings.warn("an old interface", DeprecationWarning, stacklevel=2)
        elif place == self.where:
            raise SystemExit("bye") if self.how == "exit" else ConnectionError("no route\nto host")

    def check(self) -> None:
        if self.where == "check":
            raise UsageError("the tracker fail needs a network")

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        self.at("open")
        return Fails(self)


class Meddling(Tracking):
    """Draws from every global generator, and empties what it is given."""

    def log(self, record: Any) -> None:
        meddle()
        for value in record.values():
            if isinstance(value, dict):
                value.clear()
        record.clear()

    def picture(self, step: int, path: Path) -> None:
        meddle()

    def close(self) -> None:
        meddle()


def meddle() -> None:
    torch.manual_seed(0)
    torch.rand(100)
    nn.Linear(3, 3)
    random.random()


@attrs.frozen(kw_only=True)
class Meddle(Tracker):
    """Draws from every global generator, and empties what it is given."""

    name = "meddle"

    def open(self, run: Path, settings: Any) -> Tracking:
        meddle()
        settings["objective"].clear()
        settings.clear()
        return Meddling()


@attrs.frozen(kw_only=True)
class Nothing(Tracker):
    """Forgets to return something."""

    name = "nothing"

    def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
        return None  # type: ignore[return-value]


class Offered:
    @hookimpl
    def ipmgan_trackers(self) -> list[type[Tracker]]:
        return [Note, Fail, Meddle, Nothing]


@attrs.frozen(eq=False)
class Point:
    """An entry point of a distribution that is not really installed."""

    dist: Any
    name: str = "all"

    def load(self) -> Offered:
        return Offered()


def draw_fast(path: Path, fake: Tensor, *more: Any) -> None:
    """Stands in for the plot of points, which takes longer than all else here."""
    Image.fromarray((fake[:16, :2].sigmoid() * 255).byte().numpy()).save(path)


@pytest.fixture(autouse=True, scope="module")
def fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ipmgan.engine.loop.draw_samples", draw_fast)
        yield


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The trackers above, as a distribution offers them."""
    offer(monkeypatch, [Point(dist=SimpleNamespace(name="others", version="1.0"))])
    EVENTS.clear()
    yield
    monkeypatch.undo()
    registry.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, points: list[Point]) -> None:
    """Leave these plugins as the only ones that are installed."""
    real = importlib.metadata.entry_points
    found = lambda **chosen: points if chosen.get("group") == "ipmgan" else real(**chosen)  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "entry_points", found)
    monkeypatch.delenv("IPMGAN_PLUGINS", raising=False)
    registry.cache_clear()


def go_on(trainer: Trainer, stop_at: int | None = None) -> Trainer:
    for _ in trainer:
        if trainer.step == stop_at:
            trainer.stop()
    return trainer


def lines(path: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in RATES} for line in ipmgan.load(path).metrics]


def assert_same_run(a: Path, b: Path) -> None:
    """Equal to the bit: what the last checkpoint holds, lines of metrics, pictures."""
    ours, theirs = (checkpoint.load_latest(path / "checkpoints") for path in (a, b))
    assert ours is not None
    assert theirs is not None
    assert ours.step == theirs.step
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(tensor, theirs.tensors[key]) for key, tensor in ours.tensors.items())
    assert lines(a) == lines(b)
    assert pictures(a) == pictures(b)


def pictures(path: Path) -> dict[str, bytes]:
    return {picture.name: picture.read_bytes() for picture in (path / "samples").iterdir()}


def names(kind: str = "") -> list[str]:
    return [name for name, _ in EVENTS if name.startswith(kind)]


# --- what a tracker is told ------------------------------------------------------------------------------------------


def test_a_tracker_is_told_everything_in_order(tmp_path: Path) -> None:
    yielded = list(Trainer(out=tmp_path / "run", tracker=["note"], **TINY))
    first, *middle, last = EVENTS
    settings = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert first == ("open", (tmp_path / "run", settings))
    assert last == ("close", None)
    assert [what for name, what in middle if name == "log"] == yielded == ipmgan.load(tmp_path / "run").metrics
    seen = [(2 * n, tmp_path / "run" / "samples" / f"{2 * n:09d}.png", True) for n in (1, 2, 3)]
    assert [what for name, what in middle if name == "picture"] == seen
    assert [name for name, _ in middle] == ["log", *["log", "picture", "log"] * 2, "log", "picture"]


def test_a_tracker_may_override_nothing(tmp_path: Path) -> None:
    tracking = Tracking()
    tracking.log({"step": 1})
    tracking.picture(1, tmp_path)
    tracking.close()


def test_a_resumed_run_goes_on_being_tracked(tmp_path: Path) -> None:
    run = tmp_path / "run"
    go_on(Trainer(out=run, tracker=["note"], **TINY), stop_at=3)
    assert names() == ["open", "log", "log", "picture", "log", "close"]
    EVENTS.clear()
    Trainer.resume(run, steps=8).train()
    (_, (path, settings)), *_ = EVENTS
    assert (path, settings["steps"], settings["tracker"]) == (run, 8, [{"name": "note"}])
    assert [what["step"] for name, what in EVENTS if name == "log"] == [4, 5, 6, 7, 8]
    assert names()[-1] == "close"


def test_a_run_without_a_step_to_do_opens_nothing(tmp_path: Path) -> None:
    trainer = Trainer(out=tmp_path / "run", tracker=["note"], **TINY)
    trainer.train()
    EVENTS.clear()
    assert list(trainer) == []
    Trainer.resume(tmp_path / "run").train()
    assert EVENTS == []


def test_tracking_ends_however_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(Trainer(out=tmp_path / "left", tracker=["note"], **TINY))
    next(left)
    assert names("close") == []
    left.close()  # type: ignore[attr-defined]
    assert names("close") == ["close"]

    def diverge(step: Step) -> None:
        raise DivergedError("the critic loss of wgan is not finite")

    trainer = Trainer(out=tmp_path / "diverged", tracker=["note"], **TINY)
    monkeypatch.setattr(Step, "check_finite", diverge)
    with pytest.raises(DivergedError):
        trainer.train()
    assert names("close") == ["close"] * 2


# --- what a tracker cannot do ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, fast: None) -> Path:
    """The run without a tracker."""
    path = tmp_path_factory.mktemp("plain") / "run"
    ipmgan.train(out=path, **TINY)
    return path


CALLS = {"open": 1, "log": 6, "picture": 3, "close": 1}


@pytest.mark.parametrize("how", ["offline", "exit", "warning"])
@pytest.mark.parametrize("where", PLACES)
def test_one_that_fails_is_off_and_the_run_is_the_same(tmp_path: Path, plain: Path, where: str, how: str) -> None:
    trackers = ["note", f"fail:where={where},how={how}", "note"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if how == "warning":
            warnings.simplefilter("error", DeprecationWarning)
        ipmgan.train(out=tmp_path / "run", tracker=trackers, **TINY)
    (warning,) = (each for each in caught if "tracker" in str(each.message))
    said = str(warning.message)
    reason = {
        "offline": "ConnectionError: no route to host",
        "exit": "SystemExit: bye",
        "warning": "DeprecationWarning: an old interface",
    }[how]
    assert said == f"the tracker fail is off from here on: {reason}"
    assert names("fail").count(f"fail {where}") == 1, "it was called again"
    assert names("fail")[-1] == f"fail {where}"
    for place, count in CALLS.items():
        assert names().count(place) == 2 * count, "the others were not left alone"
    assert_same_run(tmp_path / "run", plain)


def test_one_that_fails_later_was_told_until_then(tmp_path: Path, plain: Path) -> None:
    with pytest.warns(UserWarning, match="the tracker fail is off from here on"):
        ipmgan.train(out=tmp_path / "run", tracker=["fail:step=4"], **TINY)
    assert names("fail log") == ["fail log"]
    assert names("fail close") == []
    assert names("fail picture") == ["fail picture"]
    assert_same_run(tmp_path / "run", plain)


def test_one_that_fails_is_tried_again_when_the_run_is_resumed(tmp_path: Path, plain: Path) -> None:
    with pytest.warns(UserWarning, match="fail is off"):
        go_on(Trainer(out=tmp_path / "run", tracker=["fail"], **TINY), stop_at=3)
    with pytest.warns(UserWarning, match="fail is off"):
        Trainer.resume(tmp_path / "run").train()
    assert names("fail open") == ["fail open"] * 2
    assert_same_run(tmp_path / "run", plain)


def test_one_that_draws_and_meddles_changes_nothing(tmp_path: Path, plain: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    yielded = list(Trainer(out=tmp_path / "run", tracker=["meddle", "note"], **TINY))
    assert torch.equal(before, torch.random.get_rng_state())
    assert [what for name, what in EVENTS if name == "log"] == yielded
    assert all(record is not None and record["step"] for record in yielded)
    (_, (_, settings)), *_ = EVENTS
    assert settings["objective"] == {"name": "wgan"}
    assert_same_run(tmp_path / "run", plain)


def test_drawing_would_be_seen() -> None:
    before = torch.random.get_rng_state()
    meddle()
    assert not torch.equal(before, torch.random.get_rng_state())


def test_one_that_returns_nothing_is_off(tmp_path: Path, plain: Path) -> None:
    with pytest.warns(UserWarning, match="nothing is off from here on: TypeError: open must return a Tracking, not No"):
        ipmgan.train(out=tmp_path / "run", tracker=["nothing"], **TINY)
    assert_same_run(tmp_path / "run", plain)


def test_ctrl_c_is_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(tracking: Tracking, record: Mapping[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Noting, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ipmgan.train(out=tmp_path / "run", tracker=["note"], **TINY)
    assert names("close") == ["close"]


@pytest.mark.parametrize("replicates", [None, 2])
def test_what_a_tracker_lacks_is_said_before_a_run_is_made(tmp_path: Path, replicates: int | None) -> None:
    with pytest.raises(UsageError, match="the tracker fail needs a network"):
        ipmgan.train(out=tmp_path / "run", tracker=["fail:where=check"], replicates=replicates, **TINY)
    assert not (tmp_path / "run").exists()


def test_a_check_that_breaks_is_a_refusal_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(tracker: Tracker) -> None:
        raise RuntimeError("no licence")

    monkeypatch.setattr(Note, "check", broken)
    with pytest.raises(PluginError, match="the tracker note cannot be used: RuntimeError: no licence"):
        Trainer(out=tmp_path / "run", tracker=["note"], **TINY)


def test_a_run_goes_on_where_its_tracker_lacks_something(tmp_path: Path, plain: Path) -> None:
    go_on(Trainer(out=tmp_path / "run", tracker=["fail:where=picture"], **TINY), stop_at=1)
    config = (tmp_path / "run" / "config.toml").read_text()
    (tmp_path / "run" / "config.toml").write_text(config.replace('"picture"', '"check"'))
    Trainer.resume(tmp_path / "run").train()
    assert_same_run(tmp_path / "run", plain)


def test_another_class_under_the_name_is_refused(tmp_path: Path) -> None:
    @attrs.frozen(kw_only=True)
    class Other(Tracker):
        name = "note"

        def open(self, run: Path, settings: Mapping[str, Any]) -> Tracking:
            return Tracking()

    with pytest.raises(PluginError, match="the tracker 'note' is Note of others"):
        Trainer(attrs.evolve(configure(**TINY), trackers=(Other(),)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- trackers are no part of the result ------------------------------------------------------------------------------


def test_trackers_come_and_go_between_parts_of_a_run(tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "run"
    go_on(Trainer(out=run, tracker=["note", "csv"], **TINY), stop_at=3)
    config = RunDir(run).config()
    for trackers in ((), (Meddle(),)):
        RunDir(run).write_config(attrs.evolve(config, trackers=trackers))
        EVENTS.clear()
        trainer = Trainer.resume(run)
        assert "others" not in capture(trainer._parts, trainer._step).versions
        go_on(trainer, stop_at=trainer.step + 1)
    assert EVENTS == []
    Trainer.resume(run).train()
    assert_same_run(run, plain)


# --- replicates ------------------------------------------------------------------------------------------------------


def test_each_replicate_is_tracked_in_its_own_directory(tmp_path: Path) -> None:
    settings = TINY | {"seed": 3, "steps": 4}
    ipmgan.train(out=tmp_path / "plain", replicates=2, **settings)
    with pytest.warns(UserWarning, match="fail is off") as caught:
        ipmgan.train(out=tmp_path / "run", replicates=2, tracker=["fail", "note", "csv"], **settings)
    assert len([warning for warning in caught if "fail is off" in str(warning.message)]) == 2
    opened = [what for name, what in EVENTS if name == "open"]
    assert [(path, settings["seed"]) for path, settings in opened] == [
        (tmp_path / "run" / f"seed-{seed}", seed) for seed in (3, 4)
    ]
    assert names("close") == ["close"] * 2
    for seed in (3, 4):
        assert_same_run(tmp_path / "run" / f"seed-{seed}", tmp_path / "plain" / f"seed-{seed}")
        assert_is_table_of(tmp_path / "run" / f"seed-{seed}")
    EVENTS.clear()
    with pytest.warns(UserWarning, match="fail is off"):
        ipmgan.resume(tmp_path / "run", steps=6)
    assert names("open") == ["open"] * 2
    assert sorted(what["step"] for name, what in EVENTS if name == "log") == [5, 5, 6, 6]
    assert_is_table_of(tmp_path / "run" / "seed-4")


# --- the table -------------------------------------------------------------------------------------------------------


def assert_is_table_of(run: Path) -> None:
    with (run / "metrics.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["step", "name", "value"]
    wanted = [
        [str(line["step"]), name, value]
        for line in ipmgan.load(run).metrics
        for name, value in line.items()
        if name != "step" and value is not None
    ]
    assert [row[:2] for row in rows] == [row[:2] for row in wanted]
    assert [float(row[2]) for row in rows] == [row[2] for row in wanted]


def test_the_table_has_every_number(tmp_path: Path) -> None:
    ipmgan.train(out=tmp_path / "run", tracker=["csv"], **TINY | {"metrics": ["sliced-wasserstein:directions=4"]})
    assert_is_table_of(tmp_path / "run")
    assert ",sliced-wasserstein," in (tmp_path / "run" / "metrics.csv").read_text()


def test_the_table_forgets_what_the_run_forgets(tmp_path: Path) -> None:
    """As after a crash at step 5 with the last checkpoint at step 4."""
    run = tmp_path / "run"
    for _, _record in zip(range(5), Trainer(out=run, tracker=["csv"], **TINY), strict=False):
        pass
    with (run / "metrics.csv").open("a") as file:
        file.write("6,critic_lo")
    assert [line["step"] for line in ipmgan.load(run).metrics][-1] == 5
    ipmgan.resume(run)
    assert_is_table_of(run)


def test_the_table_says_what_is_not_finite(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    tracking = CSV().open(tmp_path, {})
    tracking.log({"step": 3, "a": math.nan, "b": math.inf, "c": None, "d": True, "e": {"f": 1}})
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,name,value", "3,a,nan", "3,b,inf", "3,d,True"]


# --- TensorBoard -----------------------------------------------------------------------------------------------------


class Writer:
    """Stands in for torch's writer of events."""

    def __init__(self, folder: str, purge_step: int) -> None:
        EVENTS.append(("writer", (Path(folder), purge_step)))

    def add_text(self, tag: str, text: str) -> None:
        EVENTS.append(("text", (tag, text)))

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        EVENTS.append(("scalar", (step, tag, value)))

    def add_image(self, tag: str, pixels: Any, step: int, dataformats: str) -> None:
        EVENTS.append(("image", (step, tag, pixels.shape[2], pixels.dtype, dataformats)))

    def flush(self) -> None:
        EVENTS.append(("flush", None))

    def close(self) -> None:
        EVENTS.append(("close", None))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        module: Any = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.SummaryWriter = Writer
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.usefixtures("writer")
def test_tensorboard_gets_settings_numbers_and_pictures(tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "run"
    go_on(Trainer(out=run, tracker=["tensorboard"], **TINY), stop_at=4)
    opened, (_, (tag, text)), *_ = EVENTS
    assert opened == ("writer", (run / "tensorboard", 0))
    assert tag == "settings"
    assert tomllib.loads(text.removeprefix("```\n").removesuffix("```")) == RunDir(run).config().table()
    wanted = [(line["step"], name, value) for line in ipmgan.load(run).metrics for name, value in line.items()]
    assert [what for name, what in EVENTS if name == "scalar"] == wanted
    assert [what for name, what in EVENTS if name == "image"] == [(n, "samples", 3, np.uint8, "HWC") for n in (2, 4)]
    assert names()[-1] == "close"
    EVENTS.clear()
    ipmgan.resume(run)
    assert EVENTS[0] == ("writer", (run / "tensorboard", 5)), "what comes again replaces what was written"
    assert_same_run(run, plain)


@pytest.mark.usefixtures("writer")
def test_tensorboard_leaves_pictures_out_where_told(tmp_path: Path) -> None:
    ipmgan.train(out=tmp_path / "run", tracker=["tensorboard:pictures=false"], **TINY)
    assert names("image") == []
    assert len(names("scalar")) > 0


def test_without_tensorboard_a_run_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError) as caught:
        Trainer(out=tmp_path / "run", tracker=["tensorboard"], **TINY)
    assert str(caught.value) == 'the tracker tensorboard needs a package: pip install "ipmgan[tensorboard]"'
    assert not (tmp_path / "run").exists()


def test_without_tensorboard_a_run_that_had_it_goes_on(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, writer: None
) -> None:
    go_on(Trainer(out=tmp_path / "run", tracker=["tensorboard"], **TINY), stop_at=3)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    ipmgan.load(tmp_path / "run").sample(3)
    with pytest.warns(UserWarning, match=r"tensorboard is off from here on: the tracker tensorboard needs a package"):
        ipmgan.resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", plain)


def test_tensorboard_itself_reads_what_was_written(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        run = tmp_path / "run"
        for _, _record in zip(range(5), Trainer(out=run, tracker=["tensorboard"], **TINY), strict=False):
            pass
        ipmgan.resume(run)
        events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("held_out_estimate", "critic_loss"):
        written = {event.step: event.value for event in events.Scalars(name)}
        wanted = {line["step"]: line[name] for line in ipmgan.load(run).metrics}
        assert written == pytest.approx(wanted, rel=1e-6)
        assert [event.step for event in events.Scalars(name)] == list(range(1, 7))
    assert [image.step for image in events.Images("samples")] == [2, 4, 6]


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_configuration_has_no_trackers_unless_told(tmp_path: Path) -> None:
    config = configure(**TINY)
    assert config.trackers == ()
    file = tmp_path / "config.toml"
    file.write_text(config.toml())
    assert read_toml(file)["tracker"] == []
    assert from_table(read_toml(file)) == config


def test_trackers_come_back_from_their_file(tmp_path: Path) -> None:
    words = configure(**TINY, tracker=["csv", "tensorboard:pictures=false"])
    objects = configure(**TINY, tracker=(CSV(), TensorBoard(pictures=False)))
    assert words == objects
    assert words.trackers == (CSV(), TensorBoard(pictures=False))
    assert not set(words.trackers) & set(words.plugins)
    file = tmp_path / "config.toml"
    file.write_text(words.toml())
    assert read_toml(file)["tracker"] == [{"name": "csv"}, {"name": "tensorboard", "pictures": False}]
    assert resolve(read_toml(file)) == from_table(read_toml(file)) == words
    assert configure(config=file, steps=9).trackers == words.trackers
    assert configure(config=file, tracker=[]).trackers == ()
    file.write_text('[[tracker]]\nname = "csv"\n[[tracker]]\nname = "tensorboard"\npictures = false\n')
    assert configure(config=file, **TINY) == words


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["tensorbord"], "did you mean 'tensorboard'"),
        (["tensorboard:picture=false"], "did you mean 'pictures'"),
        (["tensorboard:pictures=1"], "pictures"),
        ("csv", "tracker = 'csv': must be a list of trackers"),
        ({"name": "csv"}, "must be a list of trackers"),
        ([3], "tracker = 3"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(**TINY, tracker=given)
    assert says in str(caught.value)


def test_a_tracker_nobody_offers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on(Trainer(out=tmp_path / "run", tracker=["note"], **TINY), stop_at=2)
    offer(monkeypatch, [])
    with pytest.raises(ipmgan.CheckpointError, match="no tracker 'note'"):
        Trainer.resume(tmp_path / "run")


def test_the_built_in_trackers() -> None:
    assert [entry.plugin for entry in Registry().entries("tracker")] == [CSV, TensorBoard]


# --- the command line ------------------------------------------------------------------------------------------------


@attrs.frozen
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    monkeypatch.setattr(sys, "argv", ["ipmgan", *arguments])
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as stopped:
            main()
    code: Any = stopped.value.code
    return Done(code or 0, *capsys.readouterr())


def test_the_command_line_takes_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ipmgan.cli.display.draw_curves", lambda run: run / "curves.png")
    words = ["--objective", "wgan", "--lipschitz", "clip", "--source", "ring8", "--generator", "mlp:width=8,depth=1"]
    words += ["--batch", "16", "--device", "cpu", "--steps", "3", "--log-every", "1"]
    trackers = ["--tracker", "csv", "--tracker", "fail:how=exit"]
    done = call(monkeypatch, capsys, "train", *words, *trackers, "--out", "run")
    assert done.code == 0
    assert done.err == "warning: the tracker fail is off from here on: SystemExit: bye\n"
    assert_is_table_of(Path("run"))
    planned = call(monkeypatch, capsys, "train", "--config", "run/config.toml", "--dry-run", "--json")
    wanted = [{"name": "csv"}, {"name": "fail", "where": "log", "how": "exit", "step": 0}]
    assert json.loads(planned.out)["config"]["tracker"] == wanted
    replaced = call(
        monkeypatch, capsys, "train", "--config", "run/config.toml", "--tracker", "csv", "--dry-run", "--json"
    )
    assert json.loads(replaced.out)["config"]["tracker"] == [{"name": "csv"}]
    refused = call(monkeypatch, capsys, "train", *words, "--tracker", "csw")
    assert (refused.code, refused.err) == (
        2,
        "error: no tracker 'csw': did you mean 'csv'? Allowed: csv, fail, meddle, note, nothing, tensorboard\n",
    )


def test_plugins_are_listed_and_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(call(monkeypatch, capsys, "plugins", "list", "--kind", "tracker", "--json").out)
    assert {row["name"] for row in listed} == {"csv", "tensorboard", "note", "fail", "meddle", "nothing"}
    page = call(monkeypatch, capsys, "plugins", "show", "tensorboard").out
    for part in ("Tracker `tensorboard`", "`pictures`", 'pip install "ipmgan[tensorboard]"'):
        assert part in page
