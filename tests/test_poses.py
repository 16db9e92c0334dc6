"""A picture in, people out: with a network that sees bright spots, so that the answer is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from hdm import predict
from hdm.assess import Trained, load_network
from hdm.data.skeletons import COCO
from hdm.errors import InputError
from hdm.figures import COLOURS
from hdm.losses import GaussianMSE, make_loss
from hdm.models import PoseNetwork
from hdm.poses import Poses, predict_all
from hdm.train import TrainConfig, train
from hdm.train.checkpoint import saved_states

SIZE = (64, 48)


class SeesSpots(PoseNetwork):
    """Even joints are where red is brightest, odd ones where green is."""

    def __init__(self, stride: int = 4, joints: int = 17) -> None:
        super().__init__()
        self.stride, self.final_layer = stride, nn.Conv2d(1, joints, 1)

    def forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        seen = functional.avg_pool2d(images * std + mean, self.stride).clamp(min=0)
        return seen[:, [k % 2 for k in range(self.final_layer.out_channels)]]


@pytest.fixture
def network() -> Callable[..., Trained]:
    def make(stride: int = 4, joints: int = 17) -> Trained:
        loss = GaussianMSE(sigma=1.0, rounded=False)
        return Trained(SeesSpots(stride, joints).eval(), loss, "spots", SIZE, "half_pixel", "dark", stride)

    return make


def spots(size: tuple[int, int], *people: tuple[tuple[float, float], tuple[float, float]], width: float) -> ndarray:
    """A black picture with a red and a green spot for each person, as smooth as DARK takes them to be."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    picture = np.zeros((*size, 3))
    for person in people:
        for channel, (x, y) in enumerate(person):
            picture[..., channel] += 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    return picture.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("zoom", [1, 3])
@pytest.mark.parametrize("stride", [4, 8])
def test_joints_are_found_where_they_are(network: Callable[..., Trained], stride: int, zoom: int) -> None:
    """Two people, in a picture so large that it is reduced, and in a small one; a few pixels of the crop are a few
    times as many of the picture."""
    people = [((62.0, 81.0), (71.0, 99.0)), ((150.0, 40.0), (136.0, 57.0))]
    people = [tuple((x * zoom, y * zoom) for x, y in person) for person in people]
    boxes = [(40 * zoom, 60 * zoom, 48 * zoom, 64 * zoom), (118 * zoom, 20 * zoom, 48 * zoom, 64 * zoom)]
    picture = spots((140 * zoom, 200 * zoom), *people, width=1.25 * stride * zoom)
    poses = predict(picture, network(stride), boxes=boxes, batch_size=1)
    assert len(poses) == 2 and poses.joints.shape == (2, 17, 2) and poses.scores.shape == (2, 17)
    expected = np.array([[person[k % 2] for k in range(17)] for person in people])
    assert np.abs(poses.joints - expected).max() < 0.15 * stride * zoom
    assert np.array_equal(poses.boxes, boxes) and poses.skeleton == COCO


def test_without_boxes_the_picture_is_a_person(network: Callable[..., Trained], tmp_path: Path) -> None:
    """And a file is read as its pixels are."""
    picture = spots((128, 96), ((30.0, 60.0), (50.0, 90.0)), width=12.0)
    poses = predict(picture, network())
    assert poses.boxes.tolist() == [[0, 0, 96, 128]]
    assert np.abs(poses.joints[0, :2] - [[30, 60], [50, 90]]).max() < 1
    path = tmp_path / "a picture.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    assert np.array_equal(predict(str(path), network()).joints, poses.joints)


def test_nobody(network: Callable[..., Trained]) -> None:
    poses = predict(np.zeros((20, 30, 3), np.uint8), network(), boxes=[])
    assert len(poses) == 0 and poses.coco_results(1) == []
    assert np.array_equal(poses.draw(), poses.picture)


