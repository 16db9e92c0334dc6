"""Running a network over crops, with one that knows where the joints are."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from oracles import Oracle

from hdm.data import PersonCrops, load_persons
from hdm.errors import InputError
from hdm.inference import choose_device, interleave, predict_crops
from hdm.losses import GaussianMSE, make_loss
from hdm.models import PoseNetwork, build_model
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


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("stride", [2, 8])
def test_heatmaps_of_another_stride(small_data: str, stride: int, convention: str) -> None:
    """With a flip test, which must find the middle between two maps that agree (`hrnet`'s do not quite)."""
    data = load_persons(small_data, "val").head(5)
    crops = PersonCrops(data, SIZE, convention=convention, heatmap_stride=stride)
    flip_test = convention != "hrnet"
    oracle = Oracle(crops, "local", flip_test=flip_test)
    found = predict_crops(oracle, crops, make_loss("hdm", suppliers="relu"), decoder="local", flip_test=flip_test)
    last = torch.tensor([SIZE[1] / stride - 1, SIZE[0] / stride - 1])
    joints = torch.stack([crop.joints for crop in crops])
    counts = ((joints >= 1) & (joints <= last - 1)).all(-1).numpy()
    assert counts.sum() > 10
    for person, place, right in zip(crops.data.persons, found.image_joints, counts, strict=True):
        assert np.abs(place - person.joints)[right].max() < 0.01
    assert found.error_px < stride / 2


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


# --- shares of several processes ---


def talkative(name: str) -> PoseNetwork:
    """An untrained network whose maps are far from flat: another answer for each person and joint."""
    torch.manual_seed(1)
    model = build_model(name, head_channels=8)
    torch.nn.init.normal_(model.get_parameter("final_layer.weight"), std=1e5)
    return model


@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_put_together_are_the_whole(small_data: str, count: int) -> None:
    """Five persons, so that shares differ in size; the second one shows no joint, so that a share can have no loss."""
    data = load_persons(small_data, "val").head(5)
    hidden = replace(data.persons[1], visible=np.zeros(17, np.float32))
    crops = PersonCrops(replace(data, persons=(data.persons[0], hidden, *data.persons[2:])), SIZE)
    model, loss = talkative("timm:test_resnet"), make_loss("hdm")
    whole = predict_crops(model, crops, loss, batch_size=2)
    parts = [predict_crops(model, crops, loss, batch_size=2, share=(rank, count)) for rank in range(count)]
    assert whole.predicted.flatten(1).std(0).min() > 0  # no two persons alike
    assert [len(part.joints) for part in parts] == [len(range(rank, 5, count)) for rank in range(count)]
    assert math.isnan(parts[1].loss) == (count == 5)
    together = interleave(parts)
    assert together.loss == pytest.approx(whole.loss, rel=1e-5)
    for name in ("joints", "visible"):
        assert torch.equal(getattr(together, name), getattr(whole, name))
    for name in ("predicted", "scores", "peaks", "masses"):
        torch.testing.assert_close(getattr(together, name), getattr(whole, name), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(together.image_joints, whole.image_joints, rtol=1e-4)
    assert together.image_joints.dtype == whole.image_joints.dtype


def test_one_share_is_the_whole(small_data: str) -> None:
    crops = crops_of(small_data)
    found = predict_crops(Oracle(crops, "local"), crops, GaussianMSE(), decoder="local")
    again = interleave([found])
    assert again.loss == pytest.approx(found.loss)
    for entry in fields(found):
        assert entry.name == "loss" or np.array_equal(getattr(again, entry.name), getattr(found, entry.name))


def test_a_share_that_cannot_be(small_data: str) -> None:
    crops = crops_of(small_data)
    with pytest.raises(InputError, match=r"share \(2, 2\) must be \(r, n\) with r from 0 to n - 1"):
        predict_crops(Oracle(crops, "local"), crops, GaussianMSE(), share=(2, 2))


# --- precision ---


def test_a_network_in_bfloat16_finds_nearly_the_same(small_data: str) -> None:
    """Eight bits of a number are left, and the loss and the decoder still get on with them."""
    crops = crops_of(small_data)
    model, loss = talkative("resnet18"), make_loss("hdm")
    kinds: list[torch.dtype] = []
    model.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    full = predict_crops(model, crops, loss)
    half = predict_crops(model, crops, loss, precision="bfloat16")
    assert kinds == [torch.float32, torch.bfloat16]
    assert half.predicted.dtype == half.peaks.dtype == torch.float32
    assert half.loss == pytest.approx(full.loss, rel=0.02)
    assert half.loss != full.loss


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
