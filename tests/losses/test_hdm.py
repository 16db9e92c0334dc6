"""The HDM loss, against values and gradients worked out by hand or by POT, and what descending it leads to."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from hdm.decode import decode
from hdm.losses import SUPPLIERS, GaussianMSE, HDMLoss

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


def test_subpixel_descent_ends_at_the_bilinear_map_of_the_dot() -> None:
    before, after, maps = descend(HDMLoss(), torch.randn(2, 2, 9, 7), DOTS, steps=150, rate=0.3)
    assert after < 0.02 * before
    joints, scores = decode(maps, "local")
    assert (joints - DOTS).abs().max() < 0.05
    assert scores.min() > 0.95
    expected = torch.stack([splat(9, 7, tuple(dot.tolist())) for dot in DOTS.view(4, 2)])
    assert (maps.view(4, 9, 7) - expected).abs().max() < 0.05