def test_a_flip_test_and_heatmaps(network: Callable[..., Trained]) -> None:
    picture = spots((128, 96), ((30.0, 60.0), (50.0, 90.0)), width=12.0)
    plain, both = (predict(picture, network(), flip_test=flip, heatmaps=True) for flip in (False, True))
    assert plain.heatmaps is not None and plain.heatmaps.shape == (1, 17, 16, 12)
    # A mirrored left eye is a right eye: the network, which tells joints by colour, sees it elsewhere.
    assert both.heatmaps is not None and not torch.allclose(both.heatmaps, plain.heatmaps)
    assert torch.allclose(both.heatmaps[:, 0], plain.heatmaps[:, 0], atol=1e-3)
    assert predict(picture, network()).heatmaps is None


def test_a_skeleton_that_is_not_known(network: Callable[..., Trained]) -> None:
    picture = spots((128, 96), ((30.0, 60.0), (50.0, 90.0)), width=12.0)
    poses = predict(picture, network(joints=5))
    assert poses.skeleton.names == ("joint_1", "joint_2", "joint_3", "joint_4", "joint_5")
    assert not np.array_equal(poses.draw(), picture), "its joints are drawn"
    with pytest.raises(InputError, match="a flip test needs to know which joints change places"):
        predict(picture, network(joints=5), flip_test=True)


# --- what is shown


def test_a_drawing_has_the_sides_colours_and_leaves_out_what_is_not_certain() -> None:
    joints = np.full((1, 17, 2), -100.0)
    joints[0, 5:7] = (20.0, 30.0), (60.0, 30.0)  # left and right shoulder
    scores = np.zeros((1, 17))
    scores[0, 5:7] = 0.9, 0.5
    poses = Poses(np.zeros((80, 100, 3), np.uint8), np.ones((1, 4)), joints, scores, COCO)
    drawn = poses.draw()
    for place, side in (((30, 20), "left"), ((30, 60), "right"), ((30, 40), "middle")):
        assert np.abs(drawn[place].astype(float) / 255 - to_rgb(COLOURS[side])).max() < 0.1, (
            side
        )  # a thin line is blurred
    assert not drawn[60:].any()
    certain = poses.draw(least_score=0.7)
    assert certain[30, 20].any() and not certain[30, 40].any() and not certain[30, 60].any()
    assert not poses.picture.any(), "the picture itself stays as it is"
    shown = cv2.imdecode(np.frombuffer(poses._repr_png_(), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(shown[..., ::-1], drawn)
    assert repr(poses) == "Poses(1 x 17 joints in a picture of 100 x 80 pixels)"


def test_results_in_the_format_of_the_coco_task() -> None:
    joints, scores = np.arange(68.0).reshape(2, 17, 2), np.linspace(0, 1, 34).reshape(2, 17)
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8.0]])
    first, second = Poses(np.zeros((8, 8, 3), np.uint8), boxes, joints, scores, COCO).coco_results(42)
    assert first["image_id"] == 42 and first["category_id"] == 1 and second["bbox"] == [5, 6, 7, 8]
    assert np.array(second["keypoints"]).reshape(17, 3) == pytest.approx(
        np.column_stack([joints[1], scores[1]]), abs=1e-3
    )
    assert first["score"] == pytest.approx(scores[0].mean(), abs=1e-5)


# --- folders and videos


