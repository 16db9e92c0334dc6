"""Outputs of notebooks, made fit to print. What a whole notebook shows is tested in `test_notebooks.py`."""

import base64
import re
import sys
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
from PIL import Image

from hdm.outputs import clean_outputs, lean, with_light_photographs, without_machine_paths


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


def drawing_of(*pictures: np.ndarray) -> str:
    figure, axes = plt.subplots(1, len(pictures), squeeze=False)
    for ax, picture in zip(axes.flat, pictures, strict=True):
        ax.imshow(picture, interpolation="none")
    stored = BytesIO()
    figure.savefig(stored, format="svg")
    plt.close(figure)
    return stored.getvalue().decode()


def test_photographs_in_drawings_are_light(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 240 * 180).reshape(240, 180, 1) + np.zeros(3)
    photograph = (smooth + rng.normal(0, 8, smooth.shape[:2])[..., None]).clip(0, 255).astype(np.uint8)
    heatmap = rng.random((8, 6))
    veil = np.concatenate([photograph, np.full((240, 180, 1), 128, np.uint8)], axis=2)
    given = drawing_of(photograph, heatmap, veil)
    cell = nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", {"image/svg+xml": given})])
    clean_outputs(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    light = cell.outputs[0].data["image/svg+xml"]
    assert re.findall(r"data:image/(\w+);", light) == ["jpeg", "png", "png"], "a map and what shines through stay"
    assert len(light) < 0.8 * len(given)
    before, after = (
        np.asarray(Image.open(BytesIO(base64.b64decode(re.search(r"base64,([^\"]+)", text)[1]))).convert("RGB"), float)
        for text in (given, light)
    )
    assert before.shape == after.shape == (240, 180, 3)
    assert np.abs(before - after).mean() < 3


def test_a_drawing_without_photographs_is_left_as_it_is() -> None:
    given = drawing_of(np.eye(5))
    assert with_light_photographs(given) == given


def test_injected_parameters_are_no_more_in_sight_than_declared_ones(tmp_path: Path) -> None:
    v4 = nbformat.v4
    for hidden, expected in ((["parameters"], ["injected-parameters"]),
                             (["parameters", "remove-cell"], ["injected-parameters", "remove-cell"])):  # fmt: skip
        declared = v4.new_code_cell("profile = 'quick'", metadata={"tags": hidden})
        injected = v4.new_code_cell("profile = 'smoke'", metadata={"tags": ["injected-parameters"]})
        cleaned = clean_outputs(v4.new_notebook(cells=[declared, injected]), tmp_path)
        assert cleaned.cells[1].metadata.tags == expected


def test_a_lean_drawing_is_the_same_drawing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    drawing = drawing_of(picture, picture)
    leaner = lean(drawing)
    assert len(leaner) < 0.9 * len(drawing) and "<metadata>" not in leaner
    assert re.findall(r"base64,([^\"]+)", leaner) == re.findall(r"base64,([^\"]+)", drawing)
    assert re.findall(r"<(\w+)", leaner) == re.findall(r"<(\w+)", re.sub(r"(?s)<metadata>.*?</metadata>", "", drawing))
    numbers = [[float(n) for d in re.findall(r' d="([^"]*)"', one) for n in re.findall(r"-?[\d.]+", d)]
               for one in (leaner, drawing)]  # fmt: skip
    assert np.abs(np.subtract(*numbers)).max() < 0.01 and len(numbers[0]) > 100
