"""SimpleBaseline, against the published sizes and costs of its networks."""

import math
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hdm.errors import InputError
from hdm.models import SimpleBaseline, build_model

# Counted in the official repositories' networks: with 17 joints and with 16 (MPII).
PARAMETERS = {
    "resnet50": (33_999_697, 33_999_440),
    "resnet101": (52_991_825, 52_991_568),
    "resnet152": (68_635_473, 68_635_216),
}
# (model, joints, input size): multiply-adds of convolutions in 1e9, transposed ones counted by their input.
GIGA_MACS = {
    ("resnet18", 17, (256, 192)): 2.897,
    ("resnet50", 17, (256, 192)): 5.426,
    ("resnet50", 16, (256, 256)): 7.234,
    ("resnet101", 17, (384, 288)): 20.391,
}


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_official_networks(name: str) -> None:
    with torch.device("meta"):
        assert (count(build_model(name, joints=17)), count(build_model(name, joints=16))) == PARAMETERS[name]


def test_parameters_of_the_smallest_network() -> None:
    with torch.device("meta"):
        assert count(build_model("resnet18")) == 15_376_721


@pytest.mark.parametrize(("name", "joints", "size"), GIGA_MACS)
def test_cost_is_that_of_the_official_networks(name: str, joints: int, size: tuple[int, int]) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build_model(name, joints=joints).eval()(torch.zeros(1, 3, *size))
    assert round(counter.get_total_flops() / 2e9, 3) == GIGA_MACS[name, joints, size]


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("resnet18", 64, 32),
        ("resnet34", 32, 96),
        ("timm:test_efficientnet", 96, 32),
        ("timm:mobilenetv3_small_050", 32, 64),
    ],
)
def test_a_heatmap_for_each_joint_at_a_quarter_of_the_size(name: str, rows: int, columns: int) -> None:
    model = build_model(name, joints=5, head_channels=8).eval()
    with torch.no_grad():
        heatmaps = model(torch.randn(2, 3, rows, columns))
    assert heatmaps.shape == (2, 5, rows // 4, columns // 4)
    assert heatmaps.std() > 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "timm:tf_efficientnet_lite0", "timm:mobilenetv3_small_050"])
def test_a_smaller_stride_leaves_out_the_last_stages(name: str) -> None:
    """The heatmaps keep their size, the features have the stride asked for, and what is left out costs nothing."""
    sizes = []
    for stride in (8, 16, 32):
        model = build_model(name, joints=5, head_channels=8, backbone_stride=stride).eval()
        images = torch.randn(2, 3, 64, 96)
        with torch.no_grad():
            assert model.backbone(images).shape[2:] == (64 // stride, 96 // stride)
            assert model(images).shape == (2, 5, 16, 24)
        assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in model.deconv_layers) == math.log2(stride / 4)
        sizes.append(count(model.backbone))
    assert 3 * sizes[0] < sizes[1] < sizes[2] / 2


@pytest.mark.parametrize(("stride", "stages"), [(8, 2), (16, 3), (32, 4)])
def test_a_smaller_stride_keeps_the_first_stages_whole(stride: int, stages: int) -> None:
    """Counted in torchvision's own network."""
    whole = torchvision.models.resnet34()
    kept = [whole.conv1, whole.bn1, *(getattr(whole, f"layer{number}") for number in range(1, stages + 1))]
    assert count(build_model("resnet34", backbone_stride=stride).backbone) == sum(map(count, kept))


def test_children_have_the_official_names() -> None:
    """So that the published checkpoints of SimpleBaseline can be loaded: backbone, `deconv_layers`, `final_layer`."""
    with torch.device("meta"):
        names = set(build_model("resnet50").state_dict())
    for name in ("backbone.conv1.weight", "backbone.layer4.2.bn3.running_var", "deconv_layers.6.weight"):
        assert name in names
    assert {name for name in names if name.startswith("final")} == {"final_layer.weight", "final_layer.bias"}


