"""Losses on the expectation, against values and gradients worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hdm.losses import DSNT, IntegralRegression, JSDivergence
from hdm.losses.coordinates import expectation

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]
One = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def bump(height: int, width: int, centre: tuple[float, float], sigma: float) -> Tensor:
    """Logits whose softmax is a Gaussian."""
    x = torch.arange(width, dtype=torch.float64) - centre[0]
    y = torch.arange(height, dtype=torch.float64) - centre[1]
    return (-(x.square() + y.square()[:, None]) / (2 * sigma**2)).view(1, 1, height, width)


def pixel(height: int, width: int, place: tuple[int, int]) -> Tensor:
    """Logits whose softmax is 1 in one pixel."""
    heatmap = torch.zeros(1, 1, height, width, dtype=torch.float64)
    heatmap[0, 0, place[1], place[0]] = 1000
    return heatmap


def test_the_expectation() -> None:
    assert expectation(pixel(7, 5, (3, 6)).flatten(2).softmax(-1).view(1, 1, 7, 5)).tolist() == [[[3, 6]]]
    assert expectation(torch.full((2, 3, 7, 5), 1 / 35))[1, 2].tolist() == pytest.approx([2, 3])
    two = torch.zeros(1, 1, 7, 5)
    two[0, 0, 1, 4], two[0, 0, 5, 0] = 0.75, 0.25
    assert expectation(two).tolist() == [[[3.0, 2.0]]]


def test_integral_regression_of_one_pixel(one: One) -> None:
    """The pixel (3, 6) on a map 7 high and 5 wide: 1.75 of 5 columns and 4.5 of 7 rows off."""
    value = IntegralRegression()(pixel(7, 5, (3, 6)), *one((1.25, 1.5)))
    assert value.item() == pytest.approx(1.75 / 5 + 4.5 / 7)
    assert IntegralRegression()(pixel(7, 5, (3, 6)), *one((3.0, 6.0))).item() == 0


def test_dsnt_of_one_pixel(one: One) -> None:
    """In coordinates from -1 to 1 a pixel is 2 / 5 wide and 2 / 7 high."""
    value = DSNT(js_weight=0.0)(pixel(7, 5, (3, 6)), *one((1.25, 1.5)))
    assert value.item() == pytest.approx(math.hypot(1.75 * 2 / 5, 4.5 * 2 / 7))


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_dsnt_as_the_paper_writes_it(problem: Problem, weight: float) -> None:
    """Coordinates of pixel centres X_j = (2 j - (n + 1)) / n, j = 1..n; joints in the same."""
    heatmaps, joints, visible = problem()
    p = heatmaps.flatten(2).softmax(-1).view_as(heatmaps)
    x = (2 * torch.arange(1, 6) - 6).double() / 5
    y = (2 * torch.arange(1, 8) - 8).double() / 7
    mu = torch.stack([(p * x).sum((-2, -1)), (p * y[:, None]).sum((-2, -1))], -1)
    true = (2 * joints + 1) / torch.tensor([5.0, 7.0]) - 1
    js = JSDivergence(1.5, reduction="none")(heatmaps, joints, torch.ones_like(visible))
    expected = (mu - true).square().sum(-1).sqrt() + weight * js
    each = DSNT(1.5, js_weight=weight, reduction="none")(heatmaps, joints, visible)
    assert torch.allclose(each, visible * expected)


def test_a_perfect_gaussian_costs_dsnt_nothing(one: One) -> None:
    heatmaps = bump(30, 20, (8.0, 14.0), 1.0).requires_grad_()
    value = DSNT()(heatmaps, *one((8.0, 14.0)))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-9)
    assert torch.isfinite(heatmaps.grad).all()


def test_a_joint_that_is_hit_exactly_has_a_finite_gradient(one: One) -> None:
    for loss in (IntegralRegression(), DSNT()):
        heatmaps = pixel(7, 5, (2, 3)).requires_grad_()
        loss(heatmaps, *one((2.0, 3.0))).backward()
        assert torch.isfinite(heatmaps.grad).all()


def test_integral_gradient(problem: Problem) -> None:
    """dl/dz_i = p_i (c_i - sum p c) with c_i = +-x_i / W +- y_i / H."""
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    IntegralRegression(temperature=0.5)(heatmaps, joints, visible).backward()
    p = (heatmaps.detach() / 0.5).flatten(2).softmax(-1).view_as(heatmaps)
    side = (expectation(p) - joints).sign() / torch.tensor([5.0, 7.0])
    c = side[..., :1, None] * torch.arange(5.0) + side[..., 1:, None] * torch.arange(7.0)[:, None]
    expected = p * (c - (p * c).sum((-2, -1), keepdim=True)) / 0.5
    assert torch.allclose(heatmaps.grad, (visible / 3.5)[..., None, None] * expected)


@pytest.mark.parametrize("loss", [IntegralRegression(), DSNT()])
def test_a_translated_problem(one: One, loss: torch.nn.Module) -> None:
    values = [
        loss(bump(40, 30, (x + 2.3, y - 1.1), 1.5), *one((x + 0.2, y + 0.4))).item()
        for x, y in [(12.0, 15.0), (15.0, 22.0)]
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_mirrored_problem(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    mirrored = torch.stack([4 - joints[..., 0], joints[..., 1]], -1)
    loss = IntegralRegression()
    assert torch.allclose(loss(heatmaps.flip(-1), mirrored, visible), loss(heatmaps, joints, visible))


def test_all_maps_with_the_right_expectation_are_the_same_to_integral_regression(one: One) -> None:
    """Which DSNT's second term is there for."""
    narrow, wide = bump(31, 21, (10.0, 15.0), 0.5), bump(31, 21, (10.0, 15.0), 3.0)
    integral, dsnt = IntegralRegression(), DSNT(0.5)
    assert integral(narrow, *one((10.0, 15.0))).item() == pytest.approx(0, abs=1e-12)
    assert integral(wide, *one((10.0, 15.0))).item() == pytest.approx(0, abs=1e-12)
    assert dsnt(wide, *one((10.0, 15.0))) > 0.3 > dsnt(narrow, *one((10.0, 15.0))) + 0.29
