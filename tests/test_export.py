"""Networks as ONNX files, run by onnxruntime: the same maps, and a file that says how to read joints from them."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy import ndarray
from torch import Tensor, nn

from hdm import predict
from hdm.assess import Trained, load_network
from hdm.cli import main
from hdm.data import COCO, MPII
from hdm.errors import InputError
from hdm.export import check_onnx, export_onnx
from hdm.losses import make_loss
from hdm.models import PoseNetwork, build_model
from hdm.models.network import HEAD
from hdm.pixels import box_affine, invert_affine
from hdm.train import TrainConfig, train

SIZE = (64, 96)


@pytest.fixture
def network() -> Callable[..., Trained]:
    def make(model: str = "timm:test_resnet", loss: str = "hdm", joints: int = 5, **settings: Any) -> Trained:
        built = build_model(model, joints=joints, head_channels=8, **settings) if "hrnet" not in model else None
        built = built or build_model(model, joints=joints)
        for name, weight in built.named_parameters():
            if weight.ndim == 4 and (name.startswith(HEAD) or "hrnet" in model):
                nn.init.kaiming_normal_(weight)  # as if trained: maps with peaks
        return Trained(built.eval(), make_loss(loss).eval(), "some weights", SIZE, "half_pixel", "local")

    return make


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def same_maps(trained: Trained, path: Path, batches: tuple[int, ...] = (1, 2, 5)) -> None:
    """onnxruntime and PyTorch agree on images in [0, 1] that the export has not seen."""
    run = session(path)
    for batch in batches:
        pixels = torch.randint(0, 256, (batch, 3, *SIZE), dtype=torch.uint8)
        with torch.no_grad():
            heatmaps = trained.model(trained.model.prepare(pixels))
            maps = trained.loss.maps(heatmaps)  # type: ignore[operator]
        found = run.run(["heatmaps", "maps"], {"images": pixels.numpy().astype(np.float32) / 255})
        assert found[0].shape == (batch, trained.joints, SIZE[0] // 4, SIZE[1] // 4)
        assert heatmaps.std() > 1e-3, "of constant maps nothing could be said"
        assert np.abs(found[0] - heatmaps.numpy()).max() < 1e-4 * max(1, float(heatmaps.abs().max()))
        assert np.abs(found[1] - maps.numpy()).max() < 1e-4 * max(1, float(maps.abs().max()))


@pytest.mark.parametrize(
    ("model", "loss", "colour"), [("resnet18", "gaussian_mse", "bgr"), ("timm:test_resnet", "hdm", "rgb")]
)
def test_the_same_maps(network: Callable[..., Trained], tmp_path: Path, model: str, loss: str, colour: str) -> None:
    trained = network(model, loss, colour=colour)
    path = export_onnx(trained, tmp_path / "new" / "network.onnx")
    same_maps(trained, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["network.onnx"]
    assert not trained.model.training
    assert [entry.shape for entry in session(path).get_inputs()] == [["B", 3, *SIZE]]


@pytest.mark.slow
def test_an_hrnet(network: Callable[..., Trained], tmp_path: Path) -> None:
    trained = network("hrnet_w32", "gaussian_mse")
    same_maps(trained, export_onnx(trained, tmp_path / "network.onnx", check=False), (1, 3))


@pytest.mark.parametrize("loss", ["cross_entropy", "js", "integral", "dsnt"])
def test_what_a_decoder_reads_is_in_the_graph(network: Callable[..., Trained], tmp_path: Path, loss: str) -> None:
    """The maps of each loss, in batches of other sizes than the traced one."""
    trained = network(loss=loss)
    same_maps(trained, export_onnx(trained, tmp_path / "network.onnx", check=False), (1, 3))


def test_the_file_says_how_it_is_used(network: Callable[..., Trained], tmp_path: Path) -> None:
    trained = dataclasses.replace(network(loss="gaussian_mse", joints=16), trained_on=MPII)
    path = export_onnx(trained, tmp_path / "network.onnx", opset=16)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.opset_import[0].version == 16
    said = session(path).get_modelmeta().custom_metadata_map
    assert json.loads(said["joint_names"]) == list(MPII.names)
    assert json.loads(said["flip_pairs"]) == [list(pair) for pair in MPII.flip_pairs]
    assert (said["decoder"], said["convention"], said["colour"]) == ("local", "half_pixel", "rgb")
    assert (json.loads(said["input_size"]), json.loads(said["heatmap_stride"])) == (list(SIZE), 4)
    assert json.loads(said["sigma"]) == trained.loss.sigma
    assert json.loads(said["mean"]) == pytest.approx(trained.model.mean.flatten().tolist(), abs=1e-3)


# --- the user's side: joints with nothing but the file, numpy and OpenCV


def joints_by_numpy(path: Path, picture: ndarray, box: tuple[float, ...]) -> ndarray:
    """What `predict` does with the decoder `local`, as somebody without PyTorch would write it."""
    run = session(path)
    said = run.get_modelmeta().custom_metadata_map
    rows, columns = json.loads(said["input_size"])
    stride = json.loads(said["heatmap_stride"])
    affine = box_affine(box, (rows, columns), convention=said["convention"], padding=json.loads(said["padding"]))
    crop = cv2.warpAffine(picture, affine, (columns, rows), flags=cv2.INTER_LINEAR)
    images = crop.transpose(2, 0, 1)[None].astype(np.float32) / 255
    [maps] = run.run(["maps"], {"images": images})[0]
    joints = np.zeros((len(maps), 2))
    for k, mass in enumerate(np.pad(maps, ((0, 0), (1, 1), (1, 1)))):
        y, x = np.unravel_index(mass.argmax(), mass.shape)
        near = mass[y - 1 : y + 2, x - 1 : x + 2].astype(np.float64)
        step = np.array([near.sum(0) @ [-1, 0, 1], near.sum(1) @ [-1, 0, 1]]) / near.sum()
        joints[k] = (np.array([x, y]) - 1 + step + 0.5) * stride - 0.5
    inverse = invert_affine(affine)
    return joints @ inverse[:, :2].T + inverse[:, 2]


def test_a_trained_network_gives_the_joints_of_predict(
    small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"model": "timm:test_resnet", "head_channels": 8, "input_size": (64, 32), "epochs": 1}
    config = TrainConfig(
        small_data, loss="hdm", decoder="local", heatmap_stride=8, train_limit=8, val_limit=4, device="cpu", **settings
    )
    run = train(config, log=lambda line: None, progress=False)
    assert main(["export", str(run.folder), "network.onnx"]) == 0
    assert f"joint_names: {json.dumps(COCO.names)}" in capsys.readouterr().out
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8), (9, 9), 3)
    box = (10.0, 12.0, 20.0, 40.0)  # about as many pixels as the crop, so that none are averaged
    expected = predict(picture, run.folder, boxes=[box]).joints[0]
    assert np.ptp(expected, axis=0).min() > 1
    assert joints_by_numpy(Path("network.onnx"), picture, box) == pytest.approx(expected, abs=0.05)
    assert load_network(run.folder).decoder == "local"


# --- refusals


class Branches(PoseNetwork):
    """Sums its batch where there are few images: a trace knows only one of the two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(3, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.final_layer(images[..., ::4, ::4])
        return maps if len(images) < 3 else 2 * maps


class NotInOnnx(Branches):
    def forward(self, images: Tensor) -> Tensor:
        return torch.special.i1(super().forward(images))


def test_a_file_that_computes_something_else_is_not_written(network: Callable[..., Trained], tmp_path: Path) -> None:
    trained = dataclasses.replace(network(), model=Branches().eval())
    path = tmp_path / "network.onnx"
    path.write_bytes(b"older")
    with pytest.raises(InputError, match="in a batch of 3 its heatmaps differ by .* nothing was written"):
        export_onnx(trained, path)
    assert path.read_bytes() == b"older" and [entry.name for entry in tmp_path.iterdir()] == ["network.onnx"]
    export_onnx(trained, path, check=False)
    assert path.read_bytes() != b"older"


def test_damaged_weights_are_seen(network: Callable[..., Trained], tmp_path: Path) -> None:
    trained = network()
    graph = onnx.load(export_onnx(trained, tmp_path / "network.onnx"))
    check_onnx(trained, graph.SerializeToString())
    [bias] = [entry for entry in graph.graph.initializer if entry.name.endswith("final_layer.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    with pytest.raises(InputError, match="differ by 0.01 from PyTorch's, where"):
        check_onnx(trained, graph.SerializeToString())


def test_what_cannot_be_exported(network: Callable[..., Trained], tmp_path: Path) -> None:
    simcc = dataclasses.replace(network(), loss=make_loss("simcc", size=(16, 24)))
    with pytest.raises(InputError, match=r"reads joints without heatmaps \(SimCC\)"):
        export_onnx(simcc, tmp_path / "network.onnx")
    with pytest.raises(InputError, match=r"can't be exported with opset 17 .*i1.* choose another opset"):
        export_onnx(dataclasses.replace(network(), model=NotInOnnx().eval()), tmp_path / "network.onnx")
    with pytest.raises(InputError, match="can't be exported with opset 1000"):
        export_onnx(network(), tmp_path / "network.onnx", opset=1000)
    assert not list(tmp_path.iterdir())


def test_without_the_extra(network: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'hdm\[export\]'"):
        export_onnx(network(), tmp_path / "network.onnx")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.safetensors", "out.onnx"], "can't be read"),
        (["missing.pth", "out.onnx"], "name the model too"),
        (["missing.pth", "out.onnx", "--model", "resnet50"], "are not there"),
        ([".", "out.onnx", "--model", "resnet50"], "leave --model out"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("hdm export: ") and said in line
