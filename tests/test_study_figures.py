"""The figures of a study show the numbers that they are given."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hdm.evaluate import mean_interval, paired_comparison
from hdm.figures import COLOURS, use_style
from hdm.study_figures import (
    MEASURE_LABELS,
    OTHER,
    ROW_COLOURS,
    ROW_LABELS,
    WIDTH,
    comparison_chart,
    consistency_chart,
    consistency_measures,
    decoder_chart,
    difference_chart,
    persons_chart,
    row_colour,
    row_label,
)


@pytest.fixture(autouse=True)
def _close():
    use_style()
    yield
    plt.close("all")


ROWS = ["gaussian_rounded", "hdm", "hdm_relu"]


def lines_of(*measures: str) -> pd.DataFrame:
    """As `hdm.comparison.summary`: three rows, of which the second has one seed and the third none."""
    lines = []
    for i, measure in enumerate(measures):
        lines.append(("main", "gaussian_rounded", measure, 3, 9.0 + i, 8.5 + i, 9.5 + i, (8.8 + i, 9.0 + i, 9.2 + i)))
        lines.append(("main", "hdm", measure, 1, 8.0 + i, math.nan, math.nan, (8.0 + i,)))
        lines.append(("main", "hdm_relu", measure, 0, math.nan, math.nan, math.nan, ()))
    return pd.DataFrame(lines, columns=["part", "row", "measure", "n", "mean", "low", "high", "values"])


def dots(ax: Axes, size: float = 6.5) -> list[Line2D]:
    return [line for line in ax.lines if line.get_marker() == "o" and line.get_markersize() == size]


def intervals(ax: Axes, row: str) -> list[list[float]]:
    shown = [line for line in ax.lines if line.get_marker() == "None" and line.get_color() == row_colour(row)]
    return [list(line.get_xdata()) for line in shown]


def fits_the_page(figure: Figure) -> bool:
    return figure.get_figwidth() <= WIDTH


def test_every_row_has_a_colour_and_a_name_of_its_own() -> None:
    assert ROW_COLOURS.keys() == ROW_LABELS.keys()
    assert len(set(ROW_COLOURS.values())) == len(set(ROW_LABELS.values())) == len(ROW_COLOURS)
    assert row_colour("gaussian_rounded") == COLOURS["gaussian_mse"]
    assert (row_colour("hdm"), row_colour("hdm_warm")) == (COLOURS["hdm_cold"], COLOURS["hdm"])


@pytest.mark.parametrize(
    ("row", "label", "colour"),
    [
        ("hdm_relu", "HDM, ReLU", ROW_COLOURS["hdm_relu"]),
        ("hdm lr=0.003", "HDM, lr 0.003", ROW_COLOURS["hdm"]),
        ("hdm 250_persons", "HDM, 250 persons", ROW_COLOURS["hdm"]),
        ("hdm 250_persons lr=0.003", "HDM, 250 persons, lr 0.003", ROW_COLOURS["hdm"]),
        ("hdm loss_settings={'blur': 1.0} lr=0.003", "HDM, loss settings {'blur': 1.0}, lr 0.003", ROW_COLOURS["hdm"]),
        ("batch_size=8", "batch size 8", OTHER),
        ("dot", "one demander: the dot", OTHER),
        ("another_way", "another way", OTHER),
    ],
)
def test_rows_that_are_not_listed_have_readable_names(row: str, label: str, colour: str) -> None:
    assert (row_label(row), row_colour(row)) == (label, colour)


def test_a_comparison_shows_means_intervals_and_seeds() -> None:
    figure = comparison_chart(lines_of("error_px", "AP"), reference="gaussian_rounded")
    assert fits_the_page(figure)
    assert [ax.get_xlabel() for ax in figure.axes] == [MEASURE_LABELS["error_px"], MEASURE_LABELS["AP"]]
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == [ROW_LABELS[row] for row in ROWS]
    for shift, ax in enumerate(figure.axes):
        shown = [float(line.get_xdata()[0]) for line in dots(ax)]
        assert shown[:2] == [9 + shift, 8 + shift] and math.isnan(shown[2])
        assert intervals(ax, "gaussian_rounded") == [[8.5 + shift, 9.5 + shift]]
        assert list(dots(ax, 3.5)[0].get_xdata()) == pytest.approx([8.8 + shift, 9 + shift, 9.2 + shift])
        (band,) = ax.patches
        assert (band.get_x(), band.get_width()) == (8.5 + shift, 1.0)
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1], "the first row on top"


def test_a_comparison_of_chosen_measures_without_a_reference() -> None:
    (ax,) = comparison_chart(lines_of("error_px", "AP"), ["AP"]).axes
    assert [line.get_xdata()[0] for line in dots(ax)][:2] == [10, 9] and not ax.patches


def test_rows_far_off_are_arrows_with_their_mean() -> None:
    rows = {"gaussian_dark": 5.4, "ce_bilinear": 5.7, "hdm_warm": 5.8, "recipe": 5.6, "hdm": 12.3, "dsnt": -3.0}
    lines = pd.DataFrame(
        [
            {"row": row, "measure": "error_px", "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 1}
            | {"values": [mean]}
            for row, mean in rows.items()
        ]
    )
    (ax,) = comparison_chart(lines).axes
    assert ax.get_xlim()[0] > 4 and ax.get_xlim()[1] < 7, "the others fill the panel"
    assert [line.get_xdata()[0] for line in dots(ax) if line.get_marker() == "o"] == [5.4, 5.7, 5.8, 5.6]
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("12.3", 4), ("-3", 5)]
    assert [line.get_marker() for line in ax.lines if line.get_marker() in "<>"] == [">", "<"]
    assert not comparison_chart(lines.assign(mean=1.0)).axes[0].texts
    wide = lines.assign(low=lines["mean"] - 3, high=lines["mean"] + 3)
    assert not comparison_chart(wide).axes[0].texts, "the panel would stay as wide"


def test_measures_of_consistency_beside_what_noise_brings_about() -> None:
    names = ("kendall", "discordant", "expected", "joint_discordant", "excess_share")
    rows = [(row, seed) for row in ROWS for seed in (0, 1)]
    table = pd.DataFrame(rows, columns=["row", "seed"]).assign(part="main", done=lambda t: t["row"] != "hdm_relu")
    for i, name in enumerate(names):
        table[f"consistency_{name}"] = np.where(
            table["done"], i + table["row"].map(ROWS.index) + table["seed"] / 10, np.nan
        )
        table[f"late_consistency_{name}"] = 10 + table[f"consistency_{name}"]
    late = consistency_measures(table, late=True)
    assert [float(line.get_xdata()[0]) for line in dots(late.axes[0])] == pytest.approx([10.05, 11.05])
    figure = consistency_measures(table)
    assert fits_the_page(figure)
    assert len(figure.axes) == 4 and len(figure.axes[0].get_yticks()) == 2, "without the row that was not followed"
    means = [[float(line.get_xdata()[0]) for line in dots(ax)] for ax in figure.axes]
    assert means[0] == pytest.approx([0.05, 1.05])
    assert means[1] == pytest.approx([1.05, 2.05, 2.05, 3.05]), "observed, then expected"
    assert [line.get_markerfacecolor() for line in dots(figure.axes[1])][2:] == ["white"] * 2
    assert means[2] == pytest.approx([3.05, 4.05]) and means[3] == pytest.approx([4.05, 5.05])


def test_methods_over_the_number_of_training_persons() -> None:
    lines = [
        ("hdm_warm 250_persons", 0, 9.0, 250), ("hdm_warm 250_persons", 1, 8.0, 250), ("hdm_warm", 0, 6.0, 5000),
        ("dsnt 250_persons", 0, 7.0, 250), ("hdm_relu", 0, 5.0, 5000),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["row", "seed", "error_px", "data_train_persons"]).assign(done=True)
    figure = persons_chart(table, ["hdm_warm", "dsnt"], ["error_px"])
    assert fits_the_page(figure)
    (ax,) = figure.axes
    assert [list(line.get_ydata()) for line in ax.lines] == [[8.5, 6.0], [7.0]]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["250", "5,000"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["HDM, warm start", "DSNT"]
    bars = ax.collections[0].get_segments()[0]
    assert bars[0][1] == pytest.approx(mean_interval([9.0, 8.0])[1])


def test_differences_with_their_intervals() -> None:
    comparisons = {"hdm": paired_comparison([1, 2, 4], [2, 2.5, 5]), "dsnt": paired_comparison([3, 4, 6], [2, 2.5, 5])}
    figure = difference_chart(comparisons, "error minus another's", bound=0.5)
    (ax,) = figure.axes
    assert [line.get_xdata()[0] for line in dots(ax)] == [found.difference for found in comparisons.values()]
    assert intervals(ax, "hdm") == [[comparisons["hdm"].low, comparisons["hdm"].high]]
    assert [line.get_xdata()[0] for line in ax.lines[-2:]] == [0, 0.5]
    assert ax.get_title(loc="left").endswith("better") and ax.get_xlabel() == "error minus another's"
    (other,) = difference_chart(comparisons, "AP", better="higher").axes
    assert other.get_title(loc="right").startswith("better")


def test_the_way_of_each_seed_through_loss_and_error() -> None:
    """The step from the second to the third epoch is discordant; where the loss rose, no step is."""
    table = pd.DataFrame({"epoch": range(5), "val_loss": [9.0, 4, 3, 2, 2.5], "error_px": [40.0, 9, 8, 8.5, 8.8]})
    below = table.assign(val_loss=table["val_loss"] - 3)
    epochs = {"hdm": [table, table.assign(error_px=[40.0, 9, 8, 7, 6])], "dsnt": [table], "kl": [below]}
    figure = consistency_chart(epochs, columns=2)
    assert fits_the_page(figure)
    hdm, dsnt, kl, rest = figure.axes
    assert [ax.get_title() for ax in (hdm, dsnt, kl)] == ["HDM", "DSNT", "kl"] and not rest.get_visible()
    way, step, end, other, other_end = hdm.lines
    assert way.get_xydata().tolist() == [[4, 9], [3, 8], [2, 8.5], [2.5, 8.8]], "without the untrained network"
    assert step.get_xydata().tolist() == [[3, 8], [2, 8.5]] and step.get_color() == "#000000"
    assert end.get_xydata().tolist() == [[2.5, 8.8]] and other_end.get_xydata().tolist() == [[2.5, 6]]
    assert way.get_color() == other.get_color() == row_colour("hdm")
    assert (dsnt.get_xscale(), kl.get_xscale()) == ("log", "linear"), "a loss that falls below zero"


def test_decoders_in_shades_with_the_best_in_a_frame() -> None:
    index = pd.MultiIndex.from_tuples([("main", row) for row in ROWS], names=["part", "row"])
    means = pd.DataFrame({"argmax": [9.0, 8.0, np.nan], "dark": [8.0, 30.0, np.nan], "udp": np.nan}, index)
    means.loc[("main", "hdm"), "udp"] = 7.5
    figure = decoder_chart(means)
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [ROW_LABELS[row] for row in ROWS[:2]]
    shown = {text.get_position(): text.get_text() for text in ax.texts}
    assert shown == {(0, 0): "9.00", (1, 0): "8.00", (0, 1): "8.00", (1, 1): "30.00", (2, 1): "7.50"}
    assert [patch.get_x() + 0.47 for patch in ax.patches] == [1, 2]
    shade = np.asarray(ax.images[0].get_array().filled(np.nan))
    assert shade[1, 2] > shade[0, 1] > shade[0, 0] > shade[1, 1] and np.isnan(shade[0, 2])
    (small,) = decoder_chart(means / 1000, "AP75").axes
    assert {text.get_text() for text in small.texts} == {"0.00900", "0.00800", "0.03000", "0.00750"}
    (higher,) = decoder_chart(means, "OKS-AP", better="higher").axes
    assert [patch.get_x() + 0.47 for patch in higher.patches] == [0, 1]


def test_a_figure_of_nothing_says_so() -> None:
    nothing = lines_of("error_px").iloc[:0]
    table = pd.DataFrame({"part": [], "row": [], "seed": [], "done": pd.Series([], dtype=bool), "folder": []})
    figures = [
        comparison_chart(nothing),
        persons_chart(pd.DataFrame({"done": [False], "row": "hdm"}), ["hdm"], ["error_px"]),
        consistency_measures(table),
        difference_chart({}, "error"),
        consistency_chart({}),
        decoder_chart(pd.DataFrame(columns=["argmax"], index=pd.MultiIndex.from_tuples([], names=["part", "row"]))),
    ]
    assert [figure.texts[0].get_text() for figure in figures] == ["no run of these is recorded yet"] * len(figures)
