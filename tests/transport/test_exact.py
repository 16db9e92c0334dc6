"""Plans and proofs of the exact solver."""

import numpy as np
import pytest
import torch
from problems import JOINTS, any_maps, linear_programme, normalised, random_maps, random_problem

from hdm.transport import COSTS, certify, demanders_of, heatmap_emd, transport_costs, transport_plan

pytestmark = pytest.mark.usefixtures("one_thread")


SCALES = {"truncated": 2.5, "gaussian": 1.7}  # of the bounded costs, in pixels


@pytest.mark.parametrize("cost", ["l2", "l2_squared"])
def test_certificate_agrees_with_the_linear_programme(cost: str) -> None:
    torch.manual_seed(2)
    mass, dots = any_maps(44, 12, 9)
    mass, dots = normalised(mass.double()), dots.double()
    expected = np.array([linear_programme(m, q, cost)[0] for m, q in zip(mass, dots, strict=True)])
    value, gap, error = (number.numpy() for number in certify(mass, dots, cost=cost))
    assert value == pytest.approx(heatmap_emd(mass, dots, cost=cost).numpy(), abs=1e-15)
    # The value is no larger than the distance, and with the gap no smaller.
    scale = 1e-6 * (1 + expected)
    assert (value <= expected + 1e-10).all()
    assert (value + gap >= expected - 1e-10).all()
    assert (gap <= scale).all()
    assert (error <= 1e-6).all()


@pytest.mark.parametrize("cost", SCALES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_certificate_of_bounded_costs(dtype: torch.dtype, cost: str) -> None:
    torch.manual_seed(2)
    mass, dots = any_maps(44, 64, 48)
    mass, dots = normalised(mass.to(dtype)), dots.to(dtype)
    scales = torch.tensor([0.3, 1.7, 4.0, 15.0], dtype=dtype).repeat(11)
    value, gap, error = certify(mass, dots, cost=cost, scale=scales)
    assert torch.allclose(value, heatmap_emd(mass, dots, cost=cost, scale=scales), atol=1e-15)
    assert (value >= -1e-6).all()
    assert (value <= (scales if cost == "truncated" else 1) * (1 + 1e-6)).all()
    if dtype == torch.float64:
        assert gap.abs().max() <= 2e-6
        assert error.max() <= 1e-5
    else:
        assert (gap.abs() <= 2e-4 * value + 2e-5).all()
        assert error.median() < 0.01


def test_certificate_in_float32() -> None:
    torch.manual_seed(3)
    mass, dots = any_maps(22, 64, 48)
    value, gap, error = certify(mass, dots)
    assert (gap.abs() <= 1e-4 * value + 1e-6).all()
    assert (error >= 0).all()
    assert error.median() < 0.01


def test_certificate_tells_a_wrong_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hdm.transport.exact.potentials", lambda suppliers, demand, corner, cost, scale: torch.zeros_like(demand)
    )
    mass, dots = random_problem()
    for cost in COSTS:
        _, gap, error = certify(mass, dots, cost=cost, scale=SCALES.get(cost))
        assert gap.max() > 1e-3
        assert error.max() > 1e-3


@pytest.mark.parametrize("cost", COSTS)
def test_plan_meets_both_marginals_at_the_least_cost(cost: str) -> None:
    mass, joints = random_maps("heavy", 12, 12, 9).view(3, 4, 12, 9), JOINTS.view(3, 4, 2)
    scale = SCALES.get(cost)
    plan = transport_plan(mass, joints, cost=cost, scale=scale)
    points, weights = demanders_of(joints, (12, 9), "subpixel")
    assert plan.shape == (3, 4, 4, 12, 9)
    assert plan.min() >= 0
    assert torch.allclose(plan.sum(2), mass, atol=1e-9)
    assert torch.allclose(plan.sum((3, 4)), weights, atol=1e-9)
    spent = (plan * transport_costs(points, (12, 9), cost, scale)).sum((2, 3, 4))
    assert torch.allclose(spent, heatmap_emd(mass, joints, cost=cost, scale=scale), rtol=1e-6)


def test_plans_of_a_bounded_cost_by_scale() -> None:
    mass, joints = random_maps("heavy", 12, 12, 9).view(3, 4, 12, 9), JOINTS.view(3, 4, 2)
    scales = torch.tensor([0.5, 2.0, 4.0, 9.0])
    plan = transport_plan(mass, joints, cost="gaussian", scale=scales)
    assert torch.allclose(plan[:, 2], transport_plan(mass[:, 2], joints[:, 2], cost="gaussian", scale=4.0))