def test_a_folder_with_boxes(network: Callable[..., Trained], tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("000000000139.png", "street.png", "empty.png"):
        cv2.imwrite(str(folder / name), spots((128, 96), ((30.0, 60.0), (50.0, 90.0)), width=12.0)[..., ::-1])
    (folder / "notes.txt").write_text("no picture")
    whole = [0, 0, 96, 128]
    entries = [
        {"image_id": 139, "bbox": whole, "score": 0.9},
        {"image_id": 139, "bbox": whole, "score": 0.1},
        {"image_id": "street.png", "bbox": whole},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    pictures, people = predict_all(
        folder, network(), out, boxes=tmp_path / "boxes.json", least_box_score=0.5, heatmaps=True
    )
    assert (pictures, people) == (3, 2)
    results = json.loads((out / "results.json").read_text())
    assert [entry["image_id"] for entry in results] == [139, "street.png"]
    drawn = cv2.imread(str(out / "street.png"))
    assert drawn.shape == (128, 96, 3) and not np.array_equal(drawn, cv2.imread(str(folder / "street.png")))
    assert np.array_equal(cv2.imread(str(out / "empty.png")), cv2.imread(str(folder / "empty.png")))
    with np.load(out / "street.npz") as content:
        assert content["heatmaps"].shape == (1, 17, 16, 12)
        assert content["joints"][0, 0] == pytest.approx([30, 60], abs=1)


def test_a_video(network: Callable[..., Trained], tmp_path: Path) -> None:
    path, out = tmp_path / "walk.mp4", tmp_path / "out"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, (96, 128))
    for step in range(5):
        writer.write(spots((128, 96), ((25.0 + 5 * step, 60.0), (50.0, 90.0)), width=12.0)[..., ::-1])
    writer.release()
    assert predict_all(path, network(), out) == (5, 5)
    results = json.loads((out / "results.json").read_text())
    assert [entry["image_id"] for entry in results] == [0, 1, 2, 3, 4]
    assert [entry["keypoints"][0] for entry in results] == pytest.approx([25, 30, 35, 40, 45], abs=2)
    again = cv2.VideoCapture(str(out / "walk.mp4"))
    assert (again.get(cv2.CAP_PROP_FPS), again.get(cv2.CAP_PROP_FRAME_COUNT)) == (12.5, 5)
    with pytest.raises(InputError, match="would be written over"):
        predict_all(path, network(), tmp_path)


# --- networks


def test_a_record_and_its_weights_are_the_same_network(
    small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"model": "timm:test_resnet", "head_channels": 8, "input_size": (64, 32), "epochs": 1}
    config = TrainConfig(small_data, loss="hdm", heatmap_stride=8, train_limit=8, val_limit=4, device="cpu", **settings)
    run = train(config, log=lambda line: None, progress=False)
    picture = np.random.default_rng(0).integers(0, 255, (90, 70, 3), np.uint8)
    found = [predict(picture, place, heatmaps=True) for place in (run.folder, run.checkpoint, str(run.checkpoint))]
    assert found[0].heatmaps is not None and found[0].heatmaps.shape == (1, 17, 8, 4)
    assert all(np.array_equal(poses.joints, found[0].joints) for poses in found)
    assert load_network(run.checkpoint).heatmap_stride == 8
    assert saved_states(run.checkpoint.parent) == []
    with pytest.raises(InputError, match="does not say what network it belongs to: name the model too"):
        load_network(tmp_path / "pose_resnet_50.pth")
    with pytest.raises(InputError, match="can't be read"):
        load_network(tmp_path / "none-00000000.safetensors")


# --- refusals


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (float("nan"), 0, 5, 5)])
def test_a_box_without_an_area(network: Callable[..., Trained], box: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="has no area: give x, y, width > 0, height > 0"):
        predict(np.zeros((20, 30, 3), np.uint8), network(), boxes=[(0, 0, 5, 5), box])


@pytest.mark.usefixtures("no_shape_checks")
def test_what_is_no_picture_and_no_box(network: Callable[..., Trained], tmp_path: Path) -> None:
    for wrong in (np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3)), np.zeros((0, 30, 3), np.uint8)):
        with pytest.raises(InputError, match="is none: give .rows, columns, 3. of uint8"):
            predict(wrong, network())
    with pytest.raises(InputError, match="boxes .* are none: give x, y, width, height"):
        predict(np.zeros((20, 30, 3), np.uint8), network(), boxes=[(0, 0, 5)])
    (tmp_path / "no picture.jpg").write_text("text")
    with pytest.raises(InputError, match=r"no picture.jpg is not an image"):
        predict(tmp_path / "no picture.jpg", network())


def test_heatmaps_of_a_loss_that_has_none() -> None:
    loss = make_loss("simcc", size=(16, 12))
    trained = Trained(SeesSpots().eval(), loss, "spots", SIZE, "half_pixel", "local")
    with pytest.raises(InputError, match="reads joints without heatmaps: leave heatmaps out"):
        predict(np.zeros((20, 30, 3), np.uint8), trained, heatmaps=True)
