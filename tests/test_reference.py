"""Docstrings as a page of the book: what the layout means, and that Sphinx has nothing to say against any of them."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import roles

from hdm.book import _stage
from hdm.reference import _process, inline, to_rst

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGES = {page: page.read_text() for page in (BOOK / "package.md", *sorted((BOOK / "package").glob("*.md")))}
FIRST, *OTHERS = PAGES
TEXT = "\n".join(PAGES.values())
ROOMS = re.findall(r"automodule:: (\S+)", TEXT)

for role in ("py:obj", "py:exc", "eq"):  # Sphinx's, which docutils alone does not know
    roles.register_generic_role(role, nodes.literal)


def read(text: str) -> nodes.document:
    """What docutils understands, which stops at any doubt; its remarks on Sphinx's roles are left out."""
    tree = publish_doctree(text, settings_overrides={"report_level": 2, "halt_level": 2})
    for remark in list(tree.findall(nodes.system_message)):
        remark.parent.remove(remark)
    return tree


def entries(text: str) -> dict[str, str]:
    """The entries of a docstring that are not within others, with their texts in one line."""
    lists = [
        node for node in read(to_rst(text)).findall(nodes.definition_list) if isinstance(node.parent, nodes.document)
    ]
    items = [item for node in lists for item in node.children]
    return {item.children[0].astext(): " ".join(item.children[1].astext().split()) for item in items}


def test_parameters_are_entries() -> None:
    text = """Sums: of everything.

    size: (rows, columns) of a map. sigma: in pixels,
        of a Gaussian.
    first, second: two `modes`, in lines
    that are not indented.
    A sentence of its own.
    Raises InputError for a size: that is none.
    """
    found = entries(inspect.cleandoc(text))
    assert found == {
        "size": "(rows, columns) of a map.",
        "sigma": "in pixels, of a Gaussian.",
        "first, second": "two modes, in lines that are not indented.",
    }
    paragraphs = [
        node.astext() for node in read(to_rst(inspect.cleandoc(text))).children if node.tagname == "paragraph"
    ]
    assert paragraphs[:2] == ["Sums: of everything.", "A sentence of its own."]
    assert paragraphs[2].startswith("Raises ")


def test_choices_are_entries_of_an_entry() -> None:
    text = "Reads.\n\nmethod:\n    `max`      the largest,\n               of all.\n    `integral` a mean.\nsigma: wide"
    assert list(entries(text)) == ["method", "sigma"]
    [inner] = [
        node for node in read(to_rst(text)).findall(nodes.definition_list) if node.parent.tagname == "definition"
    ]
    assert [item.children[0].astext() for item in inner.children] == ["max", "integral"]
    assert inner.children[0].children[1].astext() == "the largest, of all."


def test_lists_tables_and_examples() -> None:
    text = "Rows:\n    first: one.\n    second: two.\n\n    a  *b*\n      c\n\nx  1\ny  2\n\n>>> 1 + 1\n2"
    assert entries(text) == {"first": "one.", "second": "two."}
    blocks = [node.astext() for node in read(to_rst(text)).findall(nodes.literal_block)]
    assert blocks == ["a  *b*\n  c", "x  1\ny  2", ">>> 1 + 1\n2"]


def test_words_are_taken_as_they_are() -> None:
    text = r"|z|_2 of z* and s_ is `a * b_`, see `hdm.decode.decode` and eq-emd; a lone ` and C:\x"
    assert read(inline(text)).astext() == text.replace("`a * b_`", "a * b_").replace(
        "`hdm.decode.decode`", "hdm.decode.decode"
    )
    assert ":eq:`eq-emd`" in inline(text) and ":py:obj:`hdm.decode.decode`" in inline(text)


def documented(module: Any) -> list[tuple[str, str]]:
    """The docstrings of a module and of what it offers."""
    public = getattr(module, "__all__", [name for name, value in vars(module).items() if not name.startswith("_")])
    things = [(name, getattr(module, name)) for name in public]
    things = [(name, thing) for name, thing in things if inspect.isclass(thing) or inspect.isfunction(thing)]
    things = [(name, thing) for name, thing in things if thing.__module__.startswith("hdm")]
    members = [
        (f"{name}.{key}", value) for name, thing in things for key, value in vars(thing).items() if key[0] != "_"
    ]
    return [
        (name, inspect.cleandoc(thing.__doc__)) for name, thing in [("", module), *things, *members] if thing.__doc__
    ]


