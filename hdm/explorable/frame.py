"""The frame of an explorable figure: sliders above charts, and a still of each chart where no script runs.

A chart is an Altair chart whose expressions name the sliders. It becomes Vega here, once, so that a page needs
only Vega to draw it; `book/_static/explorable.js` replaces the stills by live charts and ties the sliders to them.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import altair as alt
import vl_convert


@dataclass(frozen=True)
class Slider:
    """A number that the reader sets: the parameter's `name`, its `label`, its range, and the `unit` after the value."""

    name: str
    label: str
    least: float
    largest: float
    step: float
    value: float
    unit: str = ""

    def parameter(self) -> alt.Parameter:
        """The parameter of a chart, with a slider of Altair's own where the chart stands alone."""
        label = f"{self.label} ({self.unit})" if self.unit else self.label
        bind = alt.binding_range(min=self.least, max=self.largest, step=self.step, name=f"{label} ")
        return alt.param(name=self.name, value=self.value, bind=bind)

    def html(self, figure: str) -> str:
        """A labelled range input, its value beside the label."""
        place, text = f"{figure}-{self.name}", f"{self.value:g} {self.unit}".strip()
        return (
            f'<div class="explorable-slider"><label for="{place}">{escape(self.label)}</label>'
            f'<output for="{place}">{escape(text)}</output>'
            f'<input type="range" id="{place}" name="{self.name}" min="{self.least:g}" max="{self.largest:g}" '
            f'step="{self.step:g}" value="{self.value:g}" aria-valuetext="{escape(text)}" '
            f'data-unit="{escape(self.unit)}" autocomplete="off"></div>'
        )


@dataclass(frozen=True)
class Explorable:
    """A figure of one or more charts and the sliders that they share. It shows itself in a notebook.

    name: a word, once on a page. title: what a screen reader says the figure is. charts: Altair's, in which a slider's
    name is its value; the first stands left of or above the others. One whose width is `FITS` takes the width that
    there is.
    """

    name: str
    title: str
    sliders: Sequence[Slider]
    charts: Sequence[Any]

    @cached_property
    def specs(self) -> list[dict[str, Any]]:
        """The charts as Vega, without sliders of their own."""
        return [_vega(_dressed(chart, self.sliders), self.title) for chart in self.charts]

    def _repr_html_(self) -> str:
        sliders = "\n".join(slider.html(self.name) for slider in self.sliders)
        views = "\n".join(f'<div class="explorable-view">{_still(spec)}</div>' for spec in self.specs)
        # "</" would end the element in the middle of the data
        specs = json.dumps(self.specs, separators=(",", ":")).replace("</", "<\\/")
        return (
            f'<figure class="explorable" role="group" aria-label="{escape(self.title)}">\n'
            f'<div class="explorable-sliders" hidden>\n{sliders}\n</div>\n'
            f'<div class="explorable-views">\n{views}\n</div>\n'
            f'<script type="application/json">{specs}</script>\n</figure>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        """In a notebook that somebody looks at, Altair's own display with its sliders; otherwise, as when the book is
        built, what its pages show."""
        if "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules:
            return self._together()._repr_mimebundle_(include, exclude)
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def _together(self) -> Any:
        """The charts as one of Altair's. Sliders are entered last: it can't add them to charts within charts."""
        spec = _dressed(alt.vconcat(*self.charts), ()).to_dict()
        parameters: list[Any] = [slider.parameter().param for slider in self.sliders]
        spec["params"] = [*spec.get("params", []), *(parameter.to_dict() for parameter in parameters)]
        return alt.Chart.from_dict(spec)

    def __repr__(self) -> str:
        return f"Explorable: {self.title}"


FITS = 480  # width in pixels of a chart that takes the width that there is


def _dressed(chart: Any, sliders: Sequence[Slider]) -> Any:
    """A chart with the sliders' parameters, in the book's dress: no ground, and lines and text in the page's colour."""
    faint = {"domainColor": "currentColor", "tickColor": "currentColor", "gridColor": "currentColor"}
    return (
        chart.add_params(*(slider.parameter() for slider in sliders))
        .configure(background="transparent", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            **faint, gridOpacity=0.15, domainOpacity=0.6, tickOpacity=0.6, titleFontWeight="normal",
            labelColor="currentColor", titleColor="currentColor", labelFontSize=12, titleFontSize=12,
        )
        .configure_header(labelColor="currentColor", titleColor="currentColor", labelFontSize=13)
        .configure_title(color="currentColor", fontSize=13, fontWeight="normal", anchor="start")
        .configure_legend(labelColor="currentColor", titleColor="currentColor", labelFontSize=12)
        .configure_text(color="currentColor", fontSize=13)
        .configure_mark(aria=False)
    )  # fmt: skip


def _vega(chart: Any, title: str) -> dict[str, Any]:
    spec = vl_convert.vegalite_to_vega(chart.to_dict())
    spec.pop("$schema", None)  # an address, which nothing on a page asks for
    for signal in spec["signals"]:
        signal.pop("bind", None)
    return {"description": title, **spec}


def _still(spec: dict[str, Any]) -> str:
    """The chart as it first stands, to be set into a page: there an `svg` needs no namespaces, but a name."""
    drawn = vl_convert.vega_to_svg(spec)
    size = re.search(r'width="(\d+)" height="(\d+)"', drawn)
    assert size is not None
    label = f'<svg role="img" aria-label="{escape(spec["description"])}" '
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn).replace("<svg ", label, 1)
