"""Gaussians around dots, on a map of 12 rows and 9 columns."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hdm.losses.targets import demanded_pixels, gaussian, log_gaussian, log_profile

JOINTS = torch.tensor([[[4.3, 2.2], [0.4, 9.9]], [[-0.5, 11.5], [8.0, 0.0]]], dtype=torch.float64)
ROWS, COLUMNS = np.arange(12), np.arange(9)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_a_gaussian_is_a_product_of_normal_densities(sigma: float) -> None:
    peaks = gaussian(JOINTS, (12, 9), sigma, rounded=False)
    distributions = log_gaussian(JOINTS, (12, 9), sigma).exp()
    for b in range(2):
        for k in range(2):
            x, y = JOINTS[b, k].tolist()
            density = np.outer(norm.pdf(ROWS, y, sigma), norm.pdf(COLUMNS, x, sigma))
            assert peaks[b, k].numpy() == pytest.approx(density * 2 * np.pi * sigma**2)
            assert distributions[b, k].numpy() == pytest.approx(density / density.sum())


def test_a_narrow_gaussian_has_finite_logarithms() -> None:
    log_q = log_gaussian(JOINTS.float(), (12, 9), 0.01)
    assert torch.isfinite(log_q).all()
    assert torch.allclose(log_q.exp().sum((-2, -1)), torch.ones(2, 2))
    assert log_q[1, 1, 0, 8] == 0


def test_a_rounded_gaussian_is_cut_and_on_the_nearest_pixel() -> None:
    joints = torch.tensor([[[20.5, 30.49], [2.2, 61.6]]], dtype=torch.float64)
    inner, corner = gaussian(joints, (64, 48), 2.0, rounded=True)[0]
    whole = gaussian(torch.tensor([[[21.0, 30.0]]], dtype=torch.float64), (64, 48), 2.0, rounded=False)[0, 0]
    assert inner[30, 21] == 1
    assert (inner > 0).sum() == 13 * 13
    assert torch.allclose(inner[24:37, 15:28], whole[24:37, 15:28])
    assert corner[62, 2] == 1
    assert (corner > 0).sum() == 9 * 8  # columns 0 to 8, rows 56 to 63


def test_a_profile_of_uneven_places() -> None:
    places = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    density = norm.pdf(places.numpy(), 0.7, 1.3)
    profile = log_profile(places, torch.full((2, 3), 0.7, dtype=torch.float64), 1.3).exp()
    assert profile.shape == (2, 3, 3)
    assert profile[1, 2].numpy() == pytest.approx(density / density.sum())


def test_the_pixels_of_the_demanders() -> None:
    joints = torch.tensor([[[4.25, 2.5], [8.0, 11.0]]], dtype=torch.float64)
    index, weights = demanded_pixels(joints, (12, 9), "subpixel")
    assert index[0, 0].tolist() == [2 * 9 + 4, 2 * 9 + 5, 3 * 9 + 4, 3 * 9 + 5]
    assert weights[0, 0].tolist() == [0.375, 0.125, 0.375, 0.125]
    assert index[0, 1, weights[0, 1] > 0].tolist() == [11 * 9 + 8]
    nearest, one = demanded_pixels(joints, (12, 9), "nearest")
    assert nearest.tolist() == [[[3 * 9 + 4], [11 * 9 + 8]]]
    assert one.tolist() == [[[1.0], [1.0]]]
