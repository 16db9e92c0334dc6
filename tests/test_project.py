"""The project's folder, its pages and its profiles; no notebook runs here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from hdm.errors import InputError
from hdm.project import (
    book_notebooks,
    book_pages,
    checkout_commit,
    load_profile,
    profile_names,
    project_root,
    read_notebook,
    repository_url,
)


@pytest.fixture
def project(tmp_path: Path, repository: Path) -> Path:
    root = tmp_path / "a {project}"
    shutil.copytree(repository / "tests" / "notebooks", root)
    (root / "_config.yml").touch()
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts:\n- caption: One\n  chapters:\n  - file: report.ipynb\n    sections:\n"
        "    - file: figure\n- caption: Two\n  chapters: [{file: slow}, {url: 'https://example.org'}]\n"
    )
    return root


def test_root_is_found_from_below_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDM_ROOT", raising=False)
    monkeypatch.chdir(project / "book" / "profiles")
    assert project_root() == project


def test_root_from_elsewhere_is_that_of_the_package(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HDM_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert project_root() == repository


def test_environment_names_the_root(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDM_ROOT", str(project))
    assert project_root() == project
    monkeypatch.setenv("HDM_ROOT", str(tmp_path))
    with pytest.raises(InputError, match="HDM_ROOT=.* is not a project with _config.yml and book/"):
        project_root()


def test_pages_come_in_reading_order(project: Path) -> None:
    assert book_pages(project) == ["index", "report", "figure", "slow"]
    assert book_notebooks(project) == ["report", "figure", "slow"]


def test_pages_may_lie_in_folders(project: Path) -> None:
    toc = project / "book" / "_toc.yml"
    toc.write_text("root: index\nchapters:\n  - file: report\n    sections:\n      - file: rooms/first\n")
    with pytest.raises(InputError, match=r"lists rooms/first, but .* has neither rooms/first.ipynb nor"):
        book_pages(project)
    (project / "book" / "rooms").mkdir()
    (project / "book" / "rooms" / "first.md").write_text("# A room\n")
    assert book_pages(project) == ["index", "report", "rooms/first"]
    assert book_notebooks(project) == ["report"]


def test_page_without_a_file(project: Path) -> None:
    (project / "book" / "figure.ipynb").unlink()
    with pytest.raises(InputError, match=r"lists figure, but .* has neither figure.ipynb nor figure.md"):
        book_pages(project)


def test_no_table_of_contents(project: Path) -> None:
    (project / "book" / "_toc.yml").unlink()
    with pytest.raises(InputError, match="there is no .*_toc.yml"):
        book_pages(project)


def test_profile_takes_values_from_the_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDM_DATA", raising=False)
    monkeypatch.setenv("HDM_LOSS", "")
    assert load_profile("quick", project) == {
        "data": "coco:data/generated",
        "epochs": 2,
        "losses": ["hdm", "gaussian_mse"],
    }
    monkeypatch.setenv("HDM_DATA", "../coco")
    monkeypatch.setenv("HDM_LOSS", "bce")
    assert load_profile("quick", project) == {"data": "coco:../coco", "epochs": 2, "losses": ["hdm", "bce"]}


@pytest.mark.parametrize("name", ["fast", "../profiles/quick", ""])
def test_unknown_profile(project: Path, name: str) -> None:
    (project / "book" / "profiles" / "smoke.yml").write_text("epochs: 1\n")
    with pytest.raises(InputError, match=f"unknown profile '{name}': choose one of quick, smoke in"):
        load_profile(name, project)


@pytest.mark.parametrize("text", ["parts: {main: {data: 'coco:${HDM_NOT_SET}'}}\n", "grid:\n  seed: [0]\n"])
def test_a_study_among_the_profiles_is_none(project: Path, text: str) -> None:
    folder = project / "book" / "profiles"
    (folder / "study-cpu.yml").write_text(text)
    (folder / "broken.yml").write_text("data: [\n")  # what it is can't be told, but whoever asks for it is told why
    assert profile_names(project) == ["broken", "quick"]
    with pytest.raises(InputError, match="'study-cpu' is a study and no profile: run it with `hdm study .*-cpu.yml`"):
        load_profile("study-cpu", project)
    with pytest.raises(InputError, match="unknown profile 'study': choose one of broken, quick in"):
        load_profile("study", project)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: coco:${HDM_NOT_SET}\n", "quick.yml needs the environment variable HDM_NOT_SET"),
        ("model: {path: ['${HDM_NOT_SET}']}\n", "quick.yml needs the environment variable HDM_NOT_SET"),
        ("- a list\n", "quick.yml is no mapping"),
        ("", "quick.yml is no mapping"),
        ("data: [\n", "quick.yml is not valid YAML"),
    ],
)
def test_profile_that_is_wrong(project: Path, text: str, message: str) -> None:
    (project / "book" / "profiles" / "quick.yml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_profile("quick", project)


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"cells": [{"cell_type": "code"}], "nbformat": 4}'])
def test_notebook_that_is_none(project: Path, text: str) -> None:
    (project / "book" / "report.ipynb").write_text(text)
    with pytest.raises(InputError, match=r"report.ipynb is not a valid notebook"):
        read_notebook("report", project)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/someone/heatmaps.git", "https://github.com/someone/heatmaps"),
        ("http://github.com/someone/heatmaps/", "https://github.com/someone/heatmaps"),
        ("https://user:secret@github.com/someone/heatmaps", "https://github.com/someone/heatmaps"),
        ("git@github.com:someone/heatmaps.git", "https://github.com/someone/heatmaps"),
        ("ssh://git@gitlab.example.org:2222/group/sub/heat.maps.git", "https://gitlab.example.org/group/sub/heat.maps"),
        ("http://127.0.0.1:8000/someone/heatmaps", None),
        ("https://localhost/someone/heatmaps", None),
        ("../heatmaps.git", None),
        ("/srv/git/heatmaps.git", None),
        ("file:///srv/git/heatmaps.git", None),
    ],
)
def test_public_address(project: Path, monkeypatch: pytest.MonkeyPatch, address: str, expected: str | None) -> None:
    monkeypatch.delenv("HDM_REPOSITORY", raising=False)
    assert repository_url(project) is None, "no checkout"
    assert checkout_commit(project) == ("", False)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert repository_url(project) is None, "no remote"
    subprocess.run(["git", "remote", "add", "origin", address], cwd=project, check=True)
    assert repository_url(project) == expected
    monkeypatch.setenv("HDM_REPOSITORY", address)
    if expected:
        assert repository_url(project) == expected
    else:
        with pytest.raises(InputError, match=r"^HDM_REPOSITORY=.* is no public address"):
            repository_url(project)
