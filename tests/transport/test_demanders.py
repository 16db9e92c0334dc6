"""Where the mass must go, and what it costs to get there."""

import math

import pytest
import torch
from problems import JOINTS

from hdm.errors import InputError
from hdm.transport import check_scale, demanders_of, transport_costs


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


def test_costs_are_functions_of_the_distance() -> None:
    points = torch.tensor([[[1.0, 2.0], [4.5, 0.25]]], dtype=torch.float64)
    distances, squares = (transport_costs(points, (3, 6), cost) for cost in ("l2", "l2_squared"))
    truncated, gaussian = (transport_costs(points, (3, 6), cost, 1.8) for cost in ("truncated", "gaussian"))
    assert distances.shape == (1, 2, 3, 6)
    for j, (x, y) in enumerate(points[0].tolist()):
        for row in range(3):
            for column in range(6):
                expected = math.hypot(column - x, row - y)
                assert math.isclose(float(distances[0, j, row, column]), expected, abs_tol=1e-12)
                assert math.isclose(float(squares[0, j, row, column]), expected**2, abs_tol=1e-12)
                assert math.isclose(float(truncated[0, j, row, column]), min(expected, 1.8), abs_tol=1e-12)
                bell = math.exp(-0.5 * (expected / 1.8) ** 2)
                assert math.isclose(float(gaussian[0, j, row, column]), 1 - bell, abs_tol=1e-12)


@pytest.mark.parametrize("cost", ["truncated", "gaussian"])
def test_every_map_has_its_own_scale(cost: str) -> None:
    points, scales = torch.rand(2, 3, 4, 2, dtype=torch.float64) * 5, torch.tensor([0.5, 2.0, 9.0])
    costs = transport_costs(points, (5, 6), cost, scales)
    for k, scale in enumerate(scales.tolist()):
        assert torch.equal(costs[:, k], transport_costs(points[:, k], (5, 6), cost, scale))


def test_gaussian_cost_keeps_its_digits_near_the_dot() -> None:
    # 1 - exp(-d^2 / (2 scale^2)) is 5e-9 one pixel away, which single precision would lose against the 1.
    costs = transport_costs(torch.tensor([[1.0, 2.0]]), (3, 6), "gaussian", 1e4)
    assert math.isclose(float(costs[0, 1, 1]), 5e-9, rel_tol=1e-6)


@pytest.mark.parametrize("cost", ["truncated", "gaussian"])
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, "needs a scale: give a length in heatmap pixels"),
        (0.0, "scale 0.0 must be positive and finite"),
        (-2, "scale -2 must be positive and finite"),
        (float("nan"), "scale nan must be positive and finite"),
        (float("inf"), "scale inf must be positive and finite"),
        (1e-60, "scale 1e-60 must be positive and finite"),
        ([3.0, 0.0], r"scale \[3.0, 0.0\] must be positive and finite"),
        (torch.tensor([3.0, -1.0]), r"scale \[3.0, -1.0\] must be positive and finite"),
    ],
)
def test_a_scale_that_is_wrong(cost: str, scale: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scale(scale, cost)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("scale", ["wide", [1.0, [2.0]], ["3", "4"], {"nose": 1.0}])
def test_a_scale_that_is_no_number(scale: object) -> None:
    with pytest.raises(InputError, match="is no length: give heatmap pixels, a number or one for each joint"):
        check_scale(scale, "gaussian")


@pytest.mark.parametrize("cost", ["l2", "l2_squared"])
def test_distances_take_no_scale(cost: str) -> None:
    check_scale(None, cost)
    message = f"cost '{cost}' takes no scale: leave it out, or choose cost truncated or gaussian"
    with pytest.raises(InputError, match=message):
        check_scale(3.0, cost)
    with pytest.raises(InputError, match=message):
        transport_costs(torch.ones(2, 1, 2), (3, 6), cost, 3.0)
    with pytest.raises(InputError, match="cost 'truncated' needs a scale"):
        transport_costs(torch.ones(2, 1, 2), (3, 6), "truncated")
