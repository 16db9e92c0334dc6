"""The runner, with real kernels. Each notebook in `tests/notebooks/book` has one way to go wrong."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from hdm.errors import InputError
from hdm.executions import executed_path, executions
from hdm.notebooks import NotebookError, Progress, execute_notebooks, parse_parameters

NEVER_RUN = "no kernel is started for what is refused beforehand"


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with all the notebooks, of which a test names some in the table of contents."""
    monkeypatch.delenv("HDM_DATA", raising=False)
    monkeypatch.setattr("hdm.executions.PACKAGE", tmp_path / "package")  # whoever edits hdm meanwhile changes no result
    root = tmp_path / "a {project}"  # papermill fills braces in paths, if it is let
    shutil.copytree(repository / "tests" / "notebooks", root)
    (root / "_config.yml").touch()
    (root / "input.txt").write_text("input")
    return root


def list_pages(root: Path, *pages: str) -> None:
    chapters = "".join(f"- file: {page}\n" for page in pages)
    (root / "book" / "_toc.yml").write_text(f"format: jb-book\nroot: index\nchapters:\n{chapters}")


def printed(root: Path, name: str) -> str:
    """All text in the outputs of an executed notebook."""
    cells = nbformat.read(executed_path(name, "quick", root), as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.data.get("text/html", "") for output in outputs)


def status(root: Path) -> dict[str, str]:
    return {run["notebook"]: run["status"] for run in executions("quick", root)}


