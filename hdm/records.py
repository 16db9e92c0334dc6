"""Run records: what was run, on what, and what came out. Written once, never edited; read as one tidy table.

data/runs/<profile>/<run id>/run.json     settings, data, versions, hardware, commit, results
data/runs/<profile>/<run id>/epochs.csv   one row per epoch; epoch 0 is the untrained network
data/benchmarks/<name>/<time>-<device>/benchmark.json, table.csv     timings: where and how, and one row per measurement
"""

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hdm.errors import InputError

SCHEMA = 1
RUNS = Path("data/runs")
BENCHMARKS = Path("data/benchmarks")
PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "timm", "hdm")


def write_run(directory: Path | str, record: dict[str, Any], epochs: pd.DataFrame) -> Path:
    """Writes `record` and its epochs to `directory`/<profile>/<run id>, whole or not at all; returns that folder.

    Raises InputError where the record is there already (it is never overwritten) or can't be written (full disk, no
    right).
    """
    target = Path(directory) / record["profile"] / record["run_id"]
    if target.exists():
        raise InputError(
            f"run record {target} is there already and is never overwritten: delete it or run with another seed"
        )
    return _write(target, "run", {"schema": SCHEMA, **record}, "epochs", epochs)


def _write(target: Path, name: str, record: dict[str, Any], table_name: str, table: pd.DataFrame) -> Path:
    """A folder with a JSON and a CSV file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        table.to_csv(temporary / f"{table_name}.csv", index=False, float_format="%.6g")
        os.rename(temporary, target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"{name} record {target} can't be written ({error.strerror}): free space or choose another directory"
        ) from error
    return target


def read_run(folder: Path | str) -> dict[str, Any]:
    """One record as it was written. Raises InputError where it is damaged or of another schema."""
    path = Path(folder) / "run.json"
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"run record {path} can't be read ({error}): restore it from version control or delete its folder"
        ) from error
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise InputError(
            f"run record {path} is not of schema {SCHEMA}: use the version of hdm that wrote it, or delete its folder"
        )
    missing = [name for name in ("run_id", "key", "profile", "started") if name not in record]
    if missing:
        raise InputError(
            f"run record {path} has no {missing[0]!r}: restore it from version control or delete its folder"
        )
    return record


def read_epochs(folder: Path | str) -> pd.DataFrame:
    """The epochs of one record: epoch, objective, train_loss, val_loss, error_px, lr, seconds."""
    path = Path(folder) / "epochs.csv"
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"epochs {path} can't be read ({error}): restore the file or delete its folder") from error


def read_runs(directory: Path | str = RUNS, profile: str | None = None) -> pd.DataFrame:
    """All records below `directory` (of one profile, or of all), a row for each, oldest first; none if there is none.

    Columns: the record's own (run_id, profile, commit, ...), then settings, data, hardware, versions and results under
    their own names with those prefixes left out where they are unambiguous: `settings.loss` is column `loss`.
    """
    # A name that begins with a dot is a record that was never finished.
    folders = sorted(Path(directory).glob(f"{profile or '*'}/[!.]*/run.json"))
    rows = [_flat(read_run(path.parent)) | {"folder": str(path.parent)} for path in folders]
    table = pd.DataFrame(rows)
    return table.sort_values("started", ignore_index=True, kind="stable") if rows else table


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    row = {name: value for name, value in record.items() if not isinstance(value, dict)}
    for section in ("settings", "results"):
        row |= record.get(section, {})
    for section in ("data", "hardware", "versions"):
        row |= {f"{section}_{name}": value for name, value in record.get(section, {}).items()}
    return row


def write_benchmark(directory: Path | str, record: dict[str, Any], table: pd.DataFrame) -> Path:
    """Writes a benchmark to `directory`/<benchmark>/<started>-<cpu or gpu>; returns that folder."""
    started = record["started"].replace(":", "").replace("-", "")[:15]
    device = "cpu" if record["device"] == "cpu" else "gpu"
    return _write(Path(directory) / record["benchmark"] / f"{started}-{device}", "benchmark", record, "table", table)


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
    """Where a run comes from: commit (`unknown` outside of a checkout), uncommitted changes, versions, hardware."""
    # An installed package may lie within a checkout of something else, such as the .venv of another project.
    own = bool(_git("ls-files", Path(__file__).name))
    return {
        "commit": _git("rev-parse", "HEAD") if own else "unknown",
        "dirty": own and bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"python": platform.python_version(), **_versions()},
        "hardware": {
            "machine": platform.machine(),
            "cpu": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _git(*arguments: str) -> str:
    """Output of git in the checkout that the package lies in; empty where there is no git or no checkout."""
    try:
        run = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


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
    """The newest record of each (loss, warm start, seed) of a profile, oldest of these first."""
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
        "machine": [
            gpu if isinstance(gpu, str) else f"{cpu}, {cores} cores"  # pandas may put NaN for None
            for gpu, cpu, cores in _machines(runs)
        ],
        "commit": [
            commit[:8] + ("+" if dirty else "") for commit, dirty in zip(runs["commit"], runs["dirty"], strict=True)
        ],
    }
    return pd.DataFrame(columns)


def _machines(runs: pd.DataFrame) -> zip:
    return zip(runs["hardware_gpu"], runs["hardware_cpu"], runs["hardware_cores"], strict=True)
