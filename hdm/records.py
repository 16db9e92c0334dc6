"""Run records: what was run, on what, and what came out. Written once, never edited; read as one tidy table.

data/runs/<profile>/<run id>/run.json     settings, data, versions, hardware, commit, weights, faults, results
data/runs/<profile>/<run id>/epochs.csv   one row per epoch; epoch 0 is the untrained network
data/runs/<profile>/<run id>/readings.csv    of a followed run: one row per decoder and definition of the score
data/benchmarks/<name>/<time>-<device>/benchmark.json, table.csv     timings: where and how, and one row per measurement

A record is in its place whole or not at all, whatever happens to the process or the machine: it is written to a hidden
folder beside it, flushed to the disk, and renamed. Such a `.<run id>.<eight characters>.partial` that a killed process
left is never read and may be deleted when nothing is being written.

Times are UTC by the clock of the machine that wrote them. Oldest and newest mean the order of `started`, then of the
run id; a clock that was set back can swap two runs in this order, and is otherwise without effect: lengths of time
(`seconds`) are measured on their own, not taken from `started` and `ended`.
"""

import contextlib
import datetime
import errno
import importlib.metadata
import json
import os
import platform
import shutil
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hdm.errors import InputError
from hdm.project import checkout_commit

SCHEMA = 2
READABLE = (1, 2)
RUNS = Path("data/runs")
BENCHMARKS = Path("data/benchmarks")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "timm", "hdm")
REQUIRED = (
    *("run_id", "key", "profile", "started", "seconds", "commit", "dirty", "settings", "data", "hardware", "results"),
)
# What records of schema 1 may lack: `read_run` gives None for it.
SINCE_SCHEMA_2 = {
    "hardware": ("device", "processes"),
    "weights": ("file", "sha256"),
    "faults": ("unreadable", "worker_restarts"),
    "selection": ("keep", "epoch", "by"),
}
# What `read_runs` puts before the names of their entries.
SECTIONS = (
    *("data", "hardware", "versions", "weights", "faults", "selection", "consistency", "late_consistency", "maps"),
)
# Columns of `read_epochs`. A run has AP (COCO's layout) or PCKh@0.5 (MPII's). lr: of the last step. grad_norm: mean
# over the steps. seconds: of the whole epoch. data_wait: share of train_seconds in which the loop waited for data.
# memory_mb: peak. unreadable: how often a picture could not be read, since the run began.
EPOCH_COLUMNS = (
    *("epoch", "objective", "train_loss", "val_loss", "error_px", "AP", "PCKh@0.5", "lr", "grad_norm"),
    *("seconds", "train_seconds", "val_seconds", "data_wait", "images_per_second", "memory_mb", "unreadable"),
)


def write_run(
    directory: Path | str, record: dict[str, Any], epochs: pd.DataFrame, readings: pd.DataFrame | None = None
) -> Path:
    """Writes `record`, its epochs and its readings, if it has any, to `directory`/<profile>/<run id>, whole or not at
    all; returns that folder.

    Of several processes that write the same run id at once, one succeeds. Raises InputError where the record is there
    already (it is never overwritten) or can't be written (full disk, no right).
    """
    target = Path(directory) / record["profile"] / record["run_id"]
    tables = {"epochs": epochs} if readings is None else {"epochs": epochs, "readings": readings}
    return _write(target, "run", {"schema": SCHEMA, **record}, tables)


def _write(target: Path, name: str, record: dict[str, Any], tables: dict[str, pd.DataFrame]) -> Path:
    """A folder with a JSON file and CSV files, whole or not at all."""
    texts = {f"{name}.json": json.dumps(record, indent=1) + "\n"}
    texts |= {f"{title}.csv": table.to_csv(index=False, float_format="%.6g") for title, table in tables.items()}
    # No other process, on this machine or another, makes a folder of this name.
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    there = InputError(f"{name} record {target} is there already and is never overwritten: delete it, or run again")
    if target.exists():
        raise there
    try:
        partial.mkdir(parents=True)
        for file, text in texts.items():
            with (partial / file).open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
        _flush_folder(partial)
        os.rename(partial, target)  # fails where another process has put its record there since
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY) and target.exists():
            raise there from error
        raise InputError(
            f"{name} record {target} can't be written ({error.strerror}): free space or choose another directory"
        ) from error
    for folder in (target.parent, target.parent.parent):
        _flush_folder(folder)
    return target


