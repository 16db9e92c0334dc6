"""Run records: written whole or not at all, never lost, read as one table."""

import copy
import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hdm import records
from hdm.errors import InputError
from hdm.records import newest_runs, provenance, read_epochs, read_run, read_runs, results_table, write_run

RECORD: dict[str, Any] = {
    "run_id": "20261124T101500-hdm-0123abcd",
    "key": "0123abcd",
    "profile": "quick",
    "started": "2026-11-24T10:00:00+00:00",
    "seconds": 90.0,
    "commit": "0123456789abcdef",
    "dirty": False,
    "sessions": [{"started": "2026-11-24T10:00:00+00:00", "commit": "0123456789abcdef", "dirty": False}],
    "versions": {"torch": "2.4.0"},
    "hardware": {"cpu": "a processor", "cores": 2, "gpu": None},
    "settings": {
        "data": "synthetic:quick", "loss": "hdm", "warm_start": 0.4, "decoder": "local", "seed": 0, "epochs": 2,
        "input_size": [64, 48],
    },
    "data": {"source": "synthetic:quick", "boxes": "ground truth", "train_persons": 24},
    "results": {"error_px": 3.14159, "median_error_px": 2.5, "PCK@0.1": 0.91, "AP": 0.5, "AP75": 0.45},
}  # fmt: skip
EPOCHS = pd.DataFrame(
    {"epoch": [0, 1], "objective": ["untrained", "hdm"], "train_loss": [None, 1.25], "error_px": [20.125, 3.14159]}
)


def record(**changes) -> dict[str, Any]:
    """`RECORD` with some entries changed; `settings`, `hardware` and `results` are changed entry by entry."""
    changed = copy.deepcopy(RECORD)
    for name, value in changes.items():
        changed[name] = {**changed[name], **value} if isinstance(value, dict) else value
    return changed


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file can grow beyond `room` bytes: the operating system refuses the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- writing and reading back ---


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    assert folder == tmp_path / "quick" / RECORD["run_id"]
    assert read_run(folder) == {"schema": records.SCHEMA, **RECORD}
    pd.testing.assert_frame_equal(read_epochs(folder), EPOCHS, check_dtype=False)
    assert names(folder) == ["epochs.csv", "run.json"]


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    with pytest.raises(InputError, match="is there already and is never overwritten"):
        write_run(tmp_path, record(results={"AP": 0.99}), EPOCHS)
    assert read_run(folder)["results"]["AP"] == 0.5


@pytest.mark.parametrize("room", [0, 200, 10_000])
def test_a_full_disk_leaves_the_old_records_and_nothing_else(tmp_path: Path, room: int) -> None:
    """The disk is full at once, in the middle of run.json, and in the middle of epochs.csv."""
    write_run(tmp_path, RECORD, EPOCHS)
    before = names(tmp_path)
    long = pd.concat([EPOCHS] * 2_000)
    with (
        full_disk(room),
        pytest.raises(InputError, match="can't be written .*: free space or choose another directory"),
    ):
        write_run(tmp_path, record(run_id="another"), long)
    assert names(tmp_path) == before
    assert read_runs(tmp_path)["run_id"].tolist() == [RECORD["run_id"]]
    assert len(read_epochs(write_run(tmp_path, record(run_id="another"), long))) == 4_000


