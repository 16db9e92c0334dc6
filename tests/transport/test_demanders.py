"""Where the mass must go, and what it costs to get there."""

import math

import torch
from problems import JOINTS

from hdm.transport import demanders_of, transport_costs


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


def test_costs_are_distances_and_their_squares() -> None:
    points = torch.tensor([[[1.0, 2.0], [4.5, 0.25]]], dtype=torch.float64)
    distances, squares = (transport_costs(points, (3, 6), cost) for cost in ("l2", "l2_squared"))
    assert distances.shape == (1, 2, 3, 6)
    for j, (x, y) in enumerate(points[0].tolist()):
        for row in range(3):
            for column in range(6):
                expected = math.hypot(column - x, row - y)
                assert math.isclose(float(distances[0, j, row, column]), expected, abs_tol=1e-12)
                assert math.isclose(float(squares[0, j, row, column]), expected**2, abs_tol=1e-12)