def test_runs_once_in_sight_and_shows_no_path(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list_pages(project, "report")
    made = project / "made" / "quick.txt"
    execute_notebooks("quick", parameters={"seed": 7}, root=project)

    live = capsys.readouterr().out
    assert re.search(r"^\[1/1\] report   cell 3/6   \d+:\d\d$", live, re.MULTILINE)
    assert "      | profile='quick' seed=7 note='a = b'\n" in live
    assert "      | a warning\n" in live
    assert live.splitlines()[-1].startswith("[1/1] report   done in ")

    text = printed(project, "report")
    assert "profile='quick' seed=7 note='a = b'" in text
    assert "./data\n<env>\n~/x\n<python>/os.py\n<tmp>\n" in text
    assert "&lt;env&gt;/bin" in text
    assert f"{project.name}-old, and ." in text  # another folder, whose name begins like that of the project
    assert "a warning" not in text
    whole = executed_path("report", "quick", project).read_text()
    for path in (project, sys.prefix, Path.home(), tempfile.gettempdir()):
        assert f"{path}/" not in whole
    assert "papermill" not in whole

    [run] = executions("quick", project)
    assert (run["status"], run["reused"], run["parameters"]) == ("done", False, {"seed": 7})
    assert run["seconds"] > 0
    assert sorted(path.name for path in (project / "_build/quick/executed").iterdir()) == [
        "executions.json",
        "report.ipynb",
    ]

    # Nothing changed: not run again, and the record says so.
    execute_notebooks("quick", parameters={"seed": 7}, root=project)
    assert capsys.readouterr().out == "[1/1] report   unchanged\n"
    assert made.read_text() == "run\n"
    [again] = executions("quick", project)
    assert again == {**run, "reused": True}

    # What it made is gone: run again, and the record is that of the new run.
    made.unlink()
    execute_notebooks("quick", parameters={"seed": 7}, root=project)
    assert made.read_text() == "run\n"
    [new] = executions("quick", project)
    assert not new["reused"]


def test_failed_cell_is_named_and_nothing_old_is_left(project: Path) -> None:
    list_pages(project, "broken", "report")
    execute_notebooks("quick", only=["broken"], parameters={"fail": False}, root=project)
    assert "the end" in printed(project, "broken")

    message = (
        r"^notebook 'broken' stopped in cell 3/4 \(`if fail:`\): KeyError: 'no such joint\\nand more'; "
        r"what it did is in _build/quick/executed/broken.failed.ipynb$"
    )
    with pytest.raises(NotebookError, match=message) as caught:
        execute_notebooks("quick", root=project)
    assert "\n" not in str(caught.value)
    executed = executed_path("broken", "quick", project)
    assert not executed.exists()
    assert "KeyError" in executed.with_name("broken.failed.ipynb").read_text()
    assert status(project) == {"broken": "failed", "report": "done"}  # the notebook after it has run all the same
    [broken, _] = executions("quick", project)
    assert broken["error"] == "KeyError: 'no such joint\\nand more'"
    assert broken["cell"] == "cell 3/4 (`if fail:`)"


def test_every_failure_is_told_at_the_end(project: Path) -> None:
    list_pages(project, "broken", "report", "leaves_early")
    (project / "input.txt").unlink()  # which the report declares
    with pytest.raises(NotebookError) as caught:
        execute_notebooks("quick", root=project)
    first, second, third = str(caught.value).split("; and ")
    assert first.startswith("notebook 'broken' stopped in cell 3/4")
    assert second.startswith("notebook 'report' stopped before its first cell: notebook 'report' declares the input")
    assert "failed.ipynb" not in second, "nothing ran, so nothing is kept"
    assert third.startswith("notebook 'leaves_early' stopped in cell 3/4")
    assert status(project) == dict.fromkeys(("broken", "report", "leaves_early"), "failed")

    # Mended, it runs alone, and the failures of the others stay known.
    (project / "input.txt").write_text("input")
    execute_notebooks("quick", only=["report"], root=project)
    assert status(project) == {"broken": "failed", "report": "done", "leaves_early": "failed"}


def test_dead_kernel(project: Path) -> None:
    list_pages(project, "dead_kernel")
    with pytest.raises(NotebookError, match=r"'dead_kernel' stopped in cell 3/3 \(`import os`\): the kernel died"):
        execute_notebooks("quick", root=project)
    assert not executed_path("dead_kernel", "quick", project).exists()
    assert status(project) == {"dead_kernel": "failed"}


def test_leaving_early_is_no_good_end(project: Path) -> None:
    list_pages(project, "leaves_early")
    with pytest.raises(NotebookError, match=r"'leaves_early' stopped in cell 3/4 .*: the cell left the notebook early"):
        execute_notebooks("quick", root=project)
    assert not executed_path("leaves_early", "quick", project).exists()


@pytest.mark.slow
def test_interruption_publishes_nothing_and_leaves_no_kernel(project: Path) -> None:
    list_pages(project, "slow")
    code = "from hdm.notebooks import execute_notebooks; execute_notebooks('quick')"
    environment = {**os.environ, "HDM_ROOT": str(project), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, a shell has them ignore interruption, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "working" in line:
            break
    assert seen[-1] == "      | working\n"
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert (
        errors.strip()
        .splitlines()[-1]
        .startswith("KeyboardInterrupt: notebook 'slow' stopped in cell 3/3 (`import time`): interrupted")
    )
    assert not executed_path("slow", "quick", project).exists()
    assert status(project) == {"slow": "interrupted"}
    _, alive = psutil.wait_procs(kernels, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("pages", "options", "message"),
    [
        (["report", "no_parameters"], {}, "notebook 'no_parameters' has no code cell tagged 'parameters'"),
        (["no_profile"], {}, "notebook 'no_profile': the cell tagged 'parameters' must assign `profile`"),
        (["syntax"], {}, "notebook 'syntax': the cell tagged 'parameters' is not valid Python"),
        (["report"], {"parameters": {"sed": 1}}, "unknown parameter 'sed': no parameters cell declares it in report"),
        (["report", "slow"], {"only": ["slow"], "parameters": {"seed": 1}}, "unknown parameter 'seed'"),
        (["report"], {"parameters": {"profile": "smoke"}}, "`profile` is not a parameter to be set"),
        (["report", "slow"], {"only": ["fast"]}, "unknown notebook 'fast': the table of contents has report, slow"),
        (["report"], {"profile": "paper"}, "unknown profile 'paper'"),
    ],
)
def test_refused_beforehand(project: Path, pages: list[str], options: dict[str, Any], message: str) -> None:
    list_pages(project, *pages)
    with pytest.raises(InputError, match=message):
        execute_notebooks(root=project, **options)
    assert not (project / "_build").exists(), NEVER_RUN


def test_parameters_are_read_as_yaml() -> None:
    assert parse_parameters(["seed=3", "losses=[hdm, bce]", "note=a=b", "rate=1.0e-3", "none="]) == {
        "seed": 3,
        "losses": ["hdm", "bce"],
        "note": "a=b",
        "rate": 1e-3,
        "none": None,
    }
    for wrong in ("seed", "=3", "two words=3", "losses=[hdm"):
        with pytest.raises(InputError, match="is not"):
            parse_parameters([wrong])


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = Progress("[2/7] data", cells=2, injected=1)
    progress.start_cell(nbformat.v4.new_code_cell("profile = 'quick'"), 0)
    progress.start_cell(nbformat.v4.new_code_cell("# injected"), 1)
    progress.start_cell(nbformat.v4.new_code_cell("\n# why\nrun()"), 2)
    progress.write("  0%|  |\r 50%|= |\r100%|==|\nepoch")
    progress.write(" 1\r\nlast")
    progress.close("done")
    erase = "\r\x1b[K"
    assert capsys.readouterr().out == (
        f"{erase}[2/7] data   cell 1/2   0:00{erase}[2/7] data   cell 2/2   0:00"
        f"{erase}      | 100%|==|\n{erase}      | epoch 1\n{erase}      | last\n{erase}[2/7] data   done\n"
    )
    assert progress.cell == "cell 2/2 (`run()`)"


def test_the_notebooks_of_this_test_hold_no_outputs(repository: Path) -> None:
    paths = sorted((repository / "tests" / "notebooks" / "book").glob("*.ipynb"))
    assert len(paths) > 5
    for path in paths:
        cells = json.loads(path.read_text())["cells"]
        assert not any(cell.get("outputs") for cell in cells), path
