"""Parameters and multiply-adds, against those counted in the networks of the official repositories."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from hdm.errors import InputError
from hdm.models import Cost, Memory, PoseNetwork, build_model, model_cost, training_memory

# With 17 joints (COCO) and with 16 (MPII).
PARAMETERS = {
    "resnet50": (33_999_697, 33_999_440),
    "resnet101": (52_991_825, 52_991_568),
    "resnet152": (68_635_473, 68_635_216),
    "hrnet_w32": (28_536_113, 28_536_080),
    "hrnet_w48": (63_595_745, 63_595_696),
}
# (model, joints, input size): multiply-adds in 1e9, transposed convolutions counted by their input.
GIGA_MACS = {
    ("resnet18", 17, (256, 192)): 2.897,
    ("resnet50", 17, (256, 192)): 5.426,
    ("resnet50", 17, (384, 288)): 12.209,
    ("resnet101", 17, (256, 192)): 9.063,
    ("resnet101", 17, (384, 288)): 20.391,
    ("resnet152", 17, (256, 192)): 12.699,
    ("resnet152", 17, (384, 288)): 28.573,
    ("hrnet_w32", 17, (256, 192)): 7.645,
    ("hrnet_w32", 17, (384, 288)): 17.201,
    ("hrnet_w48", 17, (256, 192)): 15.692,
    ("hrnet_w48", 17, (384, 288)): 35.307,
    ("resnet50", 16, (256, 256)): 7.234,
    ("resnet101", 16, (256, 256)): 12.083,
    ("resnet152", 16, (256, 256)): 16.931,
    ("hrnet_w32", 16, (256, 256)): 10.193,
    ("hrnet_w48", 16, (256, 256)): 20.922,
    ("hrnet_w32", 17, (128, 96)): 1.911,
    ("hrnet_w32", 17, (128, 128)): 2.548,
    ("hrnet_w32", 17, (64, 64)): 0.637,
    ("resnet50", 17, (128, 96)): 1.357,
    ("resnet50", 17, (128, 128)): 1.809,
    ("resnet50", 17, (64, 64)): 0.452,
}


@cache
def shell(name: str, joints: int) -> PoseNetwork:
    with torch.device("meta"):
        return build_model(name, joints=joints)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_official_networks(name: str) -> None:
    counts = tuple(sum(p.numel() for p in shell(name, joints).parameters()) for joints in (17, 16))
    assert counts == PARAMETERS[name]


def test_parameters_of_the_smallest_network() -> None:
    assert model_cost(shell("resnet18", 17), (64, 32)).parameters == 15_376_721


@pytest.mark.parametrize(("name", "joints", "size"), GIGA_MACS)
def test_multiply_adds_are_those_of_the_official_networks(name: str, joints: int, size: tuple[int, int]) -> None:
    """The known figures have three decimals."""
    cost = model_cost(shell(name, joints), size)
    expected = GIGA_MACS[name, joints, size]
    assert cost.multiply_adds / 1e9 == pytest.approx(expected, rel=1e-3)
    assert round(cost.multiply_adds / 1e9, 3) == expected
    assert cost.parameters == sum(p.numel() for p in shell(name, joints).parameters())


@pytest.mark.parametrize(
    ("name", "size", "printed"),
    [
        ("resnet101", (256, 192), 12.4),
        ("resnet101", (384, 288), 27.9),
        ("hrnet_w32", (256, 192), 7.1),
        ("hrnet_w48", (384, 288), 32.9),
    ],
)
def test_the_other_definition_gives_what_the_official_readme_prints(
    name: str, size: tuple[int, int], printed: float
) -> None:
    """The remark in the docstring: by output pixels, a transposed convolution of stride 2 costs four times as much."""
    transposed = 0
    if name.startswith("resnet"):
        pixels = size[0] // 32 * size[1] // 32
        transposed = sum(4**step * pixels * 16 * inputs * 256 for step, inputs in enumerate((2048, 256, 256)))
    assert round((model_cost(shell(name, 17), size).multiply_adds + 3 * transposed) / 1024**3, 1) == printed


def test_small_layers_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3),  # 4 x 6 pixels out, one channel in each group
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1),  # 4 x 6 pixels in
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    products = 24 * 9 * 6 + 24 * 16 * 6 * 4 + 4 * 5
    parameters = (9 * 6 + 6) + 12 + (16 * 6 * 4 + 4) + (20 + 5)
    assert model_cost(model, (8, 12)) == Cost(parameters, products)


def test_the_network_is_left_as_it_was() -> None:
    model = build_model("resnet18", joints=2, head_channels=8, backbone_stride=8).train()
    before = copy.deepcopy(model.state_dict())
    cost = model_cost(model, (32, 64))
    assert cost == model_cost(model.eval(), (32, 64))
    model.train()
    assert all(layer.training for layer in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_in_words() -> None:
    assert str(Cost(33_999_697, 5_425_987_584)) == "34.0 M parameters, 5.426 G multiply-adds"


def test_a_size_without_pixels() -> None:
    with pytest.raises(InputError, match="input size 0 x 64 has no pixels"):
        model_cost(nn.Conv2d(3, 4, 1), (0, 64))


def test_memory_of_a_training_step() -> None:
    first, last = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 2, 1)
    model = nn.Sequential(first, nn.ReLU(), last)
    parameters = (3 * 9 * 6 + 6) + (6 * 2 + 2)
    # What the convolutions read: the crop, and what the ReLU gives, which the ReLU saves too, but which is there once.
    assert training_memory(model, (8, 12)) == Memory(16 * parameters, 4 * (3 * 8 * 12 + 6 * 4 * 6))


def test_memory_grows_with_the_crop_and_leaves_the_network_alone() -> None:
    model = build_model("resnet18", joints=3, head_channels=16)
    before = copy.deepcopy(model.state_dict())
    small, large = training_memory(model, (64, 96)), training_memory(model, (128, 192))
    assert small.fixed == large.fixed == 16 * model_cost(model, (64, 96)).parameters
    assert large.per_crop == pytest.approx(4 * small.per_crop, rel=1e-2)  # the averages of batch norm do not grow
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
