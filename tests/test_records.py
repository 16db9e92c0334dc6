"""Run records: written whole or not at all, never lost, read as one table."""

import copy
import errno
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from disks import full_disk

from hdm import records
from hdm.errors import InputError
from hdm.records import (
    EPOCH_COLUMNS,
    find_run,
    newest_runs,
    provenance,
    read_epochs,
    read_run,
    read_runs,
    results_table,
    write_benchmark,
    write_run,
)

RECORD: dict[str, Any] = {
    "run_id": "20261124T101500-hdm-0123abcd",
    "key": "0123abcd",
    "profile": "quick",
    "started": "2026-11-24T10:00:00+00:00",
    "ended": "2026-11-24T10:15:00+00:00",
    "seconds": 90.0,
    "commit": "0123456789abcdef",
    "dirty": False,
    "sessions": [{"started": "2026-11-24T10:00:00+00:00", "commit": "0123456789abcdef", "dirty": False}],
    "versions": {"torch": "2.4.0"},
    "hardware": {"cpu": "a processor", "cores": 2, "gpu": None, "device": "cpu", "processes": 1},
    "settings": {
        "data": "synthetic:quick", "loss": "hdm", "warm_start": 0.4, "decoder": "local", "seed": 0, "epochs": 2,
        "input_size": [64, 48],
    },
    "data": {"source": "synthetic:quick", "boxes": "ground truth", "train_persons": 24},
    "weights": {"file": "weights-1a2b3c4d.safetensors", "sha256": "1a2b3c4d" * 8},
    "faults": {"unreadable": {"000000000009.jpg": 2, "000000000025.jpg": 1}, "worker_restarts": 1},
    "selection": {"keep": "best", "epoch": 1, "by": "AP"},
    "results": {"error_px": 3.14159, "median_error_px": 2.5, "PCK@0.1": 0.91, "AP": 0.5, "AP75": 0.45},
}  # fmt: skip
EPOCHS = pd.DataFrame(
    {
        "epoch": [0, 1], "objective": ["untrained", "hdm"], "train_loss": [None, 1.25], "val_loss": [4.5, 1.5],
        "error_px": [20.125, 3.14159], "AP": [0.0, 0.5], "PCKh@0.5": [math.nan] * 2, "lr": [0.0, 0.001],
        "grad_norm": [None, 2.5], "seconds": [10.0, 80.0], "train_seconds": [None, 64.0], "val_seconds": [10.0, 16.0],
        "data_wait": [None, 0.125], "images_per_second": [None, 32.5], "memory_mb": [700.0, 900.0],
        "unreadable": [0, 3],
    }
)  # fmt: skip
# Forked, so that they need not load torch anew: a child is at work within milliseconds.
FORK = multiprocessing.get_context("fork")


def record(**changes) -> dict[str, Any]:
    """`RECORD` with some entries changed; its sections are changed entry by entry."""
    changed = copy.deepcopy(RECORD)
    for name, value in changes.items():
        changed[name] = {**changed[name], **value} if isinstance(value, dict) else value
    return changed


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


