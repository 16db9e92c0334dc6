"""Networks by name: what each of them gives, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch

from hdm.errors import InputError
from hdm.models import HRNet, PoseNetwork, SimpleBaseline, build_model

# Many small layers: threads that wait for each other cost more than they bring.
pytestmark = pytest.mark.usefixtures("one_thread")

OFFICIAL = ["resnet50", "resnet101", "resnet152", "hrnet_w32", "hrnet_w48"]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", *OFFICIAL])
def test_a_heatmap_for_each_joint_at_the_sizes_of_the_recipes(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, joints=16)
        for rows, columns in ((256, 192), (384, 288), (256, 256)):
            assert model(torch.zeros(2, 3, rows, columns)).shape == (2, 16, rows // 4, columns // 4)
    assert isinstance(model, HRNet if name.startswith("hrnet") else SimpleBaseline)
    assert isinstance(model, PoseNetwork)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("resnet18", 64, 32),
        ("resnet34", 32, 96),
        ("timm:test_efficientnet", 96, 32),
        ("timm:mobilenetv3_small_050", 32, 64),
        ("hrnet_w32", 64, 96),
    ],
)
def test_heatmaps_of_real_numbers(name: str, rows: int, columns: int) -> None:
    settings = {} if name.startswith("hrnet") else {"head_channels": 8}
    model = build_model(name, joints=5, **settings).eval()
    with torch.no_grad():
        heatmaps = model(torch.randn(2, 3, rows, columns))
    assert heatmaps.shape == (2, 5, rows // 4, columns // 4)
    assert heatmaps.isfinite().all()
    # Drawn from N(0, 0.001), an untrained HRNet answers next to nothing, but to each pixel something else.
    assert len(heatmaps.unique()) > heatmaps.numel() / 2


# --- refusals ---


@pytest.mark.parametrize("name", ["resnet20", "ResNet50", "", "hourglass", "hrnet_w18"])
def test_unknown_network(name: str) -> None:
    with pytest.raises(InputError, match=f"unknown model '{name}': choose one of resnet18.*hrnet_w48 or timm:<name>"):
        build_model(name)


def test_unknown_timm_network_with_similar_ones() -> None:
    with pytest.raises(InputError, match="timm has no model 'mobilenetv3_tiny'.*similar: .*mobilenetv3_"):
        build_model("timm:mobilenetv3_tiny")
    with pytest.raises(InputError, match="similar: none"):
        build_model("timm:zzz")


def test_timm_network_of_another_stride() -> None:
    with pytest.raises(InputError, match="'test_vit' offers features at stride 16, not 32"):
        build_model("timm:test_vit")
    with torch.no_grad():
        assert build_model("timm:test_vit", joints=2, backbone_stride=16, head_channels=8)(
            torch.randn(2, 3, 160, 160)
        ).shape == (2, 2, 40, 40)


@pytest.mark.parametrize("stride", [0, 4, 24, 64])
@pytest.mark.parametrize("name", ["resnet18", "hrnet_w32"])
def test_a_stride_without_a_head(name: str, stride: int) -> None:
    with pytest.raises(InputError, match=f"backbone_stride is {stride}: choose 8, 16 or 32"):
        build_model(name, backbone_stride=stride)


@pytest.mark.parametrize("name", ["resnet18", "timm:test_resnet"])
@pytest.mark.parametrize(("backbone", "heatmap"), [(32, 2), (32, 8), (16, 2), (16, 8), (8, 2), (8, 8)])
def test_heatmaps_have_the_stride_that_is_asked_for(name: str, backbone: int, heatmap: int) -> None:
    model = build_model(name, joints=3, backbone_stride=backbone, heatmap_stride=heatmap, head_channels=8).eval()
    assert model(torch.zeros(2, 3, 64, 32)).shape == (2, 3, 64 // heatmap, 32 // heatmap)
    upsampled = [layer for layer in model.deconv_layers if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert 2 ** len(upsampled) == backbone / heatmap


@pytest.mark.parametrize("stride", [0, 1, 3, 16])
def test_a_heatmap_stride_that_no_head_has(stride: int) -> None:
    with pytest.raises(InputError, match=f"heatmap_stride is {stride}: choose 2, 4 or 8"):
        build_model("resnet18", heatmap_stride=stride)


@pytest.mark.parametrize("settings", [{"head_channels": 128}, {"backbone_stride": 16}, {"heatmap_stride": 8}])
def test_hrnet_has_no_transposed_convolutions_to_set(settings: dict[str, int]) -> None:
    with pytest.raises(
        InputError, match="HRNet has no head_channels, backbone_stride or heatmap_stride: .*for hrnet_w48"
    ):
        build_model("hrnet_w48", **settings)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"timm:test_efficientnet needs timm: pip install 'hdm\[timm\]'"):
        build_model("timm:test_efficientnet")


@pytest.mark.parametrize(("joints", "head_channels"), [(0, 256), (-1, 256), (17, 0)])
@pytest.mark.parametrize("name", ["resnet18", "hrnet_w32"])
def test_sizes_that_cannot_be(name: str, joints: int, head_channels: int) -> None:
    with pytest.raises(InputError, match="at least one joint and one head channel"):
        build_model(name, joints=joints, head_channels=head_channels)


@pytest.mark.parametrize(("name", "file"), [("w32", "hrnet_w32-36af842e.pth"), ("w48", "hrnet_w48-8ef0771d.pth")])
def test_without_the_file_of_imagenet_weights_its_name_and_the_command_are_told(
    tmp_path: Path, name: str, file: str
) -> None:
    with torch.device("meta"), pytest.raises(InputError) as refusal:
        build_model(f"hrnet_{name}", pretrained=True, weights_directory=tmp_path)
    assert str(tmp_path / file) in str(refusal.value)
    assert "hdm fetch weights" in str(refusal.value)
