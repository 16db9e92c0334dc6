"""A benchmark's table as it is printed."""

import pandas as pd


def as_texts(table: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> dict[str, list[str]]:
    """Columns as texts, blank where a column says nothing about a row.

    columns: label -> (name in the table, format such as `{:.1f}`); one that the table does not have is left out.
    """
    return {
        label: ["" if pd.isna(value) else form.format(value) for value in table[name]]
        for label, (name, form) in columns.items()
        if name in table
    }
