"""Checkpoints: whole or not at all, every damage found, the last valid one never lost, nothing ever unpickled."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ipmgan.engine import checkpoint
from ipmgan.engine.checkpoint import MANIFEST, SCALARS, STATE, Snapshot
from ipmgan.errors import CheckpointError


def snapshot(step: int, size: int = 100) -> Snapshot:
    tensors = {
        "weights": torch.randn(size, generator=torch.Generator().manual_seed(step)),
        "count": torch.tensor(step),
        "state": torch.arange(7, dtype=torch.uint8),
    }
    scalars = {"critic_steps": 5 * step, "optimizer": {"betas": [0.0, 0.9], "foreach": None}}
    return Snapshot(step=step, tensors=tensors, scalars=scalars, versions={"torch": "2", "ipmgan": "0"})


def same(a: Snapshot | None, b: Snapshot) -> bool:
    return (
        a is not None
        and (a.step, a.scalars, a.versions) == (b.step, b.scalars, b.versions)
        and a.tensors.keys() == b.tensors.keys()
        and all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
    )


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with checkpoints of steps 10 and 20."""
    for step in (10, 20):
        checkpoint.save(tmp_path, snapshot(step), keep=3)
    return tmp_path


def falls_back(folder: Path) -> None:
    with pytest.warns(UserWarning, match="going back to step 10"):
        assert same(checkpoint.load_latest(folder), snapshot(10))


def reseal(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Forge a manifest: change it, with sums that agree."""
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["seal"]
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest | {"seal": checkpoint._seal(manifest)}))


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file of a checkpoint, with sums that agree."""
    (path / name).write_bytes(content)
    entry = {"sha256": checkpoint._sha256(path / name), "size": len(content)}
    reseal(path, lambda manifest: manifest["files"].update({name: entry}))


def test_what_is_saved_comes_back_to_the_bit(two: Path) -> None:
    assert same(checkpoint.load_latest(two), snapshot(20))
    assert sorted(path.name for path in (two / "000000020").iterdir()) == sorted((STATE, SCALARS, MANIFEST))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.load_latest(tmp_path) is None
    assert checkpoint.load_latest(tmp_path / "missing") is None
    (tmp_path / "000000001²").mkdir()
    assert checkpoint.load_latest(tmp_path) is None


def test_every_flipped_bit_is_found(two: Path) -> None:
    draw = random.Random(0)
    path = two / "000000020"
    for name in (STATE, SCALARS, MANIFEST):
        whole = (path / name).read_bytes()
        for _ in range(100):
            bit = draw.randrange(8 * len(whole))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            (path / name).write_bytes(damaged)
            with pytest.raises(checkpoint.DamagedError):
                checkpoint.load(path)
        falls_back(two)
        (path / name).write_bytes(whole)
    assert same(checkpoint.load_latest(two), snapshot(20))


def test_every_truncation_is_found(two: Path) -> None:
    draw = random.Random(1)
    path = two / "000000020"
    for name in (STATE, SCALARS, MANIFEST):
        whole = (path / name).read_bytes()
        for length in {0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(65))}:
            (path / name).write_bytes(whole[:length])
            with pytest.raises(checkpoint.DamagedError):
                checkpoint.load(path)
        falls_back(two)
        (path / name).unlink()
        falls_back(two)
        (path / name).write_bytes(whole)


def test_where_all_are_damaged_nothing_starts_from_scratch(two: Path) -> None:
    for step in (10, 20):
        (two / f"{step:09d}" / STATE).write_bytes(b"")
    with pytest.raises(CheckpointError, match="no valid checkpoint is left") as caught:
        checkpoint.load_latest(two)
    assert caught.value.exit_code == 4


def test_the_last_k_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        checkpoint.save(tmp_path, snapshot(step), keep=2)
    assert checkpoint.steps(tmp_path) == [5, 6]


def test_damaged_ones_do_not_count_towards_those_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, snapshot(step), keep=3)
    for step in (2, 3):
        (checkpoint.path_of(tmp_path, step) / STATE).write_bytes(b"")
    checkpoint.save(tmp_path, snapshot(4), keep=2)
    assert checkpoint.steps(tmp_path) == [1, 4]


