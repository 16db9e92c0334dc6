"""From a page of the book to a notebook that one can run: copies to download, and links that open them on Colab.

_build/<profile>/html/notebooks/training.ipynb     as it is written, but its set-up cell knows repository and commit

The links lead to the branch `gh-pages`, on which the folder `html` is published. Colab opens notebooks from GitHub
only, so there are no links where the repository's address is unknown or another.
"""

import re
from pathlib import Path

import yaml

from hdm.project import book_notebooks, checkout_commit, read_notebook, repository_url

BRANCH, FOLDER = "gh-pages", "notebooks"
UNKNOWN = 'repository, commit = "", ""'  # as the set-up cells are written


def on_github(root: Path | None = None) -> str | None:
    """The repository's address where it is one of GitHub."""
    address = repository_url(root)
    return address if address and address.startswith("https://github.com/") else None


def launch_status(root: Path | None = None) -> str:
    """One sentence on what the pages' launch buttons do."""
    if address := on_github(root):
        return f"pages open on Colab from the branch {BRANCH} of {address}"
    reason = "the repository is not on GitHub" if repository_url(root) else "the repository's address is not known"
    return f"no page opens on Colab: {reason}"


def page_config(root: Path) -> bytes:
    """`_config.yml`, with launch buttons and the repository's address where it is one of GitHub."""
    content = (root / "_config.yml").read_bytes()
    address = on_github(root)
    if address is None:
        return content
    config = yaml.safe_load(content) or {}
    config["repository"] = {"url": address, "branch": BRANCH, "path_to_book": FOLDER}
    config["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    config["html"] = {**config.get("html", {}), "use_repository_button": True}
    return yaml.safe_dump(config, sort_keys=False).encode()


def publish_notebooks(pages: Path, root: Path, *, repository: str | None = None) -> None:
    """Write a copy of each notebook, without outputs, to `pages`/notebooks, and let the pages' downloads lead there.

    repository: where the copies get the package from on Colab, by default `repository_url`.
    """
    import nbformat

    (pages / FOLDER).mkdir(parents=True, exist_ok=True)
    known = set_up_line(root, repository)
    for name in book_notebooks(root):
        notebook = read_notebook(name, root)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
            if "setup" in cell.metadata.get("tags", []):
                cell.source = re.sub(rf"^{re.escape(UNKNOWN)}.*$", known, cell.source, flags=re.MULTILINE)
        nbformat.write(notebook, pages / FOLDER / f"{name}.ipynb")
        page = pages / f"{name}.html"
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            linked = text.replace(f'href="_sources/{name}.ipynb"', f'href="{FOLDER}/{name}.ipynb"')
            if linked != text:
                page.write_text(linked, encoding="utf-8")


def set_up_line(root: Path, repository: str | None = None) -> str:
    """The line of a set-up cell that says where the package of this book comes from."""
    commit, changed = checkout_commit(root)
    note = "  # and changes that are in no commit" if changed else ""
    return f'repository, commit = "{repository or repository_url(root) or ""}", "{commit}"{note}'
