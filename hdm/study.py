"""Studies: a grid of settings, every cell of it a run. `hdm.cluster` runs one on a Ray cluster.

A study is a YAML file:

name: losses                           # its records go to data/runs/losses; by default the file's name
profile: cpu                           # optional: `data`, `synthetic` and `train` of book/profiles/cpu.yml as the base
data: coco:${HDM_DATA:-data/coco}      # needed without a profile
train: { epochs: 10 }                  # settings that all runs share, on top of the profile's
grid:
  method:                              # an axis with names, each of several settings
    gaussian_mse: { loss: gaussian_mse, decoder: quarter }
    hdm: { loss: hdm, warm_start: 0.4 }
  seed: [0, 1, 2]                      # an axis that is a setting, with its values
exclude: [{ method: hdm, seed: 2 }]    # optional: cells to leave out

Its runs are called `gaussian_mse seed=0`, `gaussian_mse seed=1` and so on: names first, then settings, each in the
order of the file; the last axis changes fastest. A run is known by the key of its settings and data, so a study that is
changed, cut or started twice trains only what has no record yet.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hdm.data import load_persons, prepare_data
from hdm.data.persons import PARTS
from hdm.errors import InputError, hint
from hdm.project import load_profile, read_settings
from hdm.records import RUNS, read_runs
from hdm.train import (
    CHECKPOINTS,
    Run,
    TrainConfig,
    finished_run,
    is_running,
    run_configs,
    run_folder,
    saved_states,
    train,
)

SECTIONS = ("name", "description", "profile", "data", "synthetic", "train", "grid", "exclude")


@dataclass(frozen=True)
class Study:
    """Runs by name, and the label under which their records are kept.

    synthetic: `images` and `seed` of generated data, which is made where it is not there yet, see
        `hdm.data.prepare_data`.
    """

    name: str
    runs: dict[str, TrainConfig]
    synthetic: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(f"study name {self.name!r} must be letters, digits, '-', '_' and '.': it names a folder")
        names: dict[tuple[str, str], str] = {}
        for name, config in self.runs.items():
            same = names.setdefault((config.data, config.key()), name)
            if same != name:
                raise InputError(f"runs {same!r} and {name!r} of study {self.name} are the same: leave one of them out")


def study_of_profile(profile: str | dict[str, Any], name: str | None = None) -> Study:
    """The runs of a profile, by its name or as `hdm.project.load_profile` gives it, as a study of the profile's name.

    name: of the study; a profile that is given as a mapping has none of its own and is `local`.
    """
    settings = load_profile(profile) if isinstance(profile, str) else profile
    label = name or (profile if isinstance(profile, str) else "local")
    return Study(label, run_configs(settings), settings.get("synthetic"))


# --- reading


def read_study(path: Path | str) -> Study:
    """The study in a file, `${NAME}` and `${NAME:-default}` taken from the environment as in a profile.

    A run's settings are those of the profile's `train`, then the study's `train`, then its cell; a setting that is
    given again, such as `loss_settings`, is replaced as a whole. Raises InputError that names the file for an unknown
    section or setting, a value of the wrong kind, an axis that is empty or neither setting nor names, two axes with
    the same setting, an exclusion that excludes nothing, and two cells that are the same.
    """
    path = Path(path)
    try:
        return _study(read_settings(path), path.stem)
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"study {path}: {message}") from None


def _study(text: dict[str, Any], stem: str) -> Study:
    for name in text:
        if name not in SECTIONS:
            raise InputError(f"unknown section {name!r}{hint(name, SECTIONS)}")
    base = load_profile(str(text["profile"])) if text.get("profile") is not None else {}
    data = text.get("data") or base.get("data")
    shared = {} if data is None else {"data": data}
    shared |= _section(base.get("train") or {}, "train of the profile") | _section(text.get("train") or {}, "train")
    runs = {}
    for name, settings in _cells(_section(text.get("grid"), "grid"), text.get("exclude") or []).items():
        try:
            runs[name] = TrainConfig.from_dict(shared | settings)
        except InputError as error:
            raise InputError(f"run {name!r}: {error}") from None
    return Study(str(text.get("name") or stem), runs, text.get("synthetic") or base.get("synthetic"))


@dataclass(frozen=True)
class _Point:
    """One value of an axis: what a run's name and `exclude` call it, and the settings that it stands for."""

    label: str
    value: Any
    settings: dict[str, Any]


def _cells(grid: dict[str, Any], exclude: Any) -> dict[str, dict[str, Any]]:
    """The settings of each cell that is not excluded, by the name of its run."""
    if not grid:
        raise InputError("grid is empty: give it at least one axis, such as seed: [0, 1, 2]")
    axes = {axis: _axis(axis, values) for axis, values in grid.items()}
    _check_apart(axes)
    _check_exclusions(exclude, axes)
    order = sorted(axes, key=lambda axis: not isinstance(grid[axis], dict))  # names before settings, else as given
    cells: dict[str, dict[str, Any]] = {}
    for points in itertools.product(*axes.values()):
        cell = dict(zip(axes, points, strict=True))
        if any(all(cell[axis].value == value for axis, value in entry.items()) for entry in exclude):
            continue
        name = " ".join(cell[axis].label for axis in order)
        if name in cells:
            raise InputError(f"two cells of grid are called {name!r}: leave one of them out")
        cells[name] = {setting: value for point in points for setting, value in point.settings.items()}
    if not cells:
        raise InputError("exclude leaves no run: drop some of its entries")
    return cells


