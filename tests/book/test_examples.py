"""The examples of the chapter on reuse run as they stand in the book."""

import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "book" / "examples"


@pytest.fixture(autouse=True)
def _numbers_repeat(one_thread: None) -> None:
    """With several threads sums differ in their last digits."""


def example(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_every_example_is_shown() -> None:
    shown = re.findall(r"literalinclude\} examples/(\w+)\.py", (ROOT / "book" / "reuse.md").read_text())
    assert sorted(set(shown)) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
def test_a_plain_loop_learns_to_find_dots() -> None:
    before, after = example("plain_pytorch")["main"]()
    assert before > 10
    assert after < 2


@pytest.mark.slow
def test_lightning_learns_people(small_data: str) -> None:
    pytest.importorskip("lightning")
    before, after = example("lightning_module")["main"](small_data, epochs=6)
    assert after < 0.9 * before


@pytest.mark.slow
def test_vitpose_takes_steps_down() -> None:
    pytest.importorskip("transformers")
    values, joints = example("vitpose")["main"]()
    assert len(values) == 3 and values[0] > values[1] > values[2] > 0
    assert joints.shape == (4, 17, 2)
    assert (joints >= 0).all() and (joints <= torch.tensor([11.0, 15.0])).all()


@pytest.mark.slow
def test_timm_backbones_get_a_gradient() -> None:
    pytest.importorskip("timm")
    module = example("timm_features")
    network = module["OwnHead"]()
    assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 21, 16, 24)
    values = module["main"]()
    assert set(values) == {"ready made", "own head"} and all(0 < value < 40 for value in values.values())


@pytest.mark.slow
def test_mmpose_trains_and_reads_with_it() -> None:
    """mmpose's own `HeatmapHead`, `GenerateTarget` and `PackPoseInputs`, under another python."""
    python = os.environ.get("HDM_MMPOSE_PYTHON")
    if not python:
        pytest.skip("HDM_MMPOSE_PYTHON names no python with mmpose (and jaxtyping, which hdm needs)")
    done = subprocess.run(
        [python, "-W", "ignore", Path(__file__).with_name("mmpose_step.py"), EXAMPLES],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["labels"] == [2, 17, 2]
    assert answer["weights"] == [15, 15]  # of 17, one hidden and one off the crop
    first, second, third = answer["losses"]
    assert first > second > third > 0
    assert answer["error"] < 1e-3  # crop pixels: the decoder inverts the encoder
