"""Every built page as a browser shows it, on a laptop and a phone, in the light and the dark theme."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import numpy as np
import pytest
from browser import HTML, LOOKS, Visit, page_names
from PIL import Image

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
each_page = pytest.mark.parametrize("name", page_names() or ["index"])

Image.MAX_IMAGE_PIXELS = None  # some pages are long
HEAVIEST_PAGE = 3_000_000  # bytes, with all that the browser loads for it, not compressed

Visits = Callable[[str, int, str], Visit]


def looks(visit: Visits, name: str) -> Iterator[Visit]:
    return (visit(name, width, theme) for width, theme in LOOKS)


@each_page
def test_nothing_fails_and_nothing_comes_from_a_network(visit: Visits, name: str) -> None:
    for seen in looks(visit, name):
        assert not seen.complaints
        assert not [url for url in seen.requests if not url.startswith(("file:", "data:", "blob:"))]


@each_page
def test_the_theme_is_the_readers(visit: Visits, name: str) -> None:
    assert [seen.seen["theme"] for seen in looks(visit, name)] == [theme for _, theme in LOOKS]


@each_page
def test_the_page_is_no_wider_than_the_screen(visit: Visits, name: str) -> None:
    for width, theme in LOOKS:
        assert visit(name, width, theme).seen["page_width"] <= width


@each_page
def test_images_are_there_and_not_blank(visit: Visits, name: str) -> None:
    for seen in looks(visit, name):
        picture = Image.open(seen.screenshot).convert("RGB")
        for image in seen.seen["images"]:
            assert image["width"], f"not loaded: {image['source']}"
            left, top, right, bottom = (round(edge) for edge in image["box"])
            inside = left >= 0 and top >= 0 and bottom <= picture.height
            if right > left and bottom > top and inside:  # neither folded away nor in a sidebar that is scrolled
                shown = (left, top, min(right, picture.width), bottom)  # the rest scrolls sideways
                pixels = np.asarray(picture.crop(shown), dtype=float)
                assert pixels.std(axis=(0, 1)).max() > 1, f"blank in {seen.screenshot.name}: {image['source']}"


@each_page
def test_formulas_are_set(visit: Visits, name: str) -> None:
    for seen in looks(visit, name):
        assert not seen.seen["unset_formulas"]
        assert not re.findall(r"\\[(\[][^\n]*|\$\$[^\n]*|\$[^$\n]+\$", seen.seen["prose"])


@each_page
def test_a_page_is_light_enough_for_a_slow_line(visit: Visits, name: str) -> None:
    sizes = {path.relative_to(HTML).as_posix(): path.stat().st_size for path in visit(name, *LOOKS[0]).files()}
    heaviest = dict(sorted(sizes.items(), key=lambda size: -size[1])[:6])
    assert sum(sizes.values()) < HEAVIEST_PAGE, f"{sum(sizes.values()):,} bytes, among them {heaviest}"


@each_page
def test_links_lead_somewhere(visit: Visits, name: str) -> None:
    broken = []
    for link in visit(name, *LOOKS[0]).seen["links"]:
        address, anchor = urldefrag(link)
        path = Path(unquote(urlsplit(address).path))
        if not link.startswith("file:"):
            continue
        if not path.is_file():
            broken.append(link)
        elif anchor and path.suffix == ".html":
            target = path.relative_to(HTML).with_suffix("").as_posix()
            if unquote(anchor) not in visit(target, *LOOKS[0]).seen["ids"]:
                broken.append(link)
    assert not broken


@each_page
def test_axe_finds_nothing_serious(visit: Visits, name: str) -> None:
    found = {seen.screenshot.stem: seen.violations for seen in looks(visit, name) if seen.violations}
    assert not found


def test_formulas_and_figures_were_looked_for(visit: Visits) -> None:
    """The tests above would also pass on pages that have neither."""
    assert visit("method", *LOOKS[0]).seen["formulas"] > 1
    assert len(visit("method", *LOOKS[0]).seen["images"]) > 1


def test_every_page_has_its_title_and_its_screenshots(visit: Visits) -> None:
    for name in page_names():
        assert all(seen.screenshot.stat().st_size > 1000 for seen in looks(visit, name))
