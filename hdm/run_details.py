"""Every run on a page of its own: settings, scores and the command that makes it again, behind a line to open.

Tables of the book lead here: the cell of a method to its runs, `runs.html#study-cpu-main-hdm_warm`, and that of a
single run to its record, `runs.html#20261127T022437-gaussian_mse-555496e9`.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import pandas as pd
import yaml

from hdm.records import commits, machines, read_run
from hdm.study import Study

SCORES = ("error_px", "AP", "PCKh@0.5")  # in the line that opens a run, where it has them


def anchor(profile: str, part: str, row: str) -> str:
    """The place on the page of the runs of a study's row."""
    return re.sub(r"[^\w.-]+", "-", "-".join(name for name in (profile, part, row) if name))


def linked(label: str, place: str) -> str:
    """A label that leads to a place on the page."""
    return f'<a href="runs.html#{place}">{escape(label)}</a>'


def study_details(study: Study, table: pd.DataFrame, file: Path | str) -> str:
    """The runs of a study as HTML, those of a row together.

    table: of `hdm.comparison.study_runs`. file: the study's, for the commands.
    """
    lines = []
    for names, runs in table.groupby(["part", "row"], sort=False):
        part, row = map(str, names)
        done = runs[runs["done"]]
        title = f"{part}: {row}" if part else row
        open_runs = len(runs) - len(done)
        count = f"{len(done)} recorded" + (f", {open_runs} open" if open_runs else "")
        lines.append(f'<p id="{anchor(study.name, part, row)}"><strong>{escape(title)}</strong> ({count})</p>')
        commands = [f'hdm study {file} --only "{name}" --again' for name in done["name"]]
        lines += _runs(done, commands)
    return "\n".join(lines)


def profile_details(profile: str, table: pd.DataFrame) -> str:
    """The recorded runs of a profile as HTML, which the chapter on training made.

    table: of `hdm.comparison.study_runs`, for the profile as a study (`hdm.study.study_of_profile`).
    """
    runs = table[table["done"]]
    return "\n".join(_runs(runs, [f"hdm book --profile {profile} --only training -p again=true"] * len(runs)))


def _runs(runs: pd.DataFrame, commands: list[str]) -> Iterator[str]:
    if not len(runs):
        return
    facts = zip(runs["folder"], runs["seed"], machines(runs), commits(runs), commands, strict=True)
    for folder, seed, machine, commit, command in facts:
        record = read_run(folder)
        scores = ", ".join(f"{name} {record['results'][name]:.4g}" for name in SCORES if name in record["results"])
        facts_of_run = {
            "record": Path(folder).as_posix(),
            "data": record["data"]["source"],
            "boxes": record["data"].get("boxes"),
            "minutes": round(record["seconds"] / 60, 1),
            "results": record["results"],
            "settings": record["settings"],
        }
        text = yaml.safe_dump(facts_of_run, sort_keys=False, default_flow_style=None, width=100)
        yield (
            f'<details id="{escape(record["run_id"])}"><summary>seed {seed}: {scores} '
            f"({escape(machine)}, commit {commit})</summary>"
            f"<pre>{escape(command)}\n\n{escape(text)}</pre></details>"
        )
