"""Studies: a grid of settings, every cell of it a run. `hdm.cluster` runs one on a Ray cluster.

A study is a YAML file:

    name: losses                           # its records go to data/runs/losses; by default the file's name
    profile: cpu                           # optional: `data`, `synthetic`, `train` of book/profiles/cpu.yml as the base
    data: coco:${HDM_DATA:-data/coco}      # needed without a profile
    train: { epochs: 10 }                  # settings that all runs share, on top of the profile's
    grid:
      method:                              # an axis with names, each of several settings
        gaussian_mse: { loss: gaussian_mse, decoder: quarter }
        hdm: { loss: hdm, warm_start: 0.4 }
      seed: [0, 1, 2]                      # an axis that is a setting, with its values
    exclude:                               # optional: cells to leave out, by a value of an axis or a list of them
      - { method: hdm, seed: [1, 2] }

Its runs are called `gaussian_mse seed=0`, `gaussian_mse seed=1` and so on: names first, then settings, each in the
order of the file; the last axis changes fastest. A run is known by the key of its settings and data, so a study that is
changed, cut or started twice trains only what has no record yet.

A study of several questions has `parts` in the place of `grid` and `exclude`:

    profile: cpu
    train: { epochs: 10 }
    parts:
      main:
        question: Which loss is better?    # for the reader, as `description` is
        grid: { loss: [gaussian_mse, hdm], seed: [0, 1, 2] }
      sigma:
        train: { loss: gaussian_mse }      # optional, as `data` and `exclude` are: on top of what all parts share
        grid: { loss_settings: [{}, { sigma: 3.0 }] }

Its runs are called `main: loss=gaussian_mse seed=0` and so on; a part without a grid is one run with the part's name.
What several parts ask for is one run, trained once and named after the first of them: here the first cell of `sigma` is
the first of `main`. `Study.cells` leads from a part and the name of a cell to the run.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from hdm.data import load_persons, prepare_data
from hdm.data.persons import PARTS
from hdm.errors import InputError, hint
from hdm.grid import as_section, check_different, check_sections, grid_runs, parts_runs
from hdm.jobs import trained
from hdm.project import load_profile, read_settings
from hdm.records import RUNS, read_runs
from hdm.train import (
    CHECKPOINTS,
    Run,
    TrainConfig,
    finished_run,
    is_running,
    recorded_run,
    run_configs,
    run_folder,
    saved_states,
)

SECTIONS = ("name", "description", "profile", "data", "synthetic", "train", "grid", "exclude", "parts")
STATES = ("done", "running", "cut", "new")


@dataclass(frozen=True)
class Study:
    """Runs by name, and the label under which their records are kept.

    synthetic: `images` and `seed` of generated data, which is made where it is not there yet, see
        `hdm.data.prepare_data`.
    cells: of a study with parts, the run of each cell: `cells["sigma"]["loss_settings={}"]` is a name in `runs`.
    """

    name: str
    runs: dict[str, TrainConfig]
    synthetic: dict[str, Any] | None = None
    cells: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise InputError(f"study name {self.name!r} must be letters, digits, '-', '_' and '.': it names a folder")
        check_different(self.runs, f"study {self.name}")


def study_of_profile(profile: str | dict[str, Any], name: str | None = None) -> Study:
    """The runs of a profile, by its name or as `hdm.project.load_profile` gives it, as a study of the profile's name.

    name: of the study; a profile that is given as a mapping has none of its own and is `local`.
    """
    settings = load_profile(profile) if isinstance(profile, str) else profile
    label = name or (profile if isinstance(profile, str) else "local")
    return Study(label, run_configs(settings), settings.get("synthetic"))


def choose(study: Study, only: Sequence[str]) -> Study:
    """The study with those of its runs alone that one of the texts means; without a text it stays as it is.

    A text that is the name of a part means all runs of this part, one that is the name of a run means that run, and any
    other one the runs whose names contain it. A run that several parts share has a name in each of them. Raises
    InputError for a text that means no run.
    """
    if not only:
        return study
    names = {f"{part}: {cell}": run for part, cells in study.cells.items() for cell, run in cells.items()}
    names |= {run: run for run in study.runs}
    chosen: set[str] = set()
    for text in only:
        if text in study.cells:
            found = set(study.cells[text].values())
        elif text in names:
            found = {names[text]}
        else:
            found = {run for name, run in names.items() if text in name}
        if not found:
            raise InputError(f"study {study.name} has no part or run {text!r}{hint(text, [*study.cells, *names])}")
        chosen |= found
    runs = {name: config for name, config in study.runs.items() if name in chosen}
    cells = {part: {cell: run for cell, run in cells.items() if run in chosen} for part, cells in study.cells.items()}
    return dataclasses.replace(study, runs=runs, cells={part: cells for part, cells in cells.items() if cells})


# --- reading


def read_study(path: Path | str) -> Study:
    """The study in a file, `${NAME}` and `${NAME:-default}` taken from the environment as in a profile.

    A run's settings are those of the profile's `train`, then the study's `train`, then its part's, then its cell; a
    setting that is given again, such as `loss_settings`, is replaced as a whole. Raises InputError that names the file
    for an unknown section or setting, a value of the wrong kind, both or neither of `grid` and `parts`, an axis that is
    empty or neither setting nor names, two axes with the same setting, an exclusion that excludes nothing, and two
    cells of a grid that are the same.
    """
    path = Path(path)
    try:
        return _study(read_settings(path), path.stem)
    except InputError as error:
        message = str(error)
        raise error if str(path) in message else InputError(f"study {path}: {message}") from None


def _study(text: dict[str, Any], stem: str) -> Study:
    check_sections(text, SECTIONS)
    if ("grid" in text) == ("parts" in text):
        found = "both grid and parts" if "grid" in text else "neither grid nor parts"
        raise InputError(f"there are {found}: give one of them")
    base = load_profile(str(text["profile"])) if text.get("profile") is not None else {}
    data = text.get("data") or base.get("data")
    shared = {} if data is None else {"data": data}
    shared |= as_section(base.get("train") or {}, "train of the profile")
    shared |= as_section(text.get("train") or {}, "train")
    name, synthetic = str(text.get("name") or stem), text.get("synthetic") or base.get("synthetic")
    if "grid" in text:
        return Study(name, grid_runs(text["grid"], text.get("exclude"), shared), synthetic)
    if "exclude" in text:
        raise InputError("exclude stands beside parts: move it into the part that it is about")
    runs, cells = parts_runs(text["parts"], shared)
    return Study(name, runs, synthetic, cells)


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


def plan_text(study: Study, table: pd.DataFrame) -> str:
    """A `plan` for the terminal: its table, with the part and the cell of each run where the study has parts (of
    several its first), and how many runs are in each state."""
    shown = table
    if study.cells:
        first: dict[str, tuple[str, str]] = {}
        for part, cells in study.cells.items():
            for cell, run in cells.items():
                first.setdefault(run, (part, cell))
        parts, names = zip(*(first[name] for name in table["name"]), strict=True)
        shown = table.assign(name=names)
        shown.insert(0, "part", parts)
    counts = ", ".join(f"{(table['state'] == state).sum()} {state}" for state in STATES)
    return f"{shown.to_string(index=False)}\n{counts}"


def run_study(
    study: Study,
    *,
    runs: Path | str = RUNS,
    checkpoints: Path | str = CHECKPOINTS,
    reuse: bool = True,
    jobs: int = 1,
    log: Callable[[str], None] = print,
    **options: Any,
) -> dict[str, Run]:
    """Trains the runs of a study, `jobs` of them at once, and returns them by name.

    reuse: a run with a record of the same settings and data is not trained again. Whatever `reuse` is, a run that was
        cut goes on from its last state. jobs: with more than one, each run has a process of its own, see `hdm.jobs`.
        options: further ones of `hdm.train.train`.
    A run that fails with an InputError, such as one that diverges, or whose process is killed does not keep the others
    from running; at the end an InputError names those that failed and why. A run that another process trains is passed
    over, so that several processes can work at one study; unless it has a record at the end, it is named then and not
    returned. Ctrl-C stops the study at once, the runs at work with their states saved.
    """
    if jobs < 1:
        raise InputError(f"jobs {jobs} must be 1 or more: how many runs to train at once")
    table = plan(study, runs, checkpoints)
    key = dict(zip(table["name"], table["key"], strict=True))
    place = {name: run_folder(checkpoints, study.name, study.runs[name].loss, key[name]) for name in key}
    finished = finished_runs(table, checkpoints, log) if reuse else {}
    failures: dict[str, str] = {}
    elsewhere: list[str] = []

    def pass_over(name: str) -> None:
        elsewhere.append(name)
        log(f"{name} is trained by another process: passed over")

    def found(name: str) -> bool:
        if reuse and (record := recorded_run(key[name], study.name, runs)):
            finished[name] = finished_run(record, checkpoints)
        return name in finished

    def coming() -> Iterator[tuple[str, TrainConfig]]:
        """Each run that is still to be trained at the moment at which there is room for it."""
        for number, (name, config) in enumerate(study.runs.items(), start=1):
            if name in finished:
                continue
            if is_running(place[name]):
                pass_over(name)
            elif not found(name):  # asked last: a process writes its record before it lets go of a run
                log(f"[{number}/{len(study.runs)}] {name}")
                yield name, config

    options = {"profile": study.name, "runs": runs, "reuse": reuse, **options}
    jobs = min(jobs, max(1, len(study.runs) - len(finished)))
    with contextlib.closing(trained(coming(), jobs=jobs, checkpoints=checkpoints, log=log, **options)) as outcomes:
        for name, outcome in outcomes:
            if isinstance(outcome, Run):
                finished[name] = outcome
            elif is_running(place[name]):  # both began it at the same time, and the other was first
                pass_over(name)
            else:
                failures[name] = str(outcome)
                log(f"{name} failed: {outcome}")
    elsewhere = [name for name in elsewhere if not found(name)]
    if elsewhere:
        log(f"{len(elsewhere)} of {len(study.runs)} runs are not finished, but left to others: {', '.join(elsewhere)}")
    return in_order(study, finished, failures)


def finished_runs(table: pd.DataFrame, checkpoints: Path | str, log: Callable[[str], None]) -> dict[str, Run]:
    """Those runs of a `plan` that have a record."""
    done = table[table["state"] == "done"]
    if len(done):
        log(f"{len(done)} of {len(table)} runs have a record of these settings and data; not trained again")
    return {name: finished_run(folder, checkpoints) for name, folder in zip(done["name"], done["record"], strict=True)}


def in_order(study: Study, finished: dict[str, Run], failures: dict[str, str]) -> dict[str, Run]:
    """Finished runs in the order of the study; an InputError where some failed, with names and reasons."""
    if failures:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failures.items())
        raise InputError(
            f"{len(failures)} of {len(study.runs)} runs of study {study.name} failed, "
            f"{len(finished)} have their records: {reasons}"
        )
    return {name: finished[name] for name in study.runs if name in finished}
