"""The HDM loss, against values and gradients worked out by hand or by POT, and what descending it leads to."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdm.decode import decode
from hdm.errors import InputError
from hdm.losses import SUPPLIERS, CrossEntropy, GaussianMSE, HDMLoss, make_loss
from hdm.transport import heatmap_emd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # POT's own docstrings
    import ot

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]


def gaussian(height: int, width: int, centre: tuple[float, float], sigma: float) -> Tensor:
    x = torch.arange(width, dtype=torch.float64) - centre[0]
    y = torch.arange(height, dtype=torch.float64) - centre[1]
    return torch.exp(-(x.square() + y.square()[:, None]) / (2 * sigma**2))


def splat(height: int, width: int, joint: tuple[float, float]) -> Tensor:
    """The bilinear map of a dot: the product of two hats."""
    x, y = (1 - (torch.arange(n, dtype=torch.float64) - c).abs() for n, c in zip((width, height), joint, strict=True))
    return torch.outer(y.clamp(min=0), x.clamp(min=0))


def distances(height: int, width: int, point: tuple[float, float]) -> Tensor:
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.hypot(x.double() - point[0], y.double() - point[1])


@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_hdm_of_a_uniform_map(suppliers: str) -> None:
    heatmaps = torch.full((2, 2, 64, 48), 0.4)
    joints, visible = torch.tensor([20.0, 30.0]).expand(2, 2, 2), torch.ones(2, 2)
    for demanders in ("nearest", "dot", "subpixel"):
        loss = HDMLoss(suppliers, demanders)
        assert float(loss(heatmaps, joints, visible)) == pytest.approx(21.7980, abs=1e-4)
    assert float(HDMLoss(suppliers, cost="l2_squared")(heatmaps, joints, visible)) == pytest.approx(547.667, abs=2e-3)


def test_supplier_forms_by_hand() -> None:
    z = torch.tensor([[-1.0, 0.0, 1.0], [2.0, -3.0, 0.5]], dtype=torch.float64).view(1, 1, 2, 3)
    a = {
        "softmax": np.exp(z.numpy() / 0.5),
        "relu": np.array([[0, 0, 1], [2, 0, 0.5]]),
        "softplus": np.log1p(np.exp(z.numpy())),
        "sigmoid": 1 / (1 + np.exp(-z.numpy())),
    }
    for suppliers, mass in a.items():
        maps = HDMLoss(suppliers, temperature=0.5).maps(z)
        assert maps.squeeze().numpy() == pytest.approx((mass / mass.sum()).squeeze())


def test_a_map_of_little_mass_is_filled_up() -> None:
    z = torch.tensor([[0.0, 1.0, 0.0], [2.0, -3.0, 1.0]], dtype=torch.float64).view(1, 1, 2, 3)
    maps = HDMLoss("relu", floor=10.0).maps(z)
    assert maps.flatten().tolist() == pytest.approx([0.1, 0.2, 0.1, 0.3, 0.1, 0.2])
    assert torch.equal(HDMLoss("relu", floor=4.0).maps(z), HDMLoss("relu", floor=0.01).maps(z))


@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_maps_are_distributions(problem: Problem, suppliers: str) -> None:
    heatmaps, _, _ = problem()
    maps = HDMLoss(suppliers, temperature=0.7).maps(heatmaps)
    assert maps.shape == heatmaps.shape
    assert maps.min() >= 0
    assert torch.allclose(maps.sum((-2, -1)), torch.ones(2, 3, dtype=torch.float64))


def supplier_potential(s: Tensor, joint: tuple[float, float], demanders: str) -> Tensor:
    """f (H, W): what moving a supplier's mass costs at the best plan, up to a constant; for four demanders from POT."""
    height, width = s.shape
    if demanders == "dot":
        return distances(height, width, joint)
    if demanders == "nearest":
        return distances(height, width, (round(joint[0]), round(joint[1])))
    x0, y0 = math.floor(joint[0]), math.floor(joint[1])
    corners = [(x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)]
    costs = torch.stack([distances(height, width, corner).flatten() for corner in corners], 1)
    weights = np.array([float(splat(height + 1, width + 1, joint)[y, x]) for x, y in corners])
    _, log = ot.emd2(s.numpy().ravel(), weights, costs.numpy(), log=True)
    return torch.from_numpy(log["u"]).view(height, width)


