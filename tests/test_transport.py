"""Earth Mover's Distance, against closed forms, a linear programme (POT) and the properties that define it."""

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from hdm.errors import InputError
from hdm.transport import COSTS, DEMANDERS, demanders_of, dual_potentials, heatmap_emd, transport_costs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # POT's own docstrings
    import ot

pytestmark = pytest.mark.usefixtures("one_thread")

# Joints (x, y) on a 9 wide, 12 high map: inside a cell, on a grid line, on a pixel, between four pixels, at borders and
# corners, and outside.
JOINTS = torch.tensor(
    [
        *([4.3, 6.6], [4.0, 6.6], [4.3, 7.0], [4.0, 7.0], [2.5, 3.5], [7.9, 10.2]),
        *([0.0, 0.0], [8.0, 11.0], [8.0, 4.4], [3.7, 11.0], [-2.0, 5.3], [9.1, 12.7]),
    ],
    dtype=torch.float64,
)


def splat(height: int, width: int, joint: tuple[float, float]) -> Tensor:
    """The bilinear map of a dot inside the map: the product of two hats."""
    x, y = (1 - (torch.arange(n, dtype=torch.float64) - c).abs() for n, c in zip((width, height), joint, strict=True))
    return torch.outer(y.clamp(min=0), x.clamp(min=0))


def dirac(height: int, width: int, x: int, y: int) -> Tensor:
    mass = torch.zeros(height, width, dtype=torch.float64)
    mass[y, x] = 1
    return mass


def gaussian(height: int, width: int, centre: tuple[float, float], sigma: float) -> Tensor:
    x = torch.arange(width, dtype=torch.float64) - centre[0]
    y = torch.arange(height, dtype=torch.float64) - centre[1]
    return torch.exp(-(x.square() + y.square()[:, None]) / (2 * sigma**2))


def paper_map() -> Tensor:
    """The map (12, 9) whose distances are known from elsewhere; its dot is (4.3, 6.6)."""
    z = 1.5 * np.random.default_rng(0).normal(size=108)
    return torch.from_numpy((np.exp(z) / np.exp(z).sum()).reshape(12, 9))


PAPER_DOT = torch.tensor([4.3, 6.6], dtype=torch.float64)


def random_maps(kind: str, count: int, height: int, width: int) -> Tensor:
    shape = (count, height, width)
    if kind == "peaked":
        return torch.randn(shape, dtype=torch.float64).mul(12).flatten(1).softmax(-1).view(shape)
    if kind == "diracs":  # a few pixels, with round masses, so that many plans are equally good
        places = torch.rand(shape).flatten(1).topk(min(5, height * width)).indices
        masses = torch.randint(0, 4, places.shape).double()
        masses[:, 0] += 1
        return torch.zeros(count, height * width, dtype=torch.float64).scatter(1, places, masses).view(shape)
    spread = {"uniform": 0.0, "diffuse": 1.0, "heavy": 3.0}[kind]
    return torch.randn(shape, dtype=torch.float64).mul(spread).exp()


