"""Other people's numbers, each with its source: `data/published.csv`, read, checked and laid out as tables.

One number a row. work: who published it (`HRNet`; `HRNet (mmpose)` was trained again by mmpose). model: a name that
`build_model` knows. method: loss and decoder. input_size: rows x columns. boxes: where the persons' boxes came from.
value: as printed by the source, in percent; empty where we don't know it. source: where it was published.

The MPII code of SimpleBaseline, HRNet and DarkPose prints as "@0.1" what it counts within 0.11 head sizes. Such numbers
are filed under PCKh@0.11, so that they never share a column with those of code that means 0.1.
"""

import csv
from pathlib import Path

import pandas as pd

from hdm.errors import InputError
from hdm.project import project_root

UNKNOWN = "not known to us"
KEY = ("work", "model", "method", "dataset", "input_size", "boxes", "flip_test", "metric")
COLUMNS = (*KEY, "value", "source", "note")
MAY_BE_EMPTY = ("value", "note")

PARTS = ("Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
METRICS = (
    *("AP", "AP50", "AP75", "APM", "APL", "AR"),
    *("PCKh@0.5", "PCKh@0.1", "PCKh@0.1 (0.11 likely)", "PCKh@0.11"),
    *(f"PCKh@0.5 {part}" for part in PARTS),
)
# Columns whose words are fixed: a number under a misspelt one would be missing from its table, and nobody would see it.
WORDS = {
    "dataset": ("coco val2017", "coco test-dev2017", "mpii val"),
    "flip_test": ("yes", "no", "not stated", UNKNOWN),
    "metric": METRICS,
}


def read_published(path: Path | str | None = None) -> pd.DataFrame:
    """The numbers of `path` (default `data/published.csv` of the project), in the file's order.

    Columns `COLUMNS`, all of them texts but `value`, a float that is NaN where the number is not known to us; and
    `printed`, the value with the source's decimals or "not known to us".

    Raises InputError, with the line, for a file that can't be read, other columns, a gap, an unknown word, a value that
    is no percentage from 1 to 100 or whose boxes are not known, and a number that is there twice.
    """
    path = project_root() / "data" / "published.csv" if path is None else Path(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, fields) for fields in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read ({error}): restore it from version control") from error
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}, so look for a quote without its partner") from error
    if not lines or tuple(lines[0][1]) != COLUMNS:
        raise InputError(f"{path}, line 1: the columns must be {','.join(COLUMNS)}")
    first_line: dict[tuple[str, ...], int] = {}
    rows = []
    for number, fields in lines[1:]:
        if len(fields) != len(COLUMNS):
            raise InputError(
                f"{path}, line {number}: {len(fields)} fields in place of {len(COLUMNS)}, so quote texts with a comma"
            )
        row = dict(zip(COLUMNS, fields, strict=True))
        fault = _fault(row)
        if fault:
            raise InputError(f"{path}, line {number}: {fault}")
        earlier = first_line.setdefault(tuple(row[name] for name in KEY), number)
        if earlier != number:
            raise InputError(f"{path}, line {number}: the same number is in line {earlier}, so remove one of the two")
        rows.append({**row, "value": float(row["value"] or "nan"), "printed": row["value"] or UNKNOWN})
    return pd.DataFrame(rows, columns=[*COLUMNS, "printed"]).astype({"value": float})


def _fault(row: dict[str, str]) -> str:
    """What is wrong with a row and what to do about it; empty where nothing is."""
    for name, text in row.items():
        if text != text.strip():
            return f"{name} {text!r} has spaces around it, so remove them"
        if not text and name not in MAY_BE_EMPTY:
            return f"{name} is empty, so enter it"
        if name in WORDS and text not in WORDS[name]:
            return f"unknown {name} {text!r}, so choose one of {', '.join(WORDS[name])}"
    if not row["value"]:
        return ""
    if row["boxes"] == UNKNOWN:
        return "a value whose boxes are not known compares with nothing, so name the boxes or the work they are from"
    try:
        percent = 1 <= float(row["value"]) <= 100
    except ValueError:
        percent = False
    return "" if percent else f"value {row['value']!r} is no percentage from 1 to 100, so write 0.704 as 70.4"


def published_table(
    dataset: str, *metrics: str, boxes: str | None = None, path: Path | str | None = None
) -> pd.DataFrame:
    """One row for each published model, its metrics side by side: what may stand in one table of the book.

    dataset, boxes: words of those columns; `boxes` may be left out where a data set has one source of boxes only.
    metrics: of `METRICS`, in the order wanted; without any, all that the table has.

    Columns: work, model, method, input size, flip test, then the metrics, then source. Metrics are texts: the number as
    printed, "not known to us" where the file has the row but no value, empty where it has no such row. Models whose
    boxes are not known, and so have no value, stand in every table of their data set.

    Raises InputError for unknown words, for metrics that the table doesn't have, and where the boxes are of several
    sources: with better boxes the same network has a higher AP, so such numbers are never put side by side.
    """
    for name, words in (("dataset", (dataset,)), ("metric", metrics)):
        for word in words:
            if word not in WORDS[name]:
                raise InputError(f"unknown {name} {word!r}: choose one of {', '.join(WORDS[name])}")
    table = read_published(path)
    table = table[table["dataset"] == dataset]
    sources = [source for source in table["boxes"].unique() if source != UNKNOWN]
    if boxes is None and len(sources) == 1:
        boxes = sources[0]
    if boxes not in sources:
        fault = "boxes of several sources can't share a table" if boxes is None else f"no number has boxes {boxes!r}"
        raise InputError(f"{dataset}: {fault}, so choose one of {', '.join(sources) or 'none'}")
    table = table[table["boxes"].isin([boxes, UNKNOWN])]
    found = [metric for metric in METRICS if metric in set(table["metric"])]
    missing = [metric for metric in metrics if metric not in found]
    if missing:
        raise InputError(f"{dataset} with boxes {boxes} has no {missing[0]}: choose of {', '.join(found)}")
    return _side_by_side(table, list(metrics) or found)


def _side_by_side(table: pd.DataFrame, metrics: list[str]) -> pd.DataFrame:
    """One row for each model, in the file's order."""
    table = table[table["metric"].isin(metrics)]
    model = ["work", "model", "method", "input_size", "flip_test", "source"]
    wide = table.pivot(index=model, columns="metric", values="printed").fillna("")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[model].drop_duplicates())).reset_index()
    wide = wide.rename(columns={"input_size": "input size", "flip_test": "flip test"}).rename_axis(columns=None)
    return wide[["work", "model", "method", "input size", "flip test", *metrics, "source"]]
