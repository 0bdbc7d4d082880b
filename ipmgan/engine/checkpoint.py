"""Saves and restores: a checkpoint is a directory that appears whole or not at all, and loads only if its sums agree.

``state.safetensors`` holds every tensor, ``state.json`` every other number, ``manifest.json`` the sha256 and size of
both, the schema's number and the versions in use. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from ipmgan.errors import CheckpointError

SCHEMA = 1
STATE, SCALARS, MANIFEST = "state.safetensors", "state.json", "manifest.json"
TEMPORARY = ".writing-"


@attrs.frozen(kw_only=True, eq=False)
class Snapshot:
    """The content of a checkpoint."""

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]
    versions: dict[str, str]


def save(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write `folder/<step>` through a temporary directory, fsync and rename, then drop all but the last `keep`.

    Raises `CheckpointError` where it cannot be written; what was there before is then untouched.
    """
    final = folder / f"{snapshot.step:09d}"
    temporary = folder / f"{TEMPORARY}{snapshot.step:09d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _write(temporary, snapshot)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _fsync(folder)
    except (OSError, safetensors.SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_why(final, snapshot, error)) from error
    for old in steps(folder)[:-keep]:
        shutil.rmtree(folder / f"{old:09d}", ignore_errors=True)
    return final


def _write(folder: Path, snapshot: Snapshot) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()}, folder / STATE)
    (folder / SCALARS).write_text(json.dumps({"step": snapshot.step, **snapshot.scalars}, indent=1))
    files = {
        name: {"sha256": _sha256(folder / name), "size": (folder / name).stat().st_size} for name in (STATE, SCALARS)
    }
    manifest = {"schema": SCHEMA, "versions": snapshot.versions, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    for path in (*folder.iterdir(), folder):
        _fsync(path)


def _why(final: Path, snapshot: Snapshot, error: Exception) -> str:
    need = sum(tensor.nbytes for tensor in snapshot.tensors.values()) / 2**20
    full = (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left" in str(error)
    reason = f"no space left, {need:.0f} MiB are needed" if full else str(error)
    return f"the checkpoint {final} could not be written: {reason}. Earlier checkpoints are untouched"


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, valid or not, ascending."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()) if folder.is_dir() else []


def load_latest(folder: Path) -> Snapshot | None:
    """The newest checkpoint whose sums agree, with a warning for each newer one that is damaged; None if there is none.

    Raises `CheckpointError` when there are checkpoints but none is valid.
    """
    problems = []
    for step in reversed(steps(folder)):
        try:
            snapshot = load(folder / f"{step:09d}")
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going back to step {step}", stacklevel=2)
        return snapshot
    if problems:
        raise CheckpointError("no valid checkpoint is left: " + "; ".join(problems))
    return None


def load(path: Path) -> Snapshot:
    """One checkpoint, verified; raises `CheckpointError` where anything about it is wrong."""
    manifest = _read_json(path / MANIFEST)
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: written in schema {manifest.get('schema')}, this ipmgan reads {SCHEMA}: upgrade ipmgan"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {STATE, SCALARS}:
        raise CheckpointError(f"{path}: its manifest does not list exactly {STATE} and {SCALARS}")
    for name, entry in files.items():
        _verify(path / name, entry)
    try:
        tensors = load_file(path / STATE)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path / STATE}: {error}") from error
    scalars = _read_json(path / SCALARS)
    return Snapshot(
        step=scalars.pop("step"), tensors=tensors, scalars=scalars, versions=dict(manifest.get("versions", {}))
    )


def _verify(path: Path, entry: Mapping[str, Any]) -> None:
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path}: is missing or not a plain file")
    if path.stat().st_size != entry.get("size"):
        raise CheckpointError(f"{path}: has {path.stat().st_size} bytes, its manifest says {entry.get('size')}")
    if _sha256(path) != entry.get("sha256"):
        raise CheckpointError(f"{path}: is damaged, its sha256 is not the manifest's")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not a table")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
