"""Tables of a study as the book shows them, from its records; a line for each row, under the row's label, which leads
to the row's runs."""

from collections.abc import Mapping, Sequence

import pandas as pd

from hdm.comparison import Choice, compare, epochs_to_reach, measured, summary
from hdm.evaluate import Comparison, holm
from hdm.records import read_epochs
from hdm.run_details import anchor, linked
from hdm.study import Study
from hdm.study_figures import row_label

COMPARED = ("difference", "low", "high", "effect", "effect_low", "effect_high", "p_value")


def parts_table(table: pd.DataFrame) -> pd.DataFrame:
    """How many runs each part of a `hdm.comparison.study_runs` has, and of how many there is a record."""
    return table.groupby("part", sort=False)["done"].agg(runs="size", recorded="sum").reset_index()


def rates_table(tuning: pd.DataFrame, measure: str = "error_px") -> pd.DataFrame:
    """A measure of each method at each learning rate, of a study whose rows are methods and rates; a line for each
    method that has a record, its name in the column `method`."""
    done = tuning[tuning["done"]]
    if not len(done):
        return pd.DataFrame(columns=["method"])
    values = done.assign(method=done["row"].str.split(" ").str[0], value=measured(done, measure))
    return values.pivot_table("value", "method", "lr", sort=False).reindex(values["method"].unique()).reset_index()


def means_table(table: pd.DataFrame, measures: Mapping[str, str] | Sequence[str]) -> pd.DataFrame:
    """The mean of each measure over the seeds, and how many seeds have a record.

    table: of one part. measures: names, or names and what their columns are called.
    """
    titles = measures if isinstance(measures, Mapping) else {name: name for name in measures}
    done = table[table["done"]]
    lines = summary(done, list(titles))
    by_measure = {name: group.set_index("row")["mean"] for name, group in lines.groupby("measure")}
    means = pd.DataFrame({title: by_measure.get(name, pd.Series(dtype=float)) for name, title in titles.items()})
    means.insert(0, "seeds", done.groupby("row", sort=False)["seed"].count())
    return _labelled(means, done)


def differences(table: pd.DataFrame, reference: Choice) -> dict[str, Comparison]:
    """Each row's difference to one row, paired by seed (`hdm.comparison.compare`), in the order of the table; of rows
    with two or more seeds in common with it, and none where it has no record.

    reference: says the measure too; a decoder or score of it counts for itself alone, the others are read by their own.
    """
    seeds = _seeds(table, reference.part)
    known = seeds.get(reference.row, set())
    rows = [row for row, own in seeds.items() if row != reference.row and len(own & known) > 1]
    return {row: compare(table, Choice(reference.part, row, reference.measure), reference) for row in rows}


def part_differences(table: pd.DataFrame, first: str, second: str, measure: str) -> dict[str, Comparison]:
    """What changes from the part `second` to the part `first`, for each row that both have, paired by seed; of rows
    with two or more seeds in common, and none where one of the parts has no record."""
    others = _seeds(table, second)
    rows = [row for row, own in _seeds(table, first).items() if len(own & others.get(row, set())) > 1]
    return {row: compare(table, Choice(first, row, measure), Choice(second, row, measure)) for row in rows}


def _seeds(table: pd.DataFrame, part: str) -> dict[str, set[int]]:
    """The recorded seeds of each row of a part, in the order of the table."""
    done = table[(table["part"] == part) & table["done"]]
    return {str(row): set(runs["seed"]) for row, runs in done.groupby("row", sort=False)}


def differences_table(found: Mapping[str, Comparison]) -> pd.DataFrame:
    """Differences with their 95 % intervals, effects (Cohen's d of the paired differences) and theirs, p values of the
    paired t test, and the same adjusted for their number (Holm)."""
    lines = pd.DataFrame(
        [[one.n, *(getattr(one, name) for name in COMPARED)] for one in found.values()],
        index=pd.Index(list(found)),
        columns=["seeds", *COMPARED],
    )
    return _labelled(lines.assign(adjusted=holm(lines["p_value"].tolist())))


def score_table(study: Study, table: pd.DataFrame, measure: str = "AP") -> pd.DataFrame:
    """A measure by definition of the score that ranks persons, each row read by its own decoder; of followed runs."""
    done = table[table["done"]]
    columns = {}
    for score in ("max", "mass", "box"):
        means = {}
        for row, runs in done.groupby("row", sort=False):
            decoder = study.runs[runs["name"].iloc[0]].decoder
            means[row] = measured(runs, measure, decoder=decoder, score=score).mean()
        columns[score] = pd.Series(means, dtype=float)
    return _labelled(pd.DataFrame(columns), done)


def speed_table(table: pd.DataFrame, errors_px: Sequence[float]) -> pd.DataFrame:
    """Thousands of persons seen until the error first falls to each value, the mean over the seeds; NaN where a seed
    does not get there."""
    lines = {}
    done = table[table["done"]]
    for row, runs in done.groupby("row", sort=False):
        curves = [read_epochs(folder) for folder in runs["folder"]]
        epochs = [pd.Series([epochs_to_reach(curve, error) for curve in curves]) for error in errors_px]
        thousands = runs["data_train_persons"].iloc[0] / 1000
        lines[row] = [thousands * values.mean(skipna=False) for values in epochs]
    return _labelled(pd.DataFrame.from_dict(lines, "index", columns=[f"{error:g} px" for error in errors_px]), done)


def _labelled(lines: pd.DataFrame, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Rows under their labels, in a column of their own; with runs, each label leads to its own on the page of runs."""
    labels = [row_label(row) for row in lines.index]
    if runs is not None and len(runs):
        places = runs.drop_duplicates("row").set_index("row")
        labels = [
            linked(label, anchor(places.loc[row, "profile"], places.loc[row, "part"], row))
            for label, row in zip(labels, lines.index, strict=True)
        ]
    lines.index = pd.Index(labels, name="method")
    return lines.reset_index()
