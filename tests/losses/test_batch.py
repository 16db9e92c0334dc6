"""Softmax and averages; what a batch is refused for is tested with every loss in test_every_loss.py."""

import pytest
import torch

from hdm.errors import InputError
from hdm.losses.batch import check_batch, check_choice, check_positive, full_precision, log_softmax, softmax, weighted


def test_joints_that_do_not_count_are_put_at_0() -> None:
    nan = float("nan")
    joints = torch.tensor([[[1.5, 2.0], [nan, 99.0]], [[-7.0, 1.0], [0.25, 0.75]]], dtype=torch.float16)
    visible = torch.tensor([[0.5, 0.0], [0.0, 1.0]])
    checked = check_batch(torch.zeros(2, 2, 4, 3), joints, visible)
    assert checked.dtype == torch.float32
    assert checked.tolist() == [[[1.5, 2.0], [0.0, 0.0]], [[0.0, 0.0], [0.25, 0.75]]]


def test_the_border_of_the_map_is_half_a_pixel_outside_of_the_pixel_centres() -> None:
    corners = torch.tensor([[[-0.5, -0.5], [2.5, 3.5]]])
    assert torch.equal(check_batch(torch.zeros(1, 2, 4, 3), corners, torch.ones(1, 2)), corners)
    with pytest.raises(InputError, match="outside of its 3 x 4 heatmap"):
        check_batch(torch.zeros(1, 2, 4, 3), corners.flip(-1), torch.ones(1, 2))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_softmax_and_its_logarithm(temperature: float) -> None:
    z = 5 * torch.randn(2, 3, 4, 3, dtype=torch.float64)
    p = softmax(z, temperature)
    expected = (z / temperature).exp()
    assert torch.allclose(p, expected / expected.sum((-2, -1), keepdim=True))
    assert torch.allclose(log_softmax(z, temperature), p.log())
    assert torch.isfinite(log_softmax(1e4 * z, temperature)).all()


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_full_precision(given: torch.dtype, computed: torch.dtype) -> None:
    assert full_precision(torch.zeros(2, dtype=given)).dtype == computed


def test_weighted_mean() -> None:
    values, weights = torch.tensor([[1.0, 2.0], [5.0, 7.0]]), torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    assert weighted(values, weights, "none").tolist() == [[1.0, 1.0], [0.0, 14.0]]
    assert weighted(values, weights, "mean").item() == pytest.approx(16 / 3.5)


def test_settings() -> None:
    check_choice("colour", "red", ("red", "blue"))
    check_positive(sigma=0.1)
    with pytest.raises(InputError, match="unknown colour 'green': choose one of red, blue"):
        check_choice("colour", "green", ("red", "blue"))
    with pytest.raises(InputError, match="sigma nan must be positive"):
        check_positive(sigma=float("nan"))
