"""What a study has found, from its records alone: its table, differences between its rows, how fast runs learn.

A row of a study is a cell of its grid without the seed, such as a method; its runs differ by the seed. Two rows are
compared over the seeds that both have. Neither photographs nor networks are needed: the book is built without them.
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hdm.decode import DECODERS, check_decoder
from hdm.errors import InputError, hint
from hdm.evaluate import Comparison, Consistency, mean_interval, paired_comparison
from hdm.records import RUNS, read_readings, read_run, read_runs
from hdm.study import Study
from hdm.train.config import LATER_SETTINGS, PLACE_SETTINGS, TrainConfig
from hdm.train.follow import SCORES

# Numbers that a record may have; some only where its run was followed, or on one kind of data.
MEASURES = (
    *("error_px", "median_error_px", "PCK@0.05", "PCK@0.1", "PCK@0.2"),
    *("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL", "PCKh@0.5", "PCKh@0.1"),
    *(f"{when}consistency_{field.name}" for when in ("", "late_") for field in dataclasses.fields(Consistency)),
    *(f"maps_{name}" for name in ("spread_px", "effective_pixels", "max_auc", "mass_auc")),
    *("maps_max_calibration", "maps_mass_calibration", "seconds"),
)


# --- runs and their records


def records_of(study: Study, runs: Path | str = RUNS) -> dict[str, str]:
    """The folder of the newest record of each run of a study that has one, by the run's name.

    A record belongs to a run where it is kept under the study's name and has the run's settings. That differs from the
    run's key, which also holds the hash of the annotations, since the data need not be here: of the data its kind
    counts, and the name of its folder only where the study uses several of one kind. A setting that came after the
    record has its earlier value (`LATER_SETTINGS`), one that no longer exists must be off, and those that say where and
    how fast a run goes (`PLACE_SETTINGS`) do not count.
    """
    places = Counter(data.partition(":")[0] for data in {config.data for config in study.runs.values()})
    records = read_runs(runs, study.name)
    folders = {
        _fingerprint(read_run(folder)["settings"], places): folder  # oldest first, so that the newest stays
        for folder in (records["folder"] if len(records) else ())
    }
    prints = {name: _fingerprint(config.as_dict(), places) for name, config in study.runs.items()}
    return {name: folders[text] for name, text in prints.items() if text in folders}


def _fingerprint(settings: dict[str, Any], places: Counter[str]) -> str:
    """Equal for settings that give the same run; places: how many folders of each kind of data there are."""
    known = {field.name for field in dataclasses.fields(TrainConfig)} - set(PLACE_SETTINGS)
    former = settings.keys() - known - set(PLACE_SETTINGS)
    counted = {**LATER_SETTINGS, **settings}
    kind = counted["data"].partition(":")[0]
    if places[kind] < 2:
        counted["data"] = kind
    text = {name: value for name, value in counted.items() if name in known or (name in former and value)}
    return json.dumps(text, sort_keys=True)


def study_runs(study: Study, runs: Path | str = RUNS) -> pd.DataFrame:
    """The table of a study, a line for each cell of each part, in the study's order.

    Columns: `part` (empty where the study has none), `row` (the cell without its seed), `seed`, `name` of the run,
    `done`, whether it has a record, and then the columns of `hdm.records.read_runs` for its newest record, NaN or None
    where there is none.
    """
    found = records_of(study, runs)
    lines = [
        (part, re.sub(r"(^| )seed=\d+", "", cell).strip() or study.name, study.runs[name].seed, name)
        for part, cells in (study.cells or {"": {name: name for name in study.runs}}).items()
        for cell, name in cells.items()
    ]
    table = pd.DataFrame(lines, columns=["part", "row", "seed", "name"])
    table["done"] = [name in found for name in table["name"]]
    table["folder"] = [found.get(name) for name in table["name"]]
    records = read_runs(runs, study.name)
    if not len(records):
        return table
    others = [column for column in records if column not in table or column == "folder"]
    return table.merge(records[others], on="folder", how="left")


def looks(records: pd.DataFrame) -> pd.DataFrame:
    """How often the val part was looked at: by how many runs of each study, and when.

    records: of `hdm.records.read_runs`. Columns: `study`, `val_part`, the number of runs that were validated on the val
    part (a record that does not say was), `first` and `last`, when the first and the last of them began (UTC), and
    `held_out`, the number of runs that were validated on a share of the train part instead. Each run looks after every
    epoch, and counts once.
    """
    lines = []
    for study, group in records.groupby("profile") if len(records) else ():
        where = (
            group["data_validated_on"] if "data_validated_on" in group else pd.Series(None, group.index, dtype=object)
        )
        looked = group[where.isna() | (where == "val part")]
        first, last = (looked["started"].min(), looked["started"].max()) if len(looked) else ("", "")
        lines.append((study, len(looked), first, last, len(group) - len(looked)))
    return pd.DataFrame(lines, columns=["study", "val_part", "first", "last", "held_out"])


# --- measures


def measured(
    table: pd.DataFrame, measure: str, *, decoder: str | None = None, score: str | None = None
) -> "pd.Series[float]":
    """A measure of every run that is done, under the lines' own index in a table of `study_runs`.

    measure: a column of the table, such as `error_px` or `consistency_kendall`, see `MEASURES`.
    decoder, score: the measure with the run's last maps read this way instead, from its readings (runs that were
        followed); without a score the first that the readings have, which is the only one where the measure does not
        depend on it.
    NaN where a run has no such number. Raises InputError for an unknown measure, decoder or score.
    """
    known = [*MEASURES, *table.select_dtypes("number").columns]
    if measure not in known:
        raise InputError(f"unknown measure {measure!r}{hint(measure, MEASURES)}")
    _check_reading(decoder, score)
    done = table[table["done"]]
    if decoder is not None:
        values = [_reading(folder, measure, decoder, score) for folder in done["folder"]]
        return pd.Series(values, done.index, dtype=float, name=measure)
    column = done.get(measure, math.nan)
    return pd.Series(column, done.index, dtype=float, name=measure)


def _check_reading(decoder: str | None, score: str | None) -> None:
    if decoder is not None:
        check_decoder(decoder)
    elif score:
        raise InputError(f"score {score!r} belongs to a decoder: give one, such as {DECODERS[0]!r}, or leave it out")
    if score and score not in SCORES:
        raise InputError(f"unknown score {score!r}{hint(score, SCORES)}")


def _reading(folder: str, measure: str, decoder: str, score: str | None) -> float:
    if not (Path(folder) / "readings.csv").is_file():
        return math.nan  # the run was not followed
    lines = read_readings(folder)
    lines = lines[(lines["decoder"] == decoder) & (True if not score else lines["score"] == score)]
    return float(lines[measure].iloc[0]) if len(lines) and measure in lines else math.nan


def summary(
    table: pd.DataFrame, measures: Sequence[str], *, decoder: str | None = None, score: str | None = None
) -> pd.DataFrame:
    """Mean and 95 % interval of measures over the seeds, a line for each part, row and measure, in the study's order.

    Columns: `part`, `row`, `measure`, `n` seeds that have it, `mean`, `low`, `high` (Student's t; NaN for one seed, all
    NaN for none), and `values`, a tuple of the seeds' own. decoder, score: see `measured`.
    """
    columns = {measure: measured(table, measure, decoder=decoder, score=score).dropna() for measure in measures}
    lines = []
    for (part, row), group in table.groupby(["part", "row"], sort=False):
        for measure, column in columns.items():
            values = tuple(column[column.index.isin(group.index)])
            interval = mean_interval(values) if values else (math.nan,) * 3
            lines.append((part, row, measure, len(values), *interval, values))
    return pd.DataFrame(lines, columns=["part", "row", "measure", "n", "mean", "low", "high", "values"])


def decoder_table(
    table: pd.DataFrame,
    measure: str = "error_px",
    *,
    score: str | None = None,
    decoders: Sequence[str] = DECODERS,
) -> pd.DataFrame:
    """Mean of a measure over the seeds, a line for each (part, row) of a table of `study_runs`, a column for each
    decoder; NaN where no run was followed."""
    means = {}
    for decoder in decoders:
        lines = summary(table, [measure], decoder=decoder, score=score)
        means[decoder] = lines.set_index(["part", "row"])["mean"]
    return pd.DataFrame(means)


# --- comparisons


@dataclass(frozen=True)
class Choice:
    """One side of a comparison: a measure of the runs of a row; decoder, score: see `measured`.

    Raises InputError for an unknown decoder or score.
    """

    part: str
    row: str
    measure: str
    decoder: str | None = None
    score: str | None = None

    def __post_init__(self) -> None:
        _check_reading(self.decoder, self.score)


def pairs(table: pd.DataFrame, first: Choice, second: Choice) -> pd.DataFrame:
    """The values of both sides for each seed that both have, indexed by the seed.

    Columns: `first`, `second`, and `first_folder`, `second_folder`, the records that they are from.
    Raises InputError for an unknown part, row, measure, decoder or score, and where the two runs of a seed were not
    validated on the same annotations.
    """
    one, other = _chosen(table, first), _chosen(table, second)
    seeds = [seed for seed in one.index if seed in other.index]
    one, other = one.loc[seeds], other.loc[seeds]
    for column in ("data_val_sha256", "data_validated_on"):
        if column in table and (one[column].notna() & other[column].notna() & (one[column] != other[column])).any():
            raise InputError(
                f"runs of {first.row!r} and {second.row!r} differ in {column}, so that they can't be compared: "
                "remove the records that were made with other data"
            )
    return pd.DataFrame(
        {
            "first": one["value"],
            "second": other["value"],
            "first_folder": one["folder"],
            "second_folder": other["folder"],
        }
    )


def compare(table: pd.DataFrame, first: Choice, second: Choice) -> Comparison:
    """The difference first - second, paired by the seeds that both have (`hdm.evaluate.paired_comparison`).

    Raises InputError as `pairs` does, and for fewer than two pairs.
    """
    both = pairs(table, first, second)
    if len(both) < 2:
        raise InputError(
            f"{first.row!r} and {second.row!r} of part {first.part!r} have {first.measure} of {len(both)} seeds in "
            "common: train two or more seeds of each, see `hdm study`"
        )
    return paired_comparison(both["first"].tolist(), both["second"].tolist())


def _chosen(table: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """The done lines of a choice with their `value`, indexed by the seed."""
    for column, name in (("part", choice.part), ("row", choice.row)):
        known = table[column].unique()
        table = table[table[column] == name]
        if not len(table):
            raise InputError(f"the study has no {column} {name!r}{hint(name, known)}")
    values = measured(table, choice.measure, decoder=choice.decoder, score=choice.score).dropna()
    return table.loc[values.index].assign(value=values).set_index("seed")


# --- epochs


def epochs_to_reach(epochs: pd.DataFrame, error_px: float) -> float:
    """The first epoch at which a run's error is `error_px` or less, NaN if it never is.

    epochs: of `hdm.records.read_epochs`. Between two epochs the error is taken to change linearly. Epochs count persons
    seen, and so compare runs whose wall clock is not comparable, as on a machine that others use too.
    """
    known = epochs.dropna(subset=["error_px"])
    epoch, error = known["epoch"].to_numpy(float), known["error_px"].to_numpy(float)
    reached = np.flatnonzero(error <= error_px)
    if not len(reached):
        return math.nan
    i = reached[0]
    return float(epoch[0] if i == 0 else np.interp(error_px, error[[i, i - 1]], epoch[[i, i - 1]]))
