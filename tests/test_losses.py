"""The losses, against values and gradients worked out by hand, in batches of several joints on rectangular maps."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdm.decode import decode
from hdm.errors import InputError
from hdm.losses import LOSSES, SUPPLIERS, CrossEntropy, GaussianMSE, HDMLoss, make_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # POT's own docstrings
    import ot

pytestmark = pytest.mark.usefixtures("one_thread")

FORMS: list[tuple[str, dict[str, Any]]] = [
    ("gaussian_mse", {}),
    ("gaussian_mse", {"rounded": False, "sigma": 1.3}),
    ("cross_entropy", {}),
    ("cross_entropy", {"demanders": "nearest", "temperature": 0.7}),
    *(("hdm", {"suppliers": suppliers}) for suppliers in SUPPLIERS),
    ("hdm", {"demanders": "dot", "temperature": 2.0}),
    ("hdm", {"demanders": "nearest", "suppliers": "relu"}),
    ("hdm", {"cost": "l2_squared"}),
]
SINKHORN: tuple[str, dict[str, Any]] = ("hdm", {"solver": "sinkhorn", "blur": 1.0})


def losses(forms: list[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    """A test for each (name, settings) of `forms`."""
    names = ["-".join([name, *map(str, settings.values())]) for name, settings in forms]
    return pytest.mark.parametrize(("name", "settings"), forms, ids=names)


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Two images, three joints, maps 7 high and 5 wide; two of the joints are not visible and one counts half."""
    heatmaps = torch.randn(2, 3, 7, 5, dtype=dtype)
    joints = torch.rand(2, 3, 2, dtype=dtype) * torch.tensor([3.8, 5.8], dtype=dtype) + 0.1
    return heatmaps, joints, torch.tensor([[1, 0, 0.5], [1, 1, 0]], dtype=dtype)


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


