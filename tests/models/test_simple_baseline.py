"""SimpleBaseline: names and arithmetic against torchvision's networks, its start, and its smaller strides."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import torchvision
from torch import nn

from hdm.models import build_model
from hdm.models.network import HEAD

# Many small layers: threads that wait for each other cost more than they bring.
pytestmark = pytest.mark.usefixtures("one_thread")

# Heatmaps of the drawn networks at the places in `PLACES`.
GOLDEN = {
    "resnet18": (-0.192698644957, -0.440892025182, 0.523490179267, -0.366508791076),
    "resnet50": (-0.479199578993, 0.292892419811, 0.728028752111, 0.207544744507),
}
PLACES = ((0, 0, 0, 0), (0, 4, 7, 3), (1, 2, 15, 7), (1, 4, 8, 0))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def backbone_count(model: nn.Module) -> int:
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith(HEAD))


# --- names and shapes ---


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_every_tensor_has_the_official_name_and_shape(name: str) -> None:
    """The official `pose_resnet` has torchvision's names but for the classifier, and a head numbered through."""
    with torch.device("meta"):
        ours = {key: value.shape for key, value in build_model(name).state_dict().items()}
        resnet = getattr(torchvision.models, name)()
    expected = {key: value.shape for key, value in resnet.state_dict().items() if not key.startswith("fc.")}
    for layer, inputs in ((0, resnet.fc.in_features), (3, 256), (6, 256)):
        expected[f"deconv_layers.{layer}.weight"] = torch.Size((inputs, 256, 4, 4))
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            expected[f"deconv_layers.{layer + 1}.{tensor}"] = torch.Size((256,))
        expected[f"deconv_layers.{layer + 1}.num_batches_tracked"] = torch.Size(())
    expected |= {"final_layer.weight": torch.Size((17, 256, 1, 1)), "final_layer.bias": torch.Size((17,))}
    assert ours == expected


def test_a_timm_backbone_keeps_its_prefix() -> None:
    names = build_model("timm:test_efficientnet", joints=2, head_channels=8).state_dict()
    assert {name.split(".")[0] for name in names} == {"backbone", "deconv_layers", "final_layer"}


# --- what it computes ---


def test_backbone_and_head_compute_what_torchvision_and_the_formula_say(drawn: Callable[..., nn.Module]) -> None:
    """The features against torchvision's network with the same weights; the head written out in functions."""
    model = drawn("resnet50", joints=5, head_channels=8)
    resnet = torchvision.models.resnet50().double().eval()
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(HEAD)}
    assert all(key.startswith("fc.") for key in resnet.load_state_dict(state, strict=False).missing_keys)
    kept: list[torch.Tensor] = []
    resnet.layer4.register_forward_hook(lambda module, inputs, output: kept.append(output))
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        resnet(images)
        torch.testing.assert_close(model.features(images), kept[0])
        maps = kept[0]
        head = {key: value for key, value in model.state_dict().items() if key.startswith(HEAD)}
        for layer in (0, 3, 6):
            maps = F.conv_transpose2d(maps, head[f"deconv_layers.{layer}.weight"], stride=2, padding=1)
            mean, variance, scale, shift = (
                head[f"deconv_layers.{layer + 1}.{tensor}"].view(-1, 1, 1)
                for tensor in ("running_mean", "running_var", "weight", "bias")
            )
            maps = ((maps - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)
        maps = torch.einsum("bchw,kc->bkhw", maps, head["final_layer.weight"][:, :, 0, 0])
        torch.testing.assert_close(model(images), maps + head["final_layer.bias"].view(-1, 1, 1))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_weights_give_the_same_heatmaps_as_ever(as_ever: Callable[..., None], name: str) -> None:
    """Numbers kept from the day when the test above passed, so that a change of the arithmetic in any library shows."""
    as_ever(name, (64, 32), PLACES, GOLDEN[name])


def test_the_output_is_raw_and_every_parameter_gets_a_gradient() -> None:
    """Heatmaps may be negative: it is the loss that turns them into distributions."""
    model = build_model("resnet18", joints=3, head_channels=8)
    heatmaps = model(torch.randn(2, 3, 64, 32))
    assert heatmaps.min() < 0 < heatmaps.max()
    heatmaps.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# --- how it starts ---


def test_the_head_starts_as_the_official_one() -> None:
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


def test_the_backbone_starts_as_torchvision_starts_it() -> None:
    """From the same seed: a run that is repeated starts from the same numbers as its record's."""
    torch.manual_seed(3)
    resnet = torchvision.models.resnet18()
    torch.manual_seed(3)
    state = build_model("resnet18", joints=2, head_channels=8).state_dict()
    for name, value in resnet.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(state[name], value), name


# --- smaller strides ---


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "timm:tf_efficientnet_lite0", "timm:mobilenetv3_small_050"])
def test_a_smaller_stride_leaves_out_the_last_stages(name: str) -> None:
    """The heatmaps keep their size, the features have the stride asked for, and what is left out costs nothing."""
    sizes = []
    for stride in (8, 16, 32):
        model = build_model(name, joints=5, head_channels=8, backbone_stride=stride).eval()
        images = torch.randn(2, 3, 64, 96)
        with torch.no_grad():
            assert model.features(images).shape[2:] == (64 // stride, 96 // stride)
            assert model(images).shape == (2, 5, 16, 24)
        assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in model.deconv_layers) == math.log2(stride / 4)
        sizes.append(backbone_count(model))
    assert 3 * sizes[0] < sizes[1] < sizes[2] / 2


@pytest.mark.parametrize(("stride", "stages"), [(8, 2), (16, 3), (32, 4)])
def test_a_smaller_stride_keeps_the_first_stages_whole(stride: int, stages: int) -> None:
    """Counted in torchvision's own network."""
    with torch.device("meta"):
        whole = torchvision.models.resnet34()
        model = build_model("resnet34", backbone_stride=stride)
    kept = [whole.conv1, whole.bn1, *(getattr(whole, f"layer{number}") for number in range(1, stages + 1))]
    assert backbone_count(model) == sum(map(count, kept))
