"""The book as it is written: what the runner and Jupyter Book rely on, read without running anything."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hdm.book import FIGURE_PAGES
from hdm.notebooks import declared_parameters
from hdm.project import book_notebooks, book_pages, load_profile, profile_names

BOOK = Path(__file__).parents[2] / "book"
NOTEBOOKS = [path.stem for path in sorted(BOOK.glob("*.ipynb"))]


@pytest.fixture
def notebook(name: str) -> dict[str, Any]:
    return json.loads((BOOK / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(notebook: dict[str, Any], kind: str) -> list[tuple[dict[str, Any], str]]:
    return [(cell, "".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_every_notebook_is_a_page(repository: Path) -> None:
    assert book_pages(repository)[0] == "index"
    assert sorted(book_notebooks(repository)) == NOTEBOOKS
    assert set(FIGURE_PAGES) <= set(NOTEBOOKS)
    assert book_notebooks(repository)[-1] == "status", "the status page reports on all the others, so it comes last"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_output_is_stored(notebook: dict[str, Any]) -> None:
    for cell, source in cells(notebook, "code"):
        assert not cell["outputs"], source
        assert cell["execution_count"] is None, source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_quick_is_the_default_profile(name: str, notebook: dict[str, Any], repository: Path) -> None:
    assert "profile" in declared_parameters(name, repository)
    [source] = [source for cell, source in cells(notebook, "code") if "parameters" in cell["metadata"].get("tags", [])]
    defaults = {line.targets[0].id: line.value for line in ast.parse(source).body if isinstance(line, ast.Assign)}  # type: ignore[attr-defined]
    assert ast.literal_eval(defaults["profile"]) == "quick"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_first_cell_is_the_title(notebook: dict[str, Any]) -> None:
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert re.match(r"# \S", "".join(notebook["cells"][0]["source"]))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_metadata_is_what_the_runner_reads(notebook: dict[str, Any]) -> None:
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"].get("hdm", {})) <= {"inputs", "outputs"}
    assert not {"papermill", "widgets"} & set(notebook["metadata"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_path_of_a_machine_is_written(notebook: dict[str, Any]) -> None:
    text = json.dumps(notebook)
    assert not re.search(r"(?<![\w.:/])/(home|root|tmp|Users|content|work)/", text)


def test_citations_are_in_the_bibliography() -> None:
    known = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    texts = [path.read_text(encoding="utf-8") for path in (*BOOK.rglob("*.md"), *BOOK.glob("*.ipynb"))]
    cited = {
        key.strip()
        for text in texts
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited <= known


def test_every_profile_names_its_data(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDM_DATA", "data/coco")
    names = set(profile_names(repository))
    assert {"smoke", "quick", "cpu", "colab", "paper"} <= names
    for name in names:
        data = load_profile(name, repository)["data"]
        assert re.match(r"(coco|mpii|synthetic):\S+$", data), f"{name}: {data}"


def test_configuration_is_read_by_jupyter_book(repository: Path) -> None:
    config = yaml.safe_load((repository / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off", "without quotes YAML makes it false"
    assert config["only_build_toc_files"] is True
    assert "sphinx-mathjax-offline" in config["sphinx"]["extra_extensions"]
