"""What a study has found, on records whose numbers are known."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from hdm.comparison import (
    Choice,
    compare,
    decoder_table,
    epochs_to_reach,
    looks,
    measured,
    pairs,
    records_of,
    study_runs,
    summary,
)
from hdm.decode import DECODERS
from hdm.errors import InputError
from hdm.records import read_runs, write_run
from hdm.study import Study
from hdm.train import TrainConfig

EPOCHS = pd.DataFrame({"epoch": [0, 1, 2], "val_loss": [3.0, 2.0, 1.0], "error_px": [20.0, 12.0, 8.0]})
# A part shares a run with the first, under another name.
CELLS = {
    "main": {f"{row} seed={seed}": f"main: {row} seed={seed}" for row in ("gaussian", "hdm") for seed in (0, 1, 2)},
    "rates": {"lr=0.001 seed=0": "main: hdm seed=0", "lr=0.01 seed=0": "rates: lr=0.01 seed=0"},
}
ERRORS = {"gaussian": (9.0, 8.5, 9.5), "hdm": (8.0, 8.0, 8.5)}


@pytest.fixture(scope="module")
def study() -> Study:
    losses = {"gaussian": "gaussian_mse", "hdm": "hdm"}
    runs = {
        f"main: {row} seed={seed}": TrainConfig(data="coco:a/first", loss=loss, seed=seed, follow=True)
        for row, loss in losses.items()
        for seed in (0, 1, 2)
    }
    runs["rates: lr=0.01 seed=0"] = TrainConfig(data="coco:a/first", loss="hdm", lr=0.01)
    return Study("losses", runs, cells=CELLS)


def write(
    runs: Path,
    settings: TrainConfig | dict[str, Any],
    number: int,
    *,
    readings: pd.DataFrame | None = None,
    profile: str = "losses",
    **changes: Any,
) -> str:
    """A record with these settings, the `number`-th of the day; returns its folder."""
    record = {
        "run_id": f"run{number}", "key": "0123abcd", "profile": profile, "seconds": 90.0, "commit": "0123",
        "dirty": False, "started": f"2026-11-26T10:00:{number:02}+00:00", "hardware": {"cpu": "a processor"},
        "settings": settings if isinstance(settings, dict) else settings.as_dict(),
        "data": {"source": "coco:first", "val_sha256": "aa", "validated_on": "val part"}, "results": {"error_px": 9.0},
    }  # fmt: skip
    for name, value in changes.items():
        record[name] = {**record.get(name, {}), **value}
    return str(write_run(runs, record, EPOCHS, readings))


def write_main(study: Study, runs: Path) -> dict[str, str]:
    """All runs of part main but one, `hdm seed=2`; returns name -> folder."""
    return {
        name: write(
            runs,
            study.runs[name],
            i,
            results={"error_px": ERRORS[cell.split()[0]][study.runs[name].seed]},
            consistency={"kendall": 0.1 * i} if i else {},
        )
        for i, (cell, name) in enumerate(CELLS["main"].items())
        if cell != "hdm seed=2"
    }


# --- runs and their records ---


def test_the_table_has_a_line_for_each_cell_of_each_part(study: Study, tmp_path: Path) -> None:
    folders = write_main(study, tmp_path)
    table = study_runs(study, tmp_path)
    assert table["part"].tolist() == ["main"] * 6 + ["rates"] * 2
    assert table["row"].tolist() == ["gaussian"] * 3 + ["hdm"] * 3 + ["lr=0.001", "lr=0.01"]
    assert table["seed"].tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert table["name"].tolist() == [*CELLS["main"].values(), *CELLS["rates"].values()]
    assert table["done"].tolist() == [True] * 5 + [False, True, False]
    assert table["error_px"].fillna(0).tolist() == [9, 8.5, 9.5, 8, 8, 0, 8, 0]
    assert table.loc[6, "folder"] == folders["main: hdm seed=0"], "a run of two parts"
    assert table["loss"].fillna("none").tolist()[2:6] == ["gaussian_mse", "hdm", "hdm", "none"]


def test_without_any_record_nothing_is_done(study: Study, tmp_path: Path) -> None:
    table = study_runs(study, tmp_path)
    assert len(table) == 8 and not table["done"].any()
    assert len(measured(table, "error_px")) == 0
    assert summary(table, ["AP"])["n"].tolist() == [0] * 4


def test_a_study_without_parts_or_seeds(study: Study, tmp_path: Path) -> None:
    plain = Study("losses", {"first": study.runs["main: hdm seed=0"], "seed=1": study.runs["main: hdm seed=1"]})
    table = study_runs(plain, tmp_path)
    assert table[["part", "row"]].to_numpy().tolist() == [["", "first"], ["", "losses"]]


def test_the_newest_record_counts_and_other_studies_do_not(study: Study, tmp_path: Path) -> None:
    config = study.runs["main: hdm seed=0"]
    write(tmp_path, config, 1)
    newest = write(tmp_path, config, 3)
    write(tmp_path, config, 2)
    write(tmp_path, config, 4, profile="other")
    write(tmp_path, dataclasses.replace(config, lr=0.5), 5)
    assert records_of(study, tmp_path) == {"main: hdm seed=0": newest}


def test_neither_the_name_of_the_data_nor_the_place_of_a_run_counts(study: Study, tmp_path: Path) -> None:
    config = study.runs["main: hdm seed=0"]
    elsewhere = dataclasses.replace(
        config, data="coco:b/second", workers=3, device="cpu", cache="crops", save_minutes=2
    )
    folder = write(tmp_path, elsewhere, 1)
    write(tmp_path, dataclasses.replace(config, data="mpii:a/first"), 2)
    assert records_of(study, tmp_path) == {"main: hdm seed=0": folder}


def test_two_folders_of_one_kind_are_told_apart_by_their_names(study: Study, tmp_path: Path) -> None:
    config = study.runs["main: hdm seed=0"]
    both = {name: dataclasses.replace(config, data=f"coco:here/{name}") for name in ("one", "two")}
    folders = {name: write(tmp_path, both[name], i) for i, name in enumerate(both)}
    assert records_of(Study("losses", both), tmp_path) == folders


def test_a_record_from_before_a_setting_has_its_earlier_value(study: Study, tmp_path: Path) -> None:
    config = TrainConfig(data="coco:first", loss="hdm", reduced=False)
    old = config.as_dict() | {"amp": False, "margin": 0.0}
    for name in ("held_out", "label_noise", "follow", "reduced", "precision", "cache"):
        del old[name]
    folder = write(tmp_path, old, 1)
    write(tmp_path, old | {"amp": True}, 2)  # what no longer exists was on: another run
    assert records_of(Study("losses", {"a": config}), tmp_path) == {"a": folder}
    later = {"b": dataclasses.replace(config, label_noise=0.1), "c": dataclasses.replace(config, reduced=True)}
    assert records_of(Study("losses", later), tmp_path) == {}


def test_looks_at_the_val_part(study: Study, tmp_path: Path) -> None:
    config = study.runs["main: hdm seed=0"]
    for number in (3, 1, 2):
        write(tmp_path, config, number)
    write(tmp_path, config, 4, data={"validated_on": "20% of the train part's pictures"})
    write(tmp_path, config, 5, profile="tuning", data={"validated_on": "20% of the train part's pictures"})
    write(tmp_path, config, 6, profile="old", data={"validated_on": None})
    times = [f"2026-11-26T10:00:0{number}+00:00" for number in range(7)]
    expected = [["losses", 3, times[1], times[3], 1], ["old", 1, times[6], times[6], 0], ["tuning", 0, "", "", 1]]
    assert looks(read_runs(tmp_path)).to_numpy().tolist() == expected
    assert looks(read_runs(tmp_path / "nothing")).columns.tolist() == ["study", "val_part", "first", "last", "held_out"]


# --- measures ---


READINGS = pd.DataFrame(
    [("dark", "max", 7.0, 0.3), ("dark", "box", 7.0, 0.2), ("local", "max", 6.0, 0.4)],
    columns=["decoder", "score", "error_px", "AP"],
)


def test_a_measure_of_the_runs_that_are_done(study: Study, tmp_path: Path) -> None:
    write_main(study, tmp_path)
    table = study_runs(study, tmp_path)
    assert measured(table, "error_px").to_dict() == {0: 9, 1: 8.5, 2: 9.5, 3: 8, 4: 8, 6: 8}
    kendall = measured(table, "consistency_kendall")
    assert math.isnan(kendall[0]), "too few epochs"
    assert kendall.drop(0).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.3])
    assert measured(table, "AP").isna().all(), "a measure of other data"


def test_a_measure_as_the_last_maps_read(study: Study, tmp_path: Path) -> None:
    first, second, third = (study.runs[f"main: hdm seed={seed}"] for seed in (0, 1, 2))
    write(tmp_path, first, 1, readings=READINGS)
    write(tmp_path, second, 2)  # not followed
    write(tmp_path, third, 3, readings=READINGS.assign(score=""))  # where nothing is ranked
    table = study_runs(study, tmp_path).query("part == 'main'")

    def values(*arguments: str, **options: str) -> list[float]:
        return measured(table, *arguments, **options).fillna(-1).tolist()

    assert values("AP", decoder="dark", score="box") == [0.2, -1, -1]
    assert values("AP", decoder="dark") == values("AP", decoder="dark", score="") == [0.3, -1, 0.3]
    assert values("error_px", decoder="local") == [6, -1, 6]
    assert values("error_px", decoder="udp") == [-1, -1, -1]
    assert values("error_px") == [9, 9, 9]


@pytest.mark.parametrize(
    ("measure", "options", "words"),
    [
        ("eror_px", {}, "unknown measure 'eror_px': did you mean 'error_px'"),
        ("row", {}, "unknown measure 'row'"),
        ("AP", {"decoder": "drak"}, "drak"),
        ("AP", {"decoder": "dark", "score": "maximum"}, "unknown score 'maximum': did you mean 'max'"),
        ("AP", {"score": "max"}, "score 'max' belongs to a decoder"),
    ],
)
def test_unknown_measures_and_readings(study: Study, tmp_path: Path, measure: str, options: dict, words: str) -> None:
    write_main(study, tmp_path)
    with pytest.raises(InputError, match=words):
        measured(study_runs(study, tmp_path), measure, **options)


def test_damaged_readings_are_told(study: Study, tmp_path: Path) -> None:
    folder = write(tmp_path, study.runs["main: hdm seed=0"], 1, readings=READINGS)
    (Path(folder) / "readings.csv").write_text("")
    with pytest.raises(InputError, match="readings .* can't be read"):
        measured(study_runs(study, tmp_path), "AP", decoder="dark")


def test_a_summary_has_mean_and_interval_in_the_order_of_the_study(study: Study, tmp_path: Path) -> None:
    write_main(study, tmp_path)
    lines = summary(study_runs(study, tmp_path), ["error_px", "consistency_kendall"])
    assert lines["row"].tolist() == [row for row in ("gaussian", "hdm", "lr=0.001", "lr=0.01") for _ in range(2)]
    assert lines["measure"].tolist() == ["error_px", "consistency_kendall"] * 4
    assert lines["n"].tolist() == [3, 2, 2, 2, 1, 1, 0, 0]
    gaussian, single = lines.iloc[0], lines.iloc[4]
    half = student.ppf(0.975, 2) * 0.5 / math.sqrt(3)
    assert (gaussian["mean"], gaussian["low"], gaussian["high"]) == pytest.approx((9, 9 - half, 9 + half))
    assert gaussian["values"] == (9, 8.5, 9.5)
    assert single["mean"] == 8 and math.isnan(single["low"])
    assert math.isnan(lines.iloc[6]["mean"])


def test_a_table_of_decoders(study: Study, tmp_path: Path) -> None:
    for seed, shift in ((0, 0.0), (1, 1.0)):
        readings = READINGS.assign(error_px=READINGS["error_px"] + shift)
        write(tmp_path, study.runs[f"main: hdm seed={seed}"], seed, readings=readings)
    means = decoder_table(study_runs(study, tmp_path))
    assert means.columns.tolist() == list(DECODERS)
    assert means.loc[("main", "hdm"), ["dark", "local"]].tolist() == [7.5, 6.5]
    assert math.isnan(means.loc[("main", "hdm"), "argmax"]) and means.loc[("main", "gaussian")].isna().all()


# --- comparisons ---


def test_rows_are_compared_over_the_seeds_that_both_have(study: Study, tmp_path: Path) -> None:
    folders = write_main(study, tmp_path)
    table = study_runs(study, tmp_path)
    hdm, gaussian = Choice("main", "hdm", "error_px"), Choice("main", "gaussian", "error_px")
    both = pairs(table, hdm, gaussian)
    assert both.index.tolist() == [0, 1]
    assert both[["first", "second"]].to_numpy().tolist() == [[8, 9], [8, 8.5]]
    assert both["second_folder"].tolist() == [folders[f"main: gaussian seed={seed}"] for seed in (0, 1)]
    found = compare(table, hdm, gaussian)
    half = student.ppf(0.975, 1) * np.std([-1, -0.5], ddof=1) / math.sqrt(2)
    assert (found.n, found.difference) == (2, -0.75)
    assert (found.low, found.high) == pytest.approx((-0.75 - half, -0.75 + half))


def test_two_measures_of_one_row(study: Study, tmp_path: Path) -> None:
    for seed in (0, 1):
        config = study.runs[f"main: hdm seed={seed}"]
        write(tmp_path, config, seed, consistency={"discordant": 0.5, "expected": 0.25 + seed / 8})
    table = study_runs(study, tmp_path)
    one, other = (Choice("main", "hdm", f"consistency_{name}") for name in ("discordant", "expected"))
    assert compare(table, one, other).difference == pytest.approx(0.1875)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (Choice("mian", "hdm", "error_px"), "no part 'mian': did you mean 'main'"),
        (Choice("main", "hmd", "error_px"), "no row 'hmd': did you mean 'hdm'"),
        (Choice("rates", "lr=0.001", "error_px"), "error_px of 1 seeds in common: train"),
        (Choice("main", "hdm", "AP"), "AP of 0 seeds in common: train"),
    ],
)
def test_what_cannot_be_compared(study: Study, tmp_path: Path, choice: Choice, words: str) -> None:
    write_main(study, tmp_path)
    with pytest.raises(InputError, match=words):
        compare(study_runs(study, tmp_path), choice, Choice("main", "gaussian", "error_px"))


@pytest.mark.parametrize("change", [{"val_sha256": "bb"}, {"validated_on": "20% of the train part's pictures"}])
def test_runs_on_other_data_are_not_compared(study: Study, tmp_path: Path, change: dict) -> None:
    write_main(study, tmp_path)
    write(tmp_path, study.runs["main: hdm seed=1"], 20, data=change)
    with pytest.raises(InputError, match=f"'hdm' and 'gaussian' differ in data_{next(iter(change))}"):
        compare(study_runs(study, tmp_path), Choice("main", "hdm", "error_px"), Choice("main", "gaussian", "error_px"))


@pytest.mark.parametrize(("decoder", "score"), [("drak", None), (None, "max"), ("dark", "peak")])
def test_a_choice_knows_its_decoders(decoder: str | None, score: str | None) -> None:
    with pytest.raises(InputError):
        Choice("main", "hdm", "AP", decoder, score)


# --- epochs ---


@pytest.mark.parametrize(
    ("errors", "bound", "expected"),
    [
        ([20.0, 12.0, 8.0, 9.0], 10.0, 1.5),
        ([20.0, 12.0, 8.0, 9.0], 12.0, 1.0),
        ([20.0, 10.0, 14.0, 6.0], 10.0, 1.0),  # the first time, though not for good
        ([20.0, math.nan, 8.0, 7.0], 14.0, 1.0),  # between those that are known
        ([20.0, 12.0, 8.0, 9.0], 25.0, 0.0),
        ([20.0, 12.0, 8.0, 9.0], 7.9, math.nan),
    ],
)
def test_epochs_until_an_error_is_reached(errors: list[float], bound: float, expected: float) -> None:
    epochs = pd.DataFrame({"epoch": range(4), "error_px": errors})
    assert epochs_to_reach(epochs, bound) == pytest.approx(expected, nan_ok=True)
