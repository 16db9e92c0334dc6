"""What the network sees: pixels as its backbone was trained with."""

import pytest
import torch

from hdm.errors import InputError
from hdm.models import PoseNetwork, SimpleBaseline, build_model

# ImageNet's red, green and blue on the scale 0 to 1, as torchvision documents them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("resnet18", MEAN, STD),
        ("timm:test_convnext", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("timm:tf_efficientnet_lite0", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_pixels_are_prepared_as_the_backbone_was_trained(name: str, mean: tuple, std: tuple, colour: str) -> None:
    """With bgr, the first channel is blue, and it meets the mean and deviation that stand first."""
    model = build_model(name, joints=2, head_channels=8, colour=colour)
    images = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    seen = images if colour == "rgb" else torch.stack([images[:, 2], images[:, 1], images[:, 0]], dim=1)
    expected = torch.stack([(seen[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    prepared = model.prepare(images)
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, expected, atol=1e-5, rtol=1e-5)


def test_hrnet_sees_what_it_was_trained_with() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    hrnet, resnet = (build_model(name, joints=2) for name in ("hrnet_w32", "resnet18"))
    assert torch.equal(hrnet.prepare(images), resnet.prepare(images))
    assert hrnet.colour == resnet.colour == "rgb"


def test_a_grey_picture_shows_that_bgr_keeps_the_order_of_the_means() -> None:
    grey = torch.full((2, 3, 4, 6), 100, dtype=torch.uint8)
    rgb, bgr = (PoseNetwork(colour=colour).prepare(grey) for colour in ("rgb", "bgr"))
    assert torch.equal(rgb, bgr)
    assert rgb[0, :, 0, 0].unique().numel() == 3


@pytest.mark.parametrize("name", ["resnet18", "hrnet_w32"])
def test_preparing_is_no_part_of_the_weights(name: str) -> None:
    with torch.device("meta"):
        assert not {"mean", "std"} & set(build_model(name, joints=2).state_dict())


def test_statistics_of_ones_own() -> None:
    trunk = {"backbone": torch.nn.Conv2d(3, 6, 32, stride=32)}
    model = SimpleBaseline(trunk, 6, 4, head_channels=5, mean=(0.0, 0.0, 0.0), std=(2.0, 4.0, 8.0))
    images = torch.full((2, 3, 64, 96), 8, dtype=torch.uint8)
    assert model.prepare(images)[0, :, 0, 0].tolist() == [4, 2, 1]
    assert model(model.prepare(images)).shape == (2, 4, 16, 24)


@pytest.mark.parametrize("colour", ["RGB", "", "gray"])
@pytest.mark.parametrize("name", ["resnet18", "hrnet_w32"])
def test_an_order_of_channels_that_there_is_not(name: str, colour: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=f"colour is '{colour}': choose one of rgb, bgr"):
        build_model(name, colour=colour)
