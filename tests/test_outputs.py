"""Outputs of notebooks, made fit to print. What a whole notebook shows is tested in `test_notebooks.py`."""

import sys
from pathlib import Path

import nbformat

from hdm.outputs import clean_outputs, without_machine_paths


def test_clean_outputs_drops_widgets_and_mends_drawings(tmp_path: Path) -> None:
    v4 = nbformat.v4
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "0%|   |"}
    drawing = {"image/svg+xml": [f"<svg><!-- {tmp_path}/a.svg -->", "</svg>"], "image/png": "aGRt"}
    cell = v4.new_code_cell("plot()", outputs=[v4.new_output("display_data", data=d) for d in (widget, drawing)])
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(f"Prose keeps {tmp_path}."), cell])
    notebook.metadata.update(papermill={"output_path": str(tmp_path)}, widgets={"state": {}})
    cleaned = clean_outputs(notebook, tmp_path)
    [output] = cleaned.cells[1].outputs
    assert output.data == {"image/svg+xml": ["<svg><!-- ./a.svg -->", "</svg>"], "image/png": "aGRt"}
    assert cleaned.metadata == {}


def test_paths_of_this_machine_are_named(tmp_path: Path) -> None:
    text = f"{tmp_path}/a.json, {tmp_path}-old/b.json, {sys.prefix}/bin, data{tmp_path}"
    shown = without_machine_paths(text, tmp_path)
    assert shown.startswith("./a.json, ")
    assert "<env>/bin" in shown
    assert f"{tmp_path}/" not in shown
    assert shown.endswith(f"data{tmp_path}"), "the end of another path is none of ours"
