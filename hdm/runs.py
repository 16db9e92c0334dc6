"""Run records in the terminal: `hdm runs` lists, filters, sorts and compares them, and shows one in full.

Every column goes by one name, whether it is shown, filtered or sorted by: those of `hdm.records.read_runs`, and
run                   the run id's start, as much as tells it from all others; `--show` and `--compare` take it
minutes, data_wait_%  length of the run, and the share of its training time in which it waited for data
machine, commit       the GPU or processor, and the commit's start with a + for uncommitted changes
"""

import difflib
import json
import operator
import re
import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hdm.errors import InputError
from hdm.records import RUNS, commits, find_run, machines, read_epochs, read_run, read_runs

SHORT_COLUMNS = (
    *("run", "profile", "data", "loss", "decoder", "seed", "epochs"),
    *("error_px", "AP", "PCKh@0.5", "minutes", "data_wait_%", "machine", "commit"),
)
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ROW_NAMES = ("run", "part", "name", "epoch")
TIME = 15  # characters of the time that a run id begins with: 20261126T171510


def runs_table(
    directory: Path | str = RUNS,
    *,
    profile: str | None = None,
    where: Mapping[str, Any] | Sequence[str] = (),
    sort: str | None = None,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """The records below `directory` that meet all conditions, a row for each, oldest first.

    profile: only its records. columns: to show after `run`, instead of those of `SHORT_COLUMNS` that the records have.
    where: `{"loss": "hdm", "seed": 0}`, or conditions such as `loss=hdm`, `error_px<10` and `AP>=0.2` with one of
    = != < <= > >=. Text is compared as text, everything else as the YAML value on the right; what a record does not
    know equals `null` alone and is neither smaller nor larger than anything.
    sort: a column, smallest first, or with a - before its name largest first; what is not known comes last.

    Without any record the table has no columns either. Raises InputError for an unknown profile or column (with the
    nearest name) and for a condition that can't be read.
    """
    table = _all_runs(directory)
    if not len(table):
        return table
    if profile is not None:
        _check_name(profile, table["profile"].unique(), f"profile with a run record in {directory}")
        table = table[table["profile"] == profile]
    conditions = [(name, "=", value) for name, value in where.items()] if isinstance(where, Mapping) else where
    for condition in conditions:
        name, sign, value = _parsed(condition) if isinstance(condition, str) else condition
        _check_name(name, table.columns, "column of the run records")
        table = table[[_meets(cell, sign, value, name) for cell in table[name]]]
    if sort is not None:
        name = sort.removeprefix("-")
        _check_name(name, table.columns, "column of the run records")
        table = table.sort_values(name, ascending=sort == name, kind="stable", key=_sortable)
    for name in columns:
        _check_name(name, table.columns, "column of the run records")
    shown = ["run", *columns] if columns else [name for name in SHORT_COLUMNS if name in table]
    return table[list(dict.fromkeys(shown))].reset_index(drop=True)


def _all_runs(directory: Path | str) -> pd.DataFrame:
    """`read_runs` with the columns that this module adds."""
    table = read_runs(directory)
    if not len(table):
        return table
    waits = [_data_wait(read_epochs(folder)) for folder in table["folder"]]
    return table.assign(
        run=_starts(table["run_id"]),
        minutes=table["seconds"] / 60,
        machine=machines(table),
        commit=commits(table),
        **{"data_wait_%": waits},
    )


def _starts(run_ids: Iterable[str]) -> list[str]:
    """Of each run id as many characters as tell it from the others: its time, where that is enough."""
    ids = list(run_ids)
    starts = []
    for name in ids:
        lengths = range(TIME, len(name))
        starts.append(next((name[:n] for n in lengths if sum(i.startswith(name[:n]) for i in ids) == 1), name))
    return starts


def _data_wait(epochs: pd.DataFrame) -> float:
    """The share, in percent, of a run's training time in which it waited for data; NaN where it is not recorded."""
    known = epochs.dropna(subset=["train_seconds", "data_wait"])
    seconds = known["train_seconds"].sum()
    return 100 * (known["data_wait"] * known["train_seconds"]).sum() / seconds if seconds else float("nan")


def _check_name(name: str, known: Iterable[str], what: str) -> None:
    known = sorted(known)
    if name not in known:
        near = [other for other in known if other.lower() == name.lower()] or difflib.get_close_matches(name, known, 1)
        raise InputError(
            f"there is no {what} named {name!r}: "
            + (f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}")
        )


def _parsed(condition: str) -> tuple[str, str, Any]:
    """(`error_px`, `<`, `10`) of `error_px<10`."""
    match = re.fullmatch(r"\s*(?P<name>[^=!<>]+?)\s*(?P<sign>[<>]=?|!=|==?)\s*(?P<value>[^=<>].*?|)\s*", condition)
    if match is None:
        raise InputError(
            f"condition {condition!r} is not of the form NAME OP VALUE: write it like loss=hdm or error_px<10, with "
            f"one of {' '.join(OPERATORS)}"
        )
    return match["name"], match["sign"].replace("==", "="), match["value"]


def _meets(cell: Any, sign: str, value: Any, name: str) -> bool:
    """Whether a cell of the table meets a condition, whose value is text as typed, or any value."""
    text = isinstance(cell, str)
    value = str(value) if text else _value(value) if isinstance(value, str) else value
    if _is_missing(cell) or _is_missing(value):
        both = _is_missing(cell) and _is_missing(value)
        return both if sign == "=" else not both if sign == "!=" else False
    try:
        return bool(OPERATORS[sign](cell, value))
    except TypeError:
        raise InputError(
            f"condition {name}{sign}{value} orders {cell!r} and {value!r}, which have no order: use = or !="
        ) from None


def _value(text: str) -> Any:
    """A number, list, mapping, true, false or null as YAML has it, with 1e-3 for a number too; else the text."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def _sortable(column: pd.Series) -> pd.Series:
    """Numbers as they are; of everything else the text, as lists and mappings have no order."""
    return column if pd.api.types.is_numeric_dtype(column) else column.map(str, na_action="ignore")


def compare_runs(directory: Path | str, runs: Sequence[str]) -> pd.DataFrame:
    """What tells runs apart: a row for each setting, and each fact about data, code or the kept epoch, in which they
    differ, then for each result, then for the trained epoch with the smallest pixel error.

    runs: two or more, each as `hdm.records.find_run` takes it. Columns: `part` (setting, data, code, selection, result,
    epochs), `name`, a column for each run, and for each but the first the `difference` of its numbers from the first's
    (`difference 2` and so on where there are more than two). What a run does not know is None.
    """
    folders = [find_run(directory, run) for run in runs]
    if len({folder.resolve() for folder in folders}) != len(folders) or len(folders) < 2:
        raise InputError("a comparison takes two or more different run records: `hdm runs` lists those that are there")
    records = [read_run(folder) for folder in folders]
    parts = {
        "setting": [record["settings"] for record in records],
        "data": [record["data"] for record in records],
        "code": [{"commit": record["commit"], **record.get("versions", {})} for record in records],
        "selection": [record["selection"] for record in records],
        "result": [record["results"] for record in records],
        "epochs": [_best_epoch(read_epochs(folder)) for folder in folders],
    }
    labels = _labels(directory, folders, records)
    rows = []
    for part, facts in parts.items():
        for name in dict.fromkeys(name for each in facts for name in each):
            values = [each.get(name) for each in facts]
            measured = part in ("result", "epochs")
            if measured or any(value != values[0] for value in values):
                differences = [_difference(value, values[0]) if measured else None for value in values[1:]]
                rows.append([part, name, *values, *differences])
    signs = ["difference"] if len(runs) == 2 else [f"difference {number}" for number in range(2, len(runs) + 1)]
    return pd.DataFrame(rows, columns=["part", "name", *labels, *signs], dtype=object)


def _labels(directory: Path | str, folders: Sequence[Path], records: Sequence[dict[str, Any]]) -> list[str]:
    """The runs' names in `runs_table`, or their run ids where a record lies elsewhere or two have one name."""
    ids = [record["run_id"] for record in records]
    table = read_runs(directory)
    starts = dict(zip(table["run_id"], _starts(table["run_id"]), strict=True)) if len(table) else {}
    labels = [starts.get(name, name) for name in ids]
    return labels if len(set(labels)) == len(labels) else [str(folder) for folder in folders]


def _best_epoch(epochs: pd.DataFrame) -> dict[str, Any]:
    trained = epochs[(epochs["epoch"] > 0) & epochs["error_px"].notna()]
    if not len(trained):
        return {}
    best = trained.sort_values("error_px", kind="stable").iloc[0]
    return {"best_epoch": int(best["epoch"]), "best_error_px": float(best["error_px"])}


def _difference(value: Any, first: Any) -> Any:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (value, first))
    return value - first if numbers else None


