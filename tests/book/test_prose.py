"""How the book's sources are written: no measured number by hand, one sentence a line, prose before code."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BOOK = Path(__file__).parents[2] / "book"
SOURCES = sorted([*BOOK.rglob("*.md"), *BOOK.glob("*.ipynb")])
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)

NUMBER = r"\d[\d,]*(?:\.\d+)?"
DECIMAL = r"\d[\d,]*\.\d+"
SCORE = r"\b(?:OKS-)?(?:AP|AR|mAP|AP50|AP75|PCKh?(?:@[\d.]+)?|AUC)\b"
# What is measured, not defined: a score, a share or a length with decimals, times, rates and sizes, a speed-up,
# a p value. Pixels and per cent without decimals are sizes of pictures, levels of confidence, shares of a data set.
MEASURED = re.compile(
    rf"{SCORE}(?:[^\S\n]+(?:of|is|was)[^\S\n]+|[^\S\n]*[=:][^\S\n]*|[^\S\n]+){NUMBER}"
    rf"|(?<![\w.@]){DECIMAL}[^\S\n]*(?:(?:heatmap |crop |image )?(?:px|pixels?)|%|per cent|percent|points?|h|s|min"
    rf"|minutes|seconds|hours)(?![\w/])"
    rf"|(?<![\w.@]){NUMBER}[^\S\n]*(?:ms|milliseconds|images/s|images per second|fps|GB|MB)(?![\w/])"
    rf"|(?<![\w.@]){NUMBER}[^\S\n]*(?:times|x|×)[^\S\n]+(?:as|faster|slower|smaller|larger|better|worse|more|less)\b"
    rf"|\bp[^\S\n]*=[^\S\n]*0?\.\d+"
)
# A full stop, a closing mark or two, a space and a capital. Not after an initial or a common abbreviation.
SENTENCE_END = re.compile(r"(?<!\b[A-Z])(?<!e\.g)(?<!i\.e)(?<!et al)(?<!vs)[.!?][\"”)*_]*[ \t]+(?=[*_(\"“`\[$]*[A-Z])")
LEAD_IN = re.compile(r"^\s*(?:(?:[-*+]|\d+\.)\s+)?(?:\*\*[^*]+\*\*|\[[ x]\])?\s*")  # of a list's item: mark, bold title
WITHOUT_PROSE = {"parameters", "setup", "hide-input", "remove-cell"}


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """The parts of a source: kind of cell, and text."""
    if path.suffix == ".md":
        yield "markdown", path.read_text(encoding="utf-8")
    else:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            yield cell["cell_type"], "".join(cell["source"])


def measured_numbers(text: str) -> list[str]:
    """Numbers that look measured, outside of formulas."""
    return [found[0] for found in MEASURED.finditer(re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", "", text, flags=re.DOTALL))]


def crowded_lines(text: str) -> list[str]:
    """Lines of prose with more than one sentence; code, tables and a list item's bold title apart."""
    prose = re.sub(r"^(```|~~~|:::).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for line in prose.splitlines() if not line.lstrip().startswith(("|", ":", "#"))]
    return [line for line in lines if SENTENCE_END.search(LEAD_IN.sub("", line))]


def cells_without_prose(cells: list[dict[str, Any]]) -> list[str]:
    """Sources of the code cells that follow another one directly."""
    found = []
    for before, cell in zip(cells, cells[1:], strict=False):
        tags = set(cell["metadata"].get("tags", []))
        if before["cell_type"] == cell["cell_type"] == "code" and not tags & WITHOUT_PROSE:
            found.append("".join(cell["source"]))
    return found


@each_source
def test_no_measured_number_is_typed(path: Path) -> None:
    assert not [number for _, text in texts(path) for number in measured_numbers(text)]


@pytest.mark.parametrize(
    "text",
    [
        "HDM reaches AP 71.3 on the val part.",
        "an OKS-AP of 0.219",
        "its PCK@0.05 is 0.41",
        "AP75 = 68",
        "an error of 9.4 px",
        "falls by 0.3 heatmap pixels",
        "in 41.2 % of all cases",
        "a step takes 57 ms",
        "1,234 images/s",
        "the loss is 3.5 times faster",
        "(p = 0.03)",
    ],
)
def test_a_measured_number_is_found(text: str) -> None:
    assert len(measured_numbers(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "PCK@0.05 and AP75 ask for small errors, PCKh@0.5 for less",
        "bars are their 95 % intervals; the first 5 % of the persons",
        "sigma = 2, crops of 64 x 48 pixels, a blur of 10",
        "OKS above 0.2; p < 0.05 in a paired test over seeds",
        "with $s = 1.25$ px by definition",
        'columns = ["PCK@0.05", "PCK@0.1", "AP"]',
    ],
)
def test_a_definition_is_no_measurement(text: str) -> None:
    assert not measured_numbers(text)


@each_source
def test_one_sentence_a_line(path: Path) -> None:
    assert not [line for kind, text in texts(path) if kind == "markdown" for line in crowded_lines(text)]


def test_crowded_lines_are_found() -> None:
    crowded = ["One. Two.", "- **Title.** One. Two.", "*Left: one. Right: two.*", "Is it (so)? `It` is."]
    fine = [
        "- **Title.** One.",
        "**Title.** One.",
        "1. One.",
        "By J. Doe et al. Then",
        "| A. B. | C. D. |",
        "```\nOne. Two.\n```",
    ]
    assert crowded_lines("\n".join([*crowded, *fine])) == crowded


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix == ".ipynb"], ids=lambda path: path.stem)
def test_prose_comes_before_code(path: Path) -> None:
    assert not cells_without_prose(json.loads(path.read_text(encoding="utf-8"))["cells"])


def test_code_without_prose_is_found() -> None:
    def cell(kind: str, source: str, *tags: str) -> dict[str, Any]:
        return {"cell_type": kind, "source": [source], "metadata": {"tags": list(tags)}}

    cells = [cell("code", "a", "parameters"), cell("code", "b", "hide-input"), cell("markdown", "c")]
    assert cells_without_prose([*cells, cell("code", "d"), cell("code", "e")]) == ["e"]