def test_a_record_appears_whole_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be seen in its place until everything is written, and the last step is a single one."""

    def refuse(source: Path, target: Path) -> None:
        assert names(Path(source)) == ["epochs.csv", "run.json"]
        assert not Path(target).exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(InputError, match="can't be written .No space left on device"):
        write_run(tmp_path, RECORD, EPOCHS)
    assert names(tmp_path) == ["quick"]


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="can't be written .Not a directory"):
        write_run(tmp_path / "runs", RECORD, EPOCHS)


def test_what_a_killed_process_left_is_no_record_and_no_hindrance(tmp_path: Path) -> None:
    partial = tmp_path / "quick" / f".{RECORD['run_id']}.partial"
    partial.mkdir(parents=True)
    (partial / "run.json").write_text('{"schema": 1, "run')
    assert len(read_runs(tmp_path)) == 0
    write_run(tmp_path, RECORD, EPOCHS)
    assert len(read_runs(tmp_path)) == 1
    assert names(tmp_path / "quick") == [
        RECORD["run_id"],
        *(f"{RECORD['run_id']}/{n}" for n in ("epochs.csv", "run.json")),
    ]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "run.json can't be read .*No such file"),
    "cut short": (lambda path: path.write_text(path.read_text()[:100]), "run.json can't be read"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe"), "run.json can't be read"),
    "a list": (
        lambda path: path.write_text("[1]"),
        "run.json is not of schema 1: use the version of hdm that wrote it",
    ),
    "newer": (lambda path: path.write_text('{"schema": 2}'), "run.json is not of schema 1"),
    "hollow": (lambda path: path.write_text('{"schema": 1, "run_id": "x"}'), "run.json has no 'key'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named(tmp_path: Path, damage: str) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    change, words = DAMAGE[damage]
    change(folder / "run.json")
    with pytest.raises(InputError, match=words) as raised:
        read_run(folder)
    assert str(folder) in str(raised.value)
    if damage != "gone":
        with pytest.raises(InputError, match=words):  # never passed over in silence
            read_runs(tmp_path)


def test_damaged_epochs_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    (folder / "epochs.csv").write_text("")
    with pytest.raises(InputError, match="epochs .*epochs.csv can't be read"):
        read_epochs(folder)
    (folder / "epochs.csv").unlink()
    with pytest.raises(InputError, match="can't be read .*No such file"):
        read_epochs(folder)


# --- the table ---


def test_one_row_per_run_with_settings_and_results_side_by_side(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    row = read_runs(tmp_path).iloc[0]
    assert (row["run_id"], row["loss"], row["seed"], row["error_px"]) == (RECORD["run_id"], "hdm", 0, 3.14159)
    assert (row["data"], row["data_source"], row["data_boxes"]) == (
        "synthetic:quick",
        "synthetic:quick",
        "ground truth",
    )
    assert (row["hardware_cores"], row["versions_torch"], row["folder"]) == (2, "2.4.0", str(folder))


def test_no_record_gives_an_empty_table(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        assert len(read_runs(directory)) == 0
        assert len(newest_runs("quick", directory)) == 0


def test_oldest_first_and_one_profile_only(tmp_path: Path) -> None:
    for number, (profile, hour) in enumerate([("quick", 12), ("cpu", 9), ("quick", 10), ("cpu", 11)]):
        started = f"2026-11-24T{hour:02}:00:00+00:00"
        write_run(tmp_path, record(run_id=f"run{number}", profile=profile, started=started), EPOCHS)
    assert read_runs(tmp_path)["run_id"].tolist() == ["run1", "run2", "run3", "run0"]
    assert read_runs(tmp_path, "quick")["run_id"].tolist() == ["run2", "run0"]
    assert len(read_runs(tmp_path, "paper")) == 0


def test_the_newest_run_of_each_loss_warm_start_and_seed(tmp_path: Path) -> None:
    kinds = [("hdm", 0.4, 0), ("gaussian_mse", 0.0, 0), ("hdm", 0.0, 0), ("hdm", 0.4, 1), ("hdm", 0.4, 0)]
    for number, (loss, warm_start, seed) in enumerate(kinds):
        settings = {"loss": loss, "warm_start": warm_start, "seed": seed}
        started = f"2026-11-24T1{number}:00:00+00:00"
        write_run(tmp_path, record(run_id=f"run{number}", started=started, settings=settings), EPOCHS)
    write_run(tmp_path, record(run_id="other", profile="cpu"), EPOCHS)
    assert newest_runs("quick", tmp_path)["run_id"].tolist() == ["run1", "run2", "run3", "run4"]


def test_the_table_of_the_book_rounds_and_names_the_machine(tmp_path: Path) -> None:
    write_run(tmp_path, RECORD, EPOCHS)
    later = {"started": "2026-11-25T10:00:00+00:00", "dirty": True, "hardware": {"gpu": "a card"}}
    write_run(tmp_path, record(run_id="later", **later), EPOCHS)
    table = results_table(read_runs(tmp_path))
    assert table["machine"].tolist() == ["a processor, 2 cores", "a card"]
    assert table["commit"].tolist() == ["01234567", "01234567+"]
    assert table["boxes"].tolist() == ["ground truth"] * 2
    assert table.loc[0, ["pixel error", "OKS-AP", "minutes", "warm start"]].tolist() == [3.14, 0.5, 1.5, 0.4]


# --- where a run comes from ---


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, in which the package's module seems to lie."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "records.py").write_text("first\n")
    git(package, "init", "--quiet")
    git(package, "add", ".")
    git(package, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(records, "__file__", str(package / "records.py"))
    return package


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    run = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_a_run_knows_its_commit_and_uncommitted_changes(checkout: Path) -> None:
    (checkout / "data.txt").write_text("new files are no change of the code")
    clean = provenance()
    assert clean["commit"] == git(checkout, "rev-parse", "HEAD")
    assert clean["dirty"] is False
    (checkout / "records.py").write_text("second\n")
    assert provenance()["dirty"] is True


def test_outside_of_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", False)


def test_the_commit_of_another_project_is_not_taken_for_ours(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the package is installed in a virtual environment within somebody's repository."""
    installed = checkout / ".venv" / "hdm"
    installed.mkdir(parents=True)
    monkeypatch.setattr(records, "__file__", str(installed / "records.py"))
    assert (provenance()["commit"], provenance()["dirty"]) == ("unknown", False)


def test_without_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert provenance()["commit"] == "unknown"


def test_versions_and_hardware_are_there() -> None:
    source = provenance()
    assert {"python", "torch", "numpy", "pycocotools", "hdm"} <= source["versions"].keys()
    assert source["hardware"]["cores"] >= 1
    assert source["hardware"]["cpu"]
    json.dumps(source)


def test_what_a_machine_does_not_tell_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "PACKAGES", ("torch", "a-package-that-nobody-has"))
    read = Path.read_text

    def without_proc(path: Path, *arguments, **options) -> str:
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", without_proc)
    source = provenance()
    assert source["versions"].keys() == {"python", "torch"}
    assert source["hardware"]["cpu"]  # without /proc/cpuinfo too
