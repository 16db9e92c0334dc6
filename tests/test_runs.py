"""Run records in the terminal: what is listed, in which order, and what tells two runs apart."""

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hdm.errors import InputError
from hdm.records import read_epochs, read_run, write_run
from hdm.runs import SHORT_COLUMNS, as_text, compare_runs, fit_table, runs_table, show_run

OLD = ("20261126T171510-gaussian_mse-35e73941", "20261126T174132-hdm-b753b63f")


def write(directory: Path, run_id: str, *, hour: int, profile: str = "quick", dirty: bool = False, **changes) -> Path:
    """A record whose settings and results are changed by name, with two trained epochs."""
    settings = {
        "data": "synthetic:quick", "loss": "hdm", "loss_settings": {}, "warm_start": 0.4, "decoder": "local", "seed": 0,
        "epochs": 2, "input_size": [64, 48], "lr": 0.001, "pretrained": False, "nms": None,
    }  # fmt: skip
    results = {"error_px": 8.0, "AP": 0.25}
    record: dict[str, Any] = {
        "run_id": run_id,
        "key": run_id.rpartition("-")[2],
        "profile": profile,
        "started": f"2027-01-01T{hour:02}:00:00+00:00",
        "seconds": 90.0,
        "commit": "0123456789abcdef",
        "dirty": dirty,
        "versions": {"torch": "2.4.0"},
        "hardware": {"cpu": "a processor", "cores": 2, "gpu": None},
        "sessions": [{"started": f"2027-01-01T{hour:02}:00:00+00:00"}],
        "settings": settings | {name: value for name, value in changes.items() if name in settings},
        "data": {"source": "synthetic:quick", "val_sha256": changes.get("val_sha256", "aa")},
        "selection": {"keep": "last", "epoch": 2, "by": None},
        "faults": {"unreadable": {"a picture.jpg": 3}, "worker_restarts": 0},
        "results": results | {name: value for name, value in changes.items() if name in results},
    }
    epochs = pd.DataFrame(
        {
            "epoch": [0, 1, 2], "error_px": [20.0, 7.5, record["results"]["error_px"]],
            "train_seconds": [math.nan, 30.0, 10.0], "data_wait": [math.nan, 0.5, 0.1],
        }
    )  # fmt: skip
    return write_run(directory, record, epochs)


@pytest.fixture
def directory(repository: Path, tmp_path: Path) -> Path:
    """The two committed records of schema 1, and four new ones with errors of 9, 12, 10 and 8 pixels."""
    runs = tmp_path / "runs"
    for name in OLD:
        shutil.copytree(repository / "data" / "runs" / "cpu" / name, runs / "cpu" / name)
    write(runs, "20270101T100000-hdm-aaaa0000", hour=9, error_px=9.0, AP=0.3)
    write(runs, "20270101T110000-kl-bbbb0000", hour=10, error_px=12.0, AP=0.1, loss="kl", nms=0.9, dirty=True)
    write(runs, "20270101T120000-hdm-cccc0000", hour=11, error_px=10.0, seed=1, lr=1e-05, pretrained=True)
    write(runs, "20270101T120000-kl-dddd0000", hour=12, error_px=8.0, loss="kl", input_size=[96, 64], profile="gpu")
    return runs


def runs_of(table: pd.DataFrame) -> list[str]:
    return table["run"].tolist()


# --- listing ---


def test_the_short_table(directory: Path) -> None:
    table = runs_table(directory)
    assert table.columns.tolist() == [name for name in SHORT_COLUMNS if name != "PCKh@0.5"]
    # As much of each run id as tells it from the others: two of them begin with the same second.
    times = ["20261126T171510", "20261126T174132", "20270101T100000", "20270101T110000"]
    assert runs_of(table) == [*times, "20270101T120000-h", "20270101T120000-k"]
    assert table["loss"].tolist() == ["gaussian_mse", "hdm", "hdm", "kl", "hdm", "kl"]
    assert table["commit"].tolist()[1:4] == ["15a6310e", "01234567", "01234567+"]
    assert table["machine"].tolist()[2:] == ["a processor, 2 cores"] * 4
    assert table["minutes"].tolist()[2:] == [1.5] * 4
    assert table["data_wait_%"].isna().tolist() == [True, True, False, False, False, False]
    assert table["data_wait_%"].iloc[2] == pytest.approx(100 * (0.5 * 30 + 0.1 * 10) / 40)


