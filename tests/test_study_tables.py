"""Tables of a study, from records whose numbers are known."""

from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import ttest_rel

from hdm.comparison import Choice, study_runs
from hdm.records import write_run
from hdm.study import Study
from hdm.study_tables import (
    differences,
    differences_table,
    means_table,
    part_differences,
    parts_table,
    rates_table,
    score_table,
    speed_table,
)
from hdm.train import TrainConfig

# Rows, and the pixel error of each seed that has a record.
ERRORS = {"gaussian_dark": (6.0, 6.2, 6.1), "hdm": (5.0, 5.5, 5.3), "ce_bilinear": (7.0,)}
DECODERS = {"gaussian_dark": "dark", "hdm": "local", "ce_bilinear": "local"}


@pytest.fixture(scope="module")
def study() -> Study:
    losses = {"gaussian_dark": "gaussian_mse", "hdm": "hdm", "ce_bilinear": "cross_entropy"}
    runs = {
        f"main: {row} seed={seed}": TrainConfig(
            data="coco:data", loss=loss, decoder=DECODERS[row], seed=seed, follow=True
        )
        for row, loss in losses.items()
        for seed in (0, 1, 2)
    }
    return Study("losses", runs, cells={"main": {name.removeprefix("main: "): name for name in runs}})


@pytest.fixture(scope="module")
def table(study: Study, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    runs = tmp_path_factory.mktemp("runs")
    for row, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            _write(runs, study.runs[f"main: {row} seed={seed}"], "losses", error)
    return study_runs(study, runs)


def unlinked(table: pd.DataFrame) -> pd.DataFrame:
    """By method, without the links to its runs."""
    return table.set_index(table["method"].str.replace(r"<[^>]+>", "", regex=True))


def _write(runs: Path, config: TrainConfig, profile: str, error: float) -> None:
    number = len(list(runs.glob("*/*")))
    record = {
        "run_id": f"run{number}", "key": "0123abcd", "profile": profile, "seconds": 90.0, "commit": "0123",
        "dirty": False, "started": f"2026-11-26T10:00:{number:02}+00:00", "hardware": {"cpu": "a processor"},
        "settings": config.as_dict(), "data": {"source": "coco:data", "train_persons": 5000},
        "results": {"error_px": error, "AP": error / 10},
    }  # fmt: skip
    epochs = pd.DataFrame({"epoch": [0, 1, 2], "val_loss": [3.0, 2.0, 1.0], "error_px": [20.0, 12.0, error]})
    readings = pd.DataFrame(
        [(decoder, score, value) for decoder, shift in (("dark", 0.0), ("local", 0.1))
         for score, value in (("max", error / 10 + shift), ("mass", error / 20), ("box", 0.01))],
        columns=["decoder", "score", "AP"],
    )  # fmt: skip
    write_run(runs, record, epochs, readings)


def test_parts_say_how_much_of_them_is_recorded(table):
    assert parts_table(table).to_dict("records") == [{"part": "main", "runs": 9, "recorded": 7}]


def test_means_over_seeds(table):
    means = means_table(table, {"error_px": "error", "AP": "OKS-AP"})
    assert list(means) == ["method", "seeds", "error", "OKS-AP"]
    assert list(means["method"]) == [
        '<a href="runs.html#losses-main-gaussian_dark">Gaussian, DARK</a>',
        '<a href="runs.html#losses-main-hdm">HDM</a>',
        '<a href="runs.html#losses-main-ce_bilinear">cross-entropy, four pixels</a>',
    ]
    assert list(means["seeds"]) == [3, 3, 1]
    assert means["error"].tolist() == pytest.approx([6.1, 15.8 / 3, 7.0])


def test_differences_are_paired_by_seed_and_need_two(table):
    found = differences(table, Choice("main", "gaussian_dark", "error_px"))
    assert list(found) == ["hdm"]  # one seed of cross-entropy makes no interval
    assert found["hdm"].difference == pytest.approx(-2.5 / 3)
    line = differences_table(found).iloc[0]
    assert line["method"] == "HDM" and line["seeds"] == 3
    assert line["p_value"] == pytest.approx(ttest_rel(ERRORS["hdm"], ERRORS["gaussian_dark"]).pvalue)
    assert line["adjusted"] == line["p_value"]


def test_no_record_of_the_reference_makes_no_difference(table):
    without = table[table["row"] != "gaussian_dark"]
    found = differences(without, Choice("main", "gaussian_dark", "error_px"))
    assert found == {} and len(differences_table(found)) == 0


def test_a_row_against_itself_in_another_part(table):
    other = table.assign(part="noise", error_px=table["error_px"] + 1 + table["seed"] / 10)
    other["done"] &= ~((other["row"] == "gaussian_dark") & (other["seed"] > 0))
    both = pd.concat([table, other], ignore_index=True)
    found = part_differences(both, "noise", "main", "error_px")
    assert "gaussian_dark" not in found  # one seed in common
    assert found["hdm"].difference == pytest.approx(1.1) and found["hdm"].n == 3
    assert part_differences(table, "noise", "main", "error_px") == {}


def test_each_row_is_ranked_with_its_own_decoder(study, table):
    scores = unlinked(score_table(study, table))
    assert scores.loc["Gaussian, DARK", "max"] == pytest.approx(0.61)
    assert scores.loc["HDM", "max"] == pytest.approx(0.1 + 1.58 / 3)
    assert scores.loc["HDM", "mass"] == pytest.approx(0.79 / 3)
    assert (scores["box"] == 0.01).all()


def test_persons_seen_until_an_error_is_reached(table):
    speed = unlinked(speed_table(table, [12, 6, 5.5]))
    assert speed.loc["HDM", "12 px"] == pytest.approx(5)  # after one epoch of 5,000 persons
    assert speed.loc["HDM", "5.5 px"] == pytest.approx(5 * sum(1 + 6.5 / (12 - e) for e in ERRORS["hdm"]) / 3)
    assert pd.isna(speed.loc["Gaussian, DARK", "6 px"])  # one seed of three reaches it


def test_no_records_make_empty_tables(study, tmp_path):
    nothing = study_runs(study, tmp_path)
    assert len(means_table(nothing, ["error_px"])) == 0
    assert len(score_table(study, nothing)) == 0
    assert len(speed_table(nothing, [6])) == 0


def test_rates_stand_side_by_side(tmp_path):
    runs = {
        f"rates: {method} lr={lr:g}": TrainConfig(data="coco:data", loss=loss, lr=lr)
        for method, loss in (("hdm", "hdm"), ("gaussian_dark", "gaussian_mse"))
        for lr in (0.001, 0.01)
    }
    study = Study("rates", runs, cells={"rates": {name.removeprefix("rates: "): name for name in runs}})
    for error, name in zip((9.0, 8.0, 7.0), runs, strict=False):  # the last run has no record
        _write(tmp_path, runs[name], "rates", error)
    table = rates_table(study_runs(study, tmp_path))
    assert list(table["method"]) == ["hdm", "gaussian_dark"]
    assert table[[0.001, 0.01]].fillna(0).values.tolist() == [[9.0, 8.0], [7.0, 0.0]]
    assert len(rates_table(study_runs(study, tmp_path / "none"))) == 0