def four_demanders(joint: Tensor, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The four pixels (4, 2) around a dot, moved into the map, and their bilinear weights (4,)."""
    x, y = min(max(float(joint[0]), 0), width - 1), min(max(float(joint[1]), 0), height - 1)
    x0, y0 = math.floor(x), math.floor(y)
    a, b = x - x0, y - y0
    points = np.array([[x0, y0], [x0 + 1, y0], [x0, y0 + 1], [x0 + 1, y0 + 1]], float)
    return points, np.array([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b])


def linear_programme(mass: Tensor, joint: Tensor, cost: str = "l2") -> tuple[float, dict[str, Any]]:
    """Problem (1) as a linear programme in float64: its value, and POT's log with plan and dual potentials."""
    height, width = mass.shape
    points, d = four_demanders(joint, height, width)
    y, x = np.divmod(np.arange(height * width), width)
    c = np.hypot(x[:, None] - points[:, 0], y[:, None] - points[:, 1])
    s = mass.detach().double().numpy().ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value, log = ot.emd2(s / s.sum(), d, c if cost == "l2" else c**2, log=True, return_matrix=True)
    return float(value), log


# Known numbers


@pytest.mark.parametrize(("sigma", "expected"), [(1.0, 1.2141), (2.0, 2.4974), (3.0, 3.7559)])
def test_gaussian_at_the_joint(sigma: float, expected: float) -> None:
    mass, joint = gaussian(64, 48, (20, 30), sigma), torch.tensor([20.0, 30.0])
    for demanders in DEMANDERS:  # the joint lies on a pixel, where all three are the same
        assert float(heatmap_emd(mass, joint, demanders=demanders)) == pytest.approx(expected, abs=5e-5)


def test_uniform_map() -> None:
    mass, joint = torch.ones(64, 48), torch.tensor([20.0, 30.0])
    assert float(heatmap_emd(mass, joint)) == pytest.approx(21.7980, abs=5e-5)
    assert float(heatmap_emd(mass, joint, cost="l2_squared")) == pytest.approx(547.667, abs=5e-4)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"demanders": "nearest"}, 3.6092),
        ({"demanders": "nearest", "cost": "l2_squared"}, 15.6962),
        ({"demanders": "dot"}, 3.5549),
        ({"demanders": "dot", "cost": "l2_squared"}, 14.9403),
        ({"demanders": "subpixel"}, 3.0301),
        ({"demanders": "subpixel", "cost": "l2_squared"}, 11.3014),
        ({"solver": "sinkhorn", "blur": 1.0}, 3.3782),
        ({"solver": "sinkhorn", "blur": 0.1}, 3.0463),
        ({"solver": "sinkhorn", "blur": 1.0, "cost": "l2_squared"}, 11.4429),
    ],
)
def test_random_map_of_known_distance(settings: dict[str, Any], expected: float) -> None:
    # Sinkhorn stops at a marginal error of 1e-4, the numbers come from 100 iterations.
    tolerance = 3e-4 if "solver" in settings else 6e-5
    assert float(heatmap_emd(paper_map(), PAPER_DOT, **settings)) == pytest.approx(expected, abs=tolerance)


def test_path_along_which_squared_error_falls_and_emd_rises() -> None:
    # From a faint right map to a strong one with a far pixel that is a little stronger still.
    target = gaussian(64, 48, (20, 30), 2.0)
    wrong = 0.9 * target
    wrong[5, 5] = 0.95
    t = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 1.0], dtype=torch.float64).view(-1, 1, 1)
    path = (1 - t) * 0.1 * target + t * wrong
    emd = heatmap_emd(path, torch.tensor([20.0, 30.0]).expand(7, 2))
    assert emd.numpy() == pytest.approx([2.497, 3.251, 3.424, 3.501, 3.525, 3.544, 3.572], abs=6e-4)
    squared_error = (path - target).square().sum((-2, -1)).numpy()
    assert squared_error == pytest.approx([10.179, 6.917, 4.372, 2.542, 1.895, 1.427, 1.028], abs=6e-4)


# Closed forms


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("demanders", DEMANDERS)
def test_all_mass_on_one_pixel(demanders: str, cost: str) -> None:
    # One supplier leaves one plan: each demander is served from that pixel.
    for joint in JOINTS[:10]:
        points, weights = four_demanders(joint, 12, 9)
        if demanders != "subpixel":
            weights = np.ones(1)
            points = joint[None].numpy() if demanders == "dot" else np.floor(joint[None].numpy() + 0.5)
        for x, y in ((0, 0), (8, 2), (4, 7)):
            distance = np.hypot(points[:, 0] - x, points[:, 1] - y)
            expected = (weights * (distance if cost == "l2" else distance**2)).sum()
            value = heatmap_emd(dirac(12, 9, x, y), joint, demanders=demanders, cost=cost)
            assert float(value) == pytest.approx(expected, abs=1e-12)


