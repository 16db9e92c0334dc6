"""The examples of the chapter on reuse run as they stand in the book."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm.encode import encode

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


class Registry(dict):
    """What the example asks of mmengine's registries: a decorator that keeps classes by their names."""

    def register_module(self) -> Callable[[type], type]:
        return lambda kind: self.setdefault(kind.__name__, kind)


class Head(nn.Module):
    """What the example asks of mmpose's `HeatmapHead`: maps from features, a loss, and a codec that decodes."""

    def __init__(self, loss: nn.Module, decoder: Any) -> None:
        super().__init__()
        self.loss_module, self.decoder = loss, decoder

    def forward(self, feats: tuple[Tensor]) -> Tensor:
        return feats[-1]

    def decode(self, batch_outputs: Tensor) -> list:
        return [self.decoder.decode(outputs) for outputs in batch_outputs.numpy()]


def test_the_pieces_for_mmpose_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mmpose, on stand-ins for the three names that the example takes from it: codec, loss and head agree on
    units and masks. That they also agree with mmpose is what the next test says."""
    stand_ins = {
        "mmpose.codecs.base": {"BaseKeypointCodec": object},
        "mmpose.models.heads": {"HeatmapHead": Head},
        "mmpose.registry": {"KEYPOINT_CODECS": Registry(), "MODELS": Registry()},
    }
    for name, content in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    given = example("mmpose_hdm")
    codecs, models = given["KEYPOINT_CODECS"], given["MODELS"]
    settings = dict(given["CODEC"])
    codec = codecs[settings.pop("type")](**settings)
    head = models[given["CONFIG"]["head"]["type"]](models[given["CONFIG"]["head"]["loss"]["type"]](), codec)

    keypoints = np.random.default_rng(0).uniform((8, 8), (180, 240), (2, 17, 2))
    keypoints[0, 3] = (-9, 20)  # off the crop
    visible = np.ones((2, 17))
    visible[1, 5] = 0
    encoded = [codec.encode(keypoints[[n]], visible[[n]]) for n in range(2)]
    labels = [SimpleNamespace(**{key: torch.from_numpy(value) for key, value in one.items()}) for one in encoded]
    samples = [SimpleNamespace(gt_instance_labels=label) for label in labels]
    joints = torch.cat([label.keypoint_labels for label in labels])
    weights = torch.cat([label.keypoint_weights for label in labels])
    assert weights.sum(1).tolist() == [16, 16]
    on_map = joints.clamp(min=0).minimum(torch.tensor([47.0, 63.0]))
    maps = (encode(on_map, (64, 48), "local") + 1e-12).log()  # a softmax has the joints' own four pixels
    found = np.stack([person for person, _ in head.decode(maps)])[:, 0]
    shown = weights.numpy() > 0
    np.testing.assert_allclose(found[shown], keypoints[shown], atol=1e-3)
    assert head.loss((maps,), samples)["loss_kpt"] < 1e-3
    far = torch.zeros(2, 17, 64, 48, requires_grad=True)
    head.loss((far,), samples)["loss_kpt"].backward()
    assert ((far.grad.flatten(2).abs().sum(-1) > 0) == (weights > 0)).all()
    for label in labels:
        label.keypoint_weights.zero_()
    assert head.loss((far,), samples)["loss_kpt"] == 0


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
