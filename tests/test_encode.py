"""Encoding: each map is the one that it says, and its decoder reads the joint from it."""

import math

import pytest
import torch
from torch import Tensor

from hdm.decode import DECODERS, decode
from hdm.encode import encode, round_trip_errors
from hdm.errors import InputError


def random_joints(height: int, width: int, margin: float = 0.0) -> Tensor:
    """Joints (4, 50, 2) between the outermost pixel centres, `margin` away from them."""
    return torch.rand(4, 50, 2) * (torch.tensor([width - 1, height - 1]) - 2 * margin) + margin


def with_border(height: int, width: int) -> Tensor:
    """Random joints, the first of them on the border, in corners, on pixels and on grid lines."""
    joints = random_joints(height, width)
    joints[0, :10, 0], joints[0, 10:20, 0], joints[0, 20:30, 1], joints[0, 30:40, 1] = 0, width - 1, 0, height - 1
    joints[1, :4] = torch.tensor([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
    joints[1, 4:20] = joints[1, 4:20].round()
    joints[1, 20:30] = joints[1, 20:30].floor().clamp(max=min(height, width) - 2) + 0.5
    return joints


def error(joints: Tensor, size: tuple[int, int], method: str, sigma: float) -> Tensor:
    found, _ = decode(encode(joints, size, method, sigma=sigma), method, sigma=sigma)
    return (found - joints).norm(dim=-1)


# The maps


@pytest.mark.parametrize("method", DECODERS)
def test_every_pixel(method: str) -> None:
    joints = torch.tensor([[[4.3, 6.6], [0.0, 9.0]], [[7.5, 2.2], [8.0, 0.4]]], dtype=torch.float64)
    maps = encode(joints, (10, 9), method, sigma=1.5)
    assert maps.shape == (2, 2, 10, 9)
    for b in range(2):
        for k in range(2):
            for row in range(10):
                for column in range(9):
                    x, y = joints[b, k].tolist()
                    if method in ("argmax", "quarter"):
                        x, y = math.floor(x + 0.5), math.floor(y + 0.5)
                    dx, dy = abs(column - x), abs(row - y)
                    expected = math.exp(-(dx**2 + dy**2) / (2 * 1.5**2))
                    if method in ("argmax", "quarter") and max(dx, dy) > 4:
                        expected = 0
                    if method in ("local", "integral"):
                        expected = max(1 - dx, 0) * max(1 - dy, 0)
                    assert maps[b, k, row, column].item() == pytest.approx(expected, abs=1e-12)


def test_precision_and_gradient() -> None:
    joints = random_joints(7, 5)
    for method in DECODERS:
        assert encode(joints.double(), (7, 5), method).dtype == torch.float64
        assert encode(joints.half().clamp(max=4), (7, 5), method).dtype == torch.float32
    # The bilinear map is differentiable, and so is reading it: together they do nothing.
    joints = (joints.double() * 0.9 + 0.01).requires_grad_()
    for method in ("local", "integral"):
        (found,) = torch.autograd.grad(decode(encode(joints, (7, 5), method), method)[0][..., 0].sum(), joints)
        assert torch.allclose(found, torch.tensor([1.0, 0.0], dtype=torch.float64).expand_as(found))


# There and back


@pytest.mark.parametrize("method", ["local", "integral"])
@pytest.mark.parametrize("size", [(64, 48), (7, 12), (2, 2)])
def test_bilinear_map_is_inverted_everywhere(size: tuple[int, int], method: str) -> None:
    joints = with_border(*size)
    found, scores = decode(encode(joints, size, method), method)
    assert (found - joints).abs().max() < 1e-5
    assert torch.allclose(scores, torch.ones(4, 50))


@pytest.mark.parametrize("method", ["local", "integral"])
def test_bilinear_map_one_pixel_wide_is_inverted(method: str) -> None:
    joints = torch.tensor([[[0.0, 3.3], [0.0, 5.0]]])
    assert torch.allclose(decode(encode(joints, (6, 1), method), method)[0], joints)


@pytest.mark.parametrize(("method", "sigma"), [("dark", 2), ("dark", 3), ("udp", 1), ("udp", 2), ("udp", 3)])
def test_taylor_steps_invert_a_gaussian_inside_the_map(method: str, sigma: float) -> None:
    # What is left comes from the blur: it is cut off, so that a blurred Gaussian is not quite one.
    joints = random_joints(64, 48, margin=3 * sigma + 2)
    assert error(joints, (64, 48), method, sigma).max() < 0.001


def test_dark_of_a_narrow_gaussian_leaves_a_hundredth_of_a_pixel() -> None:
    # The blurred map of sigma 1 is less of a Gaussian: its kernel of 5 pixels is cut off at 2 sigma, and derivatives
    # over two pixels reach far. A wider kernel mends it, a narrower one makes it worse.
    joints = random_joints(64, 48, margin=8)
    heatmaps = encode(joints, (64, 48), "dark", sigma=1)

    def largest(kernel: int | None) -> float:
        found, _ = decode(heatmaps, "dark", sigma=1, blur_kernel=kernel)
        return float((found - joints).norm(dim=-1).max())

    assert 0.01 < largest(None) < 0.015
    assert 0.015 < largest(3) < 0.02
    assert largest(11) < 0.001


def test_taylor_steps_are_worse_at_the_border() -> None:
    # Both blurs make up what lies beyond the map.
    joints = random_joints(64, 48)
    joints[..., 0] = joints[..., 0] % 2
    assert error(joints, (64, 48), "dark", 2).max() > 0.3
    assert error(joints, (64, 48), "udp", 2).max() > 0.3


@pytest.mark.parametrize("method", ["argmax", "quarter"])
def test_rounded_gaussian_leaves_half_a_pixel(method: str) -> None:
    # The rounded map is symmetric, so that `quarter` finds no higher neighbour.
    joints = with_border(64, 48)
    found, scores = decode(encode(joints, (64, 48), method), method)
    step = found - (joints + 0.5).floor()
    assert (found - joints).abs().max() <= 0.5
    assert torch.equal(scores, torch.ones(4, 50))
    interior = ((joints > 8) & (joints < torch.tensor([39, 55]))).all(-1)
    assert (step[interior] == 0).all()


# The table


def test_table_of_round_trips() -> None:
    table = round_trip_errors((32, 24), (1, 2), count=100, seed=3)
    assert list(table) == ["method", "encoder", "sigma", "where", "joints", "mean", "median", "max"]
    assert set(table["method"]) == set(DECODERS)
    assert len(table) == 8 * 2 * 2
    assert not table.duplicated(["method", "encoder", "sigma", "where"]).any()
    assert (table.groupby(["method", "encoder", "sigma"])["joints"].sum() == 100).all()
    assert (table["mean"] <= table["max"]).all()
    assert (table["median"] <= table["max"]).all()
    assert table.equals(round_trip_errors((32, 24), (1, 2), count=100, seed=3))
    assert not table.equals(round_trip_errors((32, 24), (1, 2), count=100, seed=4))


def test_known_values_in_the_table() -> None:
    table = round_trip_errors((64, 48), (2,), count=2000).set_index(["method", "encoder", "where"])
    inside = table.xs("inside", level="where")
    # A point's mean distance from the centre of its unit square: (sqrt 2 + log(1 + sqrt 2)) / 6.
    mean = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 6
    for row in (("argmax", "rounded"), ("argmax", "unrounded"), ("quarter", "rounded")):
        assert inside.loc[row, "mean"] == pytest.approx(mean, abs=0.015)
        assert inside.loc[row, "max"] == pytest.approx(math.sqrt(0.5), abs=0.03)
    assert inside.loc[("quarter", "unrounded"), "mean"] == pytest.approx(mean / 2, abs=0.0075)
    assert inside.loc[("quarter", "unrounded"), "max"] == pytest.approx(math.sqrt(0.5) / 2, abs=0.015)
    for row in (("dark", "unrounded"), ("udp", "unrounded")):
        assert inside.loc[row, "max"] < 0.001
    bilinear = table.xs("bilinear", level="encoder")
    assert len(bilinear) == 4
    assert (bilinear["max"] < 1e-4).all()


def test_small_map_has_no_inside() -> None:
    table = round_trip_errors((16, 12), (2,), count=50)
    assert set(table["where"]) == {"border"}
    assert (table["joints"] == 50).all()


# Refusals


def test_unknown_method() -> None:
    with pytest.raises(
        InputError, match="unknown decoder 'soft': choose one of argmax, quarter, dark, udp, local, int"
    ):
        encode(torch.zeros(1, 1, 2), (4, 4), "soft")


@pytest.mark.parametrize("method", DECODERS)
@pytest.mark.parametrize("joint", [(-0.01, 2.0), (4.01, 2.0), (2.0, 6.01), (math.nan, 2.0), (2.0, math.inf)])
def test_joint_beyond_the_outermost_pixel_centres(joint: tuple[float, float], method: str) -> None:
    joints = torch.ones(2, 3, 2)
    joints[1, 2] = torch.tensor(joint)
    with pytest.raises(
        InputError, match="1 of 6 joints are NaN, infinite or beyond the outermost pixel centres of their"
    ):
        encode(joints, (7, 5), method)


@pytest.mark.usefixtures("no_shape_checks")
def test_settings_that_are_wrong() -> None:
    joints = torch.ones(2, 3, 2)
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match=f"sigma {sigma} must be positive"):
            encode(joints, (7, 5), "dark", sigma=sigma)
    for size in ((7,), (7, 0), (7, 5, 3)):
        with pytest.raises(InputError, match=r"size \(.*\) must be \(H, W\)"):
            encode(joints, size, "dark")
        with pytest.raises(InputError, match=r"size \(.*\) must be \(H, W\)"):
            round_trip_errors(size)
    with pytest.raises(InputError, match=r"joints have shape \(3, 2\): give \(B, K, 2\)"):
        encode(joints[0], (7, 5), "dark")
    with pytest.raises(InputError, match="count 0 must be at least 1"):
        round_trip_errors((7, 5), count=0)