def test_a_run_that_went_back_never_prunes_what_it_just_wrote(tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoint.save(tmp_path, snapshot(step), keep=1 if step == 10 else 2)
    (checkpoint.path_of(tmp_path, 20) / STATE).write_bytes(b"")
    falls_back(tmp_path)
    checkpoint.save(tmp_path, snapshot(15), keep=1)
    assert same(checkpoint.load_latest(tmp_path), snapshot(15))
    checkpoint.save(tmp_path, snapshot(20), keep=1)
    assert same(checkpoint.load_latest(tmp_path), snapshot(20))


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(two: Path) -> None:
    (two / "000000020" / SCALARS).write_bytes(b"")
    checkpoint.save(two, snapshot(20), keep=3)
    assert same(checkpoint.load_latest(two), snapshot(20))


def test_what_a_killed_save_left_is_cleared(two: Path) -> None:
    (two / f"{checkpoint.TEMPORARY}000000030").mkdir()
    assert same(checkpoint.load_latest(two), snapshot(20))
    checkpoint.save(two, snapshot(40), keep=3)
    assert not list(two.glob(f"{checkpoint.TEMPORARY}*"))


class Crash(BaseException):
    """The process dies here."""


def interruptions(monkeypatch: pytest.MonkeyPatch, folder: Path, stop: int | None) -> int:
    """Save steps 20 (twice), 30 and 40, dying at the `stop`-th write, fsync, rename or removal; how many there were."""
    seen = 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == stop:
                raise Crash
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for module, name in ((os, "fsync"), (os, "rename"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")):
            patch.setattr(module, name, watched(getattr(module, name)))
        patch.setattr(checkpoint, "save_file", watched(checkpoint.save_file))
        for method in ("write_text", "rename", "mkdir"):
            patch.setattr(Path, method, watched(getattr(Path, method)))
        for step in (20, 20, 30, 40):
            checkpoint.save(folder, snapshot(step), keep=1)
    return seen


def test_a_crash_at_any_point_of_saving_loses_one_interval_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(name: str) -> Path:
        checkpoint.save(tmp_path / name, snapshot(10), keep=1)
        checkpoint.save(tmp_path / name, snapshot(20), keep=2)
        (tmp_path / name / "000000020" / SCALARS).write_text("damaged")
        return tmp_path / name

    count = interruptions(monkeypatch, fresh("whole"), None)
    assert count > 40
    for stop in range(1, count + 1):
        folder = fresh(str(stop))
        with pytest.raises(Crash):
            interruptions(monkeypatch, folder, stop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = checkpoint.load_latest(folder)
        assert found is not None
        assert same(found, snapshot(found.step))
        checkpoint.save(folder, snapshot(50), keep=1)
        assert checkpoint.steps(folder) == [50]


KILLING = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from ipmgan.engine import checkpoint

folder, times = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(2)

def save_for_ever(pipe):
    step = max(checkpoint.steps(folder), default=0)
    while True:
        step += 1
        tensors = {"weights": torch.full((100_000,), float(step))}
        checkpoint.save(folder, checkpoint.Snapshot(step=step, tensors=tensors, scalars={}, versions={}), keep=2)
        os.write(pipe, step.to_bytes(4))

for _ in range(times):
    end, pipe = os.pipe()
    child = os.fork()
    if not child:
        save_for_ever(pipe)
    os.close(pipe)
    told = os.read(end, 4)
    time.sleep(0.05 * draw.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(end, 4):
        told = more
    os.close(end)
    found = checkpoint.load_latest(folder)
    assert found.step >= int.from_bytes(told), (found.step, told)
    assert found.tensors["weights"].eq(found.step).all()
print("unharmed", times)
"""


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_kill_9_while_saving_leaves_the_last_one(tmp_path: Path, times: int) -> None:
    command = [sys.executable, "-W", "error", "-c", KILLING, str(tmp_path), str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == f"unharmed {times}\n", done.stderr


@pytest.mark.parametrize("place", ["save_file", "write_text", "fsync"])
def test_no_space_left(two: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        if place == "save_file":
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target: Any = {"save_file": checkpoint, "write_text": Path, "fsync": os}[place]
    with monkeypatch.context() as patch:
        patch.setattr(target, place, full)
        with pytest.raises(CheckpointError, match=r"no space left, 38\.1 MiB are needed.*untouched"):
            checkpoint.save(two, snapshot(30, size=10_000_000), keep=1)
    assert checkpoint.steps(two) == [10, 20]
    assert not list(two.glob(f"{checkpoint.TEMPORARY}*"))
    assert same(checkpoint.load_latest(two), snapshot(20))


def test_a_disk_without_room_for_two_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 80, 20))  # type: ignore[attr-defined]
    checkpoint.require_space(tmp_path, 10)
    with pytest.raises(CheckpointError, match="make room"):
        checkpoint.require_space(tmp_path, 11)


def test_links_and_ways_out_are_refused(two: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = two / "000000020"
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(path, outside / "whole")
    (path / STATE).unlink()
    (path / STATE).symlink_to(outside / "whole" / STATE)
    falls_back(two)
    shutil.rmtree(path)
    path.symlink_to(outside / "whole", target_is_directory=True)
    falls_back(two)
    path.unlink()
    shutil.copytree(outside / "whole", path)
    assert same(checkpoint.load_latest(two), snapshot(20))
    for name in ("../000000010/state.json", "/etc/passwd", "extra"):
        reseal(path, lambda manifest, name=name: manifest["files"].update({name: manifest["files"][SCALARS]}))  # type: ignore[misc]
        falls_back(two)
        reseal(path, lambda manifest, name=name: manifest["files"].pop(name))  # type: ignore[misc]


def test_a_renamed_checkpoint_is_not_another_step(two: Path) -> None:
    (two / "000000020").rename(two / "000000030")
    falls_back(two)


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_unpickled(two: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    canary = tmp_path_factory.mktemp("canary") / "sang"
    pickled = pickle.dumps(Canary(canary))
    pickle.loads(pickled)
    assert canary.exists()
    canary.unlink()
    torch.save(Canary(canary), archive := canary.with_suffix(".pt"))
    for name in (STATE, SCALARS):
        for content in (pickled, archive.read_bytes()):
            checkpoint.save(two, snapshot(20), keep=3)
            forge(two / "000000020", name, content)
            falls_back(two)
    (two / "000000020" / MANIFEST).write_bytes(pickled)
    falls_back(two)
    assert not canary.exists()


def test_another_schema_is_refused_not_skipped(two: Path) -> None:
    reseal(two / "000000020", lambda manifest: manifest.update(schema=checkpoint.SCHEMA + 1))
    with pytest.raises(CheckpointError, match="written in schema 2, this ipmgan reads 1"):
        checkpoint.load_latest(two)


@pytest.mark.parametrize(
    "manifest", [[], {"files": {}}, {"files": {STATE: 1, SCALARS: 2}}, {"files": 3, "versions": 4}]
)
def test_a_strange_manifest_is_damage(two: Path, manifest: Any) -> None:
    path = two / "000000020" / MANIFEST
    if isinstance(manifest, dict):
        manifest = {"schema": checkpoint.SCHEMA, "versions": {}} | manifest
        manifest["seal"] = checkpoint._seal(manifest)
    path.write_text(json.dumps(manifest))
    falls_back(two)
    path.write_text("[" * 100_000)
    falls_back(two)


def headers(whole: bytes, count: int) -> Iterator[bytes]:
    """safetensors files with forged headers: wild lengths, offsets, shapes, types, names and bytes."""
    draw = random.Random(3)
    length = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    wild = [-1, 0, 1, 2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 0.5, None, "1", [], {}]
    for _ in range(count):
        forged = json.loads(json.dumps(header))
        entry = forged[draw.choice(["weights", "count", "state"])]
        match draw.randrange(6):
            case 0:
                entry["data_offsets"][draw.randrange(2)] = draw.choice(wild)
            case 1:
                entry["shape"] = draw.choice([[wild_number] for wild_number in wild] + [[2**32, 2**32], [1] * 1000])
            case 2:
                entry["dtype"] = draw.choice(["F64", "BOOL", "F8_E4M3", "I8", "X", 1, None, "C64"])
            case 3:
                entry[draw.choice(["dtype", "shape", "data_offsets", "extra"])] = draw.choice(wild)
            case 4:
                text = json.dumps(header).encode()
                yield struct.pack("<Q", draw.choice([0, 1, len(text) + 1, 2**31, 2**63, 2**64 - 1])) + text + body
                continue
            case _:
                text = bytearray(json.dumps(header).encode())
                text[draw.randrange(len(text))] = draw.randrange(256)
                yield struct.pack("<Q", len(text)) + bytes(text) + body
                continue
        text = json.dumps(forged).encode()
        yield struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_forged_headers_give_our_error_only(two: Path, count: int) -> None:
    path = two / "000000020"
    refused = 0
    for content in headers((path / STATE).read_bytes(), count):
        forge(path, STATE, content)
        try:
            checkpoint.load(path)
        except CheckpointError:
            refused += 1
    assert refused > count / 2


def test_tied_strided_empty_and_scalar_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tensors = {
        "whole": base,
        "tied": base,
        "view": base[3:6],
        "transposed": base.view(3, 4).t(),
        "strided": base[::2],
        "expanded": torch.ones(1).expand(5),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0),
        "empty2": torch.empty(2, 0),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "bf16": torch.ones(2, dtype=torch.bfloat16),
    }
    checkpoint.save(tmp_path, Snapshot(step=1, tensors=tensors, scalars={}, versions={}), keep=1)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[key], tensors[key]) for key in tensors)
    assert all(found.tensors[key].dtype == tensors[key].dtype for key in tensors)


@pytest.mark.parametrize("what", [{"tensors": {"a": torch.eye(2).to_sparse()}}, {"scalars": {"a": object()}}])
def test_what_cannot_be_saved_is_a_clear_error(two: Path, what: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(two, Snapshot(**{"step": 30, "tensors": {}, "scalars": {}, "versions": {}} | what), keep=1)
    assert same(checkpoint.load_latest(two), snapshot(20))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        checkpoint.save(tmp_path / "file", snapshot(1), keep=1)
