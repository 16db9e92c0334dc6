"""Which notebook was executed when, with what result, and whether it must be executed again.

A notebook's metadata may say what it reads and what it makes, for example
`{"hdm": {"inputs": ["data", "data/published.csv"], "outputs": ["data/runs/{profile}/**/run.json"]}}`. There, `data`
means the annotation files of the profile's data set, `runs` all run records, `executions` the last runs of the other
notebooks and `repository` its public address; anything else is a path or glob within the project. What a notebook makes
itself is none of its inputs.
"""

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hdm.errors import InputError
from hdm.files import write_whole
from hdm.project import book_notebooks, load_profile, project_root, read_notebook, repository_url

PACKAGE = Path(__file__).parent


def executions(profile: str, root: Path | None = None) -> list[dict[str, Any]]:
    """What is known of each notebook's last run under a profile, in reading order; one that never ran is left out.

    Keys: notebook, profile, parameters, status (`running`, `done`, `failed` or `interrupted`), started (UTC, ISO 8601),
    seconds (None while running), reused (True where the last build found it current), fingerprint, outputs, error (one
    line) and cell (where it stopped; empty before the first).
    """
    root = root or project_root()
    records = _read_records(profile, root)
    return [records[name] for name in book_notebooks(root) if name in records]


def last_execution(name: str, profile: str, root: Path) -> dict[str, Any]:
    """One notebook's entry of `executions`; empty where it never ran."""
    return _read_records(profile, root).get(name, {})


def record_execution(name: str, profile: str, root: Path, **changes: Any) -> None:
    """Change some keys of a notebook's entry of `executions`."""
    records = _read_records(profile, root)
    records[name] = {**records.get(name, {"notebook": name, "profile": profile}), **changes}
    write_whole(_records_path(profile, root), (json.dumps(records, indent=1, default=repr) + "\n").encode())


def executed_path(name: str, profile: str, root: Path) -> Path:
    """The notebook as it was executed to its end: `_build/<profile>/executed/<name>.ipynb`."""
    return root / "_build" / profile / "executed" / f"{name}.ipynb"


def fingerprint(name: str, profile: str, parameters: dict[str, Any] | None = None, root: Path | None = None) -> str:
    """SHA-256 over everything that a notebook's result depends on.

    Its cells with their tags, the injected parameters, the profile's settings, the sources of this package, the
    versions of Python and torch, and the contents of the inputs that it declares.
    """
    root = root or project_root()
    parts = {
        "cells": [[c.cell_type, c.source, c.metadata.get("tags", [])] for c in read_notebook(name, root).cells],
        "parameters": parameters or {},
        "profile": [profile, load_profile(profile, root)],
        "package": package_digests(),
        "versions": [platform.python_version(), version("torch")],
        "inputs": declared_files("inputs", name, profile, root),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


def is_current(name: str, profile: str, parameters: dict[str, Any] | None = None, root: Path | None = None) -> bool:
    """True where a notebook ran to its end and neither its fingerprint nor the files it made have changed since."""
    root = root or project_root()
    last = last_execution(name, profile, root)
    if last.get("status") != "done" or not executed_path(name, profile, root).is_file():
        return False
    try:
        mark = fingerprint(name, profile, parameters, root)
    except InputError:  # an input that was there is gone: whoever runs the notebook is told
        return False
    return last["fingerprint"] == mark and last["outputs"] == declared_files("outputs", name, profile, root)


def notebook_states(profile: str, root: Path | None = None) -> list[dict[str, Any]]:
    """Where each notebook stands under a profile, in reading order, whether it ever ran or not.

    Keys: notebook, state (`current`, `changed` since its last run, `failed`, `interrupted`, `running` or `never run`),
    started and seconds of that run (None before the first), and its parameters besides the profile.
    """
    root = root or project_root()
    load_profile(profile, root)
    states = []
    for name in book_notebooks(root):
        last = last_execution(name, profile, root)
        parameters = last.get("parameters") or {}
        state = last.get("status", "never run")
        if state == "done":
            state = "current" if is_current(name, profile, parameters, root) else "changed"
        entry = {"notebook": name, "state": state, "parameters": parameters}
        states.append(entry | {key: last.get(key) for key in ("started", "seconds")})
    return states


def declared_files(key: str, name: str, profile: str, root: Path) -> list[list]:
    """For each of the `inputs` or `outputs` that a notebook declares, [path, SHA-256] of every file that is there.

    Raises InputError where an input is an absolute path, or a plain path to a file that does not exist.
    """
    found: list[list] = []
    for entry in read_notebook(name, root).metadata.get("hdm", {}).get(key, []):
        if entry == "executions":
            others = [other for other in executions(profile, root) if other["notebook"] != name]
            found.append([[o[key] for key in ("notebook", "fingerprint", "started", "seconds")] for o in others])
            continue
        if entry == "repository":
            found.append([[repository_url(root)]])
            continue
        if entry == "data":
            _, _, place = str(load_profile(profile, root).get("data", "")).partition(":")
            folder = root / Path(place).expanduser()
            files = [*folder.glob("annotations/*.json"), *folder.glob("annot/*.json")]
        else:
            pattern = "data/runs/*/[!.]*/run.json" if entry == "runs" else entry.replace("{profile}", profile)
            if Path(pattern).is_absolute():
                raise InputError(f"notebook {name!r}: {key[:-1]} {entry!r} must be a path within the project")
            files = [path for path in root.glob(pattern) if path.is_file()]
            if key == "inputs" and not files and not re.search(r"[*?[]", pattern):
                raise InputError(f"notebook {name!r} declares the input {pattern!r}, but {root} has no such file")
        found.append(_digests(files, root))
    return found


def package_digests() -> list[list[str]]:
    """[path within the package, SHA-256] of each of its sources."""
    return _digests(PACKAGE.rglob("*.py"), PACKAGE)


def _digests(files: Iterable[Path], root: Path) -> list[list[str]]:
    pairs = []
    for path in sorted(files):
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):  # COCO's annotations are half a gigabyte
                digest.update(block)
        pairs.append([Path(os.path.relpath(path, root)).as_posix(), digest.hexdigest()])
    return pairs


def _records_path(profile: str, root: Path) -> Path:
    return executed_path("executions", profile, root).with_suffix(".json")


def _read_records(profile: str, root: Path) -> dict[str, dict[str, Any]]:
    path = _records_path(profile, root)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except json.JSONDecodeError:
        raise InputError(f"{path} is damaged: delete it, and every notebook runs again") from None
