"""Explorable figures in a real browser: keyboard, both themes, a phone's width, and no scripts at all."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hdm.explorable import move_the_dot, vega_script

pytestmark = pytest.mark.slow
STATIC = Path(__file__).parents[2] / "book" / "_static"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the figure and the book's own script and style, and no other."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "_static").mkdir()
    for name in ("explorable.js", "explorable.css"):
        shutil.copy(STATIC / name, folder / "_static" / name)
    shutil.copy(vega_script(folder / "made"), folder / "_static" / "vega.mjs")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>A figure</title>'
    head += '<link rel="stylesheet" href="_static/explorable.css"><script src="_static/explorable.js"></script>'
    body = f"<main><h1>A figure</h1>{move_the_dot()._repr_html_()}</main>"
    (folder / "page.html").write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>')
    return folder / "page.html"


@pytest.fixture(scope="module")
def open_page(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    """A function that opens the page in a context with the given options; in the end nothing must have gone wrong."""
    complaints: list[str] = []

    def open_page(**options: Any) -> Any:
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: line.type == "error" and complaints.append(line.text))
        page.on("request", lambda request: request.url.startswith("http") and complaints.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    assert not complaints


def heading(page: Any, start: str) -> str:
    return page.locator(".explorable-view text", has_text=start).first.text_content()


def test_a_slider_moves_by_keyboard_and_the_figure_with_it(open_page):
    page = open_page(viewport=PHONE)
    slider = page.get_by_role("slider", name="Second peak, right of the first")
    slider.wait_for()
    emd, mse = heading(page, "EMD = "), heading(page, "Gaussian MSE = ")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "14 px"
    assert page.locator("output").nth(3).text_content() == "14 px"
    page.wait_for_function(
        "old => ![...document.querySelectorAll('svg text')].some(t => t.textContent === old)", arg=emd
    )
    assert heading(page, "Gaussian MSE = ") == mse  # what the text beside the figure says
    width = page.evaluate("[document.documentElement.scrollWidth, document.querySelector('svg').clientWidth]")
    assert width[0] == PHONE["width"] and 300 < width[1] <= PHONE["width"]


def test_a_wide_page_has_a_wide_figure(open_page):
    page = open_page(viewport={"width": 1000, "height": 800})
    page.locator(".explorable-sliders:not([hidden])").wait_for()
    page.wait_for_function("document.querySelector('svg').clientWidth > 900")


def test_lines_and_text_have_the_colour_of_the_page(open_page):
    page = open_page(viewport=PHONE)
    page.get_by_role("slider").first.wait_for()
    page.evaluate("document.body.style.color = 'rgb(1, 2, 3)'")
    fills = page.eval_on_selector_all("svg text", "texts => texts.map(text => getComputedStyle(text).fill)")
    assert set(fills) == {"rgb(1, 2, 3)"}


def test_axe_finds_nothing_serious(open_page):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(viewport=PHONE)
    page.get_by_role("slider").first.wait_for()
    violations = Axe().run(page, options={"preload": False}).response["violations"]
    assert [rule["id"] for rule in violations if rule["impact"] in ("serious", "critical")] == []


def test_without_scripts_a_still_stands_and_no_dead_slider(open_page):
    page = open_page(viewport=PHONE, java_script_enabled=False)
    assert page.locator(".explorable-view > svg").is_visible()
    assert not page.locator("input[type=range]").first.is_visible()
    assert page.locator(".explorable-view > svg").bounding_box()["width"] <= PHONE["width"]
