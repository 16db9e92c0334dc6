"""The book's plot style, one colour per method, and the figures that more than one page uses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy import ndarray
from pandas.io.formats.style import Styler
from torch import Tensor

from hdm.data.crops import Crop
from hdm.data.skeletons import Skeleton
from hdm.pixels import heatmap_to_crop

LONG_TEXT = 40  # characters, above which a table breaks a text into lines
# Okabe and Ito's palette, which colour-blind readers can tell apart, for what most pages show; the rest from Paul Tol's
# muted one. One colour per method across the whole book.
COLOURS = {
    "gaussian_mse": "#0072B2",
    "cross_entropy": "#009E73",
    "hdm": "#D55E00",
    "hdm_cold": "#CC79A7",
    "ohkm": "#332288",
    "adaptive_wing": "#88CCEE",
    "kl": "#117733",
    "js": "#44AA99",
    "expected_cost": "#882255",
    "integral": "#999933",
    "dsnt": "#DDCC77",
    "simcc": "#AA4499",
    "rle": "#661100",
    "error": "#000000",
    "left": "#E69F00",
    "middle": "#56B4E9",
    "right": "#0072B2",
}
# One colour for each of the four `subpixel` demanders.
DEMANDER_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7")
# What `speed_curves` draws of the table of `hdm bench transport`.
SPEED_COLOURS = {
    "Gaussian MSE": "#0072B2",
    "HDM, subpixel, exact": "#D55E00",
    "HDM, subpixel, Sinkhorn, blur 1 px": "#CC79A7",
    "geomloss, blur 1 px": "#56B4E9",
    "POT emd2, dual as gradient": "#000000",
}
LABELS = {
    "gaussian_mse": "Gaussian MSE",
    "cross_entropy": "cross-entropy",
    "hdm": "HDM, warm start",
    "hdm_cold": "HDM",
    "ohkm": "OHKM",
    "adaptive_wing": "adaptive wing",
    "kl": "KL divergence",
    "js": "JS divergence",
    "expected_cost": "expected cost",
    "integral": "integral regression",
    "dsnt": "DSNT",
    "simcc": "SimCC",
    "rle": "RLE",
}


def use_style() -> None:
    """The book's plot style for this process, with vector figures where a notebook runs."""
    plt.style.use(Path(__file__).with_name("book.mplstyle"))
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    set_matplotlib_formats("svg")


def show_table(table: pd.DataFrame, precision: int = 2) -> Styler:
    """A table as the book sets it: without row numbers, floats to `precision` decimals, the rest as it is; columns with
    long text break into lines, so that what stands beside them stays in sight."""
    style = table.style.hide(axis="index").format(precision=precision).set_table_attributes('class="dataframe"')
    long = [
        name
        for name in table
        if any(isinstance(value, str) and len(value) > LONG_TEXT and "</a>" not in value for value in table[name])
    ]
    return style.set_properties(subset=long, **{"white-space": "normal", "min-width": "14em"}) if long else style


def method_name(settings: Mapping) -> str:
    """The key in COLOURS and LABELS of a run with these settings: HDM without a warm start is `hdm_cold`."""
    return "hdm_cold" if settings["loss"] == "hdm" and not settings["warm_start"] else settings["loss"]


def show_map(
    ax: Axes, heatmap: Float[ndarray, "H W"], joint: Sequence[float] | None = None, *, title: str = ""
) -> None:
    """A heatmap in grey (dark is large), with a cross on the dot annotation."""
    ax.imshow(heatmap, cmap="Greys", interpolation="nearest")
    if joint is not None:
        ax.plot(*joint, marker="+", markersize=11, markeredgewidth=2, color=COLOURS["left"])
    _frame(ax, title)


