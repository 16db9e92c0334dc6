"""What a reader can do with built pages: sort tables, move sliders by keyboard, search, print, download notebooks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import HTML, page_names

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
OpenPage = Callable[..., Any]


def pages_with(text: str) -> list[str]:
    return [name for name in page_names() if text in (HTML / f"{name}.html").read_text(encoding="utf-8")]


def column_of(table: Any, column: int) -> list[str]:
    return table.evaluate(f"table => [...table.tBodies[0].rows].map(row => row.cells[{column}].textContent.trim())")


def test_long_tables_sort_by_keyboard(open_page: OpenPage) -> None:
    page = open_page("training")
    table = page.locator("table:has(button.sort)").first
    heads = table.locator("thead th")
    before = [column_of(table, column) for column in range(heads.count())]
    column = next(k for k, values in enumerate(before) if values not in (sorted(values), sorted(values, reverse=True)))
    heads.nth(column).locator("button").focus()
    page.keyboard.press("Enter")
    assert heads.nth(column).get_attribute("aria-sort") == "ascending"
    ascending = column_of(table, column)
    assert sorted(ascending) == sorted(before[column]) and ascending != before[column]
    page.keyboard.press("Space")
    assert heads.nth(column).get_attribute("aria-sort") == "descending"
    assert table.locator("th[aria-sort]").count() == 1
    page.close()


SORTED = """() => {
  const table = document.createElement("table");
  const row = (name, value) => `<tr><td>${name}</td><td>${value}</td></tr>`;
  const values = ["10", "9.5 ± 0.2", "", "-3", "1,200", "−4", "nan", "+2"];
  table.innerHTML = "<thead><tr><th>name</th><th>value</th></tr></thead><tbody></tbody>";
  table.tBodies[0].innerHTML = values.map((value, k) => row(`n${k}`, value)).join("");
  const orders = [true, false].map((ascending) => {
    sortRows(table, 1, ascending);
    return [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
  });
  return orders;
}"""


def test_numbers_sort_as_numbers_and_missing_ones_last(open_page: OpenPage) -> None:
    page = open_page("index")
    ascending, descending = page.evaluate(SORTED)
    page.close()
    assert ascending[:6] == ["−4", "-3", "+2", "9.5 ± 0.2", "10", "1,200"]
    assert descending[:6] == ascending[5::-1]
    assert sorted(ascending[6:]) == sorted(descending[6:]) == ["", "nan"]


@pytest.mark.parametrize("name", pages_with('type="range"') or [None])
@pytest.mark.parametrize("width", [1280, 390])
def test_sliders_move_the_figure_by_keyboard(open_page: OpenPage, name: str | None, width: int) -> None:
    if name is None:
        pytest.skip("no page of this build has a slider")
    page = open_page(name, width)
    page.locator("input[type=range]").first.wait_for(state="visible")
    for figure in page.locator("figure:has(input[type=range])").all():
        views = figure.locator(".explorable-views")
        for slider in figure.locator("input[type=range]").all():
            value, before = slider.input_value(), views.screenshot()
            slider.focus()
            at_end = float(value) >= float(slider.get_attribute("max") or 100)
            for _ in range(3):
                page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
            page.wait_for_timeout(300)
            assert slider.input_value() != value
            assert views.screenshot() != before, f"{slider.get_attribute('name')} changes nothing"
            box = figure.bounding_box()
            assert box is not None and box["x"] + box["width"] <= width
    page.close()


def test_search_finds_a_chapter(open_page: OpenPage) -> None:
    page = open_page("search")
    page.goto((HTML / "search.html").as_uri() + "?q=demanders")
    page.locator("ul.search li a").first.wait_for()
    assert any("transport" in link.get_attribute("href") for link in page.locator("ul.search li a").all())
    page.close()


def test_a_printed_page_is_the_article_alone(open_page: OpenPage) -> None:
    page = open_page("training")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    for part in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article", ".prev-next-footer"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator("h1:visible").count() == 1, "the theme prints a title of its own, above the contents"
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    too_wide = """() => [...document.querySelectorAll("article :is(img, table, pre)")]
      .filter((part) => part.getBoundingClientRect().right > 719).map((part) => part.outerHTML.slice(0, 200))"""
    assert not page.evaluate(too_wide)
    page.close()


def test_launch_links_lead_to_notebooks_that_exist(open_page: OpenPage) -> None:
    missing, looked_at = [], 0
    for name in pages_with(".ipynb"):
        page = open_page(name)
        links = page.evaluate("[...document.querySelectorAll('a[href*=\".ipynb\"]')].map((link) => link.href)")
        page.close()
        for link in links:
            path = unquote(urlsplit(link).path)
            copy = Path(path) if link.startswith("file:") else HTML / "notebooks" / Path(path).name
            looked_at += 1
            if not copy.is_file():
                missing.append(f"{name}: {link}")
    assert looked_at
    assert not missing


def test_paper_is_white_in_the_dark_theme_too(open_page: OpenPage) -> None:
    page = open_page("index", 1280, "dark")
    themes = page.evaluate("""() => ["beforeprint", "afterprint"].map((moment) => {
      window.dispatchEvent(new Event(moment));
      return document.documentElement.dataset.theme;
    })""")
    page.close()
    assert themes == ["light", "dark"]
