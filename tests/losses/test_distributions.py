"""Cross-entropy, divergences and expected cost, against scipy, torch's own functions and closed forms."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, norm
from torch import Tensor
from torch.nn import functional

from hdm.errors import InputError
from hdm.losses import CrossEntropy, ExpectedCost, HDMLoss, JSDivergence, KLDivergence
from hdm.losses.distributions import js_divergence

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]
One = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def splat(height: int, width: int, joint: tuple[float, float]) -> Tensor:
    """The bilinear map of a dot: the product of two hats."""
    x, y = (1 - (torch.arange(n, dtype=torch.float64) - c).abs() for n, c in zip((width, height), joint, strict=True))
    return torch.outer(y.clamp(min=0), x.clamp(min=0))


def target_map(demanders: str, height: int, width: int, joint: tuple[float, float], sigma: float = 2.0) -> Tensor:
    """The target by another way: a distribution over the map."""
    x, y = joint
    if demanders == "gaussian":
        density = np.outer(norm.pdf(np.arange(height), y, sigma), norm.pdf(np.arange(width), x, sigma))
        return torch.from_numpy(density / density.sum())
    return splat(height, width, (round(x), round(y)) if demanders == "nearest" else joint)


all_targets = pytest.mark.parametrize("demanders", ["nearest", "subpixel", "gaussian"])


# --- cross-entropy ---


@all_targets
def test_cross_entropy_of_a_uniform_map_is_log_hw(problem: Problem, demanders: str) -> None:
    heatmaps, joints, visible = problem()
    value = CrossEntropy(demanders, temperature=0.3)(0 * heatmaps + 5, joints, visible)
    assert float(value) == pytest.approx(math.log(35))


def test_cross_entropy_of_known_probabilities(one: One) -> None:
    p = torch.arange(1.0, 36.0, dtype=torch.float64).view(7, 5) / 630
    z = p.log().view(1, 1, 7, 5) + 3
    joints, visible = one((2.25, 4.0))  # between pixels (2, 4) and (3, 4), that is 23 / 630 and 24 / 630
    expected = -0.75 * math.log(23 / 630) - 0.25 * math.log(24 / 630)
    assert float(CrossEntropy()(z, joints, visible)) == pytest.approx(expected)
    assert float(CrossEntropy("nearest")(z, joints, visible)) == pytest.approx(-math.log(23 / 630))


@all_targets
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_cross_entropy_as_torch_computes_it(problem: Problem, demanders: str, temperature: float) -> None:
    heatmaps, joints, visible = problem()
    each = CrossEntropy(demanders, temperature=temperature, reduction="none")(heatmaps, joints, visible)
    for b in range(2):
        for k in range(3):
            target = target_map(demanders, 7, 5, tuple(joints[b, k].tolist()))
            expected = functional.cross_entropy(heatmaps[b, k].view(1, 35) / temperature, target.view(1, 35))
            assert torch.allclose(each[b, k], visible[b, k] * expected)


@all_targets
def test_cross_entropy_of_a_perfect_map_is_the_entropy_of_the_target(one: One, demanders: str) -> None:
    target = target_map(demanders, 7, 5, (2.25, 4.6))
    value = CrossEntropy(demanders)((target + 1e-300).log().view(1, 1, 7, 5), *one((2.25, 4.6)))
    assert float(value) == pytest.approx(entropy(target.flatten().numpy()), abs=1e-9)


@all_targets
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("loss", [CrossEntropy, KLDivergence])
def test_the_gradient_is_p_minus_the_target(problem: Problem, loss: type, demanders: str, temperature: float) -> None:
    heatmaps, joints, visible = problem()
    heatmaps.requires_grad_()
    loss(demanders, temperature=temperature)(heatmaps, joints, visible).backward()
    for b in range(2):
        for k in range(3):
            p = (heatmaps.detach()[b, k] / temperature).flatten().softmax(0).view(7, 5)
            difference = p - target_map(demanders, 7, 5, tuple(joints[b, k].tolist()))
            assert torch.allclose(heatmaps.grad[b, k], visible[b, k] / 3.5 * difference / temperature)


@pytest.mark.parametrize("loss", [CrossEntropy, KLDivergence])
def test_a_map_one_pixel_wide(one: One, loss: type) -> None:
    for y in (0.0, 2.5, 5.0):
        value = loss("subpixel")(torch.zeros(1, 1, 6, 1, dtype=torch.float64), *one((0.0, y)))
        uncertainty = math.log(2) if y == 2.5 and loss is KLDivergence else 0
        assert float(value) == pytest.approx(math.log(6) - uncertainty)


# --- Kullback and Leibler ---


@all_targets
def test_kl_is_scipys(problem: Problem, demanders: str) -> None:
    heatmaps, joints, _ = problem()
    visible = torch.ones(2, 3, dtype=torch.float64)
    each = KLDivergence(demanders, sigma=1.3, reduction="none")(heatmaps, joints, visible)
    p = heatmaps.flatten(2).softmax(-1).numpy()
    for b in range(2):
        for k in range(3):
            target = target_map(demanders, 7, 5, tuple(joints[b, k].tolist()), sigma=1.3)
            assert each[b, k].item() == pytest.approx(entropy(target.flatten().numpy(), p[b, k]))


@all_targets
def test_kl_of_a_perfect_map_is_0(one: One, demanders: str) -> None:
    target = target_map(demanders, 7, 5, (2.25, 4.6))
    value = KLDivergence(demanders)((target + 1e-300).log().view(1, 1, 7, 5), *one((2.25, 4.6)))
    assert float(value) == pytest.approx(0, abs=1e-9)


# --- Jensen and Shannon ---


def test_js_is_scipys(problem: Problem) -> None:
    heatmaps, joints, _ = problem()
    each = JSDivergence(1.3, reduction="none")(heatmaps, joints, torch.ones(2, 3, dtype=torch.float64))
    p = heatmaps.flatten(2).softmax(-1).numpy()
    for b in range(2):
        for k in range(3):
            target = target_map("gaussian", 7, 5, tuple(joints[b, k].tolist()), sigma=1.3)
            assert each[b, k].item() == pytest.approx(jensenshannon(p[b, k], target.flatten().numpy()) ** 2)


def test_js_is_0_for_the_target_and_log_2_for_one_elsewhere(one: One) -> None:
    target = target_map("gaussian", 20, 30, (4.3, 5.1), sigma=1.0)
    heatmaps = target.log().view(1, 1, 20, 30).requires_grad_()
    value = JSDivergence()(heatmaps, *one((4.3, 5.1)))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert heatmaps.grad.abs().max() < 1e-12
    assert JSDivergence()(heatmaps, *one((25.3, 15.1))).item() == pytest.approx(math.log(2))


def test_js_is_symmetric() -> None:
    log_p, log_q = torch.randn(2, 2, 3, 35, dtype=torch.float64).log_softmax(-1).view(2, 2, 3, 7, 5)
    assert torch.allclose(js_divergence(log_p, log_q), js_divergence(log_q, log_p))


# --- expected cost ---


@pytest.mark.parametrize(("cost", "expected"), [("l2", 21.7980), ("l2_squared", 547.667)])
def test_expected_cost_of_a_uniform_map(cost: str, expected: float) -> None:
    joints = torch.tensor([20.0, 30.0]).expand(2, 2, 2)
    value = ExpectedCost(cost)(torch.full((2, 2, 64, 48), 0.4), joints, torch.ones(2, 2))
    assert value.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("sigma", "expected"), [(1.0, 1.2141), (2.0, 2.4974), (3.0, 3.7559)])
def test_expected_cost_of_a_gaussian(one: One, sigma: float, expected: float) -> None:
    """On the plane it would be sigma sqrt(pi / 2)."""
    heatmap = target_map("gaussian", 64, 48, (20.0, 30.0), sigma)
    value = ExpectedCost()((heatmap + 1e-300).log().view(1, 1, 64, 48), *one((20.0, 30.0)))
    assert value.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("cost", "expected"), [("l2", 3.5549), ("l2_squared", 14.9403)])
def test_expected_cost_of_a_random_map(one: One, cost: str, expected: float) -> None:
    z = torch.from_numpy(1.5 * np.random.default_rng(0).normal(size=108)).view(1, 1, 12, 9)
    assert ExpectedCost(cost)(z, *one((4.3, 6.6))).item() == pytest.approx(expected, abs=1e-4)


def test_squared_expected_cost_is_offset_and_variance(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    each = ExpectedCost("l2_squared", reduction="none")(heatmaps, joints, torch.ones_like(visible))
    p = heatmaps.flatten(2).softmax(-1)
    places = torch.cartesian_prod(torch.arange(7.0), torch.arange(5.0)).flip(-1).double()
    mean = p @ places
    variance = p @ places.square() - mean.square()
    assert torch.allclose(each, ((mean - joints).square() + variance).sum(-1))


@pytest.mark.parametrize(
    ("cost", "scale"), [("l2", None), ("l2_squared", None), ("truncated", 2.5), ("gaussian", [1.0, 2.0, 3.5])]
)
def test_expected_cost_is_hdm_with_one_demander(problem: Problem, cost: str, scale: float | list[float] | None) -> None:
    heatmaps, joints, visible = problem()
    hdm = HDMLoss("softmax", "dot", cost, temperature=0.6, scale=scale)
    expected = ExpectedCost(cost, temperature=0.6, scale=scale)
    assert torch.allclose(expected(heatmaps, joints, visible), hdm(heatmaps, joints, visible))


def test_expected_gaussian_cost_of_known_probabilities(one: One) -> None:
    p = torch.zeros(1, 1, 7, 5, dtype=torch.float64)
    p[0, 0, 4, 2], p[0, 0, 1, 2] = 0.75, 0.25  # at the dot, and three pixels above
    value = ExpectedCost("gaussian", scale=1.5)((p + 1e-300).log(), *one((2.0, 4.0)))
    assert value.item() == pytest.approx(0.25 * (1 - math.exp(-2)))
    assert ExpectedCost("truncated", scale=2)((p + 1e-300).log(), *one((2.0, 4.0))).item() == pytest.approx(0.5)


def test_scale_of_the_expected_cost(problem: Problem) -> None:
    assert (
        ExpectedCost("gaussian", scale=[1.0, 2.0]).extra_repr() == "cost='gaussian', scale=[1.0, 2.0], temperature=1.0"
    )
    assert ExpectedCost().extra_repr() == "cost='l2', temperature=1.0"
    with pytest.raises(InputError, match="cost 'truncated' needs a scale"):
        ExpectedCost("truncated")
    with pytest.raises(InputError, match=r"scale \[1.0, 2.0\] does not fit heatmaps of 3 joints"):
        ExpectedCost("truncated", scale=[1.0, 2.0])(*problem())


@pytest.mark.parametrize("loss", [CrossEntropy, KLDivergence, JSDivergence, ExpectedCost])
def test_the_maps_are_distributions(problem: Problem, loss: type) -> None:
    heatmaps, _, _ = problem()
    maps = loss(temperature=0.7).maps(heatmaps)
    assert torch.allclose(maps.flatten(2), (heatmaps / 0.7).flatten(2).softmax(-1))