def test_mpii_has_pckh(directory: Path) -> None:
    folder = write(directory, "20270201T100000-hdm-eeee0000", hour=20, profile="mpii")
    record = json.loads((folder / "run.json").read_text())
    record["results"] = {"error_px": 8.0, "PCKh@0.5": 71.5}
    (folder / "run.json").write_text(json.dumps(record))
    table = runs_table(directory)
    assert table["PCKh@0.5"].tolist()[-1] == 71.5
    assert math.isnan(table["AP"].tolist()[-1])


def test_names_of_runs_do_not_depend_on_what_is_shown(directory: Path) -> None:
    assert runs_of(runs_table(directory, profile="gpu")) == ["20270101T120000-k"]


def test_one_profile_only(directory: Path) -> None:
    assert set(runs_table(directory, profile="cpu")["profile"]) == {"cpu"}
    with pytest.raises(InputError, match="no profile with a run record in .* named 'qick': did you mean 'quick'"):
        runs_table(directory, profile="qick")


# By the errors of the records: 9.4 and 9.7 of the old ones, then 9, 12, 10 and 8.
CONDITIONS: dict[str, tuple[Sequence[str] | dict[str, Any], list[int]]] = {
    "text": (["loss=kl"], [3, 5]),
    "not this text": (["loss!=kl"], [0, 1, 2, 4]),
    "a whole number": (["seed=1"], [4]),
    "the same, spaced and doubled": ([" seed == 1 "], [4]),
    "smaller": (["error_px<9"], [5]),
    "at most": (["error_px<=9"], [2, 5]),
    "larger": (["error_px>10"], [3]),
    "at least": (["error_px>=10"], [3, 4]),
    "scores": (["AP>=0.2"], [0, 2, 4, 5]),
    "two conditions": (["loss=hdm", "AP>=0.3"], [2]),
    "two on one column": (["error_px>8", "error_px<9.5"], [0, 2]),
    "a small number": (["lr=1e-5"], [4]),
    "a list": (["input_size=[96, 64]"], [5]),
    "a mapping": (["loss_settings={sigma: 1.0}"], [0]),
    "an empty mapping": (["loss_settings={}"], [1, 2, 3, 4, 5]),
    "true": (["pretrained=true"], [0, 1, 4]),
    "a setting that is none": (["nms=null"], [0, 1, 2, 4, 5]),
    "a setting that is not none": (["nms!=null"], [3]),
    "what an old record does not know": (["selection_epoch=null"], [0, 1]),
    "which is neither less nor more": (["faults_unreadable<1000"], [2, 3, 4, 5]),
    "a column made here": (["data_wait_%>39"], [2, 3, 4, 5]),
    "times": (["started>=2027-01-01T11"], [4, 5]),
    "a commit with changes": (["commit=01234567+"], [3]),
    "a mapping of values": ({"loss": "hdm", "seed": 0}, [1, 2]),
    "a value that is no text": ({"input_size": [96, 64]}, [5]),
    "nothing": ({"nms": None}, [0, 1, 2, 4, 5]),
    "no condition": ([], [0, 1, 2, 3, 4, 5]),
    "what no record meets": (["loss=rle"], []),
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_conditions(directory: Path, case: str) -> None:
    where, expected = CONDITIONS[case]
    everything = runs_of(runs_table(directory))
    assert runs_of(runs_table(directory, where=where)) == [everything[number] for number in expected]


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("los=hdm", "no column of the run records named 'los': did you mean 'loss'"),
        ("ap>0.2", "named 'ap': did you mean 'AP'"),
        ("xyzzy=1", "named 'xyzzy': choose one of .*AP, .*loss"),
        ("loss", "condition 'loss' is not of the form NAME OP VALUE: write it like loss=hdm or error_px<10"),
        ("=hdm", "not of the form"),
        ("error_px=<9", "not of the form"),
        ("error_px<>9", "not of the form"),
        ("error_px<few", "condition error_px<few orders .* which have no order: use = or !="),
        ("loss_settings>1", "have no order"),
    ],
)
def test_conditions_that_make_no_sense(directory: Path, condition: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        runs_table(directory, where=[condition])


def test_sorted(directory: Path) -> None:
    errors = runs_table(directory, sort="error_px")["error_px"].tolist()
    assert errors == sorted(errors)
    assert runs_table(directory, sort="-error_px")["error_px"].tolist() == errors[::-1]
    assert runs_table(directory, sort="loss")["loss"].tolist() == ["gaussian_mse", "hdm", "hdm", "hdm", "kl", "kl"]
    waits = runs_table(directory, sort="data_wait_%")
    assert waits["data_wait_%"].isna().tolist() == [False] * 4 + [True] * 2  # what is not known comes last
    assert len(runs_table(directory, sort="loss_settings")) == 6  # mappings have no order of their own
    with pytest.raises(InputError, match="named 'error': did you mean 'error_px'"):
        runs_table(directory, sort="error")


def test_chosen_columns(directory: Path) -> None:
    table = runs_table(directory, columns=["lr", "selection_keep", "run", "lr"])
    assert table.columns.tolist() == ["run", "lr", "selection_keep"]
    with pytest.raises(InputError, match="named 'selection_kept': did you mean 'selection_keep'"):
        runs_table(directory, columns=["selection_kept"])


def test_no_records_at_all(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        table = runs_table(folder, profile="cpu", where=["loss=hdm"], sort="AP", columns=["lr"])
        assert table.empty and table.columns.empty


def test_damaged_records_are_named(directory: Path) -> None:
    (directory / "cpu" / OLD[0] / "epochs.csv").write_text("")
    with pytest.raises(InputError, match=f"{OLD[0]}/epochs.csv can't be read"):
        runs_table(directory)


# --- as text ---


def test_a_table_that_fits_is_shown_as_it_is(directory: Path) -> None:
    lines = fit_table(runs_table(directory), 300).splitlines()
    assert lines[0].split() == [name for name in SHORT_COLUMNS if name != "PCKh@0.5"]
    assert len(lines) == 7


def test_a_wide_table_says_below_what_is_the_same_in_all_rows(directory: Path) -> None:
    table = runs_table(directory, profile="quick")
    lines = fit_table(table, 110).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0].split() == ["run", "loss", "seed", "error_px", "AP", "commit"]
    assert [line.split()[0] for line in lines[1:4]] == runs_of(table)
    assert " ".join(lines[4:]) == (
        "the same in all rows: profile quick, data synthetic:quick, decoder local, epochs 2, minutes 1.5, "
        "data_wait_% 40, machine a processor, 2 cores"
    )


@pytest.mark.parametrize("width", [56, 60, 80])
def test_a_narrow_terminal_shows_every_value(directory: Path, width: int) -> None:
    table = runs_table(directory)
    text = fit_table(table, width)
    assert max(map(len, text.splitlines())) <= width
    for name in table:
        assert name in text
    assert text.count("20270101T110000") > 1  # each block of columns says whose they are


def test_one_run_in_a_narrow_terminal_is_a_column(directory: Path) -> None:
    lines = fit_table(runs_table(directory, where=["seed=1"]), 50).splitlines()
    assert [line.split()[0] for line in lines] == [name for name in SHORT_COLUMNS if name != "PCKh@0.5"]
    assert lines[3].split() == ["loss", "hdm"]


def test_numbers_have_four_digits_and_what_is_not_known_is_a_dash() -> None:
    table = pd.DataFrame({"a": [math.nan, 1 / 3], "b": [12345.678, 1e-5], "c": [None, "text"], "d": [7, 1_000_000]})
    assert [line.split() for line in as_text(table, 80).splitlines()[1:]] == [
        ["-", "12346", "-", "7"],
        ["0.3333", "1e-05", "text", "1000000"],
    ]


# --- comparing ---


def test_a_comparison_shows_what_differs_and_by_how_much(directory: Path) -> None:
    table = compare_runs(directory, ["20270101T10", "bbbb"])
    assert table.columns.tolist() == ["part", "name", "20270101T100000", "20270101T110000", "difference"]
    settings = table[table["part"] == "setting"].drop(columns="part").to_numpy().tolist()
    assert settings == [["loss", "hdm", "kl", None], ["nms", None, 0.9, None]]
    results = table[table["part"] == "result"].set_index("name")
    assert results.loc["error_px"].tolist()[1:] == [9.0, 12.0, 3.0]
    assert results.loc["AP", "difference"] == pytest.approx(-0.2)
    epochs = table[table["part"] == "epochs"].set_index("name")
    assert epochs.loc["best_epoch"].tolist()[1:3] == [1, 1]
    assert epochs.loc["best_error_px"].tolist()[1:] == [7.5, 7.5, 0.0]
    assert set(table["part"]) == {"setting", "result", "epochs"}  # same data, code and kept epoch


def test_a_comparison_of_the_committed_records(directory: Path) -> None:
    table = compare_runs(directory, ["35e7", "b753"])
    settings = table[table["part"] == "setting"].set_index("name")
    records = [read_run(directory / "cpu" / name)["settings"] for name in OLD]
    assert set(settings.index) == {name for name in records[0] if records[0][name] != records[1][name]}
    assert settings.loc["loss_settings"].tolist()[1:3] == [{"sigma": 1.0}, {}]
    best = [read_epochs(directory / "cpu" / name)["error_px"] for name in OLD]
    assert table.set_index("name").loc["best_epoch"].tolist()[1:3] == [errors.idxmin() for errors in best]


def test_a_comparison_says_where_data_code_and_kept_epoch_differ(directory: Path) -> None:
    write(directory, "20270301T100000-hdm-ffff0000", hour=20, val_sha256="bb")
    table = compare_runs(directory, ["20270101T10", "ffff", "b753"])
    assert table.columns.tolist()[-2:] == ["difference 2", "difference 3"]
    facts = table.set_index(["part", "name"])
    assert facts.loc[("data", "val_sha256")].tolist()[:2] == ["aa", "bb"]
    assert facts.loc[("code", "torch")].tolist()[:3] == ["2.4.0", "2.4.0", "2.14.1"]
    assert facts.loc[("selection", "keep")].tolist()[:3] == ["last", "last", None]
    assert facts.loc[("result", "AR")].tolist()[:2] == [None, None]  # only the old one has it: no difference from it
    assert facts.loc[("result", "AR"), "difference 3"] is None


def test_runs_of_one_name_are_told_apart_by_their_folders(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory / "cpu" / OLD[1], tmp_path / "again" / OLD[1])
    folders = [str(directory / "cpu" / OLD[1]), str(tmp_path / "again" / OLD[1])]
    table = compare_runs(directory, folders)
    assert table.columns.tolist()[2:4] == folders
    assert set(table["part"]) == {"result", "epochs"}


@pytest.mark.parametrize("ids", [[], ["35e7"], ["35e7", "35e7"], ["35e7", "20261126T1715"]])
def test_a_comparison_takes_two_different_runs(directory: Path, ids: list[str]) -> None:
    with pytest.raises(InputError, match="two or more different run records"):
        compare_runs(directory, ids)


def test_a_comparison_in_a_narrow_terminal(directory: Path) -> None:
    table = compare_runs(directory, ["aaaa", "bbbb", "cccc", "dddd"])
    text = as_text(table, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("error_px") > 2  # each block of columns names its rows


# --- one in full ---


def test_a_record_in_full(directory: Path) -> None:
    text = show_run(directory, "bbbb")
    lines = [line.split(maxsplit=1) for line in text.splitlines()]
    assert text.splitlines()[0] == str(directory / "quick" / "20270101T110000-kl-bbbb0000")
    for name, value in {
        "profile": "quick",
        "commit": "0123456789abcdef",
        "loss": "kl",
        "input_size": "[64, 48]",
        "nms": "0.9",
        "torch": "2.4.0",
        "keep": "last",
        "unreadable": '{"a picture.jpg": 3}',
        "error_px": "12",
    }.items():
        assert [name, value] in lines, name
    epochs = text.partition("\nepochs\n")[2].splitlines()
    assert epochs[0].split() == ["epoch", "error_px", "train_seconds", "data_wait"]
    assert [line.split() for line in epochs[1:]] == [
        ["0", "20", "-", "-"],
        ["1", "7.5", "30", "0.5"],
        ["2", "12", "10", "0.1"],
    ]


def test_every_setting_and_result_of_an_old_record_is_shown(directory: Path) -> None:
    text = show_run(directory, "35e7")
    record = read_run(directory / "cpu" / OLD[0])
    for name in (*record["settings"], *record["results"], *record["versions"], *record["hardware"]):
        assert f"\n  {name} " in text
    assert text.count(record["commit"]) == 2  # of the record and of its session


def test_a_record_fits_the_terminal(directory: Path) -> None:
    folder = directory / "cpu" / OLD[0]
    text = show_run(directory, folder, width=100)
    assert max(len(line) for line in text.splitlines() if str(folder) not in line) <= 100


def test_a_record_that_is_not_there(directory: Path) -> None:
    with pytest.raises(InputError, match="no run record in .* begins with 'zzzz'"):
        show_run(directory, "zzzz")
