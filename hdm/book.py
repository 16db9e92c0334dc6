"""The book as HTML: executed notebooks and pages, set by Jupyter Book, and a check of what came out.

book/*.md, _static, references.bib  +  _build/<profile>/executed/*.ipynb  -->  _build/<profile>/html/index.html
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hdm.errors import InputError
from hdm.executions import executed_path, is_current, last_execution, package_digests
from hdm.footers import has_figure
from hdm.launch import FOLDER, page_config, publish_notebooks
from hdm.notebooks import NotebookError, execute_notebooks
from hdm.outputs import machine_paths
from hdm.placeholder import labels, placeholder
from hdm.project import book_notebooks, book_pages, load_profile, project_root

FIGURE_PAGES = ("motivation", "method", "data", "training")  # pages that say nothing without a figure


def run_book(
    profile: str = "quick",
    *,
    only: Iterable[str] | None = None,
    force: bool = False,
    parameters: dict[str, Any] | None = None,
    html: bool = True,
    root: Path | None = None,
) -> Path:
    """Execute the notebooks as `execute_notebooks` does, then set the book; returns the path of its first page.

    html: False leaves the pages as they are. With `only`, the other notebooks must have been executed before.
    Where a notebook failed, a page in its place says so, and NotebookError is raised once the book is set.
    """
    root = root or project_root()
    try:
        execute_notebooks(profile, only=only, force=force, parameters=parameters, root=root)
    except NotebookError as failure:
        if html:
            try:
                build_html(profile, root)
            except InputError as error:
                raise NotebookError(f"{failure}; and {error}") from error
        raise
    return build_html(profile, root) if html else html_folder(profile, root) / "index.html"


def html_folder(profile: str, root: Path) -> Path:
    """Where the pages of a profile lie: `_build/<profile>/html`."""
    return root / "_build" / profile / "html"


def build_html(profile: str, root: Path | None = None) -> Path:
    """Set the pages and the executed notebooks of a profile with Jupyter Book; returns the path of the first page.

    A build that fails leaves no pages. A notebook that changed since it was executed, or failed and has a page in its
    place, is named on standard output.
    Raises InputError where a notebook has not been executed, and for anything that Jupyter Book warns of, except for
    references into a chapter that failed.
    """
    root = root or project_root()
    failed = failed_notebooks(profile, root)
    for name in book_notebooks(root):
        if name in failed:
            print(f"note: {name} failed; a page in its place says so", flush=True)
            continue
        last = last_execution(name, profile, root)
        if last.get("status") != "done" or not executed_path(name, profile, root).is_file():
            raise InputError(f"notebook {name!r} has not been executed under profile {profile!r}: build the whole book")
        if not is_current(name, profile, last["parameters"], root):
            print(f"note: {name} changed since it was executed; build the whole book to renew its page", flush=True)
    pages, work = html_folder(profile, root), root / "_build" / profile / "jupyter-book"
    source = work.with_name("source")
    if not _stage(profile, root, source) and (pages / "index.html").is_file():
        publish_notebooks(pages, root)  # their commit may be another
        print("the pages are up to date", flush=True)
        return pages / "index.html"
    for stale in (pages, work / "_build" / "html"):
        shutil.rmtree(stale, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    command += ["--path-output", str(work), "-n", "--keep-going", *([] if failed else ["-W"])]
    print("setting the pages with Jupyter Book", flush=True)
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    log = work.with_name("jupyter-book.log")
    log.write_text(run.stdout + run.stderr, encoding="utf-8")
    messages = re.sub(r"\x1b\[[\d;]*m", "", run.stderr)  # colours
    problems = [line for line in messages.splitlines() if re.search("WARNING|ERROR|error", line)]
    if failed:  # what leads into their chapters may lead nowhere
        missing = "|".join(re.escape(label) for name in failed for label in labels(name, root)) or "(?!)"
        excused = re.compile(rf"WARNING: .*(?<![\w-])({missing})(?![\w-])")
        problems = [line for line in problems if re.search("(WARNING|ERROR): ", line) and not excused.search(line)]
    if run.returncode != 0 or (failed and problems):
        first = (problems or messages.strip().splitlines() or ["no message"])[0].replace(f"{source}{os.sep}", "")
        raise InputError(f"Jupyter Book stopped: {first} (all of it in {os.path.relpath(log, root)})")
    publish_notebooks(work / "_build" / "html", root)
    os.replace(work / "_build" / "html", pages)
    return pages / "index.html"


def failed_notebooks(profile: str, root: Path) -> list[str]:
    """The notebooks whose last run stopped by an error, in reading order."""
    return [name for name in book_notebooks(root) if last_execution(name, profile, root).get("status") == "failed"]


def _stage(profile: str, root: Path, target: Path) -> bool:
    """Bring what Jupyter Book reads into one folder. Only what differs is written, because only that is read again.

    Returns True where anything differed.
    """
    book = root / "book"
    wanted = {
        path.relative_to(book): path.read_bytes()
        for path in book.rglob("*")
        if path.is_file() and path.suffix != ".ipynb" and ".ipynb_checkpoints" not in path.parts
    }
    failed = failed_notebooks(profile, root)
    for name in book_notebooks(root):
        executed = executed_path(name, profile, root)
        wanted[Path(f"{name}.ipynb")] = placeholder(name, profile, root) if name in failed else executed.read_bytes()
    wanted[Path("_config.yml")] = page_config(root)
    # The pages on the package are made from its docstrings (hdm/reference.py).
    wanted[Path(".package")] = json.dumps(package_digests()).encode()
    if any(b"explorable-views" in content for path, content in wanted.items() if path.suffix == ".ipynb"):
        from hdm.explorable import vega_script  # loads more than a book without such figures needs

        wanted[Path("_static/vega.mjs")] = vega_script(root / "_build").read_bytes()
    stale = [path for path in target.rglob("*") if path.is_file() and path.relative_to(target) not in wanted]
    for path in stale:
        path.unlink()
    changed = bool(stale)
    for path, content in wanted.items():
        copy = target / path
        if not copy.is_file() or copy.read_bytes() != content:
            changed = True
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    return changed


def check_pages(profile: str = "quick", root: Path | None = None) -> list[str]:
    """What is wrong with the built book, one sentence each; an empty list where every page is fit to read.

    Looked for: pages that are missing, older than their notebook or without a way to download it; notebooks that did
    not run to their end; figures that are missing or empty; tracebacks; unresolved references and unread mark-up; paths
    of this machine; anything that a page would load from the network.
    """
    root = root or project_root()
    load_profile(profile, root)
    notebooks, problems = book_notebooks(root), []
    for page in book_pages(root):
        path, figures = html_folder(profile, root) / f"{page}.html", int(page in FIGURE_PAGES)
        if page in notebooks:
            executed, staged = (
                executed_path(page, profile, root),
                root / "_build" / profile / "source" / f"{page}.ipynb",
            )
            status = last_execution(page, profile, root).get("status", "none")
            if status != "done" or not executed.is_file():
                place = "; its page only says so" if status == "failed" else ""
                problems.append(f"{page}: the notebook was not executed to its end (last run: {status}){place}")
                continue
            if not staged.is_file() or staged.read_bytes() != executed.read_bytes():
                problems.append(f"{page}: the page is older than the last run of its notebook")
            figures = max(figures, _count_figures(executed))
            copy = html_folder(profile, root) / FOLDER / f"{page}.ipynb"
            if path.is_file() and not (copy.is_file() and f'href="{FOLDER}/{page}.ipynb"' in path.read_text("utf-8")):
                problems.append(f"{page}: the page does not lead to its notebook {os.path.relpath(copy, root)}")
        if path.is_file():
            problems += [f"{page}: {problem}" for problem in _page_problems(path, figures, root)]
        else:
            problems.append(f"{page}: there is no page {os.path.relpath(path, root)}")
    return problems


def _count_figures(notebook: Path) -> int:
    """How many cells of an executed notebook have pictures for its page."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" and has_figure(cell) for cell in cells)


