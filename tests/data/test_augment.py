"""The random views, against the distributions that the official recipe prescribes."""

import numpy as np
import pytest

from hdm.data.augment import Augmentation, View, draw_half_body, draw_view

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


# --- half bodies ---

UPPER = tuple(range(11))


def figure(seed: int = 0, count: int = 17) -> tuple[np.ndarray, np.ndarray]:
    """Joints around (100, 60), those of the upper body above them; the first `count` are labelled."""
    rng = np.random.default_rng(seed)
    joints = np.array([100.0, 60.0]) + rng.uniform(-20, 20, (17, 2))
    joints[11:, 1] += 60
    return joints, (np.arange(17) < count).astype(np.float32)


def half_of(joints: np.ndarray, chosen: np.ndarray) -> tuple[float, float, float, float]:
    """Centre, and extent times 1.5, of some joints."""
    x, y = joints[chosen].mean(0)
    width, height = 1.5 * np.ptp(joints[chosen], axis=0)
    return x, y, width, height


def shown(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """Centre and size of what a crop shows of a box: the distances between its outermost pixel centres times 1.25."""
    x, y, width, height = box
    return x + (width - 1) / 2, y + (height - 1) / 2, 1.25 * (width - 1), 1.25 * (height - 1)


def test_half_bodies_come_as_often_as_asked_and_more_often_the_upper_half() -> None:
    """The official code compares a normal number with 0.5: the upper half has probability 0.6915."""
    joints, visible = figure()
    rng = np.random.default_rng(1)
    boxes = [draw_half_body(Augmentation(half_body=0.3), rng, joints, visible, UPPER) for _ in range(DRAWS)]
    halves = [box for box in boxes if box is not None]
    assert len(halves) / DRAWS == pytest.approx(0.3, abs=TOLERANCE)
    upper, lower = half_of(joints, np.arange(11)), half_of(joints, np.arange(11, 17))
    is_upper = [shown(box) == pytest.approx(upper) for box in halves]
    assert all(shown(box) == pytest.approx(lower) for box, up in zip(halves, is_upper, strict=True) if not up)
    assert np.mean(is_upper) == pytest.approx(0.6915, abs=4 * np.sqrt(0.25 / len(halves)))


def test_a_person_with_few_joints_is_shown_whole() -> None:
    """With eight labelled joints never, with nine always."""
    always = Augmentation(half_body=1.0)
    rng = np.random.default_rng(0)
    assert all(draw_half_body(always, rng, *figure(count=8), UPPER) is None for _ in range(50))
    assert all(draw_half_body(always, rng, *figure(count=9), UPPER) is not None for _ in range(50))


@pytest.mark.parametrize(
    ("upper", "labelled", "chosen"), [(UPPER, range(9), range(9)), ((0, 1), (0, 1, *range(8, 17)), range(8, 17))]
)
def test_a_half_of_fewer_than_three_joints_gives_way(upper: tuple[int, ...], labelled: range, chosen: range) -> None:
    """Nine joints of the upper body and none below; and, of another upper body, two joints and nine below."""
    joints, _ = figure()
    visible = np.isin(np.arange(17), list(labelled)).astype(np.float32)
    rng = np.random.default_rng(0)
    for _ in range(30):
        box = draw_half_body(Augmentation(half_body=1.0), rng, joints, visible, upper)
        assert box is not None and shown(box) == pytest.approx(half_of(joints, np.array(chosen)))


def test_without_half_bodies_the_other_draws_are_the_same() -> None:
    """So that runs recorded before half bodies came repeat."""
    joints, visible = figure()
    rng = np.random.default_rng(7)
    view = draw_view(Augmentation(half_body=0.0), rng)
    assert draw_half_body(Augmentation(), rng, joints, visible, UPPER) is None
    assert view == draw_view(Augmentation(half_body=0.9), np.random.default_rng(7))
