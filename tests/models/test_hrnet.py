"""HRNet, against timm's network of the same name, which was written from the official one independently of ours."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from hdm.errors import InputError
from hdm.models import HRNet, build_model
from hdm.models.hrnet import Exchange

timm = pytest.importorskip("timm")

# Many small layers: threads that wait for each other cost more than they bring.
pytestmark = pytest.mark.usefixtures("one_thread")

# Heatmaps of the drawn networks at the places in `PLACES`.
GOLDEN = {
    "hrnet_w32": (-7.0783778565, -6.97501760126, 7.54487105509, -3.99045835504),
    "hrnet_w48": (-2.88932735098, -5.05601300869, -3.14143167694, -2.10022396631),
}
PLACES = ((0, 0, 0, 0), (0, 4, 7, 13), (1, 2, 15, 9), (1, 4, 8, 0))


# --- names and shapes ---


@pytest.mark.parametrize("name", ["hrnet_w32", "hrnet_w48"])
def test_every_tensor_has_the_official_name_and_shape(name: str) -> None:
    """timm's classifier has the official names from the stem to stage 4. There its last module makes all branches, of
    which a pose network needs the finest; and its head is another one."""
    with torch.device("meta"):
        ours = {key: value.shape for key, value in build_model(name).state_dict().items()}
        theirs = {key: value.shape for key, value in timm.create_model(name).state_dict().items()}
    width = int(name[-2:])
    assert ours.pop("final_layer.weight") == (17, width, 1, 1)
    assert ours.pop("final_layer.bias") == (17,)
    elsewhere = ("incre_modules", "downsamp_modules", "final_layer", "classifier")
    coarser = tuple(f"stage4.2.fuse_layers.{branch}." for branch in (1, 2, 3))
    assert ours == {key: shape for key, shape in theirs.items() if not key.startswith((*elsewhere, *coarser))}


# --- what it computes ---


W48_IS_SLOW = ["hrnet_w32", pytest.param("hrnet_w48", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name", W48_IS_SLOW)
def test_the_finest_branch_is_that_of_timm(drawn: Callable[..., nn.Module], name: str) -> None:
    model = drawn(name, joints=5)
    with torch.device("meta"):
        theirs = timm.create_model(name)
    theirs = theirs.to_empty(device="cpu").double().eval()
    theirs.load_state_dict({k: v for k, v in model.state_dict().items() if "final" not in k}, strict=False)
    images = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        stem = theirs.act1(theirs.bn1(theirs.conv1(images)))
        stem = theirs.act2(theirs.bn2(theirs.conv2(stem)))
        finest = theirs.stages(stem)[0]
        features = model.features(images)
        assert features.std() > 0.1
        torch.testing.assert_close(features, finest)
        expected = torch.einsum("bchw,kc->bkhw", finest, model.final_layer.weight[:, :, 0, 0])
        torch.testing.assert_close(model(images), expected + model.final_layer.bias.view(-1, 1, 1))


@pytest.mark.parametrize("name", W48_IS_SLOW)
def test_the_same_weights_give_the_same_heatmaps_as_ever(as_ever: Callable[..., None], name: str) -> None:
    """Numbers kept from the day when the test above passed, so that a change of the arithmetic in any library shows."""
    as_ever(name, (64, 64), PLACES, GOLDEN[name])


def test_every_parameter_gets_a_gradient() -> None:
    """Also with batch norm in training mode; what no heatmap depends on is not there."""
    model = HRNet(4, 3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # larger than at the start, where gradients come close to nothing
            nn.init.kaiming_normal_(module.weight)
    heatmaps = model(torch.randn(2, 3, 96, 64))
    assert heatmaps.shape == (2, 3, 24, 16)
    assert heatmaps.min() < 0 < heatmaps.max()
    heatmaps.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_exchange_of_branches_that_say_nothing_new_is_a_sum() -> None:
    """Two branches whose blocks add zero, paths that copy: the finest output is its branch and the enlarged other."""
    module = Exchange((1, 2), outputs=1).eval()
    for blocks in module.branches:
        for block in blocks:
            nn.init.zeros_(block.bn2.weight)
    nn.init.ones_(module.fuse_layers[0][1][0].weight)  # sums the two channels of the coarser branch
    fine, coarse = torch.rand(2, 1, 4, 6), torch.rand(2, 2, 2, 3)
    with torch.no_grad():
        (out,) = module([fine, coarse])
    enlarged = coarse.sum(1, keepdim=True).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(out, fine + enlarged / math.sqrt(1 + 1e-5))


# --- how it starts ---


def test_it_starts_as_the_official_one() -> None:
    model = build_model("hrnet_w32", joints=16)
    weights = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weights.append(module.weight.detach().flatten())
            tolerance = 6 * 0.001 / math.sqrt(2 * module.weight.numel())  # six standard errors, of 300 layers
            assert module.weight.std().item() == pytest.approx(0.001, abs=tolerance)
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))
    everything = torch.cat(weights)
    assert len(weights) > 280
    assert abs(everything.mean().item()) < 5 * 0.001 / math.sqrt(everything.numel())
    assert torch.equal(model.final_layer.bias, torch.zeros(16))


# --- refusals ---


@pytest.mark.parametrize(("rows", "columns"), [(64, 48), (72, 64), (100, 100), (16, 32)])
def test_sides_that_32_does_not_divide(rows: int, columns: int) -> None:
    with torch.device("meta"):
        model = build_model("hrnet_w32")
        with pytest.raises(InputError, match=f"input of {rows} x {columns} pixels: choose sides divisible by 32"):
            model(torch.zeros(2, 3, rows, columns))
