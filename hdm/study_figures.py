"""Figures of a study: each method with its seeds and how sure its mean is, at a glance.

Bars are 95 % intervals of the mean over seeds, faint dots the seeds themselves. Rows have the colours of
`hdm.figures.COLOURS` where they are what that has, and near ones where they are variants of it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from hdm.comparison import summary
from hdm.evaluate import Comparison, mean_interval
from hdm.figures import COLOURS

WIDTH = 8.6  # inches, of the page's text
ROW_COLOURS = {
    "gaussian_rounded": COLOURS["gaussian_mse"],
    "gaussian_dark": "#56B4E9",
    "ce_onehot": "#66C2A5",
    "ce_bilinear": COLOURS["cross_entropy"],
    "ce_gaussian": "#00583F",
    "integral": COLOURS["integral"],
    "dsnt": COLOURS["dsnt"],
    "expected_nearest": "#B07AA1",
    "expected_dot": COLOURS["expected_cost"],
    "hdm": COLOURS["hdm_cold"],
    "hdm_sinkhorn": "#AA4499",
    "hdm_sinkhorn_wide": "#6F4C9B",
    "hdm_softplus": "#E8A5C8",
    "hdm_relu": "#B5651D",
    "hdm_sigmoid": "#E69F00",
    "hdm_warm": COLOURS["hdm"],
    "recipe": "#332288",
}
ROW_LABELS = {
    "gaussian_rounded": "Gaussian, rounded",
    "gaussian_dark": "Gaussian, DARK",
    "ce_onehot": "cross-entropy, one pixel",
    "ce_bilinear": "cross-entropy, four pixels",
    "ce_gaussian": "cross-entropy, Gaussian",
    "integral": "integral regression",
    "dsnt": "DSNT",
    "expected_nearest": "HDM, naive demander",
    "expected_dot": "expected cost",
    "hdm": "HDM",
    "hdm_sinkhorn": "HDM, Sinkhorn",
    "hdm_sinkhorn_wide": "HDM, Sinkhorn, wide blur",
    "hdm_softplus": "HDM, softplus",
    "hdm_relu": "HDM, ReLU",
    "hdm_sigmoid": "HDM, sigmoid",
    "hdm_warm": "HDM, warm start",
    "recipe": "recommended recipe",
}
# Variants of a method, all in one grey beside it.
VARIANT_LABELS = {
    "nearest": "one demander: the nearest pixel",
    "dot": "one demander: the dot",
    "squared": "squared cost",
    "truncated": "truncated cost",
    "gaussian_cost": "Gaussian cost",
    "sinkhorn_wide": "Sinkhorn, wide blur",
    "cross_entropy_beside": "cross-entropy beside",
    "warm_start_long": "longer warm start",
    "expected_dot_warm": "expected cost, warm start",
    "both_from_the_start": "HDM and cross-entropy at once",
}
MEASURE_LABELS = {
    "error_px": "error (crop pixels)",
    "AP": "OKS-AP",
    "consistency_kendall": "Kendall's tau",
    "consistency_discordant": "discordant steps",
    "consistency_joint_discordant": "discordant, per joint",
    "consistency_excess_px": "excess (crop pixels)",
    "consistency_excess_share": "excess / least error",
    "maps_spread_px": "spread (heatmap pixels)",
    "maps_effective_pixels": "effective pixels",
}
OTHER = "#666666"  # a row without a colour of its own
FAR = 8.0  # median distances from the median
NARROWER = 4.0  # how many times narrower a panel must become by leaving the far rows out


def row_colour(row: str) -> str:
    """The colour of a row; a row with further settings in its name, such as `hdm lr=0.003`, has its method's."""
    return ROW_COLOURS.get(row, ROW_COLOURS.get(row.partition(" ")[0], OTHER))


def row_label(row: str) -> str:
    """What a row is called on a figure."""
    method, _, rest = row.partition(" ")
    words = [method, *re.split(r" (?=\w+=)", rest)] if method in ROW_LABELS and rest else re.split(r" (?=\w+=)", row)
    names = ROW_LABELS | VARIANT_LABELS
    return ", ".join(names.get(word, word.replace("=", " ", 1).replace("_", " ")) for word in words)


# --- a dot for each row


