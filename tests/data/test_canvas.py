"""Drawing: shapes whose area, place and depth are known."""

import colorsys
import math

import numpy as np
import pytest

from hdm.data.canvas import Bar, Canvas, draw_colour, mix

WHITE = (1.0, 1.0, 1.0)


def black(height: int = 60, width: int = 90) -> np.ndarray:
    return np.zeros((height, width, 3), np.float32)


def bar(start, end, width: float, cap: float | None = None, **settings) -> Bar:
    cap = width if cap is None else cap
    return Bar(np.array(start, float), np.array(end, float), (width, width), (cap, cap), WHITE, **settings)


@pytest.mark.parametrize("centre", [(41.0, 27.0), (41.25, 26.6), (40.5, 27.5), (38.9, 30.13)])
def test_a_disc_lies_where_it_is_put_to_a_fraction_of_a_pixel(centre):
    canvas = Canvas(black())
    canvas.draw(bar((*centre, 0), (*centre, 0), 9.0))
    weight = canvas.picture()[..., 0]
    rows, columns = np.mgrid[:60, :90]
    found = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    np.testing.assert_allclose(found, centre, atol=0.03)
    assert weight.sum() == pytest.approx(math.pi * 81, rel=0.01)


def test_a_bar_covers_a_rectangle_and_two_half_ellipses_in_any_direction():
    for angle in (0.0, 0.4, 1.9, 3.5):
        along = 12 * np.array([math.cos(angle), math.sin(angle), 0])
        canvas = Canvas(black())
        canvas.draw(bar([45, 30, 0] - along, [45, 30, 0] + along, 6.0, cap=3.0))
        assert canvas.picture()[..., 1].sum() == pytest.approx(24 * 12 + math.pi * 6 * 3, rel=0.01)


def test_the_nearer_of_two_bars_is_seen_whatever_the_order_and_both_bodies_are_kept():
    near, far = bar((30, 30, 10), (50, 30, 10), 8.0), bar((40, 20, 0), (40, 40, 0), 8.0)
    for first, second in ((near, far), (far, near)):
        owners = {id(near): 1, id(far): 2}
        canvas = Canvas(black())
        canvas.draw(first, owners[id(first)])
        canvas.draw(second, owners[id(second)])
        depth, owner = canvas.surface(np.array([[40.0, 30.0], [40.0, 45.0], [5.0, 5.0]]))
        assert owner.tolist() == [1, 2, 0]
        assert depth[:2] == pytest.approx([10 + 8, 0 + math.sqrt(64 - 25)], abs=0.25)  # within half a canvas pixel
        assert depth[2] == -np.inf
        assert canvas.shown(1).sum() == canvas.body(1).sum()
        assert canvas.shown(2).sum() < canvas.body(2).sum()
        assert not (canvas.shown(1) & canvas.shown(2)).any()


def test_the_side_towards_the_light_is_bright():
    canvas = Canvas(black(), light=(-0.8, 0.0, 0.6), ambient=0.2)
    canvas.draw(bar((45, 10, 0), (45, 50, 0), 10.0))
    row = canvas.picture()[30, :, 0]
    assert row[37] > 0.95 > 0.5 > row[53] > 0.19
    # Lambert: on the axis the normal points at the viewer, whose cosine with the light is 0.6.
    assert row[45] == pytest.approx(0.2 + 0.8 * 0.6, abs=0.03)


def test_bars_beyond_the_border_are_cut_off():
    canvas = Canvas(black())
    canvas.draw(bar((-20, 30, 0), (0, 30, 0), 10.0), 1)
    canvas.draw(bar((300, 300, 0), (320, 300, 0), 10.0), 2)
    assert canvas.body(1).any() and not canvas.body(1)[:, 11:].any()
    assert not canvas.body(2).any()


def test_a_bar_that_points_at_the_viewer_is_a_disc():
    canvas = Canvas(black())
    canvas.draw(bar((40, 30, -5), (40, 30, 5), 7.0))
    assert canvas.picture()[..., 0].sum() == pytest.approx(math.pi * 49, rel=0.01)


def test_placing_enlarges_and_moves():
    placed = bar((1, 2, 3), (4, 5, 6), 2.0, cap=1.0).placed(10.0, np.array([0.5, 0.0, -1.0]))
    np.testing.assert_allclose(placed.start, [10.5, 20, 29])
    np.testing.assert_allclose(placed.end, [40.5, 50, 59])
    assert (placed.widths, placed.caps) == ((20, 20), (10, 10))


def test_colours_keep_to_their_ranges_and_away_from_the_backdrop():
    rng = np.random.default_rng(0)
    backdrop = (0.0, 0.0, 0.0)
    plain = [draw_colour(rng, (0.3, 0.4), (0.5, 0.6), (0.1, 1.0)) for _ in range(200)]
    clear = [draw_colour(rng, (0.3, 0.4), (0.5, 0.6), (0.1, 1.0), backdrop) for _ in range(200)]
    for colour in plain + clear:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        assert 0.299 < hue < 0.401 and 0.499 < saturation < 0.601 and 0.099 < value <= 1
    assert np.mean([math.dist(c, backdrop) for c in clear]) > 1.2 * np.mean([math.dist(c, backdrop) for c in plain])
    assert mix((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), 0.25) == (0.25, 0.0, 0.75)
