"""Explorable figures as they stand in a page and in a notebook."""

import json

import altair as alt
from bs4 import BeautifulSoup

from hdm.explorable import Explorable, Slider, vega_script
from hdm.explorable.frame import FITS

SLIDERS = (Slider("left", "From the left", 0, 4, 0.5, 1.5, "px"), Slider("high", "Height & more", 1, 9, 1, 3))


def figure() -> Explorable:
    row = alt.Chart(alt.sequence(0, 5, as_="x")).transform_calculate(y="datum.x * high + left", w="'</script>'")
    charts = [row.mark_bar().encode(x="x:Q", y="y:Q").properties(width=FITS) for _ in range(2)]
    return Explorable("lines", 'Bars, "so to say"', SLIDERS, charts)


def test_each_slider_has_a_label_a_range_and_its_value():
    page = BeautifulSoup(figure()._repr_html_(), "html.parser")
    inputs = page.select("input[type=range]")
    assert [(i["name"], i["min"], i["max"], i["step"], i["value"]) for i in inputs] == [
        ("left", "0", "4", "0.5", "1.5"),
        ("high", "1", "9", "1", "3"),
    ]
    labels = [page.select_one(f"label[for={i['id']}]").text for i in inputs]
    assert labels == ["From the left", "Height & more"]
    assert [output.text for output in page.select("output")] == ["1.5 px", "3"]
    assert page.select_one(".explorable-sliders").has_attr("hidden")  # without scripts they would do nothing


def test_a_page_has_a_named_still_of_each_chart_and_asks_no_network():
    html = figure()._repr_html_()
    page = BeautifulSoup(html, "html.parser")
    stills = page.select(".explorable-view > svg")
    assert [still["aria-label"] for still in stills] == ['Bars, "so to say"'] * 2
    assert all(len(still.select("path")) > 5 for still in stills)
    assert "currentColor" in str(stills[0]) and "http" not in html


def test_the_charts_lie_in_the_page_as_data_that_ends_where_it_should():
    page = BeautifulSoup(figure()._repr_html_(), "html.parser")
    specs = json.loads(page.select_one("script[type='application/json']").text)
    assert specs == figure().specs
    signals = {signal["name"]: signal for signal in specs[1]["signals"]}
    assert signals["left"]["value"] == 1.5 and "bind" not in signals["left"]
    assert "</script>" in json.dumps(specs)


def test_in_jupyter_the_chart_shows_itself_with_sliders_of_its_own(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert set(figure()._repr_mimebundle_()) == {"text/html", "text/plain"}
    monkeypatch.setenv("JPY_SESSION_NAME", "some.ipynb")
    shown = json.dumps(figure()._repr_mimebundle_())
    assert "explorable-sliders" not in shown and "From the left (px)" in shown


def test_the_script_is_made_once_and_keeps_its_names_to_itself(tmp_path):
    script = vega_script(tmp_path / "made")
    text = script.read_text()
    assert "window.vegaEmbed = vegaEmbed" in text or "window.vegaEmbed=" in text
    assert text.splitlines()[1] == "(() => {" and 500_000 < len(text) < 1_500_000
    script.write_text("kept")
    assert vega_script(tmp_path / "made").read_text() == "kept"