def _axis(axis: str, values: Any) -> list[_Point]:
    if not isinstance(values, list | dict):
        raise InputError(f"axis {axis!r} is {values!r}: give a list of values, or a mapping of names to settings")
    if not values:
        raise InputError(f"axis {axis!r} is empty: give it values or drop it")
    if isinstance(values, dict):
        return [_Point(str(name), name, _section(values[name] or {}, f"{axis} {name!r}")) for name in values]
    known = [entry.name for entry in dataclasses.fields(TrainConfig)]
    if axis not in known:
        raise InputError(
            f"axis {axis!r} has a list of values but is no setting{hint(axis, known)}; "
            "an axis of another name is a mapping of names to settings"
        )
    return [_Point(f"{axis}={value}", value, {axis: value}) for value in values]


def _check_apart(axes: dict[str, list[_Point]]) -> None:
    """Raises InputError where two axes give the same setting: one would undo the other."""
    owners: dict[str, str] = {}
    for axis, points in axes.items():
        for setting in (setting for point in points for setting in point.settings):
            if owners.setdefault(setting, axis) != axis:
                raise InputError(f"axes {owners[setting]!r} and {axis!r} both give {setting!r}: keep one of them")


def _check_exclusions(exclude: Any, axes: dict[str, list[_Point]]) -> None:
    if not isinstance(exclude, list) or not all(exclude):
        raise InputError(f"exclude is {exclude!r}: give a list of mappings, such as [{{ seed: 2 }}]")
    for entry in exclude:
        for axis, value in _section(entry, "an entry of exclude").items():
            if value not in [point.value for point in axes.get(axis, [])]:
                raise InputError(f"exclude {entry!r} fits no cell: grid has no {axis!r} with {value!r}")


def _section(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be a mapping, one `name: value` on each line, not {value!r}")
    return value


# --- planning and running


def plan(study: Study, runs: Path | str = RUNS, checkpoints: Path | str = CHECKPOINTS) -> pd.DataFrame:
    """What there is of each run, a row for each: `name`, `key`, `state`, and `record`, the folder of its newest record.

    state: `done`: it has a record. `running`: a process of this machine, or of one with the same disk, trains it.
        `cut`: a saved state is there, from which it goes on. `new`: nothing is there.
    Generated data is made where it is not there yet, as the key of a run holds the hash of its annotation files.
    Raises InputError where data is not there or not as its layout says.
    """
    prepare(study)
    records = read_runs(runs, study.name)
    folders = dict(zip(records["key"], records["folder"], strict=True)) if len(records) else {}
    rows = []
    for name, key in keys(study.runs).items():
        place = run_folder(checkpoints, study.name, study.runs[name].loss, key)
        if key in folders:
            state = "done"
        elif is_running(place):
            state = "running"
        else:
            state = "cut" if saved_states(place) else "new"
        rows.append((name, key, state, folders.get(key, "")))
    return pd.DataFrame(rows, columns=["name", "key", "state", "record"])


def prepare(study: Study, *, progress: bool = True) -> None:
    """Makes generated data of the study that is not there yet."""
    for data in dict.fromkeys(config.data for config in study.runs.values()):
        synthetic = {} if study.synthetic is None else {"synthetic": study.synthetic}
        prepare_data({"data": data, **synthetic}, progress=progress)


def keys(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """The key of each run, as `train` computes it: of its settings and its data's annotation files."""
    hashes: dict[str, str] = {}
    for data in dict.fromkeys(config.data for config in configs.values()):
        hashes[data] = "".join(load_persons(data, part, check_images=False).sha256 for part in PARTS)
    return {name: config.key(hashes[config.data]) for name, config in configs.items()}


def run_study(
    study: Study,
    *,
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    reuse: bool = True,
    log: Callable[[str], None] = print,
    **options: Any,
) -> dict[str, Run]:
    """Trains the runs of a study one after another and returns them by name.

    reuse: a run with a record of the same settings and data is not trained again. Whatever `reuse` is, a run that was
        cut goes on from its last state. options: further ones of `hdm.train.train`.
    A run that fails with an InputError, such as one that diverges, does not keep the others from running; at the end
    an InputError names those that failed and why. Ctrl-C stops the study at once, the run at work with its state saved.
    """
    table = plan(study, runs, checkpoints)
    finished = finished_runs(table, checkpoints, log) if reuse else {}
    failures: dict[str, str] = {}
    for number, (name, config) in enumerate(study.runs.items(), start=1):
        if name in finished:
            continue
        log(f"[{number}/{len(study.runs)}] {name}")
        try:
            finished[name] = train(
                config, profile=study.name, runs=runs, checkpoints=checkpoints, reuse=reuse, log=log, **options
            )
        except InputError as error:
            failures[name] = str(error)
            log(f"{name} failed: {error}")
    return in_order(study, finished, failures)


def finished_runs(table: pd.DataFrame, checkpoints: Path | str, log: Callable[[str], None]) -> dict[str, Run]:
    """Those runs of a `plan` that have a record."""
    done = table[table["state"] == "done"]
    if len(done):
        log(f"{len(done)} of {len(table)} runs have a record of these settings and data; not trained again")
    return {name: finished_run(folder, checkpoints) for name, folder in zip(done["name"], done["record"], strict=True)}


def in_order(study: Study, finished: dict[str, Run], failures: dict[str, str]) -> dict[str, Run]:
    """All runs in the order of the study; an InputError where some failed, with names and reasons."""
    if failures:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failures.items())
        raise InputError(
            f"{len(failures)} of {len(study.runs)} runs of study {study.name} failed, all others have their records: "
            f"{reasons}"
        )
    return {name: finished[name] for name in study.runs}
