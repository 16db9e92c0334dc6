"""The page in place of a chapter whose notebook has failed, so that the other pages can be set and lead to it."""

import os
import re
from pathlib import Path

from hdm.executions import executed_path, last_execution
from hdm.outputs import without_machine_paths
from hdm.project import read_notebook

PAGE = """# {title}

```{{warning}}
This chapter is missing from this build: its notebook stopped {place}.
```

The reason was:

```text
{error}
```

To put the chapter in its place, remove the cause and give this command:

```text
hdm book --profile {profile} --only {name}
```
"""
REMAINS = """
What the notebook did up to there is kept in `{path}`.
"""


def placeholder(name: str, profile: str, root: Path) -> bytes:
    """A notebook without code: the title of the chapter, where its last run stopped, why, and what to do.

    A chapter that holds the bibliography keeps it, because every page cites from there.
    """
    import nbformat

    last, prose = last_execution(name, profile, root), _prose(name, root)
    title = re.search(r"^# (.+)$", prose, re.MULTILINE)
    text = PAGE.format(
        title=title[1] if title else name,
        place=f"in {last['cell']}" if last.get("cell") else "before its first cell",
        error=without_machine_paths(last.get("error") or "unknown", root),
        profile=profile,
        name=name,
    )
    failed = executed_path(name, profile, root).with_suffix(".failed.ipynb")
    if failed.is_file():
        text += REMAINS.format(path=Path(os.path.relpath(failed, root)).as_posix())
    if bibliography := re.search(r"^```\{bibliography\}.*?^```$", prose, re.MULTILINE | re.DOTALL):
        text += f"\n## References\n\n{bibliography[0]}\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id=f"{name}-missing"[:64])])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return (nbformat.writes(notebook) + "\n").encode()


def labels(name: str, root: Path) -> set[str]:
    """The labels of equations, figures and sections that a chapter defines and other pages may refer to."""
    notebook = read_notebook(name, root)
    figures = {
        str(settings[kind]["name"])
        for cell in notebook.cells
        for settings in [cell.metadata.get("mystnb", {})]
        for kind in ("figure", "image")
        if "name" in settings.get(kind, {})
    }
    patterns = r"\$\$ *\(([^)\s]+)\)", r"^\(([^)\s]+)\)=", r"^:(?:name|label): *(\S+)", r"\{#([\w:-]+)\}"
    return figures.union(*(re.findall(pattern, _prose(name, root), re.MULTILINE) for pattern in patterns))


def _prose(name: str, root: Path) -> str:
    return "\n\n".join(cell.source for cell in read_notebook(name, root).cells if cell.cell_type == "markdown")
