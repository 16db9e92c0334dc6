"""Entropic transport, against the exact value, POT's plans and numbers known from elsewhere."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import PAPER_DOT, dirac, four_demanders, paper_map, random_maps, splat
from torch import Tensor

from hdm.transport import heatmap_emd

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # POT's own docstrings
    import ot

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(("cost", "blur"), [("truncated", 0.05), ("gaussian", 0.3)])
def test_sinkhorn_of_bounded_costs_falls_to_the_exact_value(cost: str, blur: float) -> None:
    mass = random_maps("diffuse", 6, 12, 9).view(2, 3, 12, 9)
    joints, scales = torch.rand(2, 3, 2, dtype=torch.float64) * 0.6 + 4.2, torch.tensor([1.5, 3.0, 6.0])
    exact = heatmap_emd(mass, joints, cost=cost, scale=scales)
    wide, narrow = (
        heatmap_emd(mass, joints, cost=cost, scale=scales, solver="sinkhorn", blur=each) - exact
        for each in (8 * blur, blur)
    )
    assert (narrow < wide).all()
    assert (narrow.abs() < 0.02 * exact).all()


def test_blur_of_a_wide_gaussian_cost_is_that_of_squared_distances() -> None:
    mass, joints = random_maps("diffuse", 4, 12, 9), torch.rand(4, 2, dtype=torch.float64) * 0.6 + 4.2
    square = heatmap_emd(mass, joints, cost="l2_squared", solver="sinkhorn", blur=1.3)
    gaussian = heatmap_emd(mass, joints, cost="gaussian", scale=2e3, solver="sinkhorn", blur=1.3)
    assert torch.allclose(2 * 2e3**2 * gaussian, square, rtol=1e-4)


def test_sinkhorn_of_a_gaussian_cost_is_the_cost_of_the_entropic_plan() -> None:
    blur, scale = 0.8, 2.5
    points, d = four_demanders(PAPER_DOT, 12, 9)
    y, x = np.divmod(np.arange(108), 9)
    c = 1 - np.exp(-((x[:, None] - points[:, 0]) ** 2 + (y[:, None] - points[:, 1]) ** 2) / (2 * scale**2))
    s = paper_map().numpy().ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eps = blur**2 / (2 * scale**2)
        plan = ot.sinkhorn(s, d, c, eps, method="sinkhorn_log", stopThr=1e-10, numItermax=20_000)
    value = heatmap_emd(paper_map(), PAPER_DOT, cost="gaussian", scale=scale, solver="sinkhorn", blur=blur)
    assert float(value) == pytest.approx((plan * c).sum(), abs=1e-4)


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
