"""Saves and restores: a checkpoint is a directory that appears whole or not at all, and loads only if its sums agree.

``state.safetensors`` holds every tensor, ``state.json`` every other number, ``manifest.json`` the sha256 and size of
both, the schema's number, the versions in use, and a sum over itself. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
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
MIB = 2**20


class DamagedError(CheckpointError):
    """A checkpoint that is not what was written; an earlier one may serve instead."""


@attrs.frozen(kw_only=True, eq=False)
class Snapshot:
    """The content of a checkpoint."""

    step: int
    tensors: dict[str, Tensor]
    scalars: dict[str, Any]
    versions: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def save(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write `folder/<step>` through a temporary directory, fsync and rename, then drop all but the last `keep`.

    A valid checkpoint of this step stays as it is. Raises `CheckpointError` where the new one cannot be written; what
    was there before is then untouched.
    """
    final = path_of(folder, snapshot.step)
    temporary = folder / f"{TEMPORARY}{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left_over)
        if not is_valid(final):
            temporary.mkdir()
            _write(temporary, snapshot)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            _fsync(folder)
    except (OSError, safetensors.SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_why(final, snapshot, error)) from error
    _prune(folder, snapshot.step, keep)
    return final


def _write(folder: Path, snapshot: Snapshot) -> None:
    save_file(_apart(snapshot.tensors), folder / STATE)
    (folder / SCALARS).write_text(json.dumps({"step": snapshot.step, **snapshot.scalars}, indent=1), encoding="utf-8")
    files = {
        name: {"sha256": _sha256(folder / name), "size": (folder / name).stat().st_size} for name in (STATE, SCALARS)
    }
    manifest: dict[str, Any] = {"schema": SCHEMA, "versions": snapshot.versions, "files": files}
    manifest["seal"] = _seal(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (*folder.iterdir(), folder):
        _fsync(path)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous, on the CPU, and each in memory of its own, as safetensors wants them: tied weights share theirs."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return apart


def _why(final: Path, snapshot: Snapshot, error: Exception) -> str:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    reason = f"no space left, {snapshot.size / MIB:.1f} MiB are needed" if full else str(error)
    return f"the checkpoint {final} could not be written: {reason}. Earlier checkpoints are untouched"


def _prune(folder: Path, current: int, keep: int) -> None:
    """Drop all but the newest `keep` valid checkpoints up to the current one, which was just written.

    Later ones were found damaged when the run went back to an earlier one; counting them would cost a valid one.
    """
    kept = 0
    for step in reversed(steps(folder)):
        path = path_of(folder, step)
        if step == current or (step < current and kept < keep and is_valid(path)):
            kept += 1
        else:
            shutil.rmtree(path, ignore_errors=True)


def require_space(folder: Path, size: int) -> None:
    """Raise `CheckpointError` where the disk has no room for two checkpoints of so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise CheckpointError(
            f"{folder} has {free / MIB:.1f} MiB free, and two checkpoints take {2 * size / MIB:.1f} MiB: make room"
        )


def steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint, valid or not, ascending."""
    return sorted(int(path.name) for path in folder.glob("*") if re.fullmatch("[0-9]{9,18}", path.name))


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"{step:09d}"


def load_latest(folder: Path) -> Snapshot | None:
    """The newest checkpoint whose sums agree, with a warning for each newer one that is damaged; None if there is none.

    Raises `CheckpointError` when there are checkpoints but none is valid, and for one in another schema.
    """
    problems = []
    for step in reversed(steps(folder)):
        try:
            snapshot = load(path_of(folder, step))
        except DamagedError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going back to step {step}", stacklevel=2)
        return snapshot
    if problems:
        raise CheckpointError("no valid checkpoint is left: " + "; ".join(problems))
    return None


def load(path: Path) -> Snapshot:
    """One checkpoint, verified; raises `DamagedError` where it is not what was written, or `CheckpointError`."""
    versions = verify(path)
    scalars = _read_json(path / SCALARS)
    step = scalars.pop("step", None)
    if not isinstance(step, int) or path_of(path.parent, step) != path:
        raise DamagedError(f"{path}: holds step {step}")
    try:
        tensors = load_file(path / STATE)
    # Whatever a forged header makes the reader and torch stumble over.
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
        raise DamagedError(f"{path / STATE}: {error}") from error
    return Snapshot(step=step, tensors=tensors, scalars=scalars, versions=versions)


def latest_versions(folder: Path) -> dict[str, str]:
    """The versions that the newest valid checkpoint was written with; none where there is no such checkpoint."""
    for step in reversed(steps(folder)):
        if is_valid(path_of(folder, step)):
            return verify(path_of(folder, step))
    return {}


def is_valid(path: Path) -> bool:
    """Whether there is a checkpoint whose sums agree."""
    try:
        verify(path)
    except CheckpointError:
        return False
    return True


def verify(path: Path) -> dict[str, str]:
    """The versions that a checkpoint was written with; raises as `load` does unless all its sums agree."""
    if path.is_symlink():
        raise DamagedError(f"{path}: is a link, not a directory")
    manifest = _read_json(path / MANIFEST)
    if manifest.pop("seal", None) != _seal(manifest):
        raise DamagedError(f"{path / MANIFEST}: is damaged, its sum over itself does not agree")
    if manifest.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: written in schema {manifest.get('schema')}, this ipmgan reads {SCHEMA}: upgrade ipmgan"
        )
    files, versions = manifest.get("files"), manifest.get("versions")
    if not isinstance(files, dict) or set(files) != {STATE, SCALARS} or not isinstance(versions, dict):
        raise DamagedError(f"{path / MANIFEST}: does not list versions and exactly {STATE} and {SCALARS}")
    for name, entry in files.items():
        _verify_file(path / name, entry)
    return {str(name): str(version) for name, version in versions.items()}


def _verify_file(path: Path, entry: Any) -> None:
    if not isinstance(entry, dict):
        raise DamagedError(f"{path}: its manifest gives neither size nor sum")
    if path.is_symlink() or not path.is_file():
        raise DamagedError(f"{path}: is missing or not a plain file")
    try:
        size, digest = path.stat().st_size, _sha256(path)
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error}") from error
    if size != entry.get("size"):
        raise DamagedError(f"{path}: has {size} bytes, its manifest says {entry.get('size')}")
    if digest != entry.get("sha256"):
        raise DamagedError(f"{path}: is damaged, its sha256 is not the manifest's")


def _read_json(path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise DamagedError(f"{path}: is missing or not a plain file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise DamagedError(f"{path}: is not a table")
    return content


def _seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest without its seal, whatever its spacing."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
