"""Running a network over crops, with one that knows where the joints are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import Oracle

from hdm.data import PersonCrops, load_persons
from hdm.errors import InputError
from hdm.inference import choose_device, predict_crops
from hdm.losses import GaussianMSE, make_loss
from hdm.models import build_model
from hdm.pixels import CONVENTIONS

SIZE = (128, 96)


def crops_of(source: str, convention: str = "half_pixel", count: int = 5) -> PersonCrops:
    return PersonCrops(load_persons(source, "val").head(count), SIZE, convention=convention)


def well_inside(crops: PersonCrops, margin: float = 8.0) -> torch.Tensor:
    joints = torch.stack([crop.joints for crop in crops])
    last = torch.tensor([SIZE[1] / 4 - 1, SIZE[0] / 4 - 1])
    return ((joints >= margin) & (joints <= last - margin)).all(-1)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_joints_come_back_to_their_place_in_the_picture(small_data: str, convention: str) -> None:
    crops = crops_of(small_data, convention)
    found = predict_crops(Oracle(crops, "dark"), crops, GaussianMSE(rounded=False), decoder="dark", batch_size=2)
    counts = well_inside(crops)
    assert counts.sum() > 10
    for person, joints, right in zip(crops.data.persons, found.image_joints, counts.numpy(), strict=True):
        assert np.abs(joints - person.joints)[right].max() < 0.1  # 0.01 heatmap pixels in image pixels
    assert found.loss < 1e-6
    assert torch.equal(found.visible, torch.stack([crop.visible for crop in crops]))


@pytest.mark.parametrize(("convention", "shift"), [("half_pixel", 0.0), ("hrnet", 0.125), ("udp", 0.0)])
def test_a_flip_test_moves_joints_by_what_the_convention_leaves_over(
    small_data: str, convention: str, shift: float
) -> None:
    """The average of a Gaussian and of one a quarter of a pixel beside it peaks in the middle: 1/8 heatmap pixel."""
    crops = crops_of(small_data, convention)
    loss = GaussianMSE(rounded=False)
    plain = predict_crops(Oracle(crops, "dark"), crops, loss, decoder="dark", batch_size=2)
    oracle = Oracle(crops, "dark", flip_test=True)
    both = predict_crops(oracle, crops, loss, decoder="dark", flip_test=True, batch_size=2)
    moved = (both.predicted - plain.predicted)[well_inside(crops)] / 4
    assert moved[:, 0].numpy() == pytest.approx(shift, abs=0.01)
    assert moved[:, 1].numpy() == pytest.approx(0, abs=0.01)


def test_scores_of_each_definition(small_data: str) -> None:
    """A splat's peak is the largest of its four weights, and its 3 x 3 pixels hold all of its mass."""
    crops = crops_of(small_data)
    found = predict_crops(Oracle(crops, "local"), crops, GaussianMSE(), decoder="local")
    joints = torch.stack([crop.joints for crop in crops])
    joints = torch.minimum(joints.clamp(min=0), torch.tensor([SIZE[1] / 4 - 1, SIZE[0] / 4 - 1]))
    part = joints - joints.floor()
    torch.testing.assert_close(found.masses, torch.ones_like(found.masses))
    torch.testing.assert_close(found.peaks, torch.maximum(part, 1 - part).prod(-1))
    torch.testing.assert_close(found.scores, found.masses)
    assert torch.equal(predict_crops(Oracle(crops, "local"), crops, GaussianMSE()).scores, found.peaks)


def test_boxes_without_annotations_have_no_loss(small_data: str) -> None:
    data = load_persons(small_data, "val").head(3)
    blind = tuple(replace(person, visible=np.zeros(17, np.float32)) for person in data.persons)
    crops = PersonCrops(replace(data, persons=blind), SIZE)
    found = predict_crops(Oracle(crops, "local"), crops, GaussianMSE(), batch_size=2)
    assert math.isnan(found.loss)
    assert np.isfinite(found.image_joints).all()
    with pytest.raises(InputError, match="no joint is visible"):
        _ = found.error_px


def test_a_network_sees_the_pixels_mirrored(small_data: str) -> None:
    """A real network: the flip test's maps are the average of two passes, computed here by hand."""
    crops = crops_of(small_data, count=2)
    model, loss = build_model("resnet18", head_channels=8).eval(), make_loss("hdm")
    images = model.prepare(torch.stack([crop.image for crop in crops]))
    with torch.no_grad():
        plain, mirrored = loss.maps(model(images)), loss.maps(model(images.flip(-1)))
    order = crops.data.skeleton.flip_order
    peaks = ((plain + mirrored[:, order].flip(-1)) / 2).amax((-2, -1))
    torch.testing.assert_close(predict_crops(model, crops, loss, flip_test=True).peaks, peaks)


def test_a_loss_without_maps_has_no_flip_test(small_data: str) -> None:
    crops = crops_of(small_data)
    with pytest.raises(InputError, match="flip test averages heatmaps"):
        predict_crops(Oracle(crops, "local"), crops, make_loss("simcc"), flip_test=True)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="torch sees no GPU"):
        choose_device("cuda")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        choose_device("tpu")