@pytest.mark.parametrize("demanders", ["dot", "nearest", "subpixel"])
@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_hdm_gradient_by_formula(problem: Problem, suppliers: str, demanders: str) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    loss = HDMLoss(suppliers, demanders, temperature=0.8)
    loss(heatmaps, joints, visible).backward()
    z = heatmaps.detach()
    a, slope = {
        "softmax": ((z / 0.8).exp(), (z / 0.8).exp() / 0.8),
        "relu": (z.clamp(min=0), (z > 0).double()),
        "softplus": (z.exp().log1p(), torch.sigmoid(z)),
        "sigmoid": (torch.sigmoid(z), torch.sigmoid(z) * torch.sigmoid(-z)),
    }[suppliers]
    for b in range(2):
        for k in range(3):
            s = a[b, k] / a[b, k].sum()
            f = supplier_potential(s, tuple(joints[b, k].tolist()), demanders)
            # softmax: s_i (f_i - sum s f) / temperature; relu: 1[z_i > 0] (f_i - sum s f) / sum of the map
            expected = visible[b, k] / 3.5 * slope[b, k] * (f - (s * f).sum()) / a[b, k].sum()
            assert torch.allclose(heatmaps.grad[b, k], expected, atol=1e-9)


@pytest.mark.parametrize("suppliers", ["relu", "softplus", "sigmoid"])
@pytest.mark.parametrize("depth", [-1.0, -1e4])
def test_floor_keeps_a_map_without_positive_values(suppliers: str, depth: float) -> None:
    heatmaps = torch.full((1, 2, 64, 48), depth, requires_grad=True)
    joints, visible = torch.tensor([20.0, 30.0]).expand(1, 2, 2), torch.ones(1, 2)
    value = HDMLoss(suppliers)(heatmaps, joints, visible)
    value.backward()
    assert value.item() == pytest.approx(21.7980, abs=1e-3)
    assert torch.isfinite(heatmaps.grad).all()
    dead = suppliers == "relu" or depth < -1000
    assert (heatmaps.grad.abs().sum() == 0) == dead


