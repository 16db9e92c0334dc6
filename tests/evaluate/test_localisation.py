"""Pixel error, PCK and the mean pose, on numbers that can be checked by hand."""

import math

import pytest
import torch
from torch import Tensor

from hdm.errors import InputError
from hdm.evaluate import localisation_error, mean_pose, pck

NAN = math.nan


@pytest.fixture
def joints() -> Tensor:
    """Two persons of three joints."""
    return torch.tensor([[[0.0, 0.0], [10.0, 0.0], [20.0, 5.0]], [[1.0, 1.0], [2.0, 2.0], [NAN, NAN]]])


@pytest.fixture
def visible() -> Tensor:
    return torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])


@pytest.fixture
def predicted() -> Tensor:
    """Off by (3, 4), (0, 1), anything, (0, 0), (-6, 8), anything: distances 5, 1, -, 0, 10, -."""
    return torch.tensor([[[3.0, 4.0], [10.0, 1.0], [0.0, 99.0]], [[1.0, 1.0], [-4.0, 10.0], [7.0, NAN]]])


def test_distances(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    each = localisation_error(predicted, joints, visible, reduction="none")
    torch.testing.assert_close(each, torch.tensor([[5.0, 1.0, NAN], [0.0, 10.0, NAN]]), equal_nan=True)


def test_mean_and_median(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    assert localisation_error(predicted, joints, visible).item() == 4
    assert localisation_error(predicted, joints, visible, reduction="median").item() == 3  # between 1 and 5
    visible[1, 1] = 0
    assert localisation_error(predicted, joints, visible, reduction="median").item() == 1
    assert localisation_error(predicted, joints, visible).item() == 2


def test_a_weight_is_only_asked_whether_it_is_positive(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    assert localisation_error(predicted, joints, 0.25 * visible).item() == 4


def test_pck_counts_joints_at_the_border(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    """Sizes 50 and 100 at threshold 0.1: 5 pixels (5 and 1 are within) and 10 pixels (0 and 10 are within)."""
    size = torch.tensor([50.0, 100.0])
    assert pck(predicted, joints, visible, size, 0.1) == 1
    assert pck(predicted, joints, visible, size, 0.099) == 0.5
    assert pck(predicted, joints, visible, size, 0.01) == 0.25
    assert pck(predicted, joints, visible, torch.tensor([50.0, 50.0]), 0.1) == 0.75
    assert pck(predicted, joints, visible, size, 0.0) == 0.25  # the one that is exact


def test_the_mean_pose_counts_who_shows_a_joint() -> None:
    joints = torch.tensor(
        [
            [[0.0, 0.0], [10.0, 4.0], [5.0, 5.0]],
            [[2.0, 6.0], [NAN, NAN], [5.0, 5.0]],
            [[4.0, 0.0], [20.0, 8.0], [5.0, 5.0]],
        ]
    )
    visible = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    pose = mean_pose(joints, visible)
    torch.testing.assert_close(pose[:2], torch.tensor([[2.0, 2.0], [15.0, 6.0]]))
    # Nobody shows the third joint: the average of the five that are shown, (0+10+2+4+20, 0+4+6+0+8) / 5.
    torch.testing.assert_close(pose[2], torch.tensor([7.2, 3.6]))


def test_the_mean_pose_has_the_least_squared_error() -> None:
    joints = torch.randn(40, 5, 2, dtype=torch.float64)
    visible = (torch.rand(40, 5) < 0.7).double()
    pose = mean_pose(joints, visible)

    def squared(pose: Tensor) -> float:
        return float(localisation_error(pose.expand_as(joints), joints, visible, "none").nan_to_num().square().sum())

    least = squared(pose)
    for _ in range(20):
        assert squared(pose + 0.05 * torch.randn(5, 2, dtype=torch.float64)) > least


def test_double_precision_stays() -> None:
    joints = torch.zeros(2, 3, 2, dtype=torch.float64)
    error = localisation_error(joints + 1e-9, joints, torch.ones(2, 3))
    assert error.dtype == torch.float64
    assert error.item() == pytest.approx(math.sqrt(2) * 1e-9)


# --- refusals ---


def test_unknown_reduction(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    with pytest.raises(InputError, match="unknown reduction 'sum': choose one of mean, median, none"):
        localisation_error(predicted, joints, visible, reduction="sum")


def test_no_joint_counts(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    with pytest.raises(InputError, match="no joint is visible"):
        localisation_error(predicted, joints, 0 * visible)
    with pytest.raises(InputError, match="no joint is visible"):
        pck(predicted, joints, 0 * visible, torch.ones(2), 0.1)


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_prediction_that_counts_must_be_a_number(
    predicted: Tensor, joints: Tensor, visible: Tensor, value: float
) -> None:
    predicted[0, 1, 0] = value
    with pytest.raises(InputError, match="predicted joints hold NaN"):
        localisation_error(predicted, joints, visible)


def test_an_annotation_that_counts_must_be_a_number(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    joints[1, 0] = NAN
    with pytest.raises(InputError, match="visible joints hold NaN"):
        localisation_error(predicted, joints, visible)


def test_shapes_that_do_not_match(predicted: Tensor, joints: Tensor, visible: Tensor) -> None:
    """The shape checks of the tests would catch this too; a user has none."""
    from hdm.evaluate.localisation import _counted

    with pytest.raises(InputError, match=r"predicted \(2, 2, 2\), joints \(2, 3, 2\).*do not match"):
        _counted(predicted[:, :2], joints, visible)
    with pytest.raises(InputError, match="do not match"):
        _counted(predicted, joints, visible[:1])