def one(joint: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Joints and visible of a batch with one joint."""
    return torch.tensor(joint, dtype=torch.float64).view(1, 1, 2), torch.ones(1, 1, dtype=torch.float64)


# What all losses have in common


@losses([*FORMS, SINKHORN])
class TestEveryLoss:
    def test_mean_is_over_the_visible(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        each = make_loss(name, **settings, reduction="none")(heatmaps, joints, visible)
        assert each.shape == (2, 3)
        assert ((each > 0) == (visible > 0)).all()
        assert torch.allclose(make_loss(name, **settings)(heatmaps, joints, visible), each.sum() / 3.5)

    def test_weight_scales_a_joint(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        each = make_loss(name, **settings, reduction="none")
        full = each(heatmaps, joints, torch.ones(2, 3, dtype=torch.float64))
        assert torch.allclose(each(heatmaps, joints, visible), full * visible)
        mean = make_loss(name, **settings)
        assert torch.allclose(mean(heatmaps, joints, 10 * visible), mean(heatmaps, joints, visible))

    def test_joints_do_not_mix(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, _ = problem()
        loss = make_loss(name, **settings, reduction="none")
        together = loss(heatmaps, joints, torch.ones(2, 3, dtype=torch.float64))
        for b in range(2):
            for k in range(3):
                alone = loss(heatmaps[b, k].view(1, 1, 7, 5), *one(tuple(joints[b, k].tolist())))
                assert torch.allclose(alone.squeeze(), together[b, k], atol=1e-3 if "solver" in settings else 1e-9)

    def test_invisible_joint_has_no_gradient(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = make_loss(name, **settings)
        known = loss(heatmaps, joints, visible)
        joints[0, 1], joints[1, 2] = float("nan"), float("inf")
        heatmaps.requires_grad_()
        value = loss(heatmaps, joints, visible)
        value.backward()
        assert torch.allclose(value, known)
        assert torch.isfinite(heatmaps.grad).all()
        assert torch.equal(heatmaps.grad.abs().sum((-2, -1)) > 0, visible > 0)

    def test_mirrored_problem(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = make_loss(name, **settings)
        mirrored = torch.stack([4 - joints[..., 0], joints[..., 1]], -1)
        assert torch.allclose(
            loss(heatmaps.flip(-1), mirrored, visible),
            loss(heatmaps, joints, visible),
            rtol=1e-3 if "solver" in settings else 1e-9,
        )

    def test_transposed_problem(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = make_loss(name, **settings)
        swapped = loss(heatmaps.mT.contiguous(), joints.flip(-1), visible)
        assert torch.allclose(swapped, loss(heatmaps, joints, visible), rtol=1e-3 if "solver" in settings else 1e-9)

    def test_precision(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = make_loss(name, **settings)
        assert loss(heatmaps, joints, visible).dtype == torch.float64
        half, joints, visible = heatmaps.bfloat16(), joints.float(), visible.float()
        value = loss(half, joints, visible)
        assert value.dtype == torch.float32
        assert torch.equal(value, loss(half.float(), joints, visible))
        assert loss.maps(half).dtype == torch.float32

    def test_autocast_changes_nothing(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem(torch.float32)
        gradients = []
        for enabled in (False, True):
            z = heatmaps.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                make_loss(name, **settings)(z, joints, visible).backward()
            gradients.append(z.grad)
        assert torch.equal(*gradients)

    def test_extreme_outputs_have_a_finite_gradient(self, name: str, settings: dict[str, Any]) -> None:
        _, joints, visible = problem(torch.float32)
        heatmaps = (torch.randn(2, 3, 7, 5).sign() * 1e4).requires_grad_()
        make_loss(name, **settings)(heatmaps, joints, visible).backward()
        assert torch.isfinite(heatmaps.grad).all()

    def test_same_value_twice(self, name: str, settings: dict[str, Any]) -> None:
        values = [make_loss(name, **settings)(*batch) for batch in [problem()] for _ in range(2)]
        assert torch.equal(*values)

    def test_no_visible_joint(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        for reduction in ("mean", "none"):
            with pytest.raises(InputError, match="no joint of the batch is visible: leave out persons"):
                make_loss(name, **settings, reduction=reduction)(heatmaps, joints, 0 * visible)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    def test_heatmaps_that_are_not_finite(self, name: str, settings: dict[str, Any], value: float) -> None:
        heatmaps, joints, visible = problem()
        heatmaps[1, 2, 3, 4] = value
        with pytest.raises(InputError, match="heatmaps hold NaN or infinite values: lower the learning rate"):
            make_loss(name, **settings)(heatmaps, joints, visible)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_visible_joint_that_is_nowhere(self, name: str, settings: dict[str, Any], value: float) -> None:
        heatmaps, joints, visible = problem()
        joints[0, 2, 1] = value
        with pytest.raises(InputError, match="a visible joint has NaN or infinite coordinates"):
            make_loss(name, **settings)(heatmaps, joints, visible)

    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
    def test_visible_that_is_no_weight(self, name: str, settings: dict[str, Any], value: float) -> None:
        heatmaps, joints, visible = problem()
        visible[1, 0] = value
        with pytest.raises(InputError, match="visible holds negative, NaN or infinite weights"):
            make_loss(name, **settings)(heatmaps, joints, visible)

    @pytest.mark.usefixtures("no_shape_checks")
    def test_shapes_that_do_not_match(self, name: str, settings: dict[str, Any]) -> None:
        heatmaps, joints, visible = problem()
        loss = make_loss(name, **settings)
        for batch in (
            (heatmaps[0], joints[0], visible[0]),
            (heatmaps, joints[:, :2], visible),
            (heatmaps, joints, visible[:, :2]),
            (heatmaps, torch.cat([joints, joints], -1), visible),
            (heatmaps, joints, visible.unsqueeze(-1)),
        ):
            with pytest.raises(InputError, match=r"heatmaps \(.*\), joints \(.*\) and visible \(.*\) do not match"):
                loss(*batch)


@losses(FORMS)  # Sinkhorn returns the cost of its plan with the gradient of the entropic problem
def test_gradient_against_finite_differences(name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    loss = make_loss(name, **settings)
    heatmaps.requires_grad_()
    torch.autograd.gradcheck(lambda z: loss(z, joints, visible), heatmaps, atol=1e-6, fast_mode=True)


@losses([("gaussian_mse", {}), ("cross_entropy", {}), ("hdm", {"demanders": "dot"})])
def test_gradient_of_each_image_by_vmap(name: str, settings: dict[str, Any]) -> None:
    heatmaps, joints, visible = problem()
    loss = make_loss(name, **settings)

    def image_loss(z: Tensor, q: Tensor, w: Tensor) -> Tensor:
        return loss(z[None], q[None], w[None])

    gradients = torch.func.vmap(torch.func.grad(image_loss))(heatmaps, joints, visible)
    heatmaps.requires_grad_()
    sum(image_loss(z, q, w) for z, q, w in zip(heatmaps, joints, visible, strict=True)).backward()
    assert torch.allclose(gradients, heatmaps.grad)


# Gaussian MSE


def test_perfect_gaussian_map_costs_nothing() -> None:
    loss = GaussianMSE(sigma=1.5, rounded=False)
    joints = torch.tensor([[[4.3, 2.2], [0.4, 9.9]]], dtype=torch.float64)
    heatmaps = torch.stack([gaussian(12, 9, (4.3, 2.2), 1.5), gaussian(12, 9, (0.4, 9.9), 1.5)])[None]
    assert float(loss(heatmaps, joints, torch.ones(1, 2, dtype=torch.float64))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_empty_map_costs_half_the_energy_of_the_gaussian(sigma: float) -> None:
    # The sum of exp(-r^2 / sigma^2) over the plane is pi sigma^2.
    loss = GaussianMSE(sigma, rounded=False)(torch.zeros(1, 1, 64, 48, dtype=torch.float64), *one((20.3, 30.4)))
    assert float(loss) == pytest.approx(0.5 * math.pi * sigma**2 / (64 * 48), rel=1e-3)


def test_rounded_target_is_a_cut_gaussian_on_the_nearest_pixel() -> None:
    joints = torch.tensor([[[20.5, 30.49], [2.2, 61.6]]], dtype=torch.float64)
    inner, corner = GaussianMSE(sigma=2.0).target(joints, (64, 48))[0]
    whole = gaussian(64, 48, (21, 30), 2.0)
    assert inner[30, 21] == 1
    assert (inner > 0).sum() == 13 * 13
    assert torch.allclose(inner[24:37, 15:28], whole[24:37, 15:28])
    assert corner[62, 2] == 1
    assert (corner > 0).sum() == 9 * 8  # columns 0 to 8, rows 56 to 63


def test_gaussian_gradient_is_the_difference() -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    GaussianMSE(rounded=False)(heatmaps, joints, visible).backward()
    for b in range(2):
        for k in range(3):
            target = gaussian(7, 5, tuple(joints[b, k].tolist()), 2.0)
            expected = visible[b, k] / 3.5 * (heatmaps.detach()[b, k] - target) / 35
            assert torch.allclose(heatmaps.grad[b, k], expected)


def test_gaussian_maps_are_the_output() -> None:
    heatmaps, _, _ = problem()
    assert torch.equal(GaussianMSE().maps(heatmaps), heatmaps)


# Cross-entropy


@pytest.mark.parametrize("demanders", ["nearest", "subpixel"])
def test_cross_entropy_of_a_uniform_map_is_log_hw(demanders: str) -> None:
    heatmaps, joints, visible = problem()
    value = CrossEntropy(demanders, temperature=0.3)(0 * heatmaps + 5, joints, visible)
    assert float(value) == pytest.approx(math.log(35))


def test_cross_entropy_of_known_probabilities() -> None:
    p = torch.arange(1.0, 36.0, dtype=torch.float64).view(7, 5) / 630
    z = p.log().view(1, 1, 7, 5) + 3
    joints, visible = one((2.25, 4.0))  # between pixels (2, 4) and (3, 4), that is 23 / 630 and 24 / 630
    expected = -0.75 * math.log(23 / 630) - 0.25 * math.log(24 / 630)
    assert float(CrossEntropy()(z, joints, visible)) == pytest.approx(expected)
    assert float(CrossEntropy("nearest")(z, joints, visible)) == pytest.approx(-math.log(23 / 630))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_cross_entropy_gradient_is_p_minus_the_target(temperature: float) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    CrossEntropy(temperature=temperature)(heatmaps, joints, visible).backward()
    for b in range(2):
        for k in range(3):
            p = (heatmaps.detach()[b, k] / temperature).flatten().softmax(0).view(7, 5)
            difference = p - splat(7, 5, tuple(joints[b, k].tolist()))
            assert torch.allclose(heatmaps.grad[b, k], visible[b, k] / 3.5 * difference / temperature)


def test_cross_entropy_on_a_map_one_pixel_wide() -> None:
    for y in (0.0, 2.5, 5.0):
        value = CrossEntropy()(torch.zeros(1, 1, 6, 1, dtype=torch.float64), *one((0.0, y)))
        assert float(value) == pytest.approx(math.log(6))


# HDM


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
        "relu": np.array([[0, 0, 1], [2, 0, 0.5]]) + 0.01,
        "softplus": np.log1p(np.exp(z.numpy())) + 0.01,
        "sigmoid": 1 / (1 + np.exp(-z.numpy())) + 0.01,
    }
    for suppliers, mass in a.items():
        maps = HDMLoss(suppliers, temperature=0.5, floor=0.01).maps(z)
        assert maps.squeeze().numpy() == pytest.approx((mass / mass.sum()).squeeze())


@losses([(name, settings) for name, settings in FORMS if name != "gaussian_mse"])
def test_maps_are_distributions(name: str, settings: dict[str, Any]) -> None:
    heatmaps, _, _ = problem()
    maps = make_loss(name, **settings).maps(heatmaps)
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
def test_hdm_gradient_by_formula(suppliers: str, demanders: str) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    loss = HDMLoss(suppliers, demanders, temperature=0.8, floor=1e-3)
    loss(heatmaps, joints, visible).backward()
    z = heatmaps.detach()
    a, slope = {
        "softmax": ((z / 0.8).exp(), (z / 0.8).exp() / 0.8),
        "relu": (z.clamp(min=0) + 1e-3, (z > 0).double()),
        "softplus": (z.exp().log1p() + 1e-3, torch.sigmoid(z)),
        "sigmoid": (torch.sigmoid(z) + 1e-3, torch.sigmoid(z) * torch.sigmoid(-z)),
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


def test_relu_suppliers_do_not_see_the_amplitude() -> None:
    heatmaps, joints, visible = problem()
    loss = HDMLoss("relu", floor=1e-12)
    assert torch.allclose(loss(100 * heatmaps, joints, visible), loss(heatmaps, joints, visible))


def test_temperature_sharpens() -> None:
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


# Learning


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


# Settings


def test_make_loss_builds_each_loss() -> None:
    assert {name: type(make_loss(name)) for name in LOSSES} == {
        "gaussian_mse": GaussianMSE,
        "cross_entropy": CrossEntropy,
        "hdm": HDMLoss,
    }
    assert make_loss("gaussian_mse", sigma=3.0).sigma == 3


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mse", {}, "unknown loss 'mse': choose one of gaussian_mse, cross_entropy, hdm"),
        ("hdm", {"sigma": 2.0}, "loss 'hdm' does not take these settings {'sigma': 2.0}"),
        ("hdm", {"suppliers": "abs"}, "unknown suppliers 'abs': choose one of softmax, softplus, relu, sigmoid"),
        ("hdm", {"demanders": "four"}, "unknown demanders 'four'"),
        ("hdm", {"cost": "l1"}, "unknown cost 'l1'"),
        ("hdm", {"solver": "newton"}, "unknown solver 'newton'"),
        ("hdm", {"reduction": "sum"}, "unknown reduction 'sum': choose one of mean, none"),
        ("hdm", {"blur": 0.0}, "blur 0.0 must be positive"),
        ("hdm", {"temperature": -1.0}, "temperature -1.0 must be positive"),
        ("hdm", {"floor": 0.0}, "floor 0.0 must be positive"),
        ("hdm", {"temperature": float("nan")}, "temperature nan must be positive"),
        ("gaussian_mse", {"sigma": 0.0}, "sigma 0.0 must be positive"),
        ("gaussian_mse", {"reduction": "sum"}, "unknown reduction 'sum'"),
        ("cross_entropy", {"demanders": "dot"}, "unknown demanders 'dot': choose one of nearest, subpixel"),
        ("cross_entropy", {"temperature": 0.0}, "temperature 0.0 must be positive"),
        ("cross_entropy", {"reduction": "sum"}, "unknown reduction 'sum'"),
    ],
)
def test_settings_that_are_wrong(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_loss(name, **settings)


def test_printed_loss_names_its_settings() -> None:
    assert "suppliers='relu'" in repr(make_loss("hdm", suppliers="relu"))
    assert "sigma=3.0" in repr(make_loss("gaussian_mse", sigma=3.0))
    assert "demanders='nearest'" in repr(make_loss("cross_entropy", demanders="nearest"))
