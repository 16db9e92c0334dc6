"""The book's figures show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from hdm.data.crops import Crop
from hdm.data.skeletons import COCO
from hdm.encode import round_trip_errors
from hdm.figures import (
    COLOURS,
    DEMANDER_COLOURS,
    LABELS,
    draw_skeleton,
    map_gallery,
    method_name,
    round_trip_chart,
    show_cells,
    show_gradient,
    show_map,
    show_plan,
    show_table,
    speed_curves,
    training_curves,
    trap_chart,
    use_style,
)
from hdm.losses import LOSSES


@pytest.fixture(autouse=True)
def _close():
    use_style()
    yield
    plt.close("all")


def test_every_method_has_a_colour_of_its_own() -> None:
    colours = [COLOURS[method] for method in LABELS]
    assert len(set(colours)) == len(LABELS)
    assert set(LOSSES) <= set(LABELS)


@pytest.mark.parametrize(
    ("loss", "warm_start", "name"),
    [("hdm", 0.4, "hdm"), ("hdm", 0.0, "hdm_cold"), ("gaussian_mse", 0.0, "gaussian_mse")],
)
def test_method_name(loss: str, warm_start: float, name: str) -> None:
    assert method_name({"loss": loss, "warm_start": warm_start}) == name


def test_show_map_puts_the_cross_on_the_joint() -> None:
    _, ax = plt.subplots()
    heatmap = np.arange(12.0).reshape(3, 4)
    show_map(ax, heatmap, (2.5, 1.25), title="map")
    assert np.array_equal(ax.images[0].get_array(), heatmap)
    assert ax.lines[0].get_xydata().tolist() == [[2.5, 1.25]]


def test_show_cells_draws_cells_mass_and_demanders() -> None:
    _, ax = plt.subplots()
    cells = np.array([[0, 1, 1, 1, 1], [2, 3, 3, 3, 3], [2, 2, 3, 3, 3]])
    mass = np.zeros((3, 5))
    mass[2, 4], mass[0, 1] = 0.75, 0.25
    points = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    show_cells(ax, cells, mass, points, title="cells")
    assert np.array_equal(ax.images[0].get_array(), cells)
    shades = ax.images[0].cmap(ax.images[0].norm(np.arange(4)))
    assert shades[:, :3] == pytest.approx(np.array([to_rgb(colour) for colour in DEMANDER_COLOURS]))
    dots, squares = ax.collections
    sizes = {tuple(place): size for place, size in zip(dots.get_offsets(), dots.get_sizes(), strict=True) if size}
    assert sizes == {(4.0, 2.0): 750.0, (1.0, 0.0): 250.0}
    assert squares.get_offsets().tolist() == points.tolist()


def test_show_plan_draws_a_line_for_each_shipment() -> None:
    _, ax = plt.subplots()
    plan = np.zeros((4, 3, 5))
    plan[0, 2, 1], plan[0, 0, 4], plan[3, 1, 1], plan[2, 0, 0] = 0.5, 0.25, 0.2, 1e-5
    points = np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])
    show_plan(ax, plan, points)
    lines = [line for line in ax.lines if len(line.get_xydata()) == 2]
    assert [line.get_xydata().tolist() for line in lines] == [[[4, 0], [1, 1]], [[1, 2], [1, 1]], [[1, 1], [2, 2]]]
    widths = np.array([line.get_linewidth() for line in lines])
    assert widths / widths[0] == pytest.approx([1, 2, 0.8])


def test_show_gradient_raises_where_the_gradient_is_negative() -> None:
    _, ax = plt.subplots()
    gradient = np.array([[-2.0, 0.0], [1.0, 0.5]])
    show_gradient(ax, gradient, (0, 0))
    shown = ax.images[0]
    assert np.array_equal(shown.get_array(), -gradient)
    assert shown.get_clim() == (-2, 2)
    red, _, blue, _ = shown.cmap(1.0)
    assert red > blue, "raised pixels are orange"


def test_skeleton_draws_visible_limbs_on_their_side() -> None:
    _, ax = plt.subplots()
    joints = np.random.default_rng(0).uniform(0, 50, (17, 2))
    visible = np.zeros(17)
    left_arm = [COCO.names.index(f"left_{name}") for name in ("shoulder", "elbow", "wrist")]
    visible[left_arm] = 1
    draw_skeleton(ax, joints, visible, COCO)
    assert len(ax.lines) == 2, "upper arm and forearm, nothing else"
    assert {line.get_color() for line in ax.lines} == {COLOURS["left"]}
    assert np.array_equal(ax.collections[0].get_offsets(), joints[left_arm])


def test_training_curves_show_the_records() -> None:
    table = pd.DataFrame({"epoch": [0, 1, 2], "val_loss": [4.0, 2.0, 1.0], "error_px": [9.0, 5.0, 6.0]})
    figure = training_curves({"hdm": table, "gaussian_mse": table * 2}, {"hdm": 1, "gaussian_mse": 0})
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [1, 0.5, 0.25]
    assert right.lines[0].get_ydata().tolist() == [9, 5, 6]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [LABELS["hdm"], LABELS["gaussian_mse"]]
    marks = [line for line in right.lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in marks] == [1], "the end of the one warm start"


def test_map_gallery_has_a_row_per_crop_and_a_column_per_method() -> None:
    crops = [
        Crop(torch.zeros(3, 32, 24, dtype=torch.uint8), torch.rand(17, 2), torch.ones(17), torch.zeros(2, 3), index)
        for index in range(3)
    ]
    maps = {"gaussian_mse": torch.rand(3, 8, 6), "hdm": torch.rand(3, 8, 6)}
    figure = map_gallery(crops, maps, 9, COCO)
    assert len(figure.axes) == 9
    assert np.allclose(figure.axes[5].images[0].get_array(), maps["hdm"][1].numpy())
    assert [ax.get_title() for ax in figure.axes[:3]] == ["annotated", LABELS["gaussian_mse"], LABELS["hdm"]]


def test_speed_curves_show_the_times_of_each_size() -> None:
    rows = [(64, 48, 1, 17, "Gaussian MSE", 1.0), (64, 48, 8, 17, "Gaussian MSE", 7.0)]
    rows += [(32, 24, 8, 17, "HDM, subpixel, exact", 9.0)]
    timings = pd.DataFrame(rows, columns=["height", "width", "batch", "joints", "method", "ms"])
    small, large = speed_curves(timings).axes
    assert [ax.get_title() for ax in (small, large)] == ["32 x 24 pixels", "64 x 48 pixels"]
    assert large.lines[0].get_xydata().tolist() == [[17, 1], [136, 7]]
    assert small.lines[1].get_xydata().tolist() == [[136, 9]]


def test_round_trips_are_drawn_for_every_decoder_and_place() -> None:
    table = round_trip_errors((32, 24), sigmas=(2,), count=200)
    figure = round_trip_chart(table)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "argmax, rounded Gaussian" and labels[-1] == "integral, bilinear map"
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(labels)]
    assert [line.get_label() for line in drawn] == ["inside", "border"]
    inside = table[table["where"] == "inside"]["mean"].clip(lower=1e-5)
    np.testing.assert_allclose(drawn[0].get_xdata(), inside)


def test_traps_have_a_panel_each_and_right_settings_are_filled() -> None:
    rows = [("flip", "none", True, "a", 50.0), ("flip", "wrong", False, "a", 40.0), ("boxes", "all", True, "b", 10.0)]
    figure = trap_chart(pd.DataFrame(rows, columns=["trap", "setting", "right", "predictions", "value"]), "AP")
    assert [ax.get_title() for ax in figure.axes] == ["flip", "boxes"]
    right, wrong = figure.axes[0].lines
    assert (right.get_xdata()[0], wrong.get_xdata()[0]) == (50, 40)
    assert right.get_markerfacecolor() == right.get_color() != wrong.get_markerfacecolor()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_long_text_breaks_into_lines_and_links_do_not() -> None:
    long, link = "a text that is longer than any table has room for in a line", f'<a href="{"x" * 60}">x</a>'
    html = show_table(pd.DataFrame({"text": [long, "short"], "link": link, "number": 0.12345}), 3).to_html()
    assert html.count("white-space: normal") == 1 and "0.123" in html
    style = html[: html.index("white-space")]
    assert "row0_col0" in style and "row1_col0" in style and "col1" not in style
    assert "white-space" not in show_table(pd.DataFrame({"text": ["short"]})).to_html()
