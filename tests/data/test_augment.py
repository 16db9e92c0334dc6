"""The random views, against the distributions that the official recipe prescribes."""

import random
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from hdm.data.augment import Augmentation, View, draw_half_body, draw_view
from hdm.pixels import apply_affine, box_affine, invert_affine

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


# --- against the official code, restated ---

# Columns and rows of a crop; what a recipe says, and what the official code holds fast.
ASPECT = 192 / 256
RECIPE = {"rf": 40.0, "sf": 0.3, "flip": 0.5, "half": 0.3}
FIXED = {"turned": 0.6, "cut": 2.0, "least": 8, "upper": "randn", "half_size": 1.5}


@lru_cache
def people() -> list[tuple[tuple[float, float, float, float], np.ndarray, np.ndarray]]:
    """Boxes, joints and visible ones of 200 people; some show few joints, or few of one half."""
    rng = np.random.default_rng(11)
    found = []
    for _ in range(200):
        box = (*rng.uniform(0, 200, 2), *rng.uniform(60, 300, 2))
        joints = np.array(box[:2]) + rng.uniform(0, 1, (17, 2)) * box[2:]
        visible = rng.random(17) < rng.choice([0.5, 0.9, 1.0])
        visible[11:] &= rng.random() < 0.8
        found.append((box, joints, visible.astype(np.float32)))
    return found


def wide(w: float, h: float) -> float:
    """The width of a region of w x h after the official code has brought it to the crop's aspect ratio."""
    return w if w > ASPECT * h else h * ASPECT


@lru_cache
def official(**changes) -> pd.DataFrame:
    """What `JointsDataset.__getitem__` (HRNet) draws for people one after the other; `changes` make another recipe.

    width, x, y: the region that a crop shows, before a scale is drawn, and its centre; upper: NaN for a whole person.
    """
    recipe = {**RECIPE, **FIXED, **changes}
    normal, coin = np.random.RandomState(21), random.Random(22)
    rows = []
    for number in range(DRAWS):
        box, joints, visible = people()[number % len(people())]
        c = np.array([box[0] + (box[2] - 1) / 2, box[1] + (box[3] - 1) / 2])
        s, half = 1.25 * wide(box[2] - 1, box[3] - 1), np.nan
        if visible.sum() > recipe["least"] and normal.rand() < recipe["half"]:
            upper = [joints[k] for k in range(17) if visible[k] > 0 and k in UPPER]
            lower = [joints[k] for k in range(17) if visible[k] > 0 and k not in UPPER]
            first = normal.randn() < 0.5 if recipe["upper"] == "randn" else normal.rand() < 0.5
            if first and len(upper) > 2:
                selected, half = upper, 1.0
            else:
                selected, half = (lower, 0.0) if len(lower) > 2 else (upper, 1.0)
            if len(selected) < 2:
                half = np.nan
            else:
                c = np.mean(selected, axis=0)
                w, h = np.max(selected, axis=0) - np.min(selected, axis=0)
                s = recipe["half_size"] * wide(w, h)
        sf, rf = recipe["sf"], recipe["rf"]
        factor = np.clip(normal.randn() * sf + 1, 1 - sf, 1 + sf)
        limit = rf * recipe["cut"]
        r = np.clip(normal.randn() * rf, -limit, limit) if coin.random() <= recipe["turned"] else 0
        rows.append((factor, r, coin.random() <= recipe["flip"], half, s, *c))
    return pd.DataFrame(rows, columns=["scale", "rotation", "flip", "upper", "width", "x", "y"])


@lru_cache
def ours() -> pd.DataFrame:
    """The same of `draw_view` and `draw_half_body`, read off the affine map of the crop."""
    augmentation = Augmentation(RECIPE["rf"], RECIPE["sf"], RECIPE["flip"], RECIPE["half"])
    rng = np.random.default_rng(23)
    rows = []
    for number in range(DRAWS):
        box, joints, visible = people()[number % len(people())]
        view = draw_view(augmentation, rng)
        half_box = draw_half_body(augmentation, rng, joints, visible, UPPER)
        affine = box_affine(half_box or box, (256, 192), convention="hrnet")
        x, y = apply_affine(invert_affine(affine), np.array([96.0, 128.0]))
        upper = np.nan
        if half_box is not None:
            mean = joints[[k for k in UPPER if visible[k] > 0]].mean(0) if visible[:11].any() else (np.inf, np.inf)
            upper = float(np.allclose((x, y), mean))
        rows.append((view.scale, view.rotation, view.mirror, upper, 192 / affine[0, 0], x, y))
    return pd.DataFrame(rows, columns=["scale", "rotation", "flip", "upper", "width", "x", "y"])


def differences(first: pd.DataFrame, second: pd.DataFrame) -> set[str]:
    """What two recipes differ in, at one in a thousand: Kolmogorov-Smirnov's test of values, Fisher's of shares."""
    halves = [table[table.upper.notna()] for table in (first, second)]
    values = {"scale": ("scale", (first, second)), "rotation": ("rotation", (first, second))}
    values |= {f"half's {name}": (name, halves) for name in ("width", "x", "y")}
    p = {what: scipy.stats.ks_2samp(*(t[name] for t in tables)).pvalue for what, (name, tables) in values.items()}
    shares = {
        "scale cut below": [np.isclose(table.scale, table.scale.min()) for table in (first, second)],
        "scale cut above": [np.isclose(table.scale, table.scale.max()) for table in (first, second)],
        "upright": [table.rotation == 0 for table in (first, second)],
        "rotation cut": [np.isclose(table.rotation.abs(), 80) for table in (first, second)],
        "flip": [table.flip for table in (first, second)],
        "half": [table.upper.notna() for table in (first, second)],
        "upper half": [table.upper == 1 for table in halves],
    }
    for what, (one, other) in shares.items():
        p[what] = scipy.stats.fisher_exact([[hits.sum(), (~hits).sum()] for hits in (one, other)]).pvalue
    return {what for what, value in p.items() if value < 1e-3}


@pytest.mark.slow
def test_views_are_distributed_as_those_of_the_official_code() -> None:
    assert differences(ours(), official()) == set()


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"turned": 1.0}, {"rotation", "upright", "rotation cut"}),
        ({"turned": 0.5}, {"rotation", "upright"}),
        ({"rf": 45.0}, {"rotation cut"}),
        ({"cut": 1.5}, {"rotation cut"}),
        ({"sf": 0.35}, {"scale"}),
        ({"sf": 0.25}, {"scale"}),
        ({"flip": 0.45}, {"flip"}),
        ({"half": 0.35}, {"half"}),
        ({"least": 6}, {"half"}),
        ({"upper": "rand"}, {"upper half"}),
        ({"half_size": 1.25}, {"half's width"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else " and ".join(sorted(value)),
)
def test_another_recipe_would_be_noticed(changes: dict, seen: set[str]) -> None:
    assert differences(ours(), official(**changes)) >= seen


def test_a_half_is_exactly_as_large_as_the_official_code_shows_it() -> None:
    """Person by person: the upper and the lower half, each with its own centre and size."""

    def halves(table: pd.DataFrame) -> set[tuple]:
        table = table.assign(person=table.index % len(people()))[table.upper.notna()]
        return set(table[["person", "upper", "width", "x", "y"]].round(6).itertuples(index=False, name=None))

    assert len(halves(official())) > 150
    assert halves(ours()) == halves(official())
