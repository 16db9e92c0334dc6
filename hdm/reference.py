"""The book's pages on the package: docstrings as they are written here, turned into what Sphinx reads.

A docstring is plain prose. `name: text` at the start of a line explains a parameter, a field or a choice, lines that
belong to it are indented; a block that is indented throughout is an example or a table; back-quotes hold code. Sphinx
loads this module as an extension (`_config.yml`) beside `sphinx.ext.autodoc`; the pages are `book/package.md` and those
in `book/package/`.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import Any

NAME = r"`?[A-Za-z_][\w.@]*`?"
# `name: text`, `first, second: text`, or a name in back-quotes with its text in a column of its own.
ENTRY = re.compile(rf"(?!Deviation|Source)(?P<names>{NAME}(?:, {NAME})*)(?::(?=\s|$)|(?<=`)\s{{2,}})\s*(?P<text>.*)")
ROW = re.compile(r"(?P<names>`[\w.@]+`) (?P<text>.*)")  # of a column whose longest name leaves one space
NEXT = re.compile(r"(?<=\.) (?=[a-z_]\w*(?:, [a-z_]\w*)*: )")  # where another entry begins on the same line
SENTENCE = re.compile(r"(Raises|Returns|Deviation|Source)")
COLUMNS = re.compile(r"\S {2,}\S")
EQUATION = re.compile(r"\b(eq-[\w-]*\w)")  # its label in the book
LONGEST_VALUE = 300  # characters of a constant that is shown


def to_rst(docstring: str) -> str:
    """A docstring, without the indentation of its code, as reStructuredText. Its first sentence is never an entry."""
    return "\n".join(_blocks(docstring.expandtabs().splitlines(), first=True)).strip("\n")


def _blocks(lines: list[str], first: bool = False) -> Iterator[str]:
    """Paragraphs, lists of entries and literal blocks."""
    for number, block in enumerate(re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))):
        inner = [line for line in block.splitlines() if line.strip()]
        if not inner:
            continue
        if inner[0].startswith(">>>"):
            yield from ("", ".. code-block:: python", "", textwrap.indent("\n".join(inner), "   "), "")
        elif all(line.startswith("    ") for line in inner) or (len(inner) > 1 and all(map(COLUMNS.search, inner))):
            yield from ("", ".. code-block:: text", "", textwrap.indent(textwrap.dedent("\n".join(inner)), "   "), "")
        else:
            yield from _prose(inner, first and number == 0)


def _prose(lines: list[str], first: bool) -> Iterator[str]:
    """Lines without an empty one between them: sentences and entries."""
    for names, text in _parts(lines, first):
        if names:
            yield from ("", ", ".join(f"``{name.strip('`')}``" for name in names.split(", ")))
            yield textwrap.indent("\n".join(_blocks(text)).strip("\n"), "   ") or "   \\"
        elif text[0].startswith(" "):
            yield from _blocks(textwrap.dedent("\n".join(text)).splitlines())
        else:
            yield from ("", inline(re.sub("::$", ":", " ".join(line.strip() for line in text))), "")


def _parts(lines: list[str], first: bool) -> Iterator[tuple[str, list[str]]]:
    """(names, lines) of each entry, and ("", lines) of the sentences, or the indented list, between them."""
    names, text = "", list[str]()
    waiting = list(lines)
    while waiting:
        line = waiting.pop(0)
        ended, indented, in_list = _ended(text), line.startswith(" "), bool(text) and text[0].startswith(" ")
        entry = ENTRY.match(line) or (ROW.match(line) if names[:1] == "`" else None)
        begins = entry is not None and (ended or "  " in line) and not (first and not text)
        if begins or names:
            line, *others = NEXT.split(line)
            waiting[:0] = others
        leaves = not indented and (in_list or SENTENCE.match(line) or (names and ended))
        listed = indented and not names and not in_list
        if text and (begins or leaves or listed):
            yield names, text if in_list else _even(text)
            names, text = "", []
        if begins and (entry := ENTRY.match(line) or ROW.match(line)):
            names, text = entry["names"], [entry["text"]]
        else:
            text.append(line)
    yield names, text if text[0].startswith(" ") else _even(text)


def _ended(text: list[str]) -> bool:
    """Whether a sentence ends with these lines."""
    return not text or not text[-1].strip() or text[-1].rstrip().endswith((".", ":", ")"))


def _even(text: list[str]) -> list[str]:
    """The first line of an entry as it is, the others without the indentation that they share."""
    rest = textwrap.dedent("\n".join(text[1:])).splitlines()
    return [text[0], *rest] if text[0].strip() else rest


def inline(text: str) -> str:
    """A paragraph with its code marked, and everything else taken as it is."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(_code(part[1:-1]) if part[:1] == "`" and len(part) > 1 else _plain(part) for part in parts)


def _code(text: str) -> str:
    if re.fullmatch(r"hdm(\.\w+)+", text):
        return rf"\ :py:obj:`{text}`\ "
    return rf"\ ``{text}``\ "


def _plain(text: str) -> str:
    text = re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", text)
    text = re.sub(r"\bInputError\b", ":py:exc:`~hdm.errors.InputError`", text)
    return EQUATION.sub(r":eq:`\1`", text)


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _missing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The docstring of an object; for a constant, which has none, its value where that is short."""
    if what == "data" and obj.__doc__ == type(obj).__doc__:
        value = ", ".join(map(repr, obj)) if isinstance(obj, tuple | dict) else repr(obj)
        lines[:] = [f"``{value}``" if len(value) <= LONGEST_VALUE else ""]
    else:
        lines[:] = to_rst("\n".join(lines)).splitlines()
    lines.append("")


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out fields, which the signature of their class names already."""
    field = what == "class" and not callable(obj) and not isinstance(obj, property)
    return True if field or name == "extra_repr" else None


def _missing(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Names of Python's and of other packages, and of ours that have no entry, stay words."""
    from docutils import nodes  # comes with the extra `book`

    if node.get("refdomain") != "py":
        return None
    return nodes.literal(text=content.astext()) if isinstance(content, nodes.literal) else content
