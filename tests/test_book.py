"""A small book, executed and set for real, and every fault that `check_pages` must find in it."""

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from hdm import book
from hdm.book import build_html, check_pages, run_book
from hdm.errors import InputError
from hdm.executions import executed_path, record_execution
from hdm.notebooks import NotebookError

pytestmark = pytest.mark.timeout(300)  # one test waits for two kernels and for Sphinx


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Path]:
    """Two notebooks and a page, set with the configuration, style and references of the real book."""
    root = tmp_path_factory.mktemp("book") / "project"
    shutil.copytree(repository / "tests" / "notebooks", root)
    shutil.copy(repository / "_config.yml", root)
    shutil.copy(repository / "book" / "references.bib", root / "book")
    for folder in ("_static", "_templates"):
        shutil.copytree(repository / "book" / folder, root / "book" / folder)
    (root / "input.txt").write_text("input")
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nchapters: [{file: figure}, {file: report}]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hdm.executions.PACKAGE", root / "package")  # whoever edits hdm meanwhile changes no result
        assert run_book("quick", root=root) == root / "_build" / "quick" / "html" / "index.html"
        yield root


@pytest.fixture
def html(project: Path) -> Path:
    return project / "_build" / "quick" / "html"


def test_book_is_fit_to_read(project: Path, html: Path) -> None:
    assert check_pages("quick", project) == []
    page = BeautifulSoup((html / "figure.html").read_text(), "html.parser")
    assert "Heatmap Distribution Matching" in page.title.get_text()
    assert len(page.select("article img")) == 1
    assert page.select("article table.dataframe")
    assert [link["href"] for link in page.select("article p a.internal")] == [
        "index.html#equation-cost",
        "index.html#id2",
    ]
    assert "papermill" not in page.get_text()


def test_formulas_are_drawn_without_a_network(html: Path) -> None:
    for name, formulas in (("index", True), ("figure", True), ("report", False)):
        page = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
        scripts = [script["src"].partition("?")[0] for script in page.select("script[src]")]
        assert all((html / script).is_file() for script in scripts), scripts
        assert bool(page.select(".math")) == formulas
        assert any("mathjax" in script for script in scripts) == formulas
    assert list(html.glob("_static/mathjax/**/*.woff")), "MathJax without its letters"


def test_a_page_loads_its_icons_once_and_mathjax_in_parts(html: Path) -> None:
    page = BeautifulSoup((html / "figure.html").read_text(), "html.parser")
    loaded = [part.get("src") or part.get("href") for part in page.select("script[src], link[href]")]
    assert [address for address in loaded if "fontawesome" in address and "css/all.min.css" in address]
    assert not [address for address in loaded if re.search("fontawesome.*js|woff|thebe.*js|tex-chtml", address)]
    assert [address for address in loaded if "mathjax/startup.js" in address]


def test_nothing_is_set_twice(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (project / "_build" / "quick" / "html" / "index.html").stat().st_mtime_ns
    first = run_book("quick", root=project)
    assert capsys.readouterr().out.splitlines() == [
        "[1/2] figure   unchanged",
        "[2/2] report   unchanged",
        "the pages are up to date",
    ]
    assert first.stat().st_mtime_ns == before


def test_pages_of_changed_notebooks_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "input.txt").write_text("changed")
    try:
        run_book("quick", only=["figure"], root=project)
    finally:
        (project / "input.txt").write_text("input")
    assert (
        "note: report changed since it was executed; build the whole book to renew its page" in capsys.readouterr().out
    )


