"""The package as others install it: built as a wheel, put into its own environment, used far from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = ["--epochs", "1", "--batch-size", "4", "--set", "model=timm:test_resnet", "--set", "head_channels=4"]
LOSS = """
import torch
from hdm.losses import HDMLoss
heatmaps = torch.randn(2, 3, 16, 12, requires_grad=True)
HDMLoss()(heatmaps, torch.full((2, 3, 2), 5.25), torch.ones(2, 3)).backward()
assert heatmaps.grad.abs().sum() > 0
"""
CONTENT = """
from importlib import resources
import hdm
print(hdm.__version__, hdm.__file__)
for name in ("py.typed", "book.mplstyle", "data/manifest.yml"):
    assert resources.files("hdm").joinpath(name).is_file(), name
"""

Run = Callable[..., subprocess.CompletedProcess]


def done(*command: object, **options: object) -> subprocess.CompletedProcess:
    """Runs a command that must succeed."""
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.fixture(scope="module")
def environment(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, which sees the other packages of this one, but no editable install."""
    source, wheels, place = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "environment"))
    shutil.copytree(repository / "hdm", source / "hdm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    pip = (sys.executable, "-m", "pip")
    done(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source)
    done(sys.executable, "-m", "venv", "--without-pip", place)
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    done(*pip, "--python", place / "bin" / "python", "install", "--no-deps", "--no-index", *wheels.glob("hdm-*.whl"))
    return place


@pytest.fixture
def run(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a program of the environment in an empty folder."""
    for name in ("PYTHONPATH", "HDM_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return lambda program, *words: done(environment / "bin" / program, *words, cwd=tmp_path, env=dict(os.environ))


@pytest.mark.slow
def test_the_package_is_whole(environment: Path, run: Run) -> None:
    from hdm import __version__

    version, file = run("python", "-c", CONTENT).stdout.split()
    assert version == __version__
    assert Path(file).is_relative_to(environment), "not the checkout's"
    assert "export" in run("hdm", "--help").stdout
    run("python", "-W", "error::DeprecationWarning:hdm", "-c", LOSS)


@pytest.mark.slow
def test_data_training_and_use_need_no_checkout(run: Run, tmp_path: Path) -> None:
    run("hdm", "synth", "made", "--images", "8")
    run("hdm", "train", "synthetic:made", *TINY, "--set", "input_size=[64, 32]")
    [record] = tmp_path.glob("data/runs/local/*/run.json")
    assert '"commit": "unknown"' in record.read_text()
    assert "hdm" in run("hdm", "runs").stdout
    run("hdm", "predict", "made/val2017", "--checkpoint", record.parent, "--out", "found")
    assert (tmp_path / "found" / "results.json").is_file()
    run("hdm", "export", record.parent, "network.onnx")


@pytest.mark.slow
def test_what_needs_the_checkout_says_so(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HDM_ROOT", raising=False)
    ended = subprocess.run([environment / "bin" / "hdm", "book"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2
    [line] = ended.stderr.strip().splitlines()
    assert "change into the project or set HDM_ROOT" in line
