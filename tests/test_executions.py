"""What makes a notebook run again; no notebook runs here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hdm import executions as module
from hdm.errors import InputError
from hdm.executions import (
    declared_files,
    executed_path,
    executions,
    fingerprint,
    is_current,
    notebook_states,
    record_execution,
)
from hdm.files import write_whole

ANNOTATIONS = "data/generated/annotations/person_keypoints_val2017.json"


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HDM_DATA", raising=False)
    root = tmp_path / "project"
    shutil.copytree(repository / "tests" / "notebooks", root)
    (root / "book" / "_toc.yml").write_text("root: index\nchapters: [{file: report}, {file: figure}, {file: slow}]\n")
    for name in (
        "input.txt",
        ANNOTATIONS,
        "data/runs/quick/a/run.json",
        "package/losses.py",
        "package/models/hrnet.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    monkeypatch.setattr(module, "PACKAGE", root / "package")
    return root


def change_cell(root: Path, kind: str, text: str) -> None:
    path = root / "book" / "report.ipynb"
    notebook = json.loads(path.read_text())
    next(cell for cell in notebook["cells"] if cell["cell_type"] == kind)["source"] = text
    path.write_text(json.dumps(notebook))


def add_tag(root: Path) -> None:
    path = root / "book" / "report.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][2]["metadata"]["tags"] = ["hide-input"]
    path.write_text(json.dumps(notebook))


CHANGES: dict[str, Callable[[Path], object]] = {
    "code": lambda root: change_cell(root, "code", 'profile = "smoke"'),
    "prose": lambda root: change_cell(root, "markdown", "# Another title"),
    "tag": add_tag,
    "profile": lambda root: (root / "book" / "profiles" / "quick.yml").write_text("data: coco:data/generated\n"),
    "package": lambda root: (root / "package" / "models" / "hrnet.py").write_text("x = 1"),
    "new module": lambda root: (root / "package" / "new.py").write_text(""),
    "annotations": lambda root: (root / ANNOTATIONS).write_text('{"images": []}'),
    "run record": lambda root: (root / "data/runs/quick/a/run.json").write_text('{"seed": 1}'),
    "deleted record": lambda root: (root / "data/runs/quick/a/run.json").unlink(),
    "input": lambda root: (root / "input.txt").write_text("more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_follows_every_change(project: Path, change: str) -> None:
    before = fingerprint("report", "quick", {}, project)
    assert fingerprint("report", "quick", {}, project) == before
    CHANGES[change](project)
    assert fingerprint("report", "quick", {}, project) != before


def test_fingerprint_follows_parameters_and_environment(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [fingerprint("report", "quick", {"seed": seed}, project) for seed in (1, 2)]
    monkeypatch.setenv("HDM_LOSS", "bce")
    seen.append(fingerprint("report", "quick", {"seed": 1}, project))
    monkeypatch.setattr(module, "version", lambda package: f"{package} of tomorrow")
    seen.append(fingerprint("report", "quick", {"seed": 1}, project))
    assert len(set(seen)) == 4


def test_fingerprint_ignores_what_is_not_declared(project: Path) -> None:
    before = fingerprint("figure", "quick", {}, project)
    for change in ("annotations", "run record", "input"):
        CHANGES[change](project)
    assert fingerprint("figure", "quick", {}, project) == before


def declare(root: Path, name: str, **declared: list[str]) -> None:
    path = root / "book" / f"{name}.ipynb"
    notebook = json.loads(path.read_text())
    notebook["metadata"]["hdm"] = declared
    path.write_text(json.dumps(notebook))


def test_executions_of_the_others_are_an_input(project: Path) -> None:
    declare(project, "slow", inputs=["executions"])
    run = {"status": "done", "fingerprint": "f", "started": "2026-01-01", "seconds": 3.0}
    record_execution("figure", "quick", project, **run)
    before = fingerprint("slow", "quick", {}, project)
    record_execution("slow", "quick", project, **run)  # its own run is none
    record_execution("figure", "quick", project, reused=True)
    assert fingerprint("slow", "quick", {}, project) == before
    record_execution("figure", "quick", project, seconds=4.0)
    assert fingerprint("slow", "quick", {}, project) != before
    assert [run["notebook"] for run in executions("quick", project)] == ["figure", "slow"]
    assert executions("smoke", project) == []


def test_declared_files_of_a_profile(project: Path) -> None:
    declare(project, "slow", inputs=["data/runs/{profile}/*/run.json"], outputs=["made/nothing.txt"])
    [[(path, digest)]] = declared_files("inputs", "slow", "quick", project)
    assert path == "data/runs/quick/a/run.json"
    assert digest == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of the two bytes {}
    assert declared_files("outputs", "slow", "quick", project) == [[]]


def test_input_that_is_not_there(project: Path) -> None:
    (project / "input.txt").unlink()
    with pytest.raises(InputError, match=r"notebook 'report' declares the input 'input.txt', but .* has no such file"):
        fingerprint("report", "quick", {}, project)


def test_input_outside_of_the_project(project: Path) -> None:
    declare(project, "slow", inputs=[str(project / "input.txt")])
    with pytest.raises(InputError, match=r"notebook 'slow': input '.*' must be a path within the project"):
        fingerprint("slow", "quick", {}, project)


def test_current_until_something_changes(project: Path) -> None:
    made, executed = project / "made" / "quick.txt", executed_path("report", "quick", project)
    made.parent.mkdir()
    made.write_text("run\n")
    write_whole(executed, b"{}")
    assert not is_current("report", "quick", {}, project)
    mark, outputs = fingerprint("report", "quick", {}, project), declared_files("outputs", "report", "quick", project)
    record_execution("report", "quick", project, status="done", fingerprint=mark, outputs=outputs)
    assert is_current("report", "quick", {}, project)
    assert not is_current("report", "quick", {"seed": 2}, project)
    made.write_text("changed\n")
    assert not is_current("report", "quick", {}, project)
    made.write_text("run\n")
    record_execution("report", "quick", project, status="running")
    assert not is_current("report", "quick", {}, project)
    record_execution("report", "quick", project, status="done")
    executed.unlink()
    assert not is_current("report", "quick", {}, project)


def test_states_of_all_notebooks(project: Path) -> None:
    made, executed = project / "made" / "quick.txt", executed_path("report", "quick", project)
    made.parent.mkdir()
    made.write_text("run\n")
    write_whole(executed, b"{}")
    parameters = {"seed": 3}
    mark = fingerprint("report", "quick", parameters, project)
    outputs = declared_files("outputs", "report", "quick", project)
    run = {"parameters": parameters, "started": "2026-01-01T00:00:00+00:00", "seconds": 3.0}
    record_execution("report", "quick", project, **run, status="done", fingerprint=mark, outputs=outputs)
    record_execution("figure", "quick", project, **run | {"parameters": {}}, status="failed")
    report, figure, slow = notebook_states("quick", project)
    assert report == {"notebook": "report", "state": "current", **run}
    assert (figure["state"], slow["state"], slow["started"]) == ("failed", "never run", None)
    (project / "input.txt").unlink()  # without this input it cannot be run, and what is shown is out of date
    assert notebook_states("quick", project)[0]["state"] == "changed"
    assert not is_current("report", "quick", parameters, project)
    with pytest.raises(InputError, match="unknown profile 'fast'"):
        notebook_states("fast", project)


def test_public_address_is_an_input(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDM_REPOSITORY", raising=False)
    declare(project, "slow", inputs=["repository"])
    assert declared_files("inputs", "slow", "quick", project) == [[[None]]]
    monkeypatch.setenv("HDM_REPOSITORY", "https://github.com/someone/heatmaps")
    assert declared_files("inputs", "slow", "quick", project) == [[["https://github.com/someone/heatmaps"]]]


def test_damaged_list_of_executions(project: Path) -> None:
    write_whole(project / "_build" / "quick" / "executed" / "executions.json", b'{"report": ')
    with pytest.raises(InputError, match=r"executions.json is damaged: delete it, and every notebook runs again"):
        executions("quick", project)
