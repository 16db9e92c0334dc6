"""The random views, against the distributions that the official recipe prescribes."""

import numpy as np
import pytest

from hdm.data.augment import Augmentation, View, draw_view

DRAWS = 20_000
# Four standard deviations of a share measured in so many draws.
TOLERANCE = 4 * np.sqrt(0.25 / DRAWS)
# Of a standard normal variable: share beyond 1 and beyond 2 on one side, median of the absolute value.
BEYOND_1, BEYOND_2, MEDIAN = 0.15866, 0.02275, 0.67449


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(5)
    return [draw_view(Augmentation(rotation=40.0, scale=0.3, flip=0.25), rng) for _ in range(DRAWS)]


def test_scale_is_normal_and_cut_at_its_standard_deviation(views: list[View]) -> None:
    scale = np.array([view.scale for view in views])
    assert scale.min() == pytest.approx(0.7)
    assert scale.max() == pytest.approx(1.3)
    assert np.mean(np.isclose(scale, 0.7)) == pytest.approx(BEYOND_1, abs=TOLERANCE)
    assert np.mean(np.isclose(scale, 1.3)) == pytest.approx(BEYOND_1, abs=TOLERANCE)
    assert np.median(np.abs(scale - 1)) == pytest.approx(0.3 * MEDIAN, rel=0.03)


def test_rotation_is_drawn_in_three_of_five_cases_and_cut_at_twice_its_standard_deviation(views: list[View]) -> None:
    rotation = np.array([view.rotation for view in views])
    turned = rotation != 0
    assert turned.mean() == pytest.approx(0.6, abs=TOLERANCE)
    assert np.abs(rotation).max() == 80
    assert np.mean(rotation[turned] == 80) == pytest.approx(BEYOND_2, abs=2 * TOLERANCE)
    assert np.mean(rotation[turned] == -80) == pytest.approx(BEYOND_2, abs=2 * TOLERANCE)
    assert np.median(np.abs(rotation[turned])) == pytest.approx(40 * MEDIAN, rel=0.03)


def test_mirror_images_come_as_often_as_asked(views: list[View]) -> None:
    assert np.mean([view.mirror for view in views]) == pytest.approx(0.25, abs=TOLERANCE)


def test_turn_size_and_mirror_are_independent(views: list[View]) -> None:
    table = np.array([[view.rotation, view.scale, view.mirror] for view in views], dtype=float)
    correlations = np.corrcoef(table.T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(DRAWS)


def test_no_strength_is_no_change() -> None:
    still = Augmentation(rotation=0.0, scale=0.0, flip=0.0)
    rng = np.random.default_rng(0)
    assert all(draw_view(still, rng) == View() for _ in range(50))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_certain_and_impossible_mirror_images(flip: float) -> None:
    rng = np.random.default_rng(0)
    assert {draw_view(Augmentation(flip=flip), rng).mirror for _ in range(200)} == {bool(flip)}


def test_the_generator_decides_alone() -> None:
    def draw(seed: int) -> list[View]:
        rng = np.random.default_rng(seed)
        return [draw_view(Augmentation(), rng) for _ in range(20)]

    assert draw(3) == draw(3) != draw(4)
