"""Built pages in a real browser: each is opened once in every look, from its file, and what was seen is kept."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from browser import BUILD, CHROMIUM, HTML, LOOKS, OPTIONS, PROFILE, READ_PAGE, SIZES, Visit, serious_violations


@pytest.fixture(scope="session")
def html() -> Path:
    if not (HTML / "index.html").is_file():
        pytest.fail(f"there are no pages in {HTML}: run `make book PROFILE={PROFILE}` first, or set HDM_PROFILE")
    return HTML


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH and no CHROMIUM in the environment (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `test`)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def open_page(browser: Any, html: Path) -> Callable[..., Any]:
    """A function that opens a page, `open_page(name, width, theme, visit)`; who opens it closes it."""
    contexts = {
        (width, theme): browser.new_context(
            viewport={"width": width, "height": SIZES[width]}, color_scheme=theme, reduced_motion="reduce"
        )
        for width, theme in LOOKS
    }
    for context in contexts.values():
        context.set_default_timeout(90_000)

    def open_page(name: str, width: int = 1280, theme: str = "light", visit: Visit | None = None) -> Any:
        page = contexts[width, theme].new_page()
        if visit is not None:
            page.on("request", lambda request: visit.requests.append(request.url))
            page.on("requestfailed", lambda request: visit.complaints.append(f"not loaded: {request.url}"))
            page.on("pageerror", lambda error: visit.complaints.append(f"script error: {error}"))
            page.on("console", lambda line: line.type == "error" and visit.complaints.append(f"console: {line.text}"))
        page.goto((html / f"{name}.html").as_uri())
        return page

    return open_page


@pytest.fixture(scope="session")
def visit(open_page: Callable[..., Any]) -> Callable[[str, int, str], Visit]:
    """A function that visits a page in a look, once: `visit(name, width, theme)`."""
    from axe_playwright_python.sync_playwright import Axe

    axe, screenshots = Axe(), BUILD / "screenshots"
    screenshots.mkdir(exist_ok=True)

    @cache
    def visit(name: str, width: int, theme: str) -> Visit:
        result = Visit(screenshots / f"{name.replace('/', '-')}-{width}-{theme}.png")
        page = open_page(name, width, theme, result)
        try:
            result.seen = page.evaluate(READ_PAGE)
            page.screenshot(path=result.screenshot, full_page=True)
            # Themes differ in colours only, widths in all else: each rule runs where it can come out differently.
            rules = {"color-contrast": {"enabled": width == 1280}}
            options = {"resultTypes": ["violations"], "preload": False, "rules": rules}
            if theme == "dark":
                options |= {"runOnly": ["color-contrast"], "rules": {}}
            if theme == "light" or width == 1280:
                result.violations = [*serious_violations(axe.run(page, options=options).response)]
        finally:
            page.close()
        return result

    return visit
