"""Equations of the book to which docstrings refer."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_docstrings_name_equations_that_are_there() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.ipynb")]
    labels = [label for page in pages for label in re.findall(r"\$\$ \((eq-[\w-]+)\)", page)]
    assert len(labels) == len(set(labels))
    modules = [path.read_text(encoding="utf-8") for path in (ROOT / "hdm").rglob("*.py")]
    named = {label for module in modules for label in re.findall(r"\beq-[\w-]+", module)}
    assert named <= set(labels)
    assert {"eq-suppliers", "eq-emd", "eq-dual", "eq-gradient", "eq-half-pixel"} <= named
