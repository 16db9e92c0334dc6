"""Gaussian MSE, its hardest joints, and Adaptive Wing, against values and gradients worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hdm.losses import OHKM, AdaptiveWing, GaussianMSE

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]
One = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def gaussian(height: int, width: int, centre: tuple[float, float], sigma: float) -> Tensor:
    x = torch.arange(width, dtype=torch.float64) - centre[0]
    y = torch.arange(height, dtype=torch.float64) - centre[1]
    return torch.exp(-(x.square() + y.square()[:, None]) / (2 * sigma**2))


# --- Gaussian MSE ---


@pytest.mark.parametrize("loss", [GaussianMSE, OHKM, AdaptiveWing])
def test_a_perfect_gaussian_map_costs_nothing(loss: type[nn.Module]) -> None:
    joints = torch.tensor([[[4.3, 2.2], [0.4, 9.9]]], dtype=torch.float64)
    heatmaps = torch.stack([gaussian(12, 9, (4.3, 2.2), 1.5), gaussian(12, 9, (0.4, 9.9), 1.5)])[None].requires_grad_()
    value = loss(sigma=1.5, rounded=False)(heatmaps, joints, torch.ones(1, 2, dtype=torch.float64))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    # Adaptive Wing's slope there is the error^0.1, which is no smaller for rounding errors.
    assert heatmaps.grad.abs().max() < (1e-2 if loss is AdaptiveWing else 1e-12)


@pytest.mark.parametrize(("shift", "energy"), [(1, 1.523), (2, 5.559), (None, 12.566)])
@pytest.mark.parametrize("rounded", [True, False])
def test_squared_differences_of_shifted_gaussians(one: One, shift: int | None, energy: float, rounded: bool) -> None:
    """Sigma 2 on 64 x 48: 2 pi sigma^2 (1 - exp(-shift^2 / (4 sigma^2))), and pi sigma^2 for an empty map."""
    heatmap = torch.zeros(64, 48, dtype=torch.float64) if shift is None else gaussian(64, 48, (20 + shift, 30), 2.0)
    value = GaussianMSE(2.0, rounded=rounded)(heatmap.view(1, 1, 64, 48), *one((20.0, 30.0)))
    # Cutting the target at 3 sigma takes a thousandth of its energy.
    assert 2 * 64 * 48 * value.item() == pytest.approx(energy, rel=5e-3 if rounded else 4e-4)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_an_empty_map_costs_half_the_energy_of_the_gaussian(one: One, sigma: float) -> None:
    # The sum of exp(-r^2 / sigma^2) over the plane is pi sigma^2.
    loss = GaussianMSE(sigma, rounded=False)(torch.zeros(1, 1, 64, 48, dtype=torch.float64), *one((20.3, 30.4)))
    assert float(loss) == pytest.approx(0.5 * math.pi * sigma**2 / (64 * 48), rel=1e-3)


def test_the_target_is_a_gaussian_around_the_rounded_dot_or_the_dot() -> None:
    joints = torch.tensor([[[4.6, 3.2]]], dtype=torch.float64)
    rounded, whole = GaussianMSE(1.0).target(joints, (8, 9)), GaussianMSE(1.0, rounded=False).target(joints, (8, 9))
    assert rounded[0, 0, 3, 5] == 1
    assert (rounded > 0).sum() == 7 * 7
    assert torch.allclose(whole[0, 0], gaussian(8, 9, (4.6, 3.2), 1.0))


def test_the_gradient_is_the_difference(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    GaussianMSE(rounded=False)(heatmaps, joints, visible).backward()
    for b in range(2):
        for k in range(3):
            target = gaussian(7, 5, tuple(joints[b, k].tolist()), 2.0)
            expected = visible[b, k] / 3.5 * (heatmaps.detach()[b, k] - target) / 35
            assert torch.allclose(heatmaps.grad[b, k], expected)


def test_a_translated_problem(one: One) -> None:
    """A bump and its dot, moved by whole pixels, cost the same as long as both stay on the map."""
    loss = GaussianMSE(1.0)
    values = [
        loss(gaussian(40, 30, (x + 2.3, y - 1.1), 1.5).view(1, 1, 40, 30), *one((x + 0.2, y + 0.4))).item()
        for x, y in [(12.0, 15.0), (15.0, 22.0)]
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_division_by_all_joints_as_hrnet(problem: Problem) -> None:
    """The official loop: for each joint half of MSELoss's mean over images and pixels, then the mean over joints."""
    heatmaps, joints, _ = problem()
    visible = torch.tensor([[1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    loss = GaussianMSE(divide_by="all")
    target = loss.target(joints, (7, 5))
    mse = nn.MSELoss()
    total = torch.zeros(())
    for k in range(3):
        weight = visible[:, k].view(2, 1, 1)
        total = total + 0.5 * mse(heatmaps[:, k] * weight, target[:, k] * weight)
    assert torch.allclose(loss(heatmaps, joints, visible), total / 3)
    assert torch.allclose(loss(heatmaps, joints, visible) * 6 / 4, GaussianMSE()(heatmaps, joints, visible))
    each = GaussianMSE(divide_by="all", reduction="none")(heatmaps, joints, visible)
    assert torch.equal(each, GaussianMSE(reduction="none")(heatmaps, joints, visible))


@pytest.mark.parametrize("loss", [GaussianMSE, OHKM, AdaptiveWing])
def test_the_maps_are_the_output(problem: Problem, loss: type[nn.Module]) -> None:
    heatmaps, _, _ = problem()
    assert torch.equal(loss().maps(heatmaps), heatmaps)


# --- the hardest joints ---


def constant_errors(*values: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Heatmaps that miss a target far away, all zero on them, by sqrt(2 l) everywhere: each joint costs its l."""
    heatmaps = (2 * torch.tensor(values, dtype=torch.float64)).sqrt()[..., None, None].expand(-1, -1, 4, 5)
    return heatmaps, torch.full((*heatmaps.shape[:2], 2), 2.5, dtype=torch.float64)


def test_the_hardest_joints_of_each_image() -> None:
    heatmaps, joints = constant_errors((1.0, 5.0, 2.0, 3.0), (7.0, 0.5, 6.0, 9.0))
    joints, visible = torch.zeros_like(joints), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], dtype=torch.float64)
    target = GaussianMSE(0.01).target(joints, (4, 5))
    heatmaps = heatmaps + target
    loss = OHKM(0.01, topk=2)
    # (5 + 3) / 2 and, the last joint not being visible, (7 + 6) / 2
    assert loss(heatmaps, joints, visible).item() == pytest.approx((4 + 6.5) / 2)
    each = OHKM(0.01, topk=2, reduction="none")(heatmaps, joints, visible)
    assert each.flatten().tolist() == pytest.approx([0, 5, 0, 3, 7, 0, 6, 0])
    # More than there are: all of them.
    assert OHKM(0.01, topk=8)(heatmaps, joints, visible).item() == pytest.approx((11 / 4 + 13.5 / 4) / 2)


def test_joints_that_are_not_visible_fill_up_the_hardest() -> None:
    """As in the official code, an image with one visible joint has the mean of that one and of zeros."""
    heatmaps, joints = constant_errors((4.0, 5.0, 6.0, 7.0))
    joints = torch.zeros_like(joints)
    heatmaps = heatmaps + GaussianMSE(0.01).target(joints, (4, 5))
    visible = torch.tensor([[0, 1, 0, 0]], dtype=torch.float64)
    assert OHKM(0.01, topk=2)(heatmaps, joints, visible).item() == pytest.approx(5 / 2)


def test_only_the_hardest_joints_have_a_gradient(problem: Problem) -> None:
    heatmaps, joints, _ = problem()
    visible = torch.ones(2, 3, dtype=torch.float64)
    heatmaps.requires_grad_()
    OHKM(topk=1)(heatmaps, joints, visible).backward()
    hardest = GaussianMSE(reduction="none")(heatmaps, joints, visible).argmax(1)
    chosen = heatmaps.grad.abs().sum((-2, -1)) > 0
    assert chosen.sum(1).tolist() == [1, 1]
    assert torch.equal(chosen.int().argmax(1), hardest)


def test_all_joints_are_gaussian_mse(problem: Problem) -> None:
    heatmaps, joints, _ = problem()
    visible = torch.ones(2, 3, dtype=torch.float64)
    assert torch.allclose(OHKM(topk=3)(heatmaps, joints, visible), GaussianMSE()(heatmaps, joints, visible))


# --- Adaptive Wing ---


def wing(difference: float, target: float) -> float:
    """The formula as mmpose writes it: w = 14, e = 1, a = 2.1, theta = 0.5."""
    power = 2.1 - target
    if difference < 0.5:
        return 14 * math.log(1 + difference**power)
    slope = 14 / (1 + 0.5**power) * power * 0.5 ** (power - 1)
    return slope * difference - (0.5 * slope - 14 * math.log(1 + 0.5**power))


@pytest.mark.parametrize("difference", [0.0, 0.1, 0.4999, 0.5, 0.5001, 3.0, 1e4])
@pytest.mark.parametrize("sign", [1, -1])
def test_adaptive_wing_of_a_constant_difference(one: One, difference: float, sign: int) -> None:
    target = gaussian(7, 5, (2.3, 3.8), 1.5)
    value = AdaptiveWing(1.5, rounded=False)((target + sign * difference).view(1, 1, 7, 5), *one((2.3, 3.8)))
    expected = sum(wing(difference, y) for y in target.flatten().tolist()) / 35
    assert value.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_adaptive_wing_is_steeper_at_the_peak_than_on_the_background(one: One) -> None:
    heatmaps = GaussianMSE(1.5).target(one((2.0, 3.0))[0], (7, 5)) + 0.1
    heatmaps.requires_grad_()
    AdaptiveWing(1.5)(heatmaps, *one((2.0, 3.0))).backward()
    # f' = w p d^(p-1) / (1 + d^p) with p = 1.1 at the peak (y = 1); in the corner y = G.
    corner = math.exp(-(2**2 + 3**2) / (2 * 1.5**2))
    for (row, column), y in {(3, 2): 1.0, (0, 0): corner}.items():
        power = 2.1 - y
        slope = 14 * power * 0.1 ** (power - 1) / (1 + 0.1**power)
        assert heatmaps.grad[0, 0, row, column].item() == pytest.approx(slope / 35)
    assert heatmaps.grad[0, 0, 3, 2] > 4 * heatmaps.grad[0, 0, 0, 0]


def test_adaptive_wing_of_a_huge_difference() -> None:
    """Whose power, not used there, is infinite."""
    heatmaps = torch.full((1, 2, 7, 5), 1e20, requires_grad=True)
    value = AdaptiveWing(alpha=4.0)(heatmaps, torch.full((1, 2, 2), 2.0), torch.ones(1, 2))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(heatmaps.grad).all()