def test_splat_of_the_dot_has_distance_zero() -> None:
    for joint in JOINTS[:10]:
        value = heatmap_emd(splat(12, 9, tuple(joint.tolist())), joint)
        assert float(value) == pytest.approx(0, abs=1e-12)
    assert float(heatmap_emd(splat(12, 9, (4.3, 6.6)), PAPER_DOT, demanders="nearest")) == pytest.approx(
        0.6297, abs=5e-5
    )
    assert float(heatmap_emd(splat(12, 9, (4.3, 6.6)), PAPER_DOT, demanders="dot")) == pytest.approx(0.6536, abs=5e-5)


def test_only_the_splat_has_distance_zero() -> None:
    mass = splat(12, 9, (4.3, 6.6))
    mass[6, 4] -= 0.01
    mass[6, 6] += 0.01  # two pixels further right
    assert float(heatmap_emd(mass, PAPER_DOT)) == pytest.approx(0.02, abs=1e-9)


@pytest.mark.parametrize("shift", [(3, -2), (-4, 0), (1, 5)])
def test_shifted_splat_costs_the_shift(shift: tuple[int, int]) -> None:
    # Moving a whole distribution by t costs |t|, and |t|^2 with the squared cost: no plan is cheaper.
    joint = torch.tensor([[10.3, 9.6], [8.0, 7.5]], dtype=torch.float64)
    moved = (joint + torch.tensor(shift)).tolist()
    mass = torch.stack([splat(20, 18, (x, y)) for x, y in moved])
    assert heatmap_emd(mass, joint).numpy() == pytest.approx([math.hypot(*shift)] * 2)
    assert heatmap_emd(mass, joint, cost="l2_squared").numpy() == pytest.approx([math.hypot(*shift) ** 2] * 2)


@pytest.mark.parametrize("length", [2, 7, 30])
def test_map_one_pixel_wide_is_the_distance_of_cumulative_sums(length: int) -> None:
    mass = torch.rand(8, length, dtype=torch.float64) ** 3
    place = torch.rand(8, dtype=torch.float64) * (length - 1)
    pixels = np.arange(length)
    expected = [
        wasserstein_distance(pixels, pixels, m, splat(1, length, (q, 0.0))[0])
        for m, q in zip(mass.numpy(), place.tolist(), strict=True)
    ]
    zero = torch.zeros_like(place)
    row = heatmap_emd(mass.view(8, 1, length), torch.stack([place, zero], -1))
    column = heatmap_emd(mass.view(8, length, 1), torch.stack([zero, place], -1))
    assert row.numpy() == pytest.approx(expected, abs=1e-12)
    assert column.numpy() == pytest.approx(expected, abs=1e-12)


def test_squared_cost_to_a_dot_is_bias_and_variance() -> None:
    mass = random_maps("heavy", 5, 7, 11)
    joints = torch.rand(5, 2, dtype=torch.float64) * 6
    s = mass / mass.sum((1, 2), keepdim=True)
    x, y = torch.arange(11.0), torch.arange(7.0)
    mean = torch.stack([(s.sum(1) * x).sum(1), (s.sum(2) * y).sum(1)], -1)
    variance = (s.sum(1) * x.square()).sum(1) + (s.sum(2) * y.square()).sum(1) - mean.square().sum(1)
    value = heatmap_emd(mass, joints, demanders="dot", cost="l2_squared")
    assert torch.allclose(value, (mean - joints).square().sum(1) + variance)