def test_relu_suppliers_do_not_see_the_amplitude(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    loss = HDMLoss("relu")
    assert torch.allclose(loss(100 * heatmaps, joints, visible), loss(heatmaps, joints, visible))


def test_temperature_sharpens(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    cold, warm = HDMLoss(temperature=0.01), HDMLoss(temperature=100.0)
    assert cold.maps(heatmaps).amax((-2, -1)).min() > 0.9
    assert warm.maps(heatmaps).amax() < 1.1 / 35
    assert torch.allclose(HDMLoss(temperature=4.0)(4 * heatmaps, joints, visible), HDMLoss()(heatmaps, joints, visible))


def test_gaussian_mse_falls_while_the_joint_jumps_away_and_hdm_rises() -> None:
    # From a faint right map to a strong one with a far pixel that is a little stronger still.
    target = gaussian(64, 48, (20, 30), 2.0)
    wrong = 0.9 * target
    wrong[5, 5] = 0.95
    t = torch.linspace(0, 1, 11, dtype=torch.float64).view(-1, 1, 1)
    path = ((1 - t) * 0.1 * target + t * wrong).unsqueeze(1)
    joints, visible = torch.tensor([20.0, 30.0]).expand(11, 1, 2), torch.ones(11, 1)
    mse = GaussianMSE(rounded=False, reduction="none")(path, joints, visible).squeeze(1)
    hdm = HDMLoss("relu", reduction="none")(path, joints, visible).squeeze(1)
    error = (decode(path, "argmax")[0].squeeze(1) - torch.tensor([20.0, 30.0])).norm(dim=1)
    assert (mse.diff() < 0).all()
    assert (hdm.diff() > 0).all()
    assert error.numpy() == pytest.approx([0.0] * 7 + [math.hypot(15, 25)] * 4)  # the jump is at t = 2/3


# --- bounded costs ---


@pytest.mark.parametrize("demanders", ["nearest", "dot", "subpixel"])
@pytest.mark.parametrize("cost", ["truncated", "gaussian"])
def test_bounded_costs_with_a_scale_for_each_joint(problem: Problem, cost: str, demanders: str) -> None:
    heatmaps, joints, visible = problem()
    loss = HDMLoss(demanders=demanders, cost=cost, scale=[1.0, 2.5, 6], reduction="none")
    each = loss(heatmaps, joints, visible)
    for k, scale in enumerate((1.0, 2.5, 6.0)):
        expected = heatmap_emd(loss.maps(heatmaps)[:, k], joints[:, k], demanders=demanders, cost=cost, scale=scale)
        assert torch.allclose(each[:, k], visible[:, k] * expected)
    same, one = HDMLoss(cost=cost, scale=(2, 2, 2)), HDMLoss(cost=cost, scale=2)
    assert torch.equal(same(heatmaps, joints, visible), one(heatmaps, joints, visible))


@pytest.mark.parametrize("cost", ["truncated", "gaussian"])
def test_gradient_of_bounded_costs(problem: Problem, cost: str) -> None:
    heatmaps, joints, visible = problem()
    for suppliers in SUPPLIERS:
        loss = HDMLoss(suppliers, cost=cost, scale=[1.2, 2.0, 3.1])
        torch.autograd.gradcheck(
            lambda z, loss=loss: loss(z, joints, visible), heatmaps.requires_grad_(), atol=1e-6, fast_mode=True
        )


def test_loss_settings_of_a_profile() -> None:
    loss = make_loss("hdm", cost="gaussian", scale=[1.5, 2, 3.0], cross_entropy=0.1)
    assert loss.extra_repr() == (
        "suppliers='softmax', demanders='subpixel', cost='gaussian', solver='exact', scale=[1.5, 2, 3.0], "
        "cross_entropy=0.1"
    )
    assert HDMLoss().extra_repr() == "suppliers='softmax', demanders='subpixel', cost='l2', solver='exact'"
    assert not loss.state_dict()


@pytest.mark.parametrize("scale", [[1.0, 2.0], [3.0], [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0]]])
@pytest.mark.usefixtures("no_shape_checks")
def test_scales_of_other_joints(problem: Problem, scale: list[float]) -> None:
    loss = HDMLoss(cost="truncated", scale=scale)
    with pytest.raises(
        InputError, match=r"scale \[.*\] does not fit heatmaps of 3 joints: give one number, or a list of"
    ):
        loss(*problem())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cost": "truncated"}, "cost 'truncated' needs a scale"),
        ({"scale": 2.0}, "cost 'l2' takes no scale"),
        ({"cost": "gaussian", "scale": [2.0, -1.0]}, r"scale \[2.0, -1.0\] must be positive and finite"),
        ({"cross_entropy": -1.0}, "cross_entropy -1.0 must be 0 or more, and finite"),
        ({"cross_entropy": float("nan")}, "cross_entropy nan must be 0 or more, and finite"),
        ({"cross_entropy": float("inf")}, "cross_entropy inf must be 0 or more, and finite"),
        ({"cross_entropy": 0.5, "demanders": "dot"}, "no pixel is the unrounded dot: set cross_entropy to 0"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HDMLoss(**settings)


# --- with cross-entropy ---


@pytest.mark.parametrize("demanders", ["nearest", "subpixel"])
def test_cross_entropy_is_added_with_its_weight(problem: Problem, demanders: str) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    terms = [
        HDMLoss(demanders=demanders, temperature=0.7),
        CrossEntropy(demanders, temperature=0.7),
        HDMLoss(demanders=demanders, temperature=0.7, cross_entropy=0.3),
    ]
    values = [loss(heatmaps, joints, visible) for loss in terms]
    gradients = [torch.autograd.grad(value, heatmaps)[0] for value in values]
    for distance, entropy, both in (values, gradients):
        assert torch.allclose(both, distance + 0.3 * entropy, rtol=1e-12)


@pytest.mark.parametrize("suppliers", SUPPLIERS[1:])
def test_cross_entropy_of_other_suppliers_by_hand(problem: Problem, suppliers: str) -> None:
    heatmaps, joints, visible = problem()
    distance = HDMLoss(suppliers, reduction="none")
    both = HDMLoss(suppliers, cross_entropy=2.0, reduction="none")
    added = both(heatmaps, joints, visible) - distance(heatmaps, joints, visible)
    for b in range(2):
        for k in range(3):
            s = distance.maps(heatmaps)[b, k].clamp(min=1e-6)
            demand = splat(7, 5, tuple(joints[b, k].tolist()))
            assert float(added[b, k]) == pytest.approx(float(visible[b, k] * -2 * (demand * s.log()).sum()), rel=1e-9)


@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_gradient_with_cross_entropy(problem: Problem, suppliers: str) -> None:
    heatmaps, joints, visible = problem()
    heatmaps = (0.3 * heatmaps + 1).abs().requires_grad_()  # where no share is cut off
    loss = HDMLoss(suppliers, cross_entropy=0.7)
    torch.autograd.gradcheck(lambda z: loss(z, joints, visible), heatmaps, atol=1e-6, fast_mode=True)


def test_cross_entropy_pulls_where_there_is_no_mass() -> None:
    # All mass far from the dot: the EMD's gradient at the dot's pixels is nothing, that of the cross-entropy is not.
    heatmaps = torch.zeros(1, 2, 12, 9)
    heatmaps[:, :, 10, 7] = 200.0
    joints, visible = torch.tensor([2.3, 3.6]).expand(1, 2, 2), torch.ones(1, 2)
    pulls = []
    for weight in (0.0, 1.0):
        z = heatmaps.clone().requires_grad_()
        HDMLoss(cross_entropy=weight)(z, joints, visible).backward()
        pulls.append(z.grad[0, :, 3:5, 2:4])
    assert pulls[0].abs().max() < 1e-30
    expected = -torch.tensor([[0.7 * 0.4, 0.3 * 0.4], [0.7 * 0.6, 0.3 * 0.6]]) / 2  # of two joints
    assert torch.allclose(pulls[1], expected.expand(2, 2, 2), atol=1e-6)


@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_cross_entropy_is_finite_for_maps_without_mass_at_the_dot(suppliers: str) -> None:
    heatmaps = torch.full((1, 2, 12, 9), -1e4)
    heatmaps[:, :, 10, 7] = 1e4
    heatmaps.requires_grad_()
    value = HDMLoss(suppliers, cross_entropy=1.0)(heatmaps, torch.full((1, 2, 2), 2.3), torch.ones(1, 2))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(heatmaps.grad).all()
    if suppliers != "softmax":  # the distance, and log 1e6
        distance = float(HDMLoss(suppliers)(heatmaps.detach(), torch.full((1, 2, 2), 2.3), torch.ones(1, 2)))
        assert value.item() == pytest.approx(distance + math.log(1e6), rel=1e-5)


# --- learning ---


def descend(
    loss: torch.nn.Module, start: Tensor, joints: Tensor, steps: int, rate: float
) -> tuple[float, float, Tensor]:
    """The loss before and after so many steps of Adam on the output itself, and the maps at the end."""
    heatmaps = start.clone().requires_grad_()
    visible = torch.ones(joints.shape[:2])
    optimizer = torch.optim.Adam([heatmaps], rate)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(heatmaps, joints, visible)
        value.backward()
        values.append(value.item())
        optimizer.step()
    return values[0], loss(heatmaps, joints, visible).item(), loss.maps(heatmaps.detach())


DOTS = torch.tensor([[[2.3, 6.8], [5.5, 1.25]], [[0.0, 4.9], [3.0, 3.0]]])


@pytest.mark.parametrize("demanders", ["nearest", "dot", "subpixel"])
@pytest.mark.parametrize("suppliers", SUPPLIERS)
def test_descent_lowers_the_distance(suppliers: str, demanders: str) -> None:
    before, after, _ = descend(HDMLoss(suppliers, demanders), torch.rand(2, 2, 9, 7), DOTS, steps=40, rate=0.2)
    assert after < 0.5 * before


def test_descent_with_sinkhorn() -> None:
    loss = HDMLoss(solver="sinkhorn", blur=0.3)
    before, after, _ = descend(loss, torch.rand(2, 2, 9, 7), DOTS, steps=20, rate=0.2)
    assert after < 0.5 * before


@pytest.mark.parametrize("settings", [{"cost": "truncated", "scale": 6.0}, {"cost": "gaussian", "scale": [2.0, 4.0]}])
def test_descent_of_bounded_costs(settings: dict[str, Any]) -> None:
    loss = HDMLoss(**settings, cross_entropy=0.05)
    before, after, maps = descend(loss, torch.randn(2, 2, 9, 7), DOTS, steps=150, rate=0.3)
    assert after < 0.5 * before
    joints, _ = decode(maps, "local")
    assert (joints - DOTS).abs().max() < 0.2


def test_subpixel_descent_ends_at_the_bilinear_map_of_the_dot() -> None:
    before, after, maps = descend(HDMLoss(), torch.randn(2, 2, 9, 7), DOTS, steps=150, rate=0.3)
    assert after < 0.02 * before
    joints, scores = decode(maps, "local")
    assert (joints - DOTS).abs().max() < 0.05
    assert scores.min() > 0.95
    expected = torch.stack([splat(9, 7, tuple(dot.tolist())) for dot in DOTS.view(4, 2)])
    assert (maps.view(4, 9, 7) - expected).abs().max() < 0.05