def comparison_chart(
    lines: pd.DataFrame, measures: Sequence[str] | None = None, *, reference: str | None = None
) -> Figure:
    """A panel for each measure, side by side, and in it each row's mean, interval and seeds.

    lines: of `hdm.comparison.summary`, of one part. measures: by default all that they have; two or three read well.
    reference: a row whose interval is drawn as a grey band across the panel.
    Rows far from most others (`FAR`) are an arrow at the border with their mean, so that the others can be told apart.
    """
    measures = list(dict.fromkeys(lines["measure"])) if measures is None else list(measures)
    rows = list(dict.fromkeys(lines["row"]))
    if not rows:
        return _no_record()
    figure, axes = _panels(rows, len(measures))
    for ax, measure in zip(axes, measures, strict=True):
        panel = lines[lines["measure"] == measure].to_dict("records")
        for line, side in zip(panel, _sides(panel), strict=True):
            y = rows.index(line["row"])
            if side:
                _arrow(ax, line, y, side)
                continue
            ax.plot(
                line["values"], [y + 0.3] * line["n"], "o", color=row_colour(line["row"]), alpha=0.35, ms=3.5, mew=0
            )
            _dot(ax, line, y)
            if line["row"] == reference and line["n"] > 1:
                ax.axvspan(line["low"], line["high"], color="#000000", alpha=0.08, linewidth=0, zorder=0)
        ax.set_xlabel(MEASURE_LABELS.get(measure, measure))
    return figure


def consistency_measures(table: pd.DataFrame, *, late: bool = False) -> Figure:
    """How each row's error follows its loss: Kendall's tau over the epochs; the share of steps with a falling loss in
    which the error rose (filled), and as noise alone brings it about (hollow); that share over single joints; and by
    how much the error lay above its running minimum.

    table: of `hdm.comparison.study_runs`, of one part; rows without a followed run are left out.
    late: of the epochs after the longest warm start alone (`hdm.train.follow.LATE`), the same for all rows.
    Panels hold all means; an interval that is wider than a panel, or than what its measure can be, is cut.
    """
    when = "late_consistency" if late else "consistency"
    shown = [f"{when}_{name}" for name in ("kendall", "discordant", "joint_discordant", "excess_share")]
    lines = summary(table, [*shown, f"{when}_expected"])
    lines = lines[lines["n"] > 0]
    rows = list(dict.fromkeys(lines["row"]))
    if not rows:
        return _no_record()
    figure, axes = _panels(rows, len(shown))
    for ax, measure in zip(axes, shown, strict=True):
        pair = measure == f"{when}_discordant"
        for line in lines[lines["measure"] == measure].to_dict("records"):
            _dot(ax, line, rows.index(line["row"]) - 0.16 * pair)
        if pair:
            for line in lines[lines["measure"] == f"{when}_expected"].to_dict("records"):
                _dot(ax, line, rows.index(line["row"]) + 0.16, hollow=True)
            ax.set_title("filled: observed\nhollow: by noise alone", fontsize=8.5, loc="left")
        ax.set_xlabel(MEASURE_LABELS[measure.removeprefix("late_")])
        means = np.concatenate([np.asarray(dot.get_xdata(), float) for dot in ax.lines if dot.get_marker() == "o"])
        least, largest = (-1.0, 1.0) if measure.endswith("kendall") else (0.0, np.inf)
        room = 0.2 * (float(np.ptp(means)) or 0.1)
        edge = 0.15 * room  # a dot at the end of what can be is drawn whole
        ax.set_xlim(max(means.min() - room, least - edge), min(means.max() + room, largest + edge))
        if measure == shown[-1]:
            ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.3g}%"))
            ax.xaxis.set_major_locator(MaxNLocator(3))
    return figure


def difference_chart(
    comparisons: Mapping[str, Comparison], label: str, *, better: str = "lower", bound: float | None = None
) -> Figure:
    """Each row's difference to one row, with its interval, and a line at no difference.

    comparisons: row -> of `hdm.comparison.compare`. label: what differs from what, for the axis. better: which side
    is, `lower` or `higher`. bound: a difference to mark, such as a margin. Rows far off as in `comparison_chart`.
    """
    rows = list(comparisons)
    if not rows:
        return _no_record()
    figure, (ax,) = _panels(rows, 1, width=6.6)
    lines = [
        {"row": row, "mean": found.difference, "low": found.low, "high": found.high}
        for row, found in comparisons.items()
    ]
    for y, (line, side) in enumerate(zip(lines, _sides(lines), strict=True)):
        if side:
            _arrow(ax, line, y, side)
        else:
            _dot(ax, line, y)
    ax.axvline(0, color="#000000", linewidth=1, zorder=1)
    if bound is not None:
        ax.axvline(bound, color="#666666", linewidth=1, linestyle="--", zorder=1)
    ax.margins(x=0.08)
    ax.set_xlabel(label)
    arrow = "\N{LEFTWARDS ARROW} better" if better == "lower" else "better \N{RIGHTWARDS ARROW}"
    ax.set_title(arrow, loc="left" if better == "lower" else "right", fontsize=9, color="#444444")
    return figure