def _page_problems(path: Path, figures: int, root: Path) -> Iterator[str]:
    from bs4 import BeautifulSoup

    text = path.read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    article = page.find("article")
    if article is None or article.find("h1") is None:
        yield "the page has no title"
        return
    images = article.find_all("img")
    if len(images) < figures:
        yield f"the page has {len(images)} figures and should have {figures} or more"
    for image in images:
        source = str(image.get("src"))
        file = path.parent / unquote(urlsplit(source).path)
        if image.get("alt") in (None, "", source):  # Jupyter Book puts the file's name where there is none
            yield f"the figure {source} has no alternative text: give its cell one, mystnb.image.alt in the metadata"
        if not source.startswith("data:") and not (file.is_file() and file.stat().st_size):
            yield f"the figure {source} is missing or empty"
    if "Traceback (most recent call last)" in text or article.select(".output.traceback"):
        yield "a traceback is shown"
    # One folder may lie within another, so that a path fits several patterns.
    found_paths = {found[0] for pattern in machine_paths(root) if (found := re.search(pattern + r"[^\s<\"']*", text))}
    for path_shown in sorted(found_paths):
        yield f"a path of this machine is shown: {path_shown}"
    for loaded in page.select("script[src], link[rel=stylesheet], link[rel=preload], img[src], iframe[src]"):
        address = str(loaded.get("src") or loaded.get("href"))
        if re.match(r"(https?:)?//", address):
            yield f"the page loads {address} from the network"
    for reference in article.select(".xref, .problematic, .system-message"):
        if reference.find_parent("a") is None:
            yield f"a reference leads nowhere: {reference.get_text(strip=True)}"
    for code in article.select("pre, code, script, style"):
        code.decompose()
    if found := re.search(r".{0,20}(\$\$|\{[a-z:]+\}`|\[\?\]).{0,20}", article.get_text()):
        yield f"mark-up was not understood: {found[0]!r}"
