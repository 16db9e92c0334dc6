"""SimCC, with heads whose answers are known, and a head that learns to find a peak."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.nn import functional

from hdm.decode import decode
from hdm.losses import SimCC

Problem = Callable[..., tuple[Tensor, Tensor, Tensor]]
One = Callable[[tuple[float, float]], tuple[Tensor, Tensor]]


def blind(x_scores: Tensor, y_scores: Tensor, **settings) -> SimCC:
    """A head for maps 7 high and 5 wide that gives these scores, whatever the map."""
    loss = SimCC((7, 5), bins_per_pixel=len(x_scores) // 5, **settings)
    for layer, scores in ((loss.to_x, x_scores), (loss.to_y, y_scores)):
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data = scores.double()
    return loss


def peak(bins: int, place: int) -> Tensor:
    """Scores whose softmax is nearly 1 in one bin."""
    return 100.0 * functional.one_hot(torch.tensor(place), bins)


EMPTY = torch.zeros(1, 1, 7, 5, dtype=torch.float64)


def test_bins_share_out_the_area_of_the_map(one: One) -> None:
    """Two bins a pixel: the pixel at x = 3 covers 2.5 to 3.5, that is bins 6 and 7."""
    for bin_, places in {6: (2.5, 2.75, 2.99), 7: (3.0, 3.25, 3.49), 0: (-0.5, -0.01), 9: (4.0, 4.5)}.items():
        loss = blind(peak(10, bin_), peak(14, 5))
        for x in places:
            assert loss(EMPTY, *one((x, 2.2))).item() == pytest.approx(0, abs=1e-9)  # bin 5 covers 2.0 to 2.5
        assert loss.joints(EMPTY)[0].tolist() == [[[bin_ / 2 - 0.25, 2.25]]]
        outside = places[0] + (1 if places[0] < 4 else -1)
        assert loss(EMPTY, *one((outside, 2.2))).item() == pytest.approx(100 / 2)


@pytest.mark.parametrize("target", ["one_hot", "gaussian"])
def test_a_head_that_knows_nothing(one: One, target: str) -> None:
    loss = blind(torch.zeros(20), torch.zeros(28), target=target)
    assert loss(EMPTY, *one((1.3, 4.2))).item() == pytest.approx((math.log(20) + math.log(28)) / 2)
    assert torch.allclose(loss.maps(EMPTY), torch.full((1, 1, 7, 5), 1 / 35, dtype=torch.float64))
    assert loss.joints(EMPTY)[1].item() == pytest.approx(1 / 28)


def test_cross_entropy_as_torch_computes_it(problem: Problem) -> None:
    heatmaps, joints, visible = problem()
    for target in ("one_hot", "gaussian"):
        loss = SimCC((7, 5), target=target, bins_per_pixel=3, sigma=0.6, reduction="none").double()
        each = loss(heatmaps, joints, visible)
        flat = heatmaps.flatten(2)
        for b in range(2):
            for k in range(3):
                entropy = 0.0
                for layer, place in zip((loss.to_x, loss.to_y), joints[b, k].tolist(), strict=True):
                    scores = layer(flat[b, k])
                    centres = (np.arange(len(scores)) + 0.5) / 3 - 0.5
                    if target == "one_hot":
                        answer = torch.tensor(np.abs(centres - place).argmin())
                    else:
                        density = norm.pdf(centres, place, 0.6)
                        answer = torch.from_numpy(density / density.sum())
                    entropy += functional.cross_entropy(scores, answer).item() / 2
                assert each[b, k].item() == pytest.approx(visible[b, k].item() * entropy)


def test_maps_pool_the_bins_of_each_pixel() -> None:
    x, y = torch.randn(20).double(), torch.randn(28).double()
    maps = blind(x, y).maps(EMPTY)[0, 0]
    fine = torch.outer(y.softmax(0), x.softmax(0))
    assert torch.allclose(maps, fine.view(7, 4, 5, 4).sum((1, 3)))
    assert maps.sum().item() == pytest.approx(1)


def test_the_joint_is_the_likeliest_bin_and_its_score_that_of_the_worse_axis() -> None:
    x, y = torch.zeros(20), torch.zeros(28)
    x[13], y[4] = 5.0, 1.0
    joints, scores = blind(x, y).joints(EMPTY)
    assert joints.tolist() == [[[13.5 / 4 - 0.5, 4.5 / 4 - 0.5]]]
    assert scores.item() == pytest.approx(math.e / (math.e + 27))


@pytest.mark.parametrize("target", ["one_hot", "gaussian"])
def test_a_mirrored_head_in_a_mirrored_world(one: One, target: str) -> None:
    x, y = torch.randn(20), torch.randn(28)
    value = blind(x, y, target=target)(EMPTY, *one((1.3, 4.2)))
    assert torch.allclose(blind(x.flip(0), y, target=target)(EMPTY, *one((4 - 1.3, 4.2))), value)


def bumps(images: int, joints: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Heatmaps with a Gaussian around each joint, and the joints."""
    places = 0.5 + torch.rand(images, joints, 2) * torch.tensor([width - 2.0, height - 2.0])
    x = torch.arange(width) - places[..., :1]
    y = torch.arange(height) - places[..., 1:]
    return torch.exp(-(x.square().unsqueeze(-2) + y.square().unsqueeze(-1)) / 2), places


@pytest.mark.parametrize("target", ["one_hot", "gaussian"])
def test_a_head_learns_to_find_a_peak(target: str) -> None:
    loss = SimCC((10, 8), target=target, bins_per_pixel=4, sigma=0.4)
    heatmaps, joints = bumps(300, 2, 10, 8)
    optimizer = torch.optim.Adam(loss.parameters(), 0.05)
    values = []
    for _ in range(150):
        value = loss(heatmaps, joints, torch.ones(300, 2))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]
    unseen, places = bumps(50, 2, 10, 8)
    found, scores = loss.joints(unseen)
    assert (found - places).norm(dim=-1).mean() < 0.25
    assert ((scores > 0) & (scores <= 1)).all()
    pooled, _ = decode(loss.maps(unseen), "local")
    assert (pooled - places).norm(dim=-1).mean() < 0.6


def test_the_settings_of_the_repository() -> None:
    """R50 at 256 x 192, split ratio 2: 384 bins along x and 512 along y, from the 3072 numbers of a map."""
    loss = SimCC()
    assert loss.to_x.weight.shape == (384, 3072)
    assert loss.to_y.weight.shape == (512, 3072)