def _no_record() -> Figure:
    """What a chart is where nothing has been run yet."""
    figure = plt.figure(figsize=(WIDTH, 0.5))
    figure.text(0.01, 0.5, "no run of these is recorded yet", va="center", fontsize=10, style="italic")
    return figure


def _panels(rows: Sequence[str], count: int, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Panels side by side that share one line for each row, the first row on top."""
    figure, axes = plt.subplots(
        1, count, figsize=(width, 0.27 * len(rows) + 0.95), sharey=True, squeeze=False, layout="constrained"
    )
    panels = list(axes.flat)
    panels[0].set(yticks=range(len(rows)), yticklabels=map(row_label, rows), ylim=(len(rows) - 0.4, -0.6))
    for ax in panels:
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.locator_params(axis="x", nbins=8 // count + 2)
    return figure, panels


def _dot(ax: Axes, line: Mapping[Any, Any], y: float, *, hollow: bool = False) -> None:
    """A mean and its interval; without an interval, where there is one seed, the mean alone."""
    colour = row_colour(line["row"])
    ax.plot([line["low"], line["high"]], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    ax.plot(line["mean"], y, "o", color=colour, markerfacecolor="white" if hollow else colour, markersize=6.5, zorder=3)


def _sides(lines: Sequence[Mapping[Any, Any]]) -> list[int]:
    """For each row -1 or 1 where its mean lies far below or above most others', else 0: further from their median than
    `FAR` times the median distance from it. None is far where a panel without the far ones would hardly be narrower."""
    means, low, high = (np.array([line[name] for line in lines], float) for name in ("mean", "low", "high"))
    away = means - np.nanmedian(means)
    usual = np.nanmedian(np.abs(away))
    far = (np.abs(away) > FAR * usual) & (usual > 0)
    near = np.concatenate([means[~far], low[~far], high[~far]])
    span = np.nanmax(near) - np.nanmin(near)
    if np.nanmax([*near, *means]) - np.nanmin([*near, *means]) < NARROWER * span:
        far[:] = False
    return (np.sign(np.nan_to_num(away)) * far).astype(int).tolist()


def _arrow(ax: Axes, line: Mapping[Any, Any], y: float, side: int) -> None:
    """A row beyond the border on the right (1) or left (-1), with its mean."""
    colour, across = row_colour(line["row"]), ax.get_yaxis_transform()
    place, inwards = (0.985, "right") if side > 0 else (0.015, "left")
    text = f"{line['mean']:.3g}" if abs(line["mean"]) >= 1e-3 else "0.000"
    ax.plot(place, y, ">" if side > 0 else "<", color=colour, markersize=6.5, transform=across)
    ax.text(place - 0.03 * side, y, text, ha=inwards, va="center", fontsize=8.5, transform=across)


# --- epochs and decoders


def consistency_chart(epochs: Mapping[str, Sequence[pd.DataFrame]], columns: int = 4) -> Figure:
    """The way of each run through loss and error: a panel for each row, a line for each seed, a point for each epoch.

    Training goes from right to left as the loss falls; the last epoch is the large dot. Steps in which the loss fell
    and the error rose are black. The untrained network is left out.
    epochs: row -> for each seed the table of `hdm.records.read_epochs`.
    """
    if not epochs:
        return _no_record()
    columns = min(columns, len(epochs))
    height = -(-len(epochs) // columns)
    figure, axes = plt.subplots(
        height, columns, figsize=(WIDTH, 1.95 * height + 0.3), sharey=True, squeeze=False, layout="constrained"
    )
    for ax, (row, tables) in zip(axes.flat, epochs.items(), strict=False):
        for table in tables:
            run = table[table["epoch"] > 0].dropna(subset=["val_loss", "error_px"])
            loss, error = run["val_loss"].to_numpy(), run["error_px"].to_numpy()
            ax.plot(loss, error, "o-", color=row_colour(row), linewidth=1, markersize=2.5, alpha=0.65)
            for i in np.flatnonzero((np.diff(loss) < 0) & (np.diff(error) > 0)):
                ax.plot(loss[i : i + 2], error[i : i + 2], color="#000000", linewidth=1.8, zorder=3)
            ax.plot(loss[-1:], error[-1:], "o", color=row_colour(row), markersize=5, markeredgecolor="black", zorder=4)
        ax.set_title(row_label(row), fontsize=9)
        _logarithmic(ax)
    for ax in axes.flat[len(epochs) :]:
        ax.set_visible(False)
    figure.supxlabel("own loss on the validation part", fontsize=10)
    figure.supylabel("mean pixel error (crop pixels)", fontsize=10)
    return figure


def _logarithmic(ax: Axes) -> None:
    """Logarithmic axes with plain numbers, so that late epochs are not squeezed into a corner; a loss that falls below
    zero keeps its linear axis."""
    ax.set_yscale("log")
    if ax.dataLim.x0 > 0:
        ax.set_xscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        wide = axis.get_scale() == "log" and high > 3 * low
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)) if wide else MaxNLocator(4))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    ax.tick_params(labelsize=8)


def persons_chart(table: pd.DataFrame, methods: Sequence[str], measures: Sequence[str]) -> Figure:
    """A panel for each measure, and in it a line for each method over the number of training persons, with intervals.

    table: of `hdm.comparison.study_runs`, of parts that differ in the persons trained on. methods: rows, up to the
    first blank of their names: `hdm_warm` for `hdm_warm 250_persons` too.
    """
    named = table[table["done"]].assign(method=lambda runs: runs["row"].str.split(" ").str[0])
    named = named[named["method"].isin(methods)]
    if not len(named):
        return _no_record()
    figure, axes = plt.subplots(
        1, len(measures), figsize=(WIDTH, 2.7), squeeze=False, layout="constrained", sharex=True
    )
    for ax, measure in zip(axes.flat, measures, strict=True):
        for shift, method in enumerate(methods):
            sizes = [
                (persons, *mean_interval(runs[measure].dropna().tolist()))
                for persons, runs in named[named["method"] == method].groupby("data_train_persons")
            ]
            persons, mean, low, high = np.array(sizes, float).reshape(-1, 4).T
            beside = persons * 1.06 ** (shift - (len(methods) - 1) / 2)  # bars of one size side by side
            ax.plot(beside, mean, "o-", color=row_colour(method), markersize=5, label=row_label(method))
            ax.vlines(beside, low, high, color=row_colour(method), linewidth=1.8)
        ax.set_xscale("log")
        counts = sorted(named["data_train_persons"].unique())
        ax.set_xticks(counts, [f"{count:,.0f}" for count in counts])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("training persons")
        ax.set_title(MEASURE_LABELS.get(measure, measure), fontsize=10)
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods))
    return figure


def decoder_chart(means: pd.DataFrame, label: str = "error (crop pixels)", *, better: str = "lower") -> Figure:
    """A table of rows and decoders, the darker the better (by rank), with each row's best decoder in a frame.

    means: of `hdm.comparison.decoder_table`, of one part; rows without a followed run are left out.
    better: `lower` or `higher`.
    """
    means = means.dropna(how="all")
    if not len(means):
        return _no_record()
    rows = means.index.get_level_values("row").tolist()
    values = means.to_numpy(float)
    sign = 1 if better == "lower" else -1
    # Ranks, so that one bad pair of row and decoder does not make all others look alike.
    shade = pd.Series((-sign * values).ravel()).rank(pct=True).to_numpy().reshape(values.shape)
    figure, ax = plt.subplots(
        figsize=(min(WIDTH, 0.85 * values.shape[1] + 2.6), 0.29 * len(rows) + 0.75), layout="constrained"
    )
    ax.imshow(shade, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    # Three digits of a usual number, whatever a bad pair of row and decoder has.
    decimals = max(0, 2 - math.floor(math.log10(max(1e-6, float(np.nanmedian(np.abs(values)))))))
    for y, line in enumerate(values):
        best = int(np.nanargmin(sign * line))
        for x in np.flatnonzero(~np.isnan(line)).tolist():
            colour = "white" if shade[y, x] > 0.75 else "black"
            weight = "bold" if x == best else "normal"
            ax.text(
                x, y, f"{line[x]:.{decimals}f}", ha="center", va="center", color=colour, fontsize=9, fontweight=weight
            )
        ax.add_patch(plt.Rectangle((best - 0.47, y - 0.44), 0.94, 0.88, fill=False, edgecolor="#D55E00", linewidth=1.5))
    ax.set(xticks=range(values.shape[1]), xticklabels=means.columns, yticks=range(len(rows)))
    ax.set_yticklabels(list(map(row_label, rows)))
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(label)
    return figure