# The linear programme


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", ["uniform", "diffuse", "heavy", "peaked", "diracs"])
def test_exact_solver_is_the_linear_programme(kind: str, cost: str, dtype: torch.dtype) -> None:
    small = random_maps(kind, 36, 12, 9).to(dtype), JOINTS.repeat(3, 1).to(dtype)
    large = random_maps(kind, 6, 32, 24).to(dtype), (torch.rand(6, 2) * torch.tensor([23, 31])).to(dtype)
    narrow = random_maps(kind, 6, 1, 5).to(dtype), (torch.rand(6, 2) * 4).to(dtype)
    for mass, joints in (small, large, narrow):
        expected = [linear_programme(m, q, cost)[0] for m, q in zip(mass, joints, strict=True)]
        value = heatmap_emd(mass, joints, cost=cost)
        assert value.dtype == dtype
        # In float32 the sums over pixels round, relative to the largest cost that is involved.
        scale = 1.0 if dtype == torch.float64 else float(transport_costs(joints[:, None], mass.shape[-2:], cost).amax())
        assert value.numpy() == pytest.approx(expected, rel=0, abs=1e-9 if dtype == torch.float64 else 1e-6 * scale)


@pytest.mark.parametrize("cost", COSTS)
def test_dual_potentials_certify_the_plan(cost: str) -> None:
    mass, joints = random_maps("heavy", 6, 12, 9), JOINTS[:6]
    s = (mass / mass.sum((1, 2), keepdim=True)).flatten(1)
    points, weights = demanders_of(joints, (12, 9), "subpixel")
    costs = transport_costs(points, (12, 9), cost).flatten(2)
    g = dual_potentials(s, weights, costs)
    f = (costs - g.unsqueeze(-1)).amin(1)
    for m, q, slack in zip(mass, joints, costs - g.unsqueeze(-1) - f.unsqueeze(1), strict=True):
        plan = torch.from_numpy(linear_programme(m, q, cost)[1]["G"]).T
        assert slack.min() >= 0  # feasible,
        assert (plan * slack).sum() == pytest.approx(0, abs=1e-9)  # and tight where the best plan moves mass


# Properties