def test_without_html_the_pages_stay(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_book("quick", html=False, root=project).is_file()
    assert "pages" not in capsys.readouterr().out


# What is done to a built book, and what the check must then say.
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "page": (
        lambda build: (build / "html/report.html").unlink(),
        r"^report: there is no page _build/quick/html/report.html",
    ),
    "first page": (lambda build: (build / "html/index.html").unlink(), "^index: there is no page"),
    "image": (lambda build: image(build).unlink(), r"^figure: the figure _images/\w+.png is missing or empty"),
    "empty image": (
        lambda build: image(build).write_bytes(b""),
        r"^figure: the figure _images/\w+.png is missing or empty",
    ),
    "no image": (
        lambda build: edit(build, "figure", r"<img [^>]*>", ""),
        "^figure: the page has 0 figures and should have 1 or more",
    ),
    "no alternative text": (
        lambda build: edit(build, "figure", r'alt="[^"]*"', 'alt=""'),
        r"^figure: the figure _images/\w+.png has no alternative text: give its cell one",
    ),
    "no title": (lambda build: edit(build, "report", r"(?s)<h1>.*?</h1>", ""), "^report: the page has no title"),
    "traceback": (
        lambda build: add(build, "report", "<pre>Traceback (most recent call last): ...</pre>"),
        "^report: a traceback is shown",
    ),
    "error output": (
        lambda build: add(build, "index", '<div class="output traceback">ValueError</div>'),
        "^index: a traceback is shown",
    ),
    "path": (
        lambda build: add(build, "report", f"<pre>{sys.prefix}/bin/python</pre>"),
        "^report: a path of this machine is shown: /.*/bin/python",
    ),
    "script": (
        lambda build: add(build, "index", '<script src="https://cdn.example.org/a.js"></script>'),
        "^index: the page loads https://cdn.example.org/a.js from the network",
    ),
    "style": (
        lambda build: add(build, "index", '<link rel="stylesheet" href="//cdn.example.org/a.css">'),
        "^index: the page loads //cdn.example.org/a.css from the network",
    ),
    "formula": (
        lambda build: add(build, "report", "<p>The cost is $$x + y$$.</p>"),
        r"^report: mark-up was not understood: 'The cost is \$\$x \+ y",
    ),
    "role": (lambda build: add(build, "report", "<p>See {numref}`fig`.</p>"), "^report: mark-up was not understood"),
    "reference": (
        lambda build: add(build, "report", '<p>See <span class="xref std std-ref">the method</span>.</p>'),
        "^report: a reference leads nowhere: the method",
    ),
    "stale page": (
        lambda build: (build / "executed/figure.ipynb").open("a").write("\n"),
        "^figure: the page is older than the last run of its notebook",
    ),
    "failed run": (
        lambda build: record_execution("figure", "quick", build.parents[1], status="failed"),
        r"^figure: the notebook was not executed to its end \(last run: failed\); its page only says so",
    ),
    "no executed copy": (
        lambda build: (build / "executed/figure.ipynb").unlink(),
        r"^figure: the notebook was not executed to its end \(last run: done\)",
    ),
}


def image(build: Path) -> Path:
    [found] = (build / "html/_images").iterdir()
    return found


def edit(build: Path, page: str, pattern: str, replacement: str) -> None:
    path = build / "html" / f"{page}.html"
    text, times = re.subn(pattern, replacement, path.read_text())
    assert times, f"{pattern} is not on the page"
    path.write_text(text)


def add(build: Path, page: str, markup: str) -> None:
    edit(build, page, "</article>", f"{markup}</article>")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_alone(project: Path, fault: str) -> None:
    damage, problem = FAULTS[fault]
    build = project / "_build" / "quick"
    parts = [build / "executed", *build.glob("html/*.html"), *build.glob("html/_images/*")]
    files = [file for part in parts for file in ([part] if part.is_file() else part.iterdir())]
    before = {file: file.read_bytes() for file in files}
    try:
        damage(build)
        problems = check_pages("quick", project)
    finally:
        for file, content in before.items():
            file.write_bytes(content)
    assert len(problems) == 1
    assert re.search(problem, problems[0]), problems
    assert check_pages("quick", project) == []


def test_pages_that_need_a_figure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "FIGURE_PAGES", ("report", "figure"))
    assert check_pages("quick", project) == ["report: the page has 0 figures and should have 1 or more"]