def show_gradient(ax: Axes, gradient: Float[ndarray, "H W"], joint: Sequence[float], *, title: str = "") -> None:
    """What a step of gradient descent does to each pixel: orange is raised, blue lowered, on a scale of its own."""
    limit = max(float(np.abs(gradient).max()), 1e-12)
    ax.imshow(-gradient, cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.plot(*joint, marker="+", markersize=11, markeredgewidth=2, color="black")
    _frame(ax, title)


def show_plan(ax: Axes, plan: Float[ndarray, "4 H W"], points: Float[ndarray, "4 2"], *, least: float = 2e-4) -> None:
    """A transport plan as lines from pixels to the four demanders, as wide as the mass they carry.

    Less than `least` is not drawn.
    """
    for shipped, point, colour in zip(plan, points, DEMANDER_COLOURS, strict=True):
        for y, x in np.argwhere(shipped > least):
            width = 45 * shipped[y, x]
            ax.plot([x, point[0]], [y, point[1]], color=colour, alpha=0.75, linewidth=width, solid_capstyle="round")
        ax.plot(*point, "o", markersize=5, color=colour, markeredgecolor="black", zorder=3)


def show_cells(
    ax: Axes,
    cells: Int[ndarray, "H W"],
    mass: Float[ndarray, "H W"],
    points: Float[ndarray, "4 2"],
    *,
    title: str = "",
) -> None:
    """Which of the four demanders (squares) each pixel ships to, as a pale shade of its colour; the mass as dots."""
    ax.imshow(cells, cmap=ListedColormap([(*to_rgb(colour), 0.25) for colour in DEMANDER_COLOURS]), vmin=0, vmax=3)
    y, x = np.indices(cells.shape)
    ax.scatter(x, y, s=1000 * mass, color="black", alpha=0.6, linewidths=0)
    ax.scatter(points[:, 0], points[:, 1], s=60, marker="s", c=DEMANDER_COLOURS, edgecolors="black")
    _frame(ax, title)


def _frame(ax: Axes, title: str) -> None:
    """A thin frame all round instead of axes: the pixels of a map are the scale."""
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="#BBBBBB")