def random_problem(count: int = 6, height: int = 12, width: int = 9) -> tuple[Tensor, Tensor]:
    return random_maps("heavy", count, height, width), torch.rand(count, 2, dtype=torch.float64) * 7 + 0.5


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("demanders", DEMANDERS)
class TestEveryForm:
    def test_translation(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        wide = torch.nn.functional.pad(mass, (5, 0, 3, 2))
        moved = heatmap_emd(wide, joints + torch.tensor([5, 3]), demanders=demanders, cost=cost)
        assert torch.allclose(moved, heatmap_emd(mass, joints, demanders=demanders, cost=cost))

    def test_transposed_map(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        swapped = heatmap_emd(mass.mT, joints.flip(-1), demanders=demanders, cost=cost)
        assert torch.allclose(swapped, heatmap_emd(mass, joints, demanders=demanders, cost=cost))

    def test_mirrored_map(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        mirrored = torch.stack([8 - joints[:, 0], joints[:, 1]], -1)
        value = heatmap_emd(mass.flip(-1), mirrored, demanders=demanders, cost=cost)
        assert torch.allclose(value, heatmap_emd(mass, joints, demanders=demanders, cost=cost))

    def test_amplitude_does_not_matter(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        scale = torch.tensor([1e-6, 0.1, 1, 3, 1e3, 1e6]).view(6, 1, 1)
        value = heatmap_emd(scale * mass, joints, demanders=demanders, cost=cost)
        assert torch.allclose(value, heatmap_emd(mass, joints, demanders=demanders, cost=cost))

    def test_convex_in_the_map(self, demanders: str, cost: str) -> None:
        (first, joints), (second, _) = random_problem(), random_problem()
        first, second = (m / m.sum((1, 2), keepdim=True) for m in (first, second))
        settings = {"demanders": demanders, "cost": cost}
        middle = heatmap_emd(0.3 * first + 0.7 * second, joints, **settings)
        chord = 0.3 * heatmap_emd(first, joints, **settings) + 0.7 * heatmap_emd(second, joints, **settings)
        assert (middle <= chord + 1e-9).all()

    def test_any_leading_shape(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        flat = heatmap_emd(mass, joints, demanders=demanders, cost=cost)
        assert flat.shape == (6,)
        grid = heatmap_emd(mass.view(2, 3, 12, 9), joints.view(2, 3, 2), demanders=demanders, cost=cost)
        assert torch.allclose(grid, flat.view(2, 3))
        single = heatmap_emd(mass[4], joints[4], demanders=demanders, cost=cost)
        assert single.shape == ()
        assert torch.allclose(single, flat[4])
        assert heatmap_emd(mass[:0], joints[:0], demanders=demanders, cost=cost).shape == (0,)

    def test_same_value_twice(self, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        first, second = (heatmap_emd(mass, joints, demanders=demanders, cost=cost) for _ in range(2))
        assert torch.equal(first, second)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_input(self, dtype: torch.dtype, demanders: str, cost: str) -> None:
        mass, joints = random_problem()
        mass = mass / mass.amax((1, 2), keepdim=True)
        value = heatmap_emd(mass.to(dtype), joints.float(), demanders=demanders, cost=cost)
        assert value.dtype == torch.float32
        assert torch.equal(value, heatmap_emd(mass.to(dtype).float(), joints.float(), demanders=demanders, cost=cost))
        assert torch.allclose(value.double(), heatmap_emd(mass, joints, demanders=demanders, cost=cost), rtol=0.02)

    def test_autocast_changes_nothing(self, demanders: str, cost: str) -> None:
        mass, joints = (tensor.float() for tensor in random_problem())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = heatmap_emd(mass, joints, demanders=demanders, cost=cost)
        assert torch.equal(inside, heatmap_emd(mass, joints, demanders=demanders, cost=cost))


@pytest.mark.parametrize("kind", ["uniform", "diffuse", "heavy", "diracs"])
def test_four_demanders_differ_little_from_the_dot(kind: str) -> None:
    # The triangle inequality: the four demanders themselves are at most sqrt(1/2) from the dot, |W1(S, D) - W1(S, mu)|
    # no more than that.
    mass, joints = random_maps(kind, 50, 12, 9), torch.rand(50, 2, dtype=torch.float64) * 8
    gap = heatmap_emd(mass, joints) - heatmap_emd(mass, joints, demanders="dot")
    assert gap.abs().max() < 0.7072


def test_nearest_demander_is_rounded_half_up_and_moved_inside() -> None:
    joints = torch.tensor([[2.5, 3.49], [-3.0, 5.0], [11.0, 40.0]], dtype=torch.float64)
    points, weights = demanders_of(joints, (12, 9), "nearest")
    assert points.squeeze(1).tolist() == [[3, 3], [0, 5], [8, 11]]
    assert weights.tolist() == [[1], [1], [1]]


def test_subpixel_demanders_average_to_the_dot() -> None:
    points, weights = demanders_of(JOINTS[:10], (12, 9), "subpixel")
    assert torch.allclose((weights.unsqueeze(-1) * points).sum(1), JOINTS[:10])
    assert torch.allclose(weights.sum(1), torch.ones(10, dtype=torch.float64))
    assert weights.min() >= 0
    assert (points >= 0).all()
    assert (points <= torch.tensor([8, 11])).all()


@pytest.mark.parametrize("demanders", ["nearest", "subpixel"])
def test_dot_outside_counts_as_one_at_the_border(demanders: str) -> None:
    mass = random_maps("diffuse", 3, 12, 9)
    outside = torch.tensor([[-2.0, 5.3], [9.1, 4.0], [4.2, 11.4]], dtype=torch.float64)
    border = torch.tensor([[0.0, 5.3], [8.0, 4.0], [4.2, 11.0]], dtype=torch.float64)
    value = heatmap_emd(mass, outside, demanders=demanders)
    assert torch.allclose(value, heatmap_emd(mass, border, demanders=demanders))


# Gradients


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("demanders", DEMANDERS)
def test_gradients_against_finite_differences(demanders: str, cost: str) -> None:
    # Generic masses and dots inside a cell: the value is smooth there.
    mass = (torch.rand(2, 2, 4, 3, dtype=torch.float64) + 0.05).requires_grad_()
    joints = (torch.rand(2, 2, 2, dtype=torch.float64) * 0.3 + torch.tensor([1.1, 2.1])).requires_grad_()

    def value(mass: Tensor, joints: Tensor) -> Tensor:
        return heatmap_emd(mass, joints, demanders=demanders, cost=cost)

    torch.autograd.gradcheck(lambda m: value(m, joints.detach()), mass, eps=1e-6, atol=1e-6)
    if demanders != "nearest":
        torch.autograd.gradcheck(lambda q: value(mass.detach(), q), joints, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("kind", ["diffuse", "heavy"])
def test_gradients_against_the_linear_programme(kind: str, cost: str) -> None:
    mass = random_maps(kind, 5, 12, 9)
    mass = (mass / mass.sum((1, 2), keepdim=True)).requires_grad_()
    joints = JOINTS[[0, 5, 4, 0, 5]].clone().requires_grad_()
    heatmap_emd(mass, joints, cost=cost).sum().backward()
    step = 1e-5
    # A step in the map that keeps every mass positive, and one in the dot that stays in its cell.
    toward = random_maps("diffuse", 5, 12, 9)
    toward = toward / toward.sum((1, 2), keepdim=True) - mass.detach()
    aside = torch.tensor([0.6, -0.8], dtype=torch.float64)
    for i in range(5):
        m, q = mass[i].detach(), joints[i].detach()
        rise = linear_programme(m + step * toward[i], q, cost)[0] - linear_programme(m, q, cost)[0]
        assert float((mass.grad[i] * toward[i]).sum()) == pytest.approx(rise / step, rel=1e-3, abs=1e-3)
        rise = linear_programme(m, q + step * aside, cost)[0] - linear_programme(m, q - step * aside, cost)[0]
        assert float(joints.grad[i] @ aside) == pytest.approx(rise / (2 * step), rel=1e-3, abs=1e-3)


def test_gradient_of_one_demander_is_the_centred_cost() -> None:
    mass, joints = random_problem(3)
    mass.requires_grad_()
    heatmap_emd(mass, joints, demanders="dot").sum().backward()
    x = torch.arange(9) - joints[:, 0].view(3, 1, 1)
    y = torch.arange(12).view(12, 1) - joints[:, 1].view(3, 1, 1)
    distance, total = torch.hypot(x, y), mass.detach().sum((1, 2), keepdim=True)
    mean = (mass.detach() / total * distance).sum((1, 2), keepdim=True)
    assert torch.allclose(mass.grad, (distance - mean) / total)


def test_gradient_of_the_dot_points_away_from_the_mass() -> None:
    joint = torch.tensor([4.2, 7.6], dtype=torch.float64, requires_grad=True)
    heatmap_emd(dirac(12, 9, 1, 3), joint, demanders="dot").backward()
    assert torch.allclose(joint.grad, torch.tensor([3.2, 4.6], dtype=torch.float64) / math.hypot(3.2, 4.6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("demanders", DEMANDERS)
def test_gradients_are_finite_where_the_dot_is_a_pixel(demanders: str, dtype: torch.dtype) -> None:
    mass = torch.stack([dirac(12, 9, 4, 7), paper_map()]).to(dtype).requires_grad_()
    joints = torch.tensor([[4, 7], [4, 7]], dtype=dtype, requires_grad=True)
    heatmap_emd(mass, joints, demanders=demanders).sum().backward()
    assert torch.isfinite(mass.grad).all()
    assert demanders == "nearest" or torch.isfinite(joints.grad).all()


def test_float32_gradient_is_the_float64_gradient() -> None:
    grads = []
    for dtype in (torch.float64, torch.float32):
        mass = paper_map().to(dtype).requires_grad_()
        heatmap_emd(mass, PAPER_DOT.to(dtype)).backward()
        grads.append(mass.grad.double())
    assert torch.allclose(*grads, atol=1e-4)


# Sinkhorn


def test_sinkhorn_of_the_splat_rises_with_the_blur() -> None:
    mass = splat(12, 9, (4.3, 6.6))
    for eps, l2, squared in ((10.0, 0.757, 0.859), (1.0, 0.505, 0.500), (0.1, 0.0, 0.0)):
        value = heatmap_emd(mass, PAPER_DOT, solver="sinkhorn", blur=eps)
        assert float(value) == pytest.approx(l2, abs=1e-3)
        value = heatmap_emd(mass, PAPER_DOT, solver="sinkhorn", cost="l2_squared", blur=math.sqrt(eps))
        assert float(value) == pytest.approx(squared, abs=1e-3)


@pytest.mark.parametrize(("cost", "blurs"), [("l2", (3.0, 1.0, 0.3, 0.1)), ("l2_squared", (2.0, 1.0, 0.7, 0.4))])
def test_sinkhorn_falls_to_the_exact_value_with_the_blur(cost: str, blurs: tuple[float, ...]) -> None:
    mass, joints = random_maps("diffuse", 4, 12, 9), torch.rand(4, 2, dtype=torch.float64) * 0.6 + 4.2
    exact = heatmap_emd(mass, joints, cost=cost)
    gaps = [heatmap_emd(mass, joints, cost=cost, solver="sinkhorn", blur=blur) - exact for blur in blurs]
    for wide, narrow in pairwise(gaps):
        assert (narrow < wide).all()
    assert (gaps[-1].abs() < 0.01 * exact).all()


def entropic_plan(mass: Tensor, joint: Tensor, blur: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """POT's entropic plan (N, 4), the costs (N, 4) and the product of the marginals (N, 4)."""
    points, d = four_demanders(joint, *mass.shape)
    y, x = np.divmod(np.arange(mass.numel()), mass.shape[1])
    c = np.hypot(x[:, None] - points[:, 0], y[:, None] - points[:, 1])
    s = mass.numpy().ravel() / float(mass.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = ot.sinkhorn(s, d, c, blur, method="sinkhorn_log", stopThr=1e-10, numItermax=20_000)
    return plan, c, s[:, None] * d


@pytest.mark.parametrize("blur", [2.0, 0.5, 0.2])
def test_sinkhorn_is_the_cost_of_the_entropic_plan(blur: float) -> None:
    plan, costs, _ = entropic_plan(paper_map(), PAPER_DOT, blur)
    value = heatmap_emd(paper_map(), PAPER_DOT, solver="sinkhorn", blur=blur)
    assert float(value) == pytest.approx((plan * costs).sum(), abs=1e-3)


def test_sinkhorn_gradient_is_that_of_the_entropic_problem() -> None:
    blur, step = 0.5, 1e-4
    mass = paper_map().requires_grad_()
    heatmap_emd(mass, PAPER_DOT, solver="sinkhorn", blur=blur).backward()
    direction = torch.full((12, 9), 1 / 108, dtype=torch.float64) - mass.detach()

    def entropic_value(m: Tensor) -> float:
        plan, costs, independent = entropic_plan(m, PAPER_DOT, blur)
        return (plan * costs).sum() + blur * (plan * np.log(plan / independent)).sum()

    rise = entropic_value(mass.detach() + step * direction) - entropic_value(mass.detach() - step * direction)
    assert float((mass.grad * direction).sum()) == pytest.approx(rise / (2 * step), rel=5e-3)


def test_sinkhorn_stands_suppliers_without_mass() -> None:
    mass = dirac(12, 9, 1, 2).requires_grad_()
    value = heatmap_emd(mass, PAPER_DOT, solver="sinkhorn", blur=0.1)
    value.backward()
    assert torch.allclose(value, heatmap_emd(mass, PAPER_DOT), atol=1e-3)
    assert torch.isfinite(mass.grad).all()


def test_sinkhorn_warns_where_it_does_not_converge() -> None:
    with pytest.warns(UserWarning, match="scale of 0.001 stopped after 2000 iterations with a marginal error of"):
        heatmap_emd(paper_map(), PAPER_DOT, solver="sinkhorn", blur=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heatmap_emd(paper_map(), PAPER_DOT, solver="sinkhorn", blur=0.1)


# Composition


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("demanders", ["nearest", "dot"])
def test_vmap_of_the_closed_forms(demanders: str, cost: str) -> None:
    mass, joints = random_problem()

    def one(m: Tensor, q: Tensor) -> Tensor:
        return heatmap_emd(m, q, demanders=demanders, cost=cost)

    assert torch.allclose(torch.func.vmap(one)(mass, joints), one(mass, joints))
    gradients = torch.func.vmap(torch.func.grad(one))(mass, joints)
    mass.requires_grad_()
    one(mass, joints).sum().backward()
    assert torch.allclose(gradients, mass.grad)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("settings", [{"demanders": "dot"}, {"demanders": "nearest"}, {"demanders": "subpixel"}])
def test_compiled(settings: dict[str, Any]) -> None:
    mass, joints = random_problem()
    compiled: Callable[..., Tensor] = torch.compile(lambda m, q: heatmap_emd(m, q, **settings))
    assert torch.allclose(compiled(mass, joints), heatmap_emd(mass, joints, **settings))


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"demanders": "four"}, "unknown demanders 'four': choose one of nearest, dot, subpixel"),
        ({"cost": "l1"}, "unknown cost 'l1': choose one of l2, l2_squared"),
        ({"solver": "newton"}, "unknown solver 'newton': choose one of exact, sinkhorn"),
        ({"blur": 0.0}, "blur 0.0 must be positive and finite"),
        ({"blur": -1.0}, "blur -1.0 must be positive and finite"),
        ({"blur": float("nan")}, "blur nan must be positive and finite"),
        ({"blur": float("inf")}, "blur inf must be positive and finite"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        heatmap_emd(paper_map(), PAPER_DOT, **settings)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(
    ("mass", "joints"),
    [((3, 5, 4), (2, 2)), ((3, 5, 4), (3, 3)), ((5,), (2,)), ((3, 5, 4), (3, 1, 2)), ((2, 0, 4), (2, 2))],
)
def test_shapes_that_do_not_match(mass: tuple[int, ...], joints: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"heatmaps \(.*\) and joints \(.*\) do not match or have no pixel"):
        heatmap_emd(torch.ones(mass), torch.ones(joints))


@pytest.mark.parametrize("demanders", DEMANDERS)
@pytest.mark.parametrize(
    "value", [0.0, -1e-3, float("nan"), float("inf"), 3e38], ids=["zero", "negative", "nan", "inf", "overflow"]
)
def test_map_that_is_no_distribution(value: float, demanders: str) -> None:
    mass = torch.ones(2, 3, 4, 5)
    mass[1, 2] = value
    if value < 0:
        mass[1, 2] = torch.eye(4, 5) + value  # its sum is positive
    with pytest.raises(InputError, match="1 of 6 heatmaps are no distribution .* pass non-negative, finite maps"):
        heatmap_emd(mass, torch.ones(2, 3, 2), demanders=demanders)


@pytest.mark.parametrize("demanders", DEMANDERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_joint_that_is_nowhere(value: float, demanders: str) -> None:
    joints = torch.ones(2, 3, 2)
    joints[1, 0, 1] = value
    with pytest.raises(InputError, match="joints hold NaN or infinite coordinates: leave these maps out"):
        heatmap_emd(torch.ones(2, 3, 4, 5), joints, demanders=demanders)