def test_check_of_a_profile_never_built(project: Path) -> None:
    (project / "book" / "profiles" / "smoke.yml").write_text("epochs: 1\n")
    assert check_pages("smoke", project) == [
        "index: there is no page _build/smoke/html/index.html",
        "figure: the notebook was not executed to its end (last run: none)",
        "report: the notebook was not executed to its end (last run: none)",
    ]
    with pytest.raises(InputError, match="unknown profile 'fast'"):
        check_pages("fast", project)


def test_notebook_never_executed_is_not_set(project: Path) -> None:
    with pytest.raises(InputError, match="notebook 'figure' has not been executed under profile 'smoke'"):
        build_html("smoke", project)


def test_warning_stops_the_build_and_leaves_no_pages(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("mathjax"))
    page = root / "book" / "index.md"
    page.write_text(page.read_text() + "\nSee {eq}`nowhere`.\n")
    with pytest.raises(InputError, match=r"^Jupyter Book stopped: .*index.md.*nowhere.* \(all of it in _build/quick/"):
        build_html("quick", root)
    assert not (root / "_build" / "quick" / "html").exists()
    assert [problem.partition(":")[0] for problem in check_pages("quick", root)] == ["index", "figure", "report"]


def test_hidden_figures_do_not_count(project: Path, tmp_path: Path) -> None:
    notebook = json.loads(executed_path("figure", "quick", project).read_text())
    path = tmp_path / "figure.ipynb"
    counts = []
    for tags in ([], ["hide-input"], ["remove-output"], ["remove-cell"]):
        for cell in notebook["cells"]:
            cell["metadata"]["tags"] = tags
        path.write_text(json.dumps(notebook))
        counts.append(book._count_figures(path))
    assert counts == [1, 1, 0, 0]


@pytest.mark.slow
def test_failed_chapter_does_not_take_the_others_with_it(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page of the figure loses its notebook; the first page links to it, and the report refers to its equation."""
    root = tmp_path / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("mathjax", "jupyter-book"))
    edit_source(root, "figure", 0, "The cost of a heatmap", "$$ a = b $$ (ours)\n\nThe cost of a heatmap")
    edit_source(
        root,
        "figure",
        2,
        "import matplotlib",
        f'raise OSError("no file {tempfile.gettempdir()}/a")\nimport matplotlib',
    )
    edit_source(root, "report", 0, "where it runs", "where it runs\n\nSee [the figure](figure) and {eq}`ours`.")
    with pytest.raises(
        NotebookError, match=r"^notebook 'figure' stopped in cell 3/4 .*OSError: no file .*failed.ipynb$"
    ):
        run_book("quick", only=["figure", "report"], root=root)
    assert "note: figure failed; a page in its place says so" in capsys.readouterr().out
    pages = root / "_build" / "quick" / "html"
    stand_in = BeautifulSoup((pages / "figure.html").read_text(), "html.parser").find("article").get_text()
    for told in (
        "A figure",
        "stopped in cell 3/4",
        "OSError: no file <tmp>/a",
        "hdm book --profile quick --only figure",
    ):
        assert told in stand_in
    assert "_build/quick/executed/figure.failed.ipynb" in stand_in
    report = BeautifulSoup((pages / "report.html").read_text(), "html.parser")
    assert report.select_one("article p a[href='figure.html']")
    chapter, reference = check_pages("quick", root)
    assert chapter.startswith("figure: the notebook was not executed to its end")
    assert reference.startswith("report: a reference leads nowhere")

    # A fault of another page still stops the build.
    (root / "book" / "index.md").write_text("# A small book\n\nSee {eq}`nowhere`.\n\n```{bibliography}\n```\n")
    with pytest.raises(InputError, match=r"^Jupyter Book stopped: .*index.md.*nowhere"):
        build_html("quick", root)


def edit_source(root: Path, name: str, cell: int, old: str, new: str) -> None:
    path = root / "book" / f"{name}.ipynb"
    notebook = json.loads(path.read_text())
    source = "".join(notebook["cells"][cell]["source"])
    assert old in source
    notebook["cells"][cell]["source"] = source.replace(old, new, 1)
    path.write_text(json.dumps(notebook))
