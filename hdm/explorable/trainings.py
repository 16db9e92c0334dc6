"""Trainings side by side: what each network paints after every epoch, beside the curves of loss and error."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from hdm.errors import InputError
from hdm.explorable.frame import FITS, Explorable, Slider
from hdm.figures import COLOURS, LABELS, method_name
from hdm.train import Frame

LEVELS = 99  # grey values of a map: whole numbers keep a page small
SIDE = 136  # pixels of the page for the longer side of a map, so that two fit side by side on a phone


def trainings_side_by_side(frames: Sequence[Frame], histories: Mapping[str, pd.DataFrame]) -> Explorable:
    """A slider for the epoch; the maps of the same joint after it, a column for each method and a row for each person;
    and curves of each method's validation loss and pixel error, with the epoch marked.

    frames: of `hdm.train.Film`. histories: the `epochs` of each run to be shown, by its method's name in
    `hdm.figures.LABELS`. Epochs that not all of them have frames of are left out.
    Raises InputError where no epoch is left, or one between others is missing.
    """
    frames = [frame for frame in frames if _method(frame) in histories]
    epochs = [{frame.epoch for frame in frames if _method(frame) == method} for method in histories]
    common = sorted(set.intersection(*epochs)) if epochs else []
    if not common:
        raise InputError("no epoch has maps of every method: give `after_epoch` to all runs, and train them from start")
    if common != list(range(common[0], common[-1] + 1)):
        raise InputError(f"maps of some epochs are missing: there are {common}; train the runs from start")
    slider = Slider("epoch", "After epoch", common[0], common[-1], 1, common[-1])
    rows = [row for frame in frames if frame.epoch in common for row in _maps(frame)]
    charts = [_map_chart(rows, list(histories)), _curve_chart(histories)]
    title = "Trainings side by side: maps, loss and pixel error after each epoch"
    return Explorable("trainings", title, [slider], charts)


def _method(frame: Frame) -> str:
    return method_name(frame.config.as_dict())


def _maps(frame: Frame) -> list[dict[str, Any]]:
    """A row for each person: the map, line after line, from 0 at its least value to LEVELS at its largest, the
    annotated joint and the located one."""
    lowest, highest = frame.maps.amin((-2, -1), keepdim=True), frame.maps.amax((-2, -1), keepdim=True)
    levels = (LEVELS * (frame.maps - lowest) / (highest - lowest).clamp(min=1e-12)).round().int()
    return [
        {
            "method": LABELS[_method(frame)],
            "person": f"person {number}",
            "epoch": frame.epoch,
            "columns": frame.maps.shape[-1],
            "level": values.flatten().tolist(),
            "at": [round(v, 2) for v in joint.tolist()],
            "found": [round(v, 2) for v in found.tolist()],
        }
        for number, (values, joint, found) in enumerate(zip(levels, frame.joints, frame.found, strict=True), start=1)
    ]


def _map_chart(rows: list[dict[str, Any]], methods: Sequence[str]) -> Any:
    """Maps in grey, dark where large; a cross on the annotated joint, a ring around the located one."""
    columns = rows[0]["columns"]
    lines = len(rows[0]["level"]) // columns
    scale = max(1, SIDE // max(lines, columns))
    drawn = alt.Chart().transform_filter("datum.epoch == epoch")
    pixels = (
        drawn.transform_calculate(pixel=f"sequence({lines * columns})")
        .transform_flatten(["level", "pixel"])
        .transform_calculate(
            left="datum.pixel % datum.columns - 0.5", top="floor(datum.pixel / datum.columns) - 0.5",
            right="datum.left + 1.12", bottom="datum.top + 1.12",  # a little more, against seams between pixels
        )
    )  # fmt: skip
    x = alt.X("left:Q", axis=None, scale=alt.Scale(domain=[-0.5, columns - 0.5], nice=False))
    y = alt.Y("top:Q", axis=None, scale=alt.Scale(domain=[lines - 0.5, -0.5], nice=False))
    grey = alt.Color("level:Q", scale=alt.Scale(scheme="greys", domain=[0, LEVELS]), legend=None)
    image = pixels.mark_rect(clip=True).encode(x=x, x2="right:Q", y=y, y2="bottom:Q", color=grey)
    cross = drawn.transform_calculate(left="datum.at[0]", top="datum.at[1]").mark_point(
        shape="cross", filled=True, size=110, color=COLOURS["left"], stroke="black", strokeWidth=0.7, opacity=1
    )
    ring = drawn.transform_calculate(left="datum.found[0]", top="datum.found[1]").mark_point(
        size=190, color=COLOURS["hdm"], strokeWidth=2.2, opacity=1
    )
    place = {"x": "left:Q", "y": "top:Q"}
    layers = alt.layer(image, cross.encode(**place), ring.encode(**place), data=alt.Data(values=rows))
    header = alt.Header(title=None, labelPadding=4)
    return layers.properties(width=scale * columns, height=scale * lines).facet(
        column=alt.Column("method:N", header=header, sort=[LABELS[method] for method in methods]),
        row=alt.Row("person:N", header=header),
        spacing=8,
    )


def _curve_chart(histories: Mapping[str, pd.DataFrame]) -> Any:
    """Loss on the validation part, as a share of the untrained network's, above the mean pixel error."""
    rows = [
        {"method": LABELS[method], "at": int(row["epoch"]), "loss": row["loss"], "error": row["error_px"]}
        for method, history in histories.items()
        for row in history.assign(loss=history["val_loss"] / history["val_loss"].iloc[0]).to_dict("records")
    ]
    domain = [LABELS[method] for method in histories]
    colour = alt.Color(
        "method:N",
        scale=alt.Scale(domain=domain, range=[COLOURS[method] for method in histories]),
        legend=alt.Legend(title=None, orient="top", columns=2),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(color=colour)
    final = max(row["at"] for row in rows)
    ticks = list(range(0, final + 1, max(1, math.ceil(final / 6))))

    def curve(field: str, title: str, last: bool) -> Any:
        axis = alt.Axis(title="epoch" if last else None, labels=last, values=ticks, format="d", grid=False)
        x = alt.X("at:Q", axis=axis, scale=alt.Scale(nice=False, padding=6))
        y = alt.Y(f"{field}:Q", axis=alt.Axis(title=None, tickCount=4, minExtent=34, maxExtent=34))
        now = base.transform_filter("datum.at == epoch")
        rule = now.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(x=x, color=alt.value("currentColor"))
        point = now.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y)
        layers = alt.layer(base.mark_line().encode(x=x, y=y), rule, point)
        return layers.properties(width=FITS, height=110, title=title)

    loss, error = curve("loss", "loss, share of the untrained network's", False), curve("error", "pixel error", True)
    return alt.vconcat(loss, error, spacing=14).resolve_scale(x="shared", color="shared")