# --- writing and reading back ---


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    assert folder == tmp_path / "quick" / RECORD["run_id"]
    assert read_run(folder) == {"schema": records.SCHEMA, **RECORD}
    pd.testing.assert_frame_equal(read_epochs(folder), EPOCHS, check_dtype=False)
    assert EPOCHS.columns.tolist() == list(EPOCH_COLUMNS)
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


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a machine that loses power may have the name of a record and nothing in its files."""
    steps: list[Any] = []
    flush, rename = os.fsync, os.rename

    def note_flush(descriptor: int) -> None:
        flush(descriptor)
        steps.append(os.fstat(descriptor).st_ino)

    def note_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "rename", note_rename)
    folder = write_run(tmp_path, RECORD, EPOCHS)
    before, after = steps[: steps.index("rename")], steps[steps.index("rename") + 1 :]
    assert before == [path.stat().st_ino for path in (folder / "run.json", folder / "epochs.csv", folder)]
    assert folder.parent.stat().st_ino in after  # and the name itself


def test_a_file_system_that_cannot_flush_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network drives do, among them the one of a hosted notebook."""
    flush = os.fsync

    def files_only(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    assert read_run(write_run(tmp_path, RECORD, EPOCHS))["run_id"] == RECORD["run_id"]


def test_what_cannot_be_written_as_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_run(tmp_path, record(results={"AP": {0.5}}), EPOCHS)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_no_record_and_no_hindrance(tmp_path: Path) -> None:
    partial = tmp_path / "quick" / f".{RECORD['run_id']}.0123abcd.partial"
    partial.mkdir(parents=True)
    (partial / "run.json").write_text('{"schema": 1, "run')
    assert len(read_runs(tmp_path)) == 0
    write_run(tmp_path, RECORD, EPOCHS)
    assert len(read_runs(tmp_path)) == 1


# --- several processes ---


def numbered(number: int, writer: int = 0) -> tuple[dict[str, Any], pd.DataFrame]:
    """A record and epochs that tell, in every place, who wrote them: AP is the writer's, as is every row's."""
    epochs = pd.concat([EPOCHS.assign(AP=float(writer))] * 50)
    return record(run_id=f"run{number:04}", seconds=float(writer), results={"AP": float(writer)}), epochs


def check_whole(folder: Path) -> int:
    """The one writer that everything in a record is from."""
    content, epochs = read_run(folder), read_epochs(folder)
    writer = int(content["results"]["AP"])
    assert content["seconds"] == writer
    assert epochs["AP"].tolist() == [writer] * 100
    return writer


def write_many(directory: Path, count: int, writer: int = 0) -> None:
    for number in range(count):
        write_run(directory, *numbered(number, writer))


def test_who_reads_while_another_process_writes_sees_whole_records_only(tmp_path: Path) -> None:
    writer = FORK.Process(target=write_many, args=(tmp_path, 150))
    writer.start()
    counts = []
    while not counts or writer.is_alive():
        table = read_runs(tmp_path)  # a half record is an InputError
        counts.append(len(table))
        for folder in table["folder"].tail(3) if len(table) else []:
            check_whole(Path(folder))
    writer.join()
    assert writer.exitcode == 0
    assert len(read_runs(tmp_path)) == 150
    assert counts == sorted(counts)
    assert any(0 < count < 150 for count in counts)  # it did read in between


def test_a_writer_killed_at_any_moment_leaves_whole_records_and_hidden_partials(tmp_path: Path) -> None:
    """20 processes, each killed after 5 to 60 ms of writing."""
    for writer in range(20):
        process = FORK.Process(target=write_many, args=(tmp_path / str(writer), 1_000_000, writer))
        process.start()
        while not (tmp_path / str(writer) / "quick").is_dir():
            time.sleep(0.001)
        time.sleep(random.uniform(0.005, 0.06))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    folders = [path for path in tmp_path.glob("*/quick/*") if not path.name.startswith(".")]
    for folder in folders:
        assert names(folder) == ["epochs.csv", "run.json"]
        assert check_whole(folder) == int(folder.parents[1].name)
    assert folders
    hidden = list(tmp_path.glob("*/quick/.*"))
    assert hidden  # some were killed in the middle of a record, or this test shows nothing
    assert all(path.name.endswith(".partial") for path in hidden)
    assert sum(len(read_runs(tmp_path / str(writer))) for writer in range(20)) == len(folders)


def write_at_once(directory: Path, writer: int, count: int, start: Barrier) -> None:
    """Writes `count` records, each at the same moment as the other process, and notes those that it was refused."""
    refused = []
    for number in range(count):
        content = numbered(number, writer)
        start.wait(30)
        try:
            write_run(directory, *content)
        except InputError as error:
            assert "is there already and is never overwritten" in str(error)
            refused.append(number)
    (directory / f"refused{writer}.json").write_text(json.dumps(refused))


def test_of_two_processes_that_write_the_same_run_one_wins(tmp_path: Path) -> None:
    start = FORK.Barrier(2)
    writers = [FORK.Process(target=write_at_once, args=(tmp_path, writer, 40, start)) for writer in (1, 2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
        assert process.exitcode == 0
    refused = {writer: json.loads((tmp_path / f"refused{writer}.json").read_text()) for writer in (1, 2)}
    assert sorted(refused[1] + refused[2]) == list(range(40))  # each run once: never both, never neither
    for number in range(40):
        assert number in refused[3 - check_whole(tmp_path / "quick" / f"run{number:04}")]
    assert not list((tmp_path / "quick").glob(".*"))


def test_another_process_may_finish_the_same_run_just_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        write_run(tmp_path, *numbered(0, writer=2))
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    with pytest.raises(InputError, match="run0000 is there already and is never overwritten"):
        write_run(tmp_path, *numbered(0, writer=1))
    assert check_whole(tmp_path / "quick" / "run0000") == 2
    assert names(tmp_path / "quick") == ["run0000", "run0000/epochs.csv", "run0000/run.json"]


def test_a_benchmark_is_never_overwritten_either(tmp_path: Path) -> None:
    benchmark = {"benchmark": "transport", "started": RECORD["started"], "device": "cpu"}
    folder = write_benchmark(tmp_path, benchmark, pd.DataFrame({"ms": [1.5, 2.5]}))
    with pytest.raises(InputError, match="benchmark record .* is there already"):
        write_benchmark(tmp_path, benchmark, pd.DataFrame({"ms": [3.5]}))
    assert pd.read_csv(folder / "table.csv")["ms"].tolist() == [1.5, 2.5]


# --- old and damaged records ---


@pytest.fixture
def old_records(repository: Path, tmp_path: Path) -> Path:
    """A copy of the two committed records of schema 1."""
    ids = ("20261126T171510-gaussian_mse-35e73941", "20261126T174132-hdm-b753b63f")
    for name in ids:
        shutil.copytree(repository / "data" / "runs" / "cpu" / name, tmp_path / "old" / "cpu" / name)
    return tmp_path / "old"


def test_old_records_have_the_shape_of_new_ones(old_records: Path, tmp_path: Path) -> None:
    new = read_run(write_run(tmp_path, RECORD, EPOCHS))
    for folder in (old_records / "cpu").iterdir():
        old = read_run(folder)
        assert old["schema"] == 1
        assert new.keys() <= old.keys()
        assert old["weights"] == {"file": None, "sha256": None}
        assert old["faults"] == {"unreadable": None, "worker_restarts": None}
        assert old["selection"] == {"keep": None, "epoch": None, "by": None}
        assert (old["hardware"]["device"], old["hardware"]["processes"]) == ("cpu", None)
        written = json.loads((folder / "run.json").read_text())
        assert written.keys() - old.keys() == set()
        assert all(old[name] == written[name] for name in ("settings", "results", "data", "sessions", "seconds"))


def test_old_epochs_have_all_columns(old_records: Path) -> None:
    for folder in (old_records / "cpu").iterdir():
        epochs, written = read_epochs(folder), pd.read_csv(folder / "epochs.csv")
        assert epochs.columns.tolist() == list(EPOCH_COLUMNS)
        pd.testing.assert_frame_equal(epochs[written.columns.tolist()], written)
        assert epochs[[name for name in EPOCH_COLUMNS if name not in written]].isna().all(axis=None)


def test_old_and_new_records_are_one_table(old_records: Path) -> None:
    write_run(old_records, record(started="2027-01-01T00:00:00+00:00", profile="cpu"), EPOCHS)
    table = read_runs(old_records)
    assert table["schema"].tolist() == [1, 1, 2]
    assert table["loss"].tolist() == ["gaussian_mse", "hdm", "hdm"]
    assert table["weights_file"].isna().tolist() == [True, True, False]
    assert table["faults_unreadable"].tolist()[2] == 3
    assert table["faults_unreadable"].isna().tolist() == [True, True, False]
    assert table["selection_epoch"].tolist()[2] == 1
    assert len(results_table(table)) == 3
    assert newest_runs("cpu", old_records)["schema"].tolist() == [1, 2]  # the new one is hdm's, with the same seed


def test_columns_that_only_this_run_has_are_kept(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS.drop(columns="lr").assign(own=[1, 2]))
    epochs = read_epochs(folder)
    assert epochs.columns.tolist() == [*EPOCH_COLUMNS, "own"]
    assert epochs["own"].tolist() == [1, 2]
    assert epochs["lr"].isna().all()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "run.json can't be read .*No such file"),
    "cut short": (lambda path: path.write_text(path.read_text()[:100]), "run.json can't be read"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe"), "run.json can't be read"),
    "a list": (
        lambda path: path.write_text("[1]"),
        "run.json is of schema None, and this version of hdm reads 1 and 2: use the version of hdm that wrote it",
    ),
    "newer": (
        lambda path: path.write_text(path.read_text().replace('"schema": 2', '"schema": 3')),
        "run.json is of schema 3, and this version of hdm reads 1 and 2",
    ),
    "hollow": (lambda path: path.write_text('{"schema": 1, "run_id": "x"}'), "run.json has no 'key'"),
    "without results": (
        lambda path: path.write_text(path.read_text().replace('"results"', '"outcome"')),
        "run.json has no 'results'",
    ),
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


def test_an_old_record_that_says_schema_3(old_records: Path) -> None:
    path = next(old_records.glob("cpu/*-hdm-*/run.json"))
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 3'))
    for read in (lambda: read_run(path.parent), lambda: read_runs(old_records)):
        with pytest.raises(InputError, match="is of schema 3, and this version of hdm reads 1 and 2"):
            read()


def test_damaged_epochs_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, RECORD, EPOCHS)
    (folder / "epochs.csv").write_text("")
    with pytest.raises(InputError, match="epochs .*epochs.csv can't be read"):
        read_epochs(folder)
    (folder / "epochs.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(InputError, match="epochs.csv can't be read .it has no column 'epoch'"):
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


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """Two runs swap places; a run that ended before it started is read as any other."""
    write_run(tmp_path, record(run_id="20261124T101500-hdm-a"), EPOCHS)
    back = {"started": "2026-11-24T12:00:00+00:00", "ended": "1970-01-01T00:03:00+00:00"}
    write_run(tmp_path, record(run_id="19700101T000300-hdm-a", **back), EPOCHS)
    table = read_runs(tmp_path)
    assert table["run_id"].tolist() == ["20261124T101500-hdm-a", "19700101T000300-hdm-a"]
    assert newest_runs("quick", tmp_path)["run_id"].tolist() == ["19700101T000300-hdm-a"]
    assert table["seconds"].tolist() == [90.0, 90.0]
    assert len(results_table(table)) == 2


def test_runs_that_started_in_the_same_second_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    for name in ("run2", "run1", "run3"):
        write_run(tmp_path, record(run_id=name), EPOCHS)
    assert read_runs(tmp_path)["run_id"].tolist() == ["run1", "run2", "run3"]
    assert newest_runs("quick", tmp_path)["run_id"].tolist() == ["run3"]


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


# --- one of them ---


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Three records: two of one key, and one whose run id is the beginning of another."""
    for name, key in (("20261124T1015", "aa11"), ("20261124T101533-hdm", "aa11"), ("20261125T080000-hdm", "bb22")):
        write_run(tmp_path / "runs", record(run_id=name, key=key), EPOCHS)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("20261125", "20261125T080000-hdm"),
        ("bb", "20261125T080000-hdm"),
        ("20261124T10153", "20261124T101533-hdm"),
        ("20261124T1015", "20261124T1015"),  # in full, although another begins alike
        ("quick/20261124T1015", "20261124T1015"),
    ],
)
def test_a_run_is_found_by_a_start_of_its_id_or_key_or_by_its_folder(several: Path, what: str, expected: str) -> None:
    assert find_run(several, what) == several / "quick" / expected


def test_a_run_is_found_by_its_folder_wherever_that_is(several: Path, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "elsewhere", RECORD, EPOCHS)
    assert find_run(several, folder) == find_run(several, str(folder)) == folder


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cc", "no run record in .* begins with 'cc'"),
        ("hdm", "no run record in .* begins with 'hdm'"),  # in the middle is not enough
        ("aa", "2 run records in .* begin with 'aa': give more of the run id, or a folder such as .*20261124T1015 or"),
        ("2026", "3 run records in .* begin with '2026'"),
        ("quick", "begins with 'quick'"),  # a folder, but of records
    ],
)
def test_no_run_or_several(several: Path, what: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_run(several, what)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run record: .*`hdm train`"):
        find_run(tmp_path, "2026")


# --- where a run comes from ---


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, in which the package's module seems to lie."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    top = tmp_path / "checkout"
    (top / "hdm").mkdir(parents=True)
    (top / "hdm" / "records.py").write_text("first\n")
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(records, "__file__", str(top / "hdm" / "records.py"))
    return top


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    run = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def test_a_run_knows_its_commit_and_uncommitted_changes(checkout: Path) -> None:
    (checkout / "data.txt").write_text("new files are no change of the code")
    clean = provenance()
    assert clean["commit"] == git(checkout, "rev-parse", "HEAD")
    assert clean["dirty"] is False
    (checkout / "hdm" / "records.py").write_text("second\n")
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


def test_outside_of_a_checkout_the_commit_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "__file__", str(tmp_path / "records.py"))
    monkeypatch.setenv("HDM_COMMIT", "0123abcd")
    assert (provenance()["commit"], provenance()["dirty"]) == ("0123abcd", False)


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
