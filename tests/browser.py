"""What the tests of built pages share: where the pages and the browser are, and what is seen of a page.

Needs `make book PROFILE=smoke` (HDM_PROFILE names another profile) and Chromium: on the PATH, or where CHROMIUM says.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PROFILE = os.environ.get("HDM_PROFILE", "smoke")
BUILD = Path(__file__).parents[1] / "_build" / PROFILE
HTML = BUILD / "html"
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
# Nothing of the browser's own goes to the network; as root Chromium starts without its sandbox only.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
OPTIONS += ["--disable-background-networking", "--disable-component-update"]

Look = tuple[int, str]
SIZES = {1280: 900, 390: 844}  # a laptop and a phone, CSS pixels
LOOKS: list[Look] = [(width, theme) for width in SIZES for theme in ("light", "dark")]

# What a test asks of a page, read in one go once formulas are set.
READ_PAGE = """async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  const article = document.querySelector("article") ?? document.body;
  const prose = article.cloneNode(true);
  prose.querySelectorAll("pre, code, script, style, mjx-container").forEach((part) => part.remove());
  const box = (image) => {
    const { x, y, width, height } = image.getBoundingClientRect();
    return [x, y + scrollY, x + width, y + scrollY + height];
  };
  return {
    theme: document.documentElement.dataset.theme,
    page_width: document.documentElement.scrollWidth,
    ids: [...document.querySelectorAll("[id]")].map((part) => part.id),
    links: [...document.links].map((link) => link.href),
    images: [...document.images].map((image) => ({
      source: image.currentSrc, width: image.naturalWidth, alt: image.getAttribute("alt"), box: box(image),
    })),
    formulas: article.querySelectorAll("span.math, div.math").length,
    unset_formulas: [...article.querySelectorAll("span.math, div.math")]
      .filter((formula) => !formula.querySelector("mjx-container") || formula.querySelector("mjx-merror"))
      .map((formula) => formula.textContent),
    prose: prose.textContent,
  };
}"""


@dataclass
class Visit:
    """What was seen of a page at one width and theme; `seen` is what READ_PAGE returns, `screenshot` the whole page."""

    screenshot: Path
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def files(self) -> set[Path]:
        """The files that the browser read for the page."""
        return {Path(unquote(urlsplit(url).path)) for url in self.requests if url.startswith("file:")}


def page_names() -> list[str]:
    """The built pages, those that Sphinx adds included: `api/losses` for `html/api/losses.html`."""
    found = (path.relative_to(HTML) for path in HTML.rglob("*.html"))
    return sorted(path.with_suffix("").as_posix() for path in found if path.parts[0] not in ("_static", "notebooks"))


def serious_violations(response: dict[str, Any]) -> Iterator[str]:
    """What axe calls serious or critical, one line for each rule with the first place where it is broken."""
    for violation in response["violations"]:
        if violation["impact"] in ("serious", "critical"):
            first, count = violation["nodes"][0], len(violation["nodes"])
            yield f"{violation['id']} ({count} times): {first['html'][:160]} {first['failureSummary'][:240]}"
