"""`argmax` and `quarter`, on maps whose joint is known."""

import pytest
import torch

from hdm.decode import decode
from hdm.encode import encode


def test_argmax_is_the_largest_pixel() -> None:
    heatmaps = torch.randn(2, 3, 7, 5)
    joints, scores = decode(heatmaps, "argmax")
    for b in range(2):
        for k in range(3):
            x, y = joints[b, k].int().tolist()
            assert heatmaps[b, k, y, x] == heatmaps[b, k].max() == scores[b, k]


@pytest.mark.parametrize("method", ["argmax", "quarter", "local"])
def test_tie_goes_to_the_first_pixel(method: str) -> None:
    heatmaps = torch.zeros(2, 2, 7, 9)
    heatmaps[..., 5, 2] = heatmaps[..., 2, 6] = heatmaps[..., 5, 7] = 0.5
    assert decode(heatmaps, method)[0].view(4, 2).tolist() == [[6, 2]] * 4


def test_quarter_improves_on_argmax() -> None:
    joints = torch.rand(4, 50, 2) * torch.tensor([41, 57]) + 3
    heatmaps = encode(joints, (64, 48), "dark")
    peak = (decode(heatmaps, "argmax")[0] - joints).abs()
    quarter = (decode(heatmaps, "quarter")[0] - joints).abs()
    assert peak.max() <= 0.5 + 1e-5
    assert quarter.max() <= 0.25 + 1e-5
    # For a joint at random places in a pixel the error is 1/4 and 1/8 on average.
    assert peak.mean() == pytest.approx(0.25, abs=0.03)
    assert quarter.mean() == pytest.approx(0.125, abs=0.015)


def test_quarter_goes_towards_the_higher_neighbour() -> None:
    heatmaps = torch.zeros(1, 4, 7, 9)
    heatmaps[..., 3, 4] = 1
    heatmaps[0, 0, 3, 5] = 0.3  # right
    heatmaps[0, 1, 3, 3], heatmaps[0, 1, 2, 4] = 0.2, 0.1  # left and up
    heatmaps[0, 2, 4, 4], heatmaps[0, 2, 4, 5] = -0.1, 0.9  # below is lower; a diagonal neighbour does not count
    joints, _ = decode(heatmaps, "quarter")
    assert joints.squeeze(0).tolist() == [[4.25, 3], [3.75, 2.75], [4, 2.75], [4, 3]]


def test_quarter_stays_at_the_border_where_the_official_code_does() -> None:
    # The rule 1 < x < W - 1, 1 < y < H - 1: no step in either axis from columns 0, 1 and W - 1, rows 0, 1 and H - 1.
    height, width = 7, 9
    places = torch.tensor([[x, y] for y in range(height) for x in range(width)])
    heatmaps = torch.zeros(1, len(places), height, width)
    for k, (x, y) in enumerate(places.tolist()):
        heatmaps[0, k, y, x] = 1
        heatmaps[0, k, y, max(x - 1, 0)] = max(0.5, heatmaps[0, k, y, max(x - 1, 0)])
        heatmaps[0, k, max(y - 1, 0), x] = max(0.5, heatmaps[0, k, max(y - 1, 0), x])
    step = decode(heatmaps, "quarter")[0].squeeze(0) - places
    moves = (places >= 2).all(1) & (places <= torch.tensor([width - 2, height - 2])).all(1)
    assert torch.equal(step, -0.25 * moves.unsqueeze(1).repeat(1, 2))