def test_the_head_starts_as_the_official_one() -> None:
    torch.manual_seed(0)
    model = build_model("resnet18", joints=17)
    for layer in [*model.deconv_layers, model.final_layer]:
        if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
            weights = layer.weight.detach()
            tolerance = 5 * 0.001 / math.sqrt(2 * weights.numel())  # five standard errors of a standard deviation
            assert weights.std().item() == pytest.approx(0.001, abs=tolerance)
            assert abs(weights.mean().item()) < 5 * 0.001 / math.sqrt(weights.numel())
        elif isinstance(layer, nn.BatchNorm2d):
            assert torch.equal(layer.weight, torch.ones(256))
            assert torch.equal(layer.bias, torch.zeros(256))
    assert torch.equal(model.final_layer.bias, torch.zeros(17))
    assert [layer.bias for layer in model.deconv_layers if isinstance(layer, nn.ConvTranspose2d)] == [None] * 3


def test_the_output_is_raw_and_every_parameter_gets_a_gradient() -> None:
    """Heatmaps may be negative: it is the loss that turns them into distributions."""
    torch.manual_seed(0)
    model = build_model("resnet18", joints=3, head_channels=8)
    heatmaps = model(torch.randn(2, 3, 64, 32))
    assert heatmaps.min() < 0 < heatmaps.max()
    heatmaps.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# --- what the network sees ---


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        # ImageNet's red, green and blue on the scale 0 to 1, as torchvision documents them.
        ("resnet18", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("timm:test_convnext", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("timm:tf_efficientnet_lite0", (127 / 255,) * 3, (128 / 255,) * 3),
    ],
)
def test_pixels_are_prepared_as_the_backbone_was_trained(name: str, mean: tuple, std: tuple) -> None:
    model = build_model(name, joints=2, head_channels=8)
    images = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    expected = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], dim=1)
    prepared = model.prepare(images)
    assert prepared.dtype == torch.float32
    torch.testing.assert_close(prepared, expected, atol=1e-5, rtol=1e-5)


def test_preparing_is_no_part_of_the_weights() -> None:
    assert not {"mean", "std"} & set(build_model("resnet18", joints=2, head_channels=8).state_dict())


def test_a_backbone_of_ones_own() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 6, 32, stride=32))
    model = SimpleBaseline(backbone, 6, 4, head_channels=5, mean=(0.0, 0.0, 0.0), std=(2.0, 4.0, 8.0))
    images = torch.full((2, 3, 64, 96), 8, dtype=torch.uint8)
    assert model.prepare(images)[0, :, 0, 0].tolist() == [4, 2, 1]
    assert model(model.prepare(images)).shape == (2, 4, 16, 24)


# --- refusals ---


@pytest.mark.parametrize("name", ["resnet20", "ResNet50", "", "hourglass"])
def test_unknown_network(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown model '{name}': choose one of resnet18.*timm:<name>"):
        build_model(name)


def test_unknown_timm_network_with_similar_ones() -> None:
    with pytest.raises(InputError, match="timm has no model 'mobilenetv3_tiny'.*similar: .*mobilenetv3_"):
        build_model("timm:mobilenetv3_tiny")
    with pytest.raises(InputError, match="similar: none"):
        build_model("timm:zzz")


def test_timm_network_of_another_stride() -> None:
    with pytest.raises(InputError, match="'test_vit' offers features at stride 16, not 32"):
        build_model("timm:test_vit")
    assert build_model("timm:test_vit", backbone_stride=16).deconv_layers


@pytest.mark.parametrize("stride", [0, 4, 24, 64])
def test_a_stride_without_a_head(stride: int) -> None:
    with pytest.raises(InputError, match=f"backbone_stride is {stride}: choose 8, 16 or 32"):
        build_model("resnet18", backbone_stride=stride)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:test_efficientnet needs timm: pip install 'hdm\[timm\]'"):
        build_model("timm:test_efficientnet")


@pytest.mark.parametrize(("joints", "head_channels"), [(0, 8), (-1, 8), (17, 0)])
def test_sizes_that_cannot_be(joints: int, head_channels: int) -> None:
    with pytest.raises(InputError, match="at least one joint and one head channel"):
        build_model("resnet18", joints=joints, head_channels=head_channels)