@pytest.mark.parametrize("room", ROOMS)
def test_every_docstring_is_understood(room: str) -> None:
    found = documented(importlib.import_module(room))
    assert len(found) > 1
    for name, text in found:
        assert read(to_rst(text)).children, name
        words = re.sub(r"[^A-Za-z0-9]", "", text)
        shown = re.sub(r"[^A-Za-z0-9]", "", read(to_rst(text)).astext())
        assert len(shown) >= len(words), f"{name}: something is lost"


def test_the_pages_have_the_public_rooms_once() -> None:
    rooms = "transport losses decode encode models data evaluate train records poses export study comparison errors"
    assert {f"hdm.{room}" for room in rooms.split()} <= set(ROOMS)
    assert len(ROOMS) == len(set(ROOMS))


def test_the_first_page_leads_to_every_room() -> None:
    for page in OTHERS:
        [row] = [line for line in PAGES[FIRST].splitlines() if f"(package/{page.stem})" in line]
        assert f"[{PAGES[page].splitlines()[0].removeprefix('# ')}]" in row
        assert re.findall(r"automodule:: (\S+)", PAGES[page]) == re.findall(r"`(hdm\.\w+)`", row)


def test_constants_show_their_values() -> None:
    for constant, shown in ((("a", "b"), "``'a', 'b'``"), ({"c": 1}, "``'c'``"), ("x" * 400, "")):
        lines = (type(constant).__doc__ or "").splitlines()
        _process(None, "data", "hdm.NAME", constant, None, lines)
        assert lines == [shown, ""]


def test_the_pages_have_every_list_of_choices() -> None:
    for room in ROOMS:
        module = importlib.import_module(room)
        lists = [name for name in getattr(module, "__all__", ()) if isinstance(getattr(module, name), tuple | dict)]
        assert set(lists) <= set(re.findall(rf"autodata:: {room}\.(\w+)", TEXT))


def test_a_changed_docstring_renews_the_page(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, package = tmp_path / "project", tmp_path / "hdm"
    (root / "book").mkdir(parents=True)
    package.mkdir()
    (root / "_config.yml").write_text((repository / "_config.yml").read_text())
    (root / "book" / "_toc.yml").write_text("root: index\n")
    (root / "book" / "index.md").write_text("# A page\n")
    (package / "module.py").write_text('"""One."""')
    monkeypatch.setattr("hdm.executions.PACKAGE", package)
    assert _stage("quick", root, tmp_path / "source") and not _stage("quick", root, tmp_path / "source")
    (package / "module.py").write_text('"""Two."""')
    assert _stage("quick", root, tmp_path / "source")


@pytest.mark.slow
def test_sphinx_has_no_complaints(repository: Path, tmp_path: Path) -> None:
    """The pages alone, with the book's own settings; equations and the chapter that it names are stood in for."""
    labels = sorted(
        {label for path in (repository / "hdm").rglob("*.py") for label in re.findall(r"eq-\w[\w-]*", path.read_text())}
    )
    settings = yaml.safe_load((repository / "_config.yml").read_text())["sphinx"]["config"]
    chosen = {name: value for name, value in settings.items() if name.startswith(("autodoc", "python", "add_", "toc_"))}
    chosen |= {"extensions": ["myst_parser", "sphinx.ext.autodoc", "hdm.reference"], "master_doc": "package"}
    chosen |= {"myst_enable_extensions": ["dollarmath"]}
    (tmp_path / "conf.py").write_text("\n".join(f"{name} = {value!r}" for name, value in chosen.items()))
    equations = "\n\n".join(f"$$ x $$ ({label})" for label in labels)
    (tmp_path / "notation.md").write_text(f"---\norphan: true\n---\n# Notation\n\n{equations}\n")
    contents = "\n".join(f"package/{page.stem}" for page in OTHERS)
    for page, text in PAGES.items():
        copy = tmp_path / page.relative_to(BOOK)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text)
    with (tmp_path / "package.md").open("a") as first:
        first.write(f"\n```{{toctree}}\n{contents}\n```\n")
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", str(tmp_path), str(tmp_path / "out")]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    built_pages = [tmp_path / "out" / page.relative_to(BOOK).with_suffix(".html") for page in PAGES]
    pages = [page.read_text() for page in built_pages]
    page = "\n".join(pages)
    for name in ("hdm.losses.HDMLoss", "hdm.transport.heatmap_emd", "hdm.poses.predict", "hdm.decode.DECODERS"):
        assert f'id="{name}"' in page
    assert "Built-in immutable sequence" not in page, "constants show their values"
    assert "Define the computation performed at every call" not in page, "PyTorch's words, not ours"
    assert max(map(len, pages)) < 1e6
