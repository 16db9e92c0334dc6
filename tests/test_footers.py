"""The line below each figure: what it says of records, commits and profile."""

import json
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hdm.footers import has_figure, sign_figures


def figure_cell(**metadata: Any) -> Any:
    picture = new_output("display_data", data={"image/svg+xml": "<svg/>", "text/plain": "<Figure>"})
    return new_code_cell("draw()", outputs=[picture], metadata=metadata)


def write_record(folder: Path, kind: str, commit: str, dirty: bool = False, loss: str = "hdm") -> None:
    folder.mkdir(parents=True)
    record = {"commit": commit * 8, "dirty": dirty, "settings": {"loss": loss, "seed": 0}}
    (folder / f"{kind}.json").write_text(json.dumps(record))


def signed(cell: Any, root: Path) -> str:
    notebook = sign_figures(new_notebook(cells=[new_markdown_cell("# title"), cell]), "smoke", root)
    return notebook.cells[1].outputs[-1]["data"]["text/plain"]


def test_a_figure_of_the_page_itself(tmp_path: Path) -> None:
    line = signed(figure_cell(), tmp_path)
    assert line.startswith("Source: computed on this page (profile smoke, commit ")


def test_runs_are_counted_with_their_commits(tmp_path: Path) -> None:
    for number, commit in enumerate("abcda"):
        write_record(tmp_path / "data/runs/study" / f"r{number}", "run", commit * 5, dirty=commit == "b")
    write_record(tmp_path / "data/runs/study" / ".unfinished", "run", "f")
    line = signed(figure_cell(hdm={"records": "data/runs/study"}), tmp_path)
    expected = "5 records in data/runs/study, commits aaaaaaaa, bbbbbbbb with changes, cccccccc and 1 more ("
    assert line.startswith(f"Source: {expected}")


def test_the_profile_of_the_build_may_stand_in_the_name(tmp_path: Path) -> None:
    write_record(tmp_path / "data/runs/smoke/r", "run", "a")
    line = signed(figure_cell(hdm={"records": "data/runs/{profile}"}), tmp_path)
    assert line.startswith("Source: 1 record in data/runs/smoke, commit aaaaaaaa (")


def test_of_the_builds_own_runs_the_newest_count(tmp_path: Path) -> None:
    runs = tmp_path / "data/runs/smoke"
    for number, (commit, loss) in enumerate([("a", "hdm"), ("b", "dsnt"), ("c", "hdm")]):
        write_record(runs / f"r{number}", "run", commit, loss=loss)
    line = signed(figure_cell(hdm={"records": "data/runs/{profile}"}), tmp_path)
    assert line.startswith("Source: 2 records in data/runs/smoke, commits bbbbbbbb, cccccccc (")


def test_of_a_benchmark_the_newest_counts(tmp_path: Path) -> None:
    write_record(tmp_path / "data/benchmarks/step/20260101T000000-cpu", "benchmark", "a")
    write_record(tmp_path / "data/benchmarks/step/20260102T000000-cpu", "benchmark", "b")
    write_record(tmp_path / "data/benchmarks/step/20260103T000000-gpu", "benchmark", "c")
    line = signed(figure_cell(hdm={"records": "data/benchmarks/step/*-cpu"}), tmp_path)
    assert line.startswith("Source: data/benchmarks/step/20260102T000000-cpu, commit bbbbbbbb (")


def test_no_record_is_said(tmp_path: Path) -> None:
    assert "0 records in data/runs/study (" in signed(figure_cell(hdm={"records": "data/runs/study"}), tmp_path)
    assert "no record in data/benchmarks/x" in signed(figure_cell(hdm={"records": "data/benchmarks/x"}), tmp_path)


@pytest.mark.parametrize("tag", ["remove-cell", "remove-output"])
def test_what_is_not_shown_is_not_signed(tag: str, tmp_path: Path) -> None:
    cell = figure_cell(tags=[tag])
    assert not has_figure(cell)
    sign_figures(new_notebook(cells=[cell]), "smoke", tmp_path)
    assert len(cell.outputs) == 1


def test_a_table_is_no_figure() -> None:
    table = new_output("display_data", data={"text/html": "<table/>", "image/png": ""})
    assert not has_figure(new_code_cell("show()", outputs=[table]))
