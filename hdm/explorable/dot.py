"""A line of pixels, a map on it and a dot: what three losses say of the map, and what they would do to it.

All is reckoned in the chart itself, from what the sliders say. On a line there are closed forms:

    EMD = sum_x |S(x) - D(x)|, S and D the sums of the suppliers and demanders up to pixel x
    dEMD / ds_x = f_x, |x - q| from the nearer demander q, and what the transport between the two of them adds
"""

from typing import Any

import altair as alt

from hdm.explorable.frame import FITS, Explorable, Slider
from hdm.figures import COLOURS, LABELS

PIXELS = 32
FIRST_PEAK = 8  # the pixel of the first peak
SIGMA = 1.5  # of the target of Gaussian MSE, in pixels
FLOOR = 1e-3  # height of the map where there is no peak: a logarithm must be finite

SLIDERS = (
    Slider("dot", "Dot annotation", 1, 30, 0.1, 9.3, "px"),
    Slider("spread", "Width of the peaks (sigma)", 0.5, 3, 0.1, 1.2, "px"),
    Slider("second", "Height of the second peak", 0, 1.2, 0.05, 1.1),
    Slider("apart", "Second peak, right of the first", 4, 22, 0.5, 12, "px"),
)
# What each loss is called in the chart's data, its colour, and its value in words.
PANELS = (
    ("gaussian_mse", "mse", ".4f", ""),
    ("cross_entropy", "cross_entropy", ".3f", ""),
    ("hdm", "emd", ".3f", " px"),
)


def move_the_dot() -> Explorable:
    """The map with its dot, and below it one panel for each loss: its value, and a step of descent for each pixel."""
    pixels = line_of_pixels()
    panels = [_map_panel(pixels), *(_step_panel(pixels, *panel) for panel in PANELS)]
    title = "A heatmap on a line of pixels, and what three losses would do to it"
    chart = alt.vconcat(*panels, spacing=26).resolve_scale(x="shared")
    return Explorable("move-the-dot", title, SLIDERS, [chart])


def line_of_pixels() -> alt.Chart:
    """One row for each pixel `x`, with all that the panels show.

    map: heights m, which Gaussian MSE compares with its `target`; share: s = m / sum(m), the softmax of z = log(m), for
    the others; demand: bilinear weights of the `subpixel` demanders. mse, cross_entropy, emd: the losses as in
    `hdm.losses`. step_mse: minus the gradient with respect to m; step_cross_entropy, step_emd: with respect to z.
    """
    return (
        alt.Chart(alt.sequence(0, PIXELS, as_="x"))
        .transform_calculate(
            map=f"exp(-pow(datum.x - {FIRST_PEAK}, 2) / (2 * spread * spread)) + {FLOOR}"
            f" + second * exp(-pow(datum.x - {FIRST_PEAK} - apart, 2) / (2 * spread * spread))",
            target=f"exp(-pow(datum.x - dot, 2) / {2 * SIGMA**2})",
            demand="max(0, 1 - abs(datum.x - dot))",
            left="datum.x - 0.4",
            right="datum.x + 0.4",
        )
        .transform_calculate(squared="pow(datum.map - datum.target, 2) / 2")
        .transform_joinaggregate(total="sum(map)", mse="mean(squared)")
        .transform_calculate(share="datum.map / datum.total")
        .transform_window(supplied="sum(share)", demanded="sum(demand)", sort=[alt.SortField("x")], frame=[None, 0])
        .transform_calculate(
            surprise="-datum.demand * log(datum.share)",
            carried="abs(datum.supplied - datum.demanded)",
            surplus_here="datum.x == floor(dot) ? datum.supplied - datum.demanded : 0",
        )
        .transform_joinaggregate(cross_entropy="sum(surprise)", emd="sum(carried)", surplus="sum(surplus_here)")
        # A demander that gets too much from its own side passes it on to the other, one pixel away.
        .transform_calculate(between="abs(datum.surplus) < 1e-9 ? 0 : datum.surplus > 0 ? 1 : -1")
        .transform_calculate(
            potential="datum.x <= floor(dot) ? floor(dot) - datum.x + datum.between : datum.x - floor(dot) - 1"
        )
        .transform_calculate(priced="datum.share * datum.potential")
        .transform_joinaggregate(mean_potential="sum(priced)")
        .transform_calculate(
            step_mse=f"(datum.target - datum.map) / {PIXELS}",
            step_cross_entropy="datum.demand - datum.share",
            step_emd="datum.share * (datum.mean_potential - datum.potential)",
        )
    )


def _pixel_axis(title: str | None) -> Any:
    return alt.Axis(grid=False, title=title, labels=title is not None, ticks=title is not None, tickCount=8)


def _x(field: str = "x", title: str | None = None) -> Any:
    return alt.X(f"{field}:Q", axis=_pixel_axis(title), scale=alt.Scale(domain=[-0.6, PIXELS - 0.4], nice=False))


def _y(field: str, domain: list[float] | None = None) -> Any:
    scale = alt.Scale(domain=domain, nice=False) if domain else alt.Scale(nice=3)
    axis = alt.Axis(title=None, tickCount=3, minExtent=38, maxExtent=38)
    return alt.Y(f"{field}:Q", axis=axis, scale=scale, stack=None)


def _heading(pixels: alt.Chart, text: str) -> alt.Chart:
    """A line of text above a panel; `text` is an expression."""
    heading = pixels.transform_filter("datum.x == 0").transform_calculate(heading=text)
    return heading.mark_text(align="left", baseline="bottom").encode(x=alt.value(0), y=alt.value(-5), text="heading:N")


def _bars(pixels: alt.Chart, y: Any, title: str | None = None, **look: Any) -> alt.Chart:
    """A bar for each pixel, from zero to its value."""
    bars = pixels.transform_calculate(zero="0").mark_rect(**look)
    return bars.encode(x=_x("left", title), x2="right:Q", y=y, y2="zero:Q")


def _map_panel(pixels: alt.Chart) -> Any:
    """The map in grey, the target of Gaussian MSE as a line, the demanders as stems, the dot as a rule."""
    bars = _bars(pixels, _y("map", [0, 1.6]), color="currentColor", opacity=0.4, clip=True)
    line = pixels.mark_line(color=COLOURS["gaussian_mse"]).encode(x=_x(), y=_y("target"))
    stems = pixels.transform_filter("datum.demand > 0").mark_bar(color=COLOURS["hdm"], width=3)
    dot = pixels.transform_filter("datum.x == 0").transform_calculate(dot="dot")
    rule = dot.mark_rule(color=COLOURS["left"], strokeWidth=2).encode(x=_x("dot"))
    heading = _heading(pixels, "'map, target and demanders'")
    layers = alt.layer(bars, line, rule, stems.encode(x=_x(), y=_y("demand")), heading)
    return layers.properties(width=FITS, height=110)


def _step_panel(pixels: alt.Chart, method: str, field: str, form: str, unit: str) -> Any:
    """A bar for each pixel, up where a step of descent raises it, below the loss's name and value."""
    last = method == PANELS[-1][0]
    bars = _bars(pixels, _y(f"step_{field}"), "pixel" if last else None, color=COLOURS[method])
    name = "EMD" if method == "hdm" else LABELS[method]
    heading = _heading(pixels, f"'{name} = ' + format(datum.{field}, '{form}') + '{unit}'")
    return alt.layer(bars, heading).properties(width=FITS, height=76)
