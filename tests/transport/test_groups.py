"""Groups of pixels: what they keep of their pixels, and which pixels stay alone."""

import math

import pytest
import torch
from problems import dirac, gaussian, normalised, random_maps, with_random_dots

from hdm.transport.groups import every_pixel, grouped


@pytest.mark.parametrize(("height", "width"), [(64, 48), (32, 24), (61, 43), (128, 128), (3, 400)])
def test_groups_have_the_mass_and_the_moments_of_their_pixels(height: int, width: int) -> None:
    mass, _, corner = with_random_dots(random_maps("heavy", 5, height, width))
    pixels, groups = every_pixel(mass, corner), grouped(mass, corner)
    assert groups.mass.shape[1] < 0.5 * height * width
    for part in (
        lambda s: s.mass,
        lambda s: s.mass * s.x,
        lambda s: s.mass * s.y,
        lambda s: s.mass * (s.x.square() + s.y.square() + 2 * s.spread),
    ):
        assert torch.allclose(part(groups).sum(1), part(pixels).sum(1))


def test_small_maps_are_not_grouped() -> None:
    mass, _, corner = with_random_dots(random_maps("heavy", 5, 16, 32))
    for group, pixel in zip(grouped(mass, corner), every_pixel(mass, corner), strict=True):
        assert torch.equal(group, pixel)


def test_heavy_and_near_blocks_stay_pixels() -> None:
    # Two bright pixels far away, and a blob at the dot.
    mass = normalised(gaussian(64, 48, (20.4, 30.7), 0.7) + 3 * dirac(64, 48, 40, 5) + 2 * dirac(64, 48, 3, 60))
    groups = grouped(mass[None], torch.tensor([[20.0, 30.0]], dtype=torch.float64))
    assert (groups.mass * groups.spread).sum() < 1e-6
    for x, y, share in ((40, 5, 3), (3, 60, 2)):
        at = (groups.x == x - 20) & (groups.y == y - 30)
        assert float(groups.mass[at].sum()) == pytest.approx(share / (5 + 2 * math.pi * 0.49), rel=1e-3)