def show_grids(
    crop: tuple[int, int], stride: int, joint: Sequence[float], places: Mapping[str, Sequence[float]]
) -> Figure:
    """A crop of (rows, columns) pixels and its heatmap under several pixel conventions, a panel for each.

    joint: in crop pixels. places: convention -> the same joint in heatmap pixels, as `hdm.pixels.crop_to_heatmap` gives
    it. Large dots are the centres of heatmap pixels, where the convention puts them in the crop.
    """
    rows, columns = crop
    figure, axes = plt.subplots(1, len(places), figsize=(4.4 * len(places), 2.7), layout="constrained", squeeze=False)
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    for ax, (name, place) in zip(axes.flat, places.items(), strict=True):
        ax.set(xticks=np.arange(columns + 1) - 0.5, yticks=np.arange(rows + 1) - 0.5, aspect="equal")
        ax.set(xlim=(-0.7, columns - 0.3), ylim=(rows - 0.3, -0.7))
        ax.set_title(f"{name}: joint at ({place[0]:.2f}, {place[1]:.2f})")
        ax.tick_params(length=0, labelbottom=False, labelleft=False)
        ax.spines[:].set_visible(False)
        ax.plot(x.ravel(), y.ravel(), ".", color="#999999", markersize=2)
        ax.hlines(np.arange(0, rows + 1, stride) - 0.5, -0.5, columns - 0.5, color="#444444", linewidth=1.2)
        ax.vlines(np.arange(0, columns + 1, stride) - 0.5, -0.5, rows - 0.5, color="#444444", linewidth=1.2)
        u, v = np.meshgrid(np.arange(columns // stride), np.arange(rows // stride))
        centres = heatmap_to_crop(np.stack([u, v], -1).astype(float), stride, convention=name, input_size=crop)
        ax.plot(*centres.reshape(-1, 2).T, "o", color=COLOURS["gaussian_mse"], markersize=7)
        ax.plot(*joint, marker="+", markersize=13, markeredgewidth=2.5, color=COLOURS["hdm"])
    return figure


def draw_skeleton(
    ax: Axes, joints: Float[ndarray, "K 2"], visible: Float[ndarray, "K"], skeleton: Skeleton, *, size: float = 12
) -> None:
    """Limbs and joints of a person over a picture: orange is its left, dark blue its right, light blue between."""
    sides = [next((side for side in ("left", "right") if name.startswith(side)), "middle") for name in skeleton.names]
    for first, second in skeleton.edges:
        if visible[first] and visible[second]:
            side = sides[first] if sides[first] == sides[second] else "middle"
            ax.plot(*joints[[first, second]].T, color=COLOURS[side], linewidth=size / 6, solid_capstyle="round")
    seen = np.flatnonzero(visible)
    colours = [COLOURS[sides[k]] for k in seen]
    ax.scatter(joints[seen, 0], joints[seen, 1], s=size, c=colours, edgecolors="white", linewidths=0.6, zorder=3)


def show_picture(ax: Axes, image: ndarray, *, title: str = "") -> None:
    """A picture without axes, its frame kept when something is drawn over it."""
    ax.imshow(image)
    ax.set_xlim(-0.5, image.shape[1] - 0.5)
    ax.set_ylim(image.shape[0] - 0.5, -0.5)
    ax.set_title(title)
    ax.axis("off")


def training_curves(epochs: Mapping[str, pd.DataFrame], warm_start: Mapping[str, float] | None = None) -> Figure:
    """Validation loss (each method's own, as a share of the untrained network's) and pixel error, epoch by epoch.

    epochs: method -> the table of `hdm.records.read_epochs`. warm_start: method -> epoch at which its warm start ends,
    marked by a dotted line.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
    for method, table in epochs.items():
        style = {"color": COLOURS[method], "label": LABELS[method], "marker": "o"}
        left.plot(table["epoch"], table["val_loss"] / table["val_loss"].iloc[0], **style)
        right.plot(table["epoch"], table["error_px"], **style)
        if warm_start and warm_start.get(method):
            for ax in (left, right):
                ax.axvline(warm_start[method], color=COLOURS[method], linewidth=1, linestyle=":")
    left.set(xlabel="epoch", ylabel="loss / loss of the untrained network", title="Own loss on the validation part")
    right.set(xlabel="epoch", ylabel="mean pixel error (crop pixels)", title="Located joints on the validation part")
    for ax in (left, right):
        ax.set_ylim(bottom=0)
    right.legend()
    return figure


def map_gallery(
    crops: Sequence[Crop],
    maps: Mapping[str, Float[Tensor, "n H W"]],
    joint: int,
    skeleton: Skeleton,
    convention: str = "half_pixel",
) -> Figure:
    """One row per crop: the annotated person, then the map of one joint (its index) under each method.

    convention: the crops' pixel convention, see `hdm.pixels`.
    """
    columns, shape = 1 + len(maps), crops[0].image.shape[1] / crops[0].image.shape[2]
    figure, axes = plt.subplots(
        len(crops), columns, figsize=(1.9 * columns, 1.9 * shape * len(crops) + 0.3), squeeze=False
    )
    figure.set_layout_engine("constrained")
    for row, crop in enumerate(crops):
        show_picture(axes[row, 0], crop.image.permute(1, 2, 0).numpy(), title="" if row else "annotated")
        size = crop.image.shape[1], crop.image.shape[2]
        stride = size[0] // next(iter(maps.values())).shape[-2]
        joints = heatmap_to_crop(crop.joints.numpy(), stride, convention=convention, input_size=size)
        draw_skeleton(axes[row, 0], joints, crop.visible.numpy(), skeleton, size=8)
        for ax, (method, heatmaps) in zip(axes[row, 1:], maps.items(), strict=True):
            show_map(ax, heatmaps[row].numpy(), crop.joints[joint].tolist(), title="" if row else LABELS[method])
    return figure


def speed_curves(timings: pd.DataFrame) -> Figure:
    """Time against the number of maps, for each size of the maps, from a table of `hdm bench transport`."""
    sizes = timings.groupby(["height", "width"], sort=True)
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(3.4 * len(sizes), 3.6), layout="constrained", sharey=True, squeeze=False
    )
    for ax, ((height, width), rows) in zip(axes.flat, sizes, strict=True):
        for method, colour in SPEED_COLOURS.items():
            line = rows[rows["method"] == method].sort_values("batch")
            ax.plot(line["batch"] * line["joints"], line["ms"], marker="o", color=colour, label=method)
        ax.set(xscale="log", yscale="log", xlabel="maps", title=f"{height} x {width} pixels")
        ax.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set(ylabel="milliseconds")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# What `hdm.encode.round_trip_errors` calls the maps.
MAPS = {"rounded": "rounded Gaussian", "unrounded": "Gaussian", "bilinear": "bilinear map"}


def round_trip_chart(table: pd.DataFrame, bound: float = 0.01) -> Figure:
    """What each decoder leaves of a joint: mean (dot) and largest error (end of the line), inside of the map and near
    its border.

    table: of `hdm.encode.round_trip_errors` for one sigma. bound: an error to mark, in heatmap pixels.
    """
    least = 1e-5  # on a logarithmic axis nothing is zero
    table = table.assign(name=table["method"] + ", " + table["encoder"].map(MAPS))
    names = list(dict.fromkeys(table["name"]))
    figure, ax = plt.subplots(figsize=(7.6, 3.6), layout="constrained")
    for where, colour, shift in (("inside", "#0072B2", 0.13), ("border", "#E69F00", -0.13)):
        rows = table[table["where"] == where]
        y = shift - rows["name"].map(names.index).to_numpy()
        mean, largest = rows["mean"].clip(lower=least), rows["max"].clip(lower=least)
        ax.hlines(y, mean, largest, color=colour, linewidth=2)
        ax.plot(mean, y, "o", color=colour, markersize=6, label=where)
    ax.axvline(bound, color="#999999", linewidth=1, linestyle="--")
    ax.set(xscale="log", yticks=range(0, -len(names), -1), yticklabels=names, xlabel="error (heatmap pixels)")
    ax.legend(loc="lower right")
    return figure


def trap_chart(table: pd.DataFrame, label: str) -> Figure:
    """Scores of the same predictions under each setting of each trap: a panel for each trap, a colour for each source
    of predictions, filled where the setting is the right one.

    table: rows of one metric of the table of `hdm bench protocol`. label: of the axis.
    """
    panels = list(table.groupby("trap", sort=False))
    heights = [rows["setting"].nunique() for _, rows in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(7.6, 0.28 * sum(heights) + 0.75 * len(panels)), height_ratios=heights, sharex=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    sources = list(dict.fromkeys(table["predictions"]))
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for ax, (trap, rows) in zip(axes.flat, panels, strict=True):
        settings, here = (list(dict.fromkeys(rows[column])) for column in ("setting", "predictions"))
        for row in rows.to_dict("records"):
            colour = colours[sources.index(row["predictions"])]
            fill = colour if row["right"] else "white"
            y = 0.12 * ((len(here) - 1) / 2 - here.index(row["predictions"])) - settings.index(row["setting"])
            ax.plot(row["value"], y, "o", color=colour, markerfacecolor=fill, markersize=7)
        ax.set(yticks=range(0, -len(settings), -1), yticklabels=settings, title=trap, ylim=(0.6 - len(settings), 0.6))
    axes[-1, 0].set_xlabel(label)
    handles = [plt.Line2D([], [], marker="o", linestyle="", color=colour) for colour in colours[: len(sources)]]
    figure.legend(handles, sources, loc="outside upper center", ncols=2)
    return figure