def show_run(directory: Path | str, run: Path | str, *, width: int = 120) -> str:
    """One record in full, its sections one below the other and then its epochs, in lines of at most `width` characters
    where the values allow. run: as `hdm.records.find_run` takes it."""
    folder = find_run(directory, run)
    record, epochs = read_run(folder), read_epochs(folder)
    plain = {name: value for name, value in record.items() if not isinstance(value, dict | list)}
    sections = {name: value for name, value in record.items() if isinstance(value, dict)}
    sections["sessions"] = {f"{number}": value for number, value in enumerate(record.get("sessions") or [], 1)}
    lines = [str(folder), *_entries(plain, width)]
    for name, entries in sections.items():
        lines += ["", name, *_entries(entries, width)]
    return "\n".join([*lines, "", "epochs", as_text(epochs.dropna(axis="columns", how="all"), width)])


def _entries(entries: Mapping[str, Any], width: int) -> list[str]:
    """`  name  value` for each entry, the values below each other; long ones go on in the next line."""
    column = 4 + max(map(len, entries), default=0)
    lines = []
    for name, value in entries.items():
        text = value if isinstance(value, str) else _text(value)
        lines += textwrap.wrap(
            text or "''",
            max(width, column + 20),
            initial_indent=f"  {name}".ljust(column),
            subsequent_indent=" " * column,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return lines


def fit_table(table: pd.DataFrame, width: int) -> str:
    """A table of runs as text of at most `width` characters a line.

    Where it is wider, columns that are the same in every row move to lines below it, and a single row is set as a
    column. What is still too wide is set as by `as_text`.
    """
    texts = table.map(_text)
    constant = [name for name in table.columns[1:] if texts[name].nunique() == 1]
    if sum(_widths(texts).values()) <= width or not constant:
        return as_text(table, width)
    if len(table) == 1:
        return "\n".join(_entries(dict(texts.iloc[0]), width))
    same = ", ".join(f"{name} {texts[name].iloc[0]}" for name in constant)
    below = textwrap.wrap(f"the same in all rows: {same}", width, break_on_hyphens=False, break_long_words=False)
    return "\n".join([as_text(table.drop(columns=constant), width), *below])


def as_text(table: pd.DataFrame, width: int) -> str:
    """A table as text, numbers with four digits, - for what is not known; what is wider than `width` in blocks of
    columns, each of which begins with those that name the row. No value is cut short: one that is longer than a line
    makes its block wider."""
    texts = table.map(_text)
    widths = _widths(texts)
    names: list[Hashable] = [name for name in ROW_NAMES if name in texts]
    blocks = [list(names)]
    for name in (name for name in texts if name not in names):
        if len(blocks[-1]) > len(names) and sum(widths[other] for other in [*blocks[-1], name]) > width:
            blocks.append(list(names))
        blocks[-1].append(name)
    return "\n\n".join(texts[block].to_string(index=False) for block in blocks)


def _widths(texts: pd.DataFrame) -> dict[Hashable, int]:
    """Characters that each column takes, with the space before it."""
    return {name: 1 + max(map(len, [str(name), *texts[name]])) for name in texts}


def _text(value: Any) -> str:
    """A value in a table: whole numbers and text as they are, other numbers with four digits."""
    if _is_missing(value):
        return "-"
    if isinstance(value, float):  # NumPy's are too
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)
