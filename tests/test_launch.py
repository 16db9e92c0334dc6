"""Set-up cells, copies of notebooks for readers, and the launch buttons of pages set for real."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import yaml

from hdm.launch import UNKNOWN, launch_status, page_config, publish_notebooks, set_up_line
from hdm.project import book_notebooks

ADDRESS = "https://github.com/someone/heatmaps"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one notebook that has a set-up cell, and outputs that somebody left."""
    monkeypatch.delenv("HDM_REPOSITORY", raising=False)
    root = tmp_path / "project"
    (root / "book").mkdir(parents=True)
    (root / "_config.yml").write_text("title: A book\nhtml: {favicon: a.svg}\n")
    (root / "book" / "_toc.yml").write_text("root: index\nchapters: [{file: one}]\n")
    (root / "book" / "index.md").write_text("# A book")
    v4 = nbformat.v4
    set_up = v4.new_code_cell(f"import sys\n{UNKNOWN}  # a comment\nprint(commit)", metadata={"tags": ["setup"]})
    shown = v4.new_code_cell("print(1)", outputs=[v4.new_output("stream", text="1")], execution_count=1)
    nbformat.write(v4.new_notebook(cells=[set_up, shown]), root / "book" / "one.ipynb")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_every_notebook_has_the_same_set_up_cell(repository: Path) -> None:
    sources = set()
    for name in book_notebooks(repository):
        cells = json.loads((repository / "book" / f"{name}.ipynb").read_text())["cells"]
        tags = [cell["metadata"].get("tags", []) for cell in cells]
        [place] = [place for place, found in enumerate(tags) if "setup" in found]
        assert tags[place] == ["setup", "remove-cell"], f"{name}: pages do not show it"
        assert "parameters" in tags[place - 1], f"{name}: it reads the profile"
        sources.add("".join(cells[place]["source"]))
    [source] = sources
    assert len(re.findall(rf"^{re.escape(UNKNOWN)}", source, re.MULTILINE)) == 1
    assert len(source.splitlines()) <= 15


def test_set_up_cell_does_nothing_elsewhere(repository: Path) -> None:
    cells = json.loads((repository / "book" / "method.ipynb").read_text())["cells"]
    [source] = ["".join(cell["source"]) for cell in cells if "setup" in cell["metadata"].get("tags", [])]
    names: dict = {}
    exec(source, names)
    assert names["repository"] == ""
    assert "pip" not in names


def test_copies_know_their_package_and_pages_lead_to_them(project: Path, tmp_path: Path) -> None:
    pages = tmp_path / "html"
    pages.mkdir()
    (pages / "one.html").write_text('<a href="_sources/one.ipynb">get</a> <a href="_sources/index.md">get</a>')
    publish_notebooks(pages, project, repository=ADDRESS)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True).stdout.strip()
    set_up, shown = nbformat.read(pages / "notebooks" / "one.ipynb", as_version=4).cells
    assert set_up.source == f'import sys\nrepository, commit = "{ADDRESS}", "{commit}"\nprint(commit)'
    assert (shown.outputs, shown.execution_count) == ([], None)
    assert (
        pages / "one.html"
    ).read_text() == '<a href="notebooks/one.ipynb">get</a> <a href="_sources/index.md">get</a>'

    (project / "book" / "index.md").write_text("# Changed")
    assert set_up_line(project, ADDRESS).endswith(f'"{commit}"  # and changes that are in no commit')
    assert set_up_line(project).startswith('repository, commit = "", ')


def test_buttons_need_an_address_on_github(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = (project / "_config.yml").read_bytes()
    assert page_config(project) == plain
    assert launch_status(project) == "no page opens on Colab: the repository's address is not known"
    monkeypatch.setenv("HDM_REPOSITORY", "https://codeberg.org/someone/heatmaps")
    assert page_config(project) == plain
    assert launch_status(project) == "no page opens on Colab: the repository is not on GitHub"
    monkeypatch.setenv("HDM_REPOSITORY", "git@github.com:someone/heatmaps.git")
    config = yaml.safe_load(page_config(project))
    assert config["title"] == "A book"
    assert config["html"] == {"favicon": "a.svg", "use_repository_button": True}
    assert config["repository"] == {"url": ADDRESS, "branch": "gh-pages", "path_to_book": "notebooks"}
    assert launch_status(project) == f"pages open on Colab from the branch gh-pages of {ADDRESS}"
