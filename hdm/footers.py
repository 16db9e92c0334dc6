"""The line below each figure of the book: which records it was drawn from, at which commit, under which profile.

A cell that draws a figure from records names them in its metadata, `{"hdm": {"records": "data/runs/study-cpu"}}`, where
`{profile}` may stand; without such an entry the figure was computed by the page itself. What pages show counts: of a
benchmark, named as in `data/benchmarks/transport/*-cpu`, the newest record, and of the build's own profile the newest
of each loss and seed, as earlier builds leave theirs behind.
"""

import json
from html import escape
from pathlib import Path
from typing import Any

from hdm.project import checkout_commit

SHOWN_COMMITS = 3
HIDDEN = {"remove-cell", "remove-output"}  # tags of cells whose outputs are not on the page


def sign_figures(notebook: Any, profile: str, root: Path) -> Any:
    """Set the line below every figure of an executed notebook, in place."""
    from nbformat.v4 import new_output  # comes with the extra `book`

    page = f"profile {profile}, commit {_short(*checkout_commit(root))}"
    for cell in notebook.cells:
        if cell.cell_type == "code" and has_figure(cell):
            records = cell.metadata.get("hdm", {}).get("records")
            origin = _origin(records, profile, root) if records else "computed on this page"
            line = f"Source: {origin} ({page})."
            content = {"text/html": f'<p class="figure-source">{escape(line)}</p>', "text/plain": line}
            cell.outputs.append(new_output("display_data", data=content))
    return notebook


def has_figure(cell: Any) -> bool:
    """Whether a cell of an executed notebook shows a picture on its page."""
    if HIDDEN & set(cell["metadata"].get("tags", [])):
        return False
    kinds = [set(output.get("data", {})) for output in cell["outputs"]]
    return any(any(kind.startswith("image/") for kind in some) and "text/html" not in some for some in kinds)


def _origin(records: str, profile: str, root: Path) -> str:
    """`63 records in data/runs/study-cpu, commits 2070926a, 72bd3be1`."""
    place = records.replace("{profile}", profile)
    if place.startswith("data/benchmarks/"):
        found = sorted(root.glob(f"{place}/benchmark.json"))[-1:]
        read = list(map(_read, found))
        name = found[0].parent.relative_to(root).as_posix() if found else f"no record in {place}"
    else:
        read = [_read(path) for path in sorted((root / place).glob("[!.]*/run.json"))]
        if place != records:  # in the order of time, so that the newest stays
            read = list({(run["settings"]["loss"], run["settings"]["seed"]): run for run in read}.values())
        name = f"{len(read)} record{'' if len(read) == 1 else 's'} in {place}"
    commits = sorted({_short(record["commit"], record["dirty"]) for record in read})
    more = f" and {len(commits) - SHOWN_COMMITS} more" if len(commits) > SHOWN_COMMITS else ""
    plural = "s" if len(commits) > 1 else ""
    return f"{name}, commit{plural} {', '.join(commits[:SHOWN_COMMITS])}{more}" if commits else name


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _short(commit: str, changed: bool) -> str:
    return (commit[:8] or "unknown") + (" with changes" if changed else "")