def _flush_folder(folder: Path) -> None:
    """The names in a folder onto the disk. Not every file system (network drives) can: then it does so by itself."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_run(folder: Path | str) -> dict[str, Any]:
    """One record, of schema 1 or 2, in the shape of schema 2: what the record does not know is None, and `schema` says
    as which it was written. Raises InputError where it is damaged or of another schema.

    hardware: with `device` and `processes` (that trained together). weights: `file` and `sha256` of the kept weights.
    faults: `unreadable`, {file name: how often}, and `worker_restarts`. selection: which epoch's weights the results
    are of: `keep` (`last` or `best`), `epoch`, and `by` which score it is best.
    """
    path = Path(folder) / "run.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"run record {path} can't be read ({error}): restore it from version control or delete its folder"
        ) from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in READABLE:
        raise InputError(
            f"run record {path} is of schema {schema}, and this version of hdm reads {READABLE[0]} and {READABLE[1]}: "
            "use the version of hdm that wrote it, or delete its folder"
        )
    missing = [name for name in REQUIRED if name not in record]
    if missing:
        raise InputError(
            f"run record {path} has no {missing[0]!r}: restore it from version control or delete its folder"
        )
    known = {section: record.get(section) or {} for section in SINCE_SCHEMA_2}
    return record | {section: dict.fromkeys(names) | known[section] for section, names in SINCE_SCHEMA_2.items()}


def read_epochs(folder: Path | str) -> pd.DataFrame:
    """The epochs of one record: `EPOCH_COLUMNS`, NaN where not recorded, then what else was recorded.

    Raises InputError where the file is damaged.
    """
    path = Path(folder) / "epochs.csv"
    try:
        table = pd.read_csv(path)
        if "epoch" not in table:
            raise ValueError("it has no column 'epoch'")
    except (OSError, ValueError) as error:
        raise InputError(f"epochs {path} can't be read ({error}): restore the file or delete its folder") from error
    others = [name for name in table if name not in EPOCH_COLUMNS]
    return table.reindex(columns=[*EPOCH_COLUMNS, *others])


def read_readings(folder: Path | str) -> pd.DataFrame:
    """How a followed run's last maps read by each `decoder` under each definition of the `score`, a row for each.

    Raises InputError where the run was not followed or the file is damaged.
    """
    path = Path(folder) / "readings.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"readings {path} can't be read ({error}): they belong to runs with the setting follow; restore the file "
            "or train again"
        ) from error


def read_runs(directory: Path | str = RUNS, profile: str | None = None) -> pd.DataFrame:
    """All records below `directory` (of one profile, or of all), a row for each, oldest first; none if there is none.

    Columns: the record's own (run_id, profile, commit, ...), settings and results under their own names (`loss`,
    `error_px`), and the other sections' entries with the section's name: `data_source`, `hardware_gpu`,
    `selection_epoch`. `faults_unreadable` is how often a picture could not be read. What a
    record of schema 1 does not know is missing (None or NaN). `folder` is where the record lies.
    """
    # A name that begins with a dot is a record that is being written, or was never finished.
    folders = sorted(Path(directory).glob(f"{profile or '*'}/[!.]*/run.json"))
    rows = [_flat(read_run(path.parent)) | {"folder": str(path.parent)} for path in folders]
    table = pd.DataFrame(rows)
    return table.sort_values("started", ignore_index=True, kind="stable") if rows else table


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in record.items() if not isinstance(value, dict)}
    for section in ("settings", "results"):
        row |= record.get(section, {})
    for section in SECTIONS:
        row |= {f"{section}_{name}": value for name, value in record.get(section, {}).items()}
    if row["faults_unreadable"] is not None:
        row["faults_unreadable"] = sum(row["faults_unreadable"].values())
    return row


def find_run(directory: Path | str, what: Path | str) -> Path:
    """The folder of the one record below `directory` whose run id or key begins with `what`, or that `what` names.

    A run id given in full means that run, also where others begin alike. Raises InputError where no record fits, or
    several do.
    """
    for folder in (Path(what), Path(directory) / what):
        if (folder / "run.json").is_file():
            return folder
    begin, table = str(what), read_runs(directory)
    if not len(table):
        raise InputError(f"{directory} holds no run record: choose another directory or make one with `hdm train`")
    fits = table["run_id"].str.startswith(begin) | table["key"].str.startswith(begin)
    same = table["run_id"] == begin
    found = table[same if same.sum() == 1 else fits]
    if len(found) == 1:
        return Path(found["folder"].iloc[0])
    if not len(found):
        raise InputError(
            f"no run record in {directory} has a run id or key that begins with {begin!r}, and it is no folder of one: "
            "`hdm runs` lists those that are there"
        )
    folders = found["folder"].tolist()
    raise InputError(
        f"{len(folders)} run records in {directory} begin with {begin!r}: give more of the run id, or a folder such as "
        f"{' or '.join(folders[:2])}"
    )


def write_benchmark(directory: Path | str, record: dict[str, Any], table: pd.DataFrame) -> Path:
    """Writes a benchmark to `directory`/<benchmark>/<started>-<cpu or gpu>; returns that folder."""
    started = record["started"].replace(":", "").replace("-", "")[:15]
    device = "cpu" if record["device"] == "cpu" else "gpu"
    return _write(Path(directory) / record["benchmark"] / f"{started}-{device}", "benchmark", record, {"table": table})


def read_benchmark(
    name: str, device: str = "cpu", directory: Path | str = BENCHMARKS
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The newest record of a benchmark on `cpu` or `gpu`, and its table. Raises InputError where there is none."""
    folders = sorted((Path(directory) / name).glob(f"[!.]*-{device}/benchmark.json"))
    if not folders:
        raise InputError(f"{directory} holds no benchmark {name!r} on a {device}: make one with `hdm bench {name}`")
    return json.loads(folders[-1].read_text()), pd.read_csv(folders[-1].with_name("table.csv"))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def provenance() -> dict[str, Any]:
    """Where a run comes from: commit, uncommitted changes, versions, hardware.

    Outside of a checkout the commit is what HDM_COMMIT says, as whoever installed the package knows it, or `unknown`.
    """
    commit, dirty = checkout_commit(Path(__file__).parents[1])
    return {
        "commit": commit or os.environ.get("HDM_COMMIT") or "unknown",
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "machine": platform.machine(),
            "cpu": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def newest_runs(profile: str, directory: Path | str = RUNS) -> pd.DataFrame:
    """The record of each (loss, warm start, seed) of a profile that `started` last, oldest of these first."""
    table = read_runs(directory, profile)
    if not len(table):
        return table
    return table.drop_duplicates(["loss", "warm_start", "seed"], keep="last").reset_index(drop=True)


def results_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of `read_runs` as the book shows them: what was run, on what and where, and the scores, rounded."""
    columns = {
        "profile": runs["profile"],
        "data": runs["data_source"],
        "boxes": runs["data_boxes"],
        "loss": runs["loss"],
        "warm start": runs["warm_start"],
        "decoder": runs["decoder"],
        "seed": runs["seed"],
        "epochs": runs["epochs"],
        "pixel error": runs["error_px"].round(2),
        "median": runs["median_error_px"].round(2),
        "PCK@0.1": runs["PCK@0.1"].round(3),
        # COCO's layout has the first two, MPII's the others.
        **{
            label: runs[name].round(digits)
            for name, label, digits in (
                ("AP", "OKS-AP", 3),
                ("AP75", "AP75", 3),
                ("PCKh@0.5", "PCKh@0.5", 1),
                ("PCKh@0.1", "PCKh@0.1", 1),
            )
            if name in runs
        },
        "minutes": (runs["seconds"] / 60).round(1),
        "machine": machines(runs),
        "commit": commits(runs),
    }
    return pd.DataFrame(columns)


def machines(runs: pd.DataFrame) -> list[str]:
    """The GPU, or the processor and its cores, of each row of `read_runs`."""
    return [
        # pandas puts NaN for None, and 2.0 for 2 beside it
        gpu if isinstance(gpu, str) else f"{cpu}, {cores:g} cores"
        for gpu, cpu, cores in zip(runs["hardware_gpu"], runs["hardware_cpu"], runs["hardware_cores"], strict=True)
    ]


def commits(runs: pd.DataFrame) -> list[str]:
    """The first eight characters of the commit of each row of `read_runs`, with a + for uncommitted changes."""
    return [commit[:8] + ("+" if dirty else "") for commit, dirty in zip(runs["commit"], runs["dirty"], strict=True)]
