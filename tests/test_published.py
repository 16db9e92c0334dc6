"""Other people's numbers: the committed file is sound, its numbers are the sources', and no table mixes box sources."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from hdm.errors import InputError
from hdm.published import COLUMNS, KEY, METRICS, UNKNOWN, published_table, read_published

QUARTER = "Gaussian MSE, quarter"
VAL, TEST_DEV, MPII = "coco val2017", "coco test-dev2017", "mpii val"
DETECTOR_65 = "detector of person AP 65.1"


@pytest.fixture(scope="module")
def numbers() -> pd.DataFrame:
    return read_published()


# --- the committed file


def test_the_file_is_tidy(repository: Path, numbers: pd.DataFrame) -> None:
    raw = (repository / "data" / "published.csv").read_bytes()
    assert b"\r" not in raw and raw.endswith(b"\n")
    assert len(raw.splitlines()) == 1 + len(numbers)  # one number, one line
    assert list(numbers.columns) == [*COLUMNS, "printed"]
    assert not numbers.duplicated(list(KEY)).any()
    assert numbers["value"].dtype == float
    assert (numbers["boxes"] != "").all() and (numbers["source"] != "").all()


def test_models_and_sizes_are_written_in_one_way(numbers: pd.DataFrame) -> None:
    for column, pattern in (("model", r"resnet\d+|hrnet_w\d+"), ("input_size", r"\d+x\d+")):
        for text in numbers[column].unique():
            assert re.fullmatch(f"{pattern}|{UNKNOWN}", text), f"{column} {text!r}"


def test_data_sets_have_their_own_metrics_and_boxes(numbers: pd.DataFrame) -> None:
    mpii = numbers["dataset"] == MPII
    assert (numbers["metric"].str.startswith("PCKh") == mpii).all()
    assert ((numbers["boxes"] == "given centre and scale (MPII)") == mpii).all()
    assert not ((numbers["boxes"] == "AP_H_609") & (numbers["dataset"] != TEST_DEV)).any()
    assert not ((numbers["boxes"] == "AP_H_56") & (numbers["dataset"] != VAL)).any()


def test_related_numbers_are_in_their_order(numbers: pd.DataFrame) -> None:
    """AP is the mean over the thresholds 0.50 to 0.95, for instance. A typing error often breaks such an order."""
    rows = numbers.pivot(index=[*KEY[:-1]], columns="metric", values="value")
    for smaller, larger in (("AP", "AP75"), ("AP75", "AP50"), ("APM", "APL"), ("AP", "AR"), ("PCKh@0.11", "PCKh@0.5")):
        both = rows[[smaller, larger]].dropna()
        assert len(both) > 5
        assert (both[smaller] < both[larger]).all(), f"{smaller} {larger}"


def test_what_was_printed_as_0_1_but_counts_within_0_11_says_so(numbers: pd.DataFrame) -> None:
    wider = numbers[numbers["metric"].str.contains("0.11")]
    assert {"SimpleBaseline", "HRNet", "DARK", "UDP"} <= set(wider["work"])
    assert wider["note"].str.contains("printed as @0.1").all()
    exact = numbers[(numbers["metric"] == "PCKh@0.1") & (numbers["work"] != "HDM")]
    assert set(exact["work"].str.replace(r".*\(mmpose\)", "mmpose", regex=True)) == {"mmpose", "SimCC"}


# Typed by hand from the sources: (work, model, method, data set, input size, boxes, metric, value).
GOLDEN = [
    ("SimpleBaseline", "resnet50", QUARTER, VAL, "256x192", "AP_H_56", "AP", 70.4),
    ("SimpleBaseline", "resnet101", QUARTER, VAL, "384x288", "AP_H_56", "APL", 81.1),
    ("SimpleBaseline", "resnet152", QUARTER, VAL, "384x288", "AP_H_56", "AR", 79.7),
    ("SimpleBaseline", "resnet152", QUARTER, TEST_DEV, "384x288", "AP_H_609", "AP", 73.7),
    ("SimpleBaseline", "resnet50", QUARTER, MPII, "256x256", None, "PCKh@0.11", 33.911),
    ("SimpleBaseline", "resnet152", QUARTER, MPII, "384x384", None, "PCKh@0.5", 90.2),
    ("HRNet", "hrnet_w32", QUARTER, VAL, "256x192", "AP_H_56", "AP75", 81.9),
    ("HRNet", "hrnet_w32", QUARTER, VAL, "384x288", "AP_H_56", "AR", 80.9),
    ("HRNet", "hrnet_w48", QUARTER, VAL, "256x192", "AP_H_56", "APM", 71.5),
    ("HRNet", "hrnet_w48", QUARTER, TEST_DEV, "384x288", "AP_H_609", "AP", 75.5),
    ("HRNet", "hrnet_w48", f"{QUARTER}, more data", TEST_DEV, "384x288", "AP_H_609", "AP", 77.0),
    ("HRNet", "hrnet_w32", QUARTER, MPII, "256x256", None, "PCKh@0.5 Wrist", 86.4),
    ("DARK", "hrnet_w32", QUARTER, VAL, "128x96", "AP_H_56", "AP", 66.9),
    ("DARK", "hrnet_w32", "DARK", VAL, "128x96", "AP_H_56", "AP", 70.7),
    ("DARK", "hrnet_w32", "DARK", MPII, "256x256", None, "PCKh@0.11", 42.0),
    ("DARK (mmpose)", "hrnet_w32", "DARK", MPII, "256x256", None, "PCKh@0.1", 35.4),
    ("UDP", "hrnet_w32", "UDP", VAL, "256x192", DETECTOR_65, "AP", 76.8),
    ("UDP (mmpose)", "hrnet_w32", "UDP, Gaussian", VAL, "256x192", "AP_H_56", "AP", 76.2),
    ("SimCC", "resnet101", "Gaussian MSE, argmax", VAL, "64x64", "AP_H_56", "AR", 36.1),
    ("SimCC", "hrnet_w48", "SimCC", VAL, "128x128", "AP_H_56", "AP", 72.0),
    ("SimCC", "hrnet_w32", "Gaussian MSE", MPII, "256x256", None, "PCKh@0.1", 33.1),
    ("SimpleBaseline (mmpose)", "resnet50", QUARTER, VAL, "256x192", "AP_H_56", "AR", 77.4),
    ("integral (mmpose)", "resnet50", "integral, debiased", VAL, "256x256", "AP_H_56", "AP", 67.5),
    ("DSNT (mmpose)", "resnet50", "DSNT", VAL, "256x256", "AP_H_56", "AP", 67.4),
    ("RLE (mmpose)", "resnet50", "RLE", VAL, "256x192", "AP_H_56", "AP", 70.6),
    ("CAL", "hrnet_w48", "CAL", VAL, "64x48", "those of the CAL paper (not known to us)", "AP", 61.5),
]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden[0]} {golden[1]} {golden[4]} {golden[6]}")
def test_numbers_are_the_sources(numbers: pd.DataFrame, golden: tuple) -> None:
    *key, metric, value = golden
    columns = ["work", "model", "method", "dataset", "input_size", "boxes"]
    rows = numbers[numbers["metric"] == metric]
    for name, text in zip(columns, key, strict=True):
        rows = rows[rows[name] == text] if text else rows
    assert rows["value"].tolist() == [value]


def test_the_papers_own_numbers_are_not_made_up(numbers: pd.DataFrame) -> None:
    own = numbers[numbers["work"] == "HDM"]
    coco = ["AP", "AP50", "AP75", "APM", "APL", "AR"]
    expected = [*((VAL, name) for name in coco), *((TEST_DEV, name) for name in coco)]
    expected += [(MPII, "PCKh@0.5"), (MPII, "PCKh@0.1")]
    assert list(zip(own["dataset"], own["metric"], strict=True)) == expected
    assert own["value"].isna().all() and (own["model"] == UNKNOWN).all()
    assert own["note"].str.contains("not known to us: .*fill in here").all()
    assert numbers["value"].notna().sum() == len(numbers) - len(own)  # nobody else's are missing


# --- tables


def test_metrics_stand_side_by_side() -> None:
    table = published_table(VAL, "AR", "AP", boxes="AP_H_56")
    assert list(table.columns) == ["work", "model", "method", "input size", "flip test", "AR", "AP", "source"]
    assert not table.duplicated().any()
    first = table.iloc[0].tolist()
    assert first[:-1] == ["SimpleBaseline", "resnet50", QUARTER, "256x192", "yes", "76.3", "70.4"]
    assert first[-1] == "SimpleBaseline repository, README, Results on COCO val2017"


def test_unknown_and_missing_numbers_look_different() -> None:
    table = published_table(VAL, boxes="AP_H_56").set_index("work")
    assert set(table.loc["HDM", ["AP", "AR"]]) == {UNKNOWN}
    assert (table.loc["DARK (mmpose)", "AP"] != "").all() and set(table.loc["DARK (mmpose)", "APM"]) == {""}


def test_decimals_are_those_of_the_source() -> None:
    table = published_table(MPII, "PCKh@0.11").set_index(["work", "model", "input size"])["PCKh@0.11"]
    assert table["SimpleBaseline", "resnet101", "256x256"] == "34.020"
    assert table["HRNet", "hrnet_w32", "256x256"] == "37.7"
    assert "HDM" not in table.index  # has no row under this metric


@pytest.mark.parametrize("dataset", [VAL, TEST_DEV, MPII])
def test_every_number_is_in_the_table_of_its_boxes_and_in_no_other(numbers: pd.DataFrame, dataset: str) -> None:
    ours = numbers[(numbers["dataset"] == dataset) & numbers["value"].notna()]
    for boxes, rows in ours.groupby("boxes"):
        table = published_table(dataset, boxes=boxes)
        metrics = [name for name in table.columns if name in METRICS]
        shown = [text for text in table[metrics].to_numpy().ravel() if text not in ("", UNKNOWN)]
        assert sorted(shown) == sorted(rows["printed"])
        assert (table["work"] == "HDM").sum() == 1  # it has no number that could be compared


def test_box_sources_never_share_a_table() -> None:
    for dataset in (VAL, TEST_DEV):
        with pytest.raises(InputError, match=f"can't share a table, so choose one of AP_H_.*, {DETECTOR_65}"):
            published_table(dataset)
    with pytest.raises(InputError, match="no number has boxes 'not known to us', so choose one of AP_H_56"):
        published_table(VAL, boxes=UNKNOWN)
    with pytest.raises(InputError, match="no number has boxes 'AP_H_609'"):
        published_table(VAL, boxes="AP_H_609")


def test_words_that_no_table_has() -> None:
    with pytest.raises(InputError, match="unknown dataset 'coco': choose one of coco val2017"):
        published_table("coco", boxes="AP_H_56")
    with pytest.raises(InputError, match="unknown metric 'mAP': choose one of AP, AP50"):
        published_table(VAL, "mAP", boxes="AP_H_56")
    with pytest.raises(InputError, match="has no PCKh@0.5: choose of AP, AP50, AP75, APM, APL, AR"):
        published_table(VAL, "PCKh@0.5", boxes="AP_H_56")


# --- broken files

ROW = ["HRNet", "hrnet_w32", QUARTER, VAL, "256x192", "AP_H_56", "yes", "AP", "74.4", "README, a table", ""]
OTHER = [*ROW[:7], "AR", "79.8", *ROW[9:]]


def changed(**cells: str) -> list[str]:
    return [cells.get(name, cell) for name, cell in zip(COLUMNS, OTHER, strict=True)]


def write(path: Path, *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def test_a_number_that_is_filled_in_is_read(tmp_path: Path) -> None:
    rows = [changed(value=""), changed(metric="AP50", boxes=UNKNOWN, value="")]
    table = read_published(write(tmp_path / "p.csv", list(COLUMNS), ROW, *rows))
    assert table["value"].tolist()[0] == 74.4 and table["value"].isna().tolist() == [False, True, True]
    assert table["printed"].tolist() == ["74.4", UNKNOWN, UNKNOWN]
    table = read_published(write(tmp_path / "p.csv", list(COLUMNS), ROW, changed(work="HDM", value="75.25")))
    assert table["value"].tolist() == [74.4, 75.25]


def test_a_file_without_numbers_gives_an_empty_table(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", list(COLUMNS))
    assert len(read_published(path)) == 0
    with pytest.raises(InputError, match="no number has boxes 'AP_H_56', so choose one of none"):
        published_table(VAL, boxes="AP_H_56", path=path)


FAULTY_ROWS: dict[str, tuple[list[str], str]] = {
    "twice": (ROW, "the same number is in line 2, so remove one of the two"),
    "twice with two values": ([*ROW[:8], "75.0", *ROW[9:]], "the same number is in line 2"),
    "no boxes": (changed(boxes=""), "boxes is empty"),
    "no source": (changed(source=""), "source is empty"),
    "no flip test": (changed(flip_test=""), "flip_test is empty"),
    "unknown metric": (changed(metric="mAP"), "unknown metric 'mAP', so choose one of AP, AP50"),
    "unknown data set": (changed(dataset="coco val"), "unknown dataset 'coco val'"),
    "unknown flip test": (changed(flip_test="true"), "unknown flip_test 'true'"),
    "spaces": (changed(boxes="AP_H_56 "), "boxes 'AP_H_56 ' has spaces around it"),
    "a value of unknown boxes": (changed(boxes=UNKNOWN), "a value whose boxes are not known compares with nothing"),
    "words for a value": (changed(value="about 76"), "value 'about 76' is no percentage from 1 to 100"),
    "a share": (changed(value="0.744"), "value '0.744' is no percentage from 1 to 100, so write 0.704 as 70.4"),
    "too large": (changed(value="744"), "value '744' is no percentage"),
    "not a number": (changed(value="nan"), "value 'nan' is no percentage"),
    "a comma without quotes": ([*OTHER, ""], "12 fields in place of 11, so quote texts with a comma"),
    "cut short": (OTHER[:5], "5 fields in place of 11"),
    "a blank line": ([], "0 fields in place of 11"),
}


@pytest.mark.parametrize("fault", FAULTY_ROWS)
def test_a_faulty_row_is_named_with_its_line(tmp_path: Path, fault: str) -> None:
    row, words = FAULTY_ROWS[fault]
    path = write(tmp_path / "p.csv", list(COLUMNS), ROW, row)
    with pytest.raises(InputError, match=re.escape(f"{path}, line 3: {words}")):
        read_published(path)


BROKEN_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "p.csv can't be read .*No such file"),
    "a folder": (Path.mkdir, "p.csv can't be read .*directory"),
    "empty": (lambda path: path.write_text(""), "p.csv, line 1: the columns must be work,model,method"),
    "other columns": (lambda path: write(path, list(COLUMNS[:-1])), "p.csv, line 1: the columns must be work,model"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe"), "p.csv can't be read .*decode"),
    "an open quote": (
        lambda path: path.write_text(",".join(COLUMNS) + '\nHRNet,"hrnet_w32\n'),
        "p.csv, line 2: .*so look for a quote without its partner",
    ),
}


@pytest.mark.parametrize("fault", BROKEN_FILES)
def test_a_broken_file_is_named(tmp_path: Path, fault: str) -> None:
    make, words = BROKEN_FILES[fault]
    make(tmp_path / "p.csv")
    with pytest.raises(InputError, match=words):
        read_published(tmp_path / "p.csv")
