"""Weights and states on the disk: whole or not at all, checked by their hash, and free of anything that could run.

A file `<name>-<8 digits>.safetensors` holds tensors, and in its header, as JSON, everything else. The digits are the
first of the SHA-256 of its content, so a file that was damaged is known by its name.

weights-1a2b3c4d.safetensors          what a finished run keeps
state-000001200-5e6f7a8b.safetensors  all that a run needs to go on after 1,200 steps; the two newest are kept
"""

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hdm.errors import InputError
from hdm.files import write_whole

STATES_KEPT = 2


def write_tensors(folder: Path, name: str, tensors: dict[str, Tensor], notes: dict[str, Any]) -> Path:
    """Writes tensors and notes (what JSON can hold) to `folder`/`name`-<8 digits>.safetensors; returns that path.

    Raises InputError, with nothing left behind, where that fails (full disk, no right).
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    content = safetensors.torch.save(plain, {"hdm": json.dumps(notes)})
    path = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.safetensors"
    write_whole(path, content)
    return path


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises InputError for a file that is missing, damaged or another kind of file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"checkpoint {path} can't be read ({error.strerror}): train it again") from error
    if hashlib.sha256(content).hexdigest()[:8] != path.stem.rpartition("-")[2]:
        raise InputError(f"checkpoint {path} is damaged (its content has another hash than its name): delete it")
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads((file.metadata() or {})["hdm"])
        return safetensors.torch.load(content), notes
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"checkpoint {path} is none of this project ({error}): delete it") from error


def write_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes what a run needs to go on: a tree of dicts, lists, tensors and plain values. Then deletes older states,
    but for one, in case that this one gets damaged."""
    tensors: dict[str, Tensor] = {}
    notes = _without_tensors(state, "", tensors)
    path = write_tensors(folder, f"state-{step:09d}", tensors, notes)
    for older in saved_states(folder)[STATES_KEPT:]:
        older.unlink(missing_ok=True)
    return path


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises InputError as `read_tensors` does."""
    tensors, notes = read_tensors(path)
    return _with_tensors(notes, tensors)


def newest_state(folder: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """The newest sound state of a run, or None where there is none at all; says which ones are damaged, and deletes
    these once there is a sound one. Raises InputError where every state is damaged."""
    damaged: list[Path] = []
    for path in saved_states(folder):
        try:
            state = read_state(path)
        except InputError as error:
            damaged.append(path)
            log(f"{error}; the one before it is taken")
            continue
        for other in damaged:
            other.unlink(missing_ok=True)
        return state
    if damaged:
        raise InputError(f"no state in {folder} is sound: delete it to start over")
    return None


def saved_states(folder: Path) -> list[Path]:
    """The states of a run, newest first: by the step in their names, as clocks can jump."""
    return sorted(folder.glob("state-*.safetensors"), reverse=True)


def step_of(state: Path) -> int:
    """The steps that a run had taken when it wrote a state."""
    return int(state.name.split("-")[1])


def _without_tensors(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The tree with each tensor moved to `tensors` under the path that led to it; JSON has only text for keys, so a
    dict becomes pairs."""
    if isinstance(tree, Tensor):
        name = f"{len(tensors)}{name}"  # as keys may hold slashes, paths alone could be the same
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        return {"pairs": [[key, _without_tensors(value, f"{name}/{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return [_without_tensors(value, f"{name}/{index}", tensors) for index, value in enumerate(tree)]
    return tree


def _with_tensors(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The way back."""
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: _with_tensors(value, tensors) for key, value in tree["pairs"]}
    return [_with_tensors(value, tensors) for value in tree] if isinstance(tree, list) else tree


@contextlib.contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which the system releases when a process dies. Raises InputError where another
    process trains the same run. On network drives without locks there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        with contextlib.suppress(NotImplementedError):
            lock.acquire(timeout=1)  # `is_running` holds it for a moment
        (folder / ".holder").write_text(f"{os.getpid()} on {socket.gethostname()}")
        if lock.is_locked:  # then nobody else writes: these are of processes that were killed
            for unfinished in folder.glob(".*.partial"):
                unfinished.unlink(missing_ok=True)
    except Timeout:
        raise InputError(f"another process ({_holder(folder)}) trains this run in {folder}: wait for it") from None
    except OSError as error:
        raise InputError(f"{folder} can't be written ({error.strerror}): choose another place") from error
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Does a process train the run of this folder right now?"""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return False
    except Timeout:
        return True
    except NotImplementedError:
        return False


def _holder(folder: Path) -> str:
    try:
        return (folder / ".holder").read_text()
    except OSError:
        return "unknown"
