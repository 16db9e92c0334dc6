"""Person scores by hand, suppression against a plain loop over pairs, and what the scores' threshold does to AP."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor

from hdm.data.skeletons import COCO
from hdm.decode import decode
from hdm.errors import InputError
from hdm.evaluate import coco_ap, coco_results, oks_nms, oks_nms_per_image, person_scores
from hdm.evaluate.rescoring import pose_similarity

SIGMAS = np.array(COCO.sigmas)

# --- scores ---

JOINT_SCORES = np.array([[0.9, 0.5, 0.2, 0.1], [0.1, 0.05, 0.0, 0.2], [0.3, 0.3, 0.3, 0.3]])
BOX_SCORES = np.array([0.5, 1.0, 0.8])


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.2, [0.5 * 0.7, 0.0, 0.8 * 0.3]),  # a score at the threshold does not count
        (0.15, [0.5 * 1.6 / 3, 0.2, 0.8 * 0.3]),
        (0.01, [0.5 * 1.7 / 4, 0.35 / 3, 0.8 * 0.3]),
        (1.0, [0.0, 0.0, 0.0]),
    ],
)
def test_a_person_scores_its_box_times_the_mean_of_its_better_joints(threshold: float, expected: list[float]) -> None:
    found = person_scores(JOINT_SCORES, BOX_SCORES, threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)


def test_defaults_are_the_official_ones() -> None:
    np.testing.assert_array_equal(
        person_scores(JOINT_SCORES, BOX_SCORES), person_scores(JOINT_SCORES, BOX_SCORES, 0.2, "joints")
    )


def test_the_box_alone() -> None:
    np.testing.assert_array_equal(person_scores(JOINT_SCORES, BOX_SCORES, definition="box"), BOX_SCORES)


def test_single_precision_and_nobody() -> None:
    found = person_scores(JOINT_SCORES.astype(np.float32), BOX_SCORES.astype(np.float32))
    np.testing.assert_allclose(found, [0.35, 0, 0.24], rtol=1e-6)
    assert person_scores(np.zeros((0, 17)), np.zeros(0)).shape == (0,)


def maps_of(joints: Tensor, spread: Tensor) -> Tensor:
    """Softmax maps (N, 17, 96, 72): around each joint a Gaussian of so many pixels, each map of mass 1."""
    x = torch.arange(72.0) - joints[..., 0, None]
    y = torch.arange(96.0) - joints[..., 1, None]
    logits = -(x.square()[..., None, :] + y.square()[..., None]) / (2 * spread[:, None, None, None] ** 2)
    return logits.flatten(-2).softmax(-1).view(logits.shape)


@pytest.mark.parametrize("decoder", ["argmax", "local"])
def test_a_threshold_above_the_peak_of_softmax_maps_loses_the_order(tmp_path: Path, decoder: str) -> None:
    """Ten images with a person each, of whom the network finds the last five, with sharper maps than the others.

    Ranked rightly, precision is 1 up to recall 1/2: 51 of 101 recall points. With every score 0 the images' order
    ranks: the k-th right answer comes at place 5 + k, so the best precision is 5/10, at recall 1/2, and counts at all
    51 points. The peaks of the sharper maps are 1 / (2 pi 1.3^2) = 0.094, below the official threshold; their mass in
    3 x 3 pixels, the score of the decoder `local`, is above it.
    """
    place = torch.stack([torch.arange(17) * 3 + 10, torch.arange(17) * 4 + 12], -1).float().expand(10, 17, 2)
    right = torch.arange(10) >= 5
    spread = torch.where(right, 1.3, 4.0)
    joints, scores = decode(maps_of(place + torch.where(right, 0, 9)[:, None, None], spread), decoder)
    annotation = {"bbox": [0, 0, 72, 96], "area": 2000.0, "iscrowd": 0, "num_keypoints": 17, "category_id": 1}
    keypoints = np.column_stack([place[0], np.full(17, 2)]).ravel().tolist()
    truth = {
        "images": [{"id": number} for number in range(10)],
        "categories": [{"id": 1}],
        "annotations": [annotation | {"id": n + 1, "image_id": n, "keypoints": keypoints} for n in range(10)],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))

    def ap(threshold: float) -> float:
        persons = person_scores(scores.numpy(), np.ones(10), threshold)
        return coco_ap(path, coco_results(range(10), joints.numpy(), scores.numpy(), persons))["AP"]

    below = bool((scores < 0.2).all())
    assert below == (decoder == "argmax")
    if below:
        assert scores.max().item() == pytest.approx(1 / (2 * math.pi * 1.3**2), rel=1e-3)
        assert not person_scores(scores.numpy(), np.ones(10)).any()
    assert ap(0.2) == pytest.approx((0.5 if below else 1) * 51 / 101, abs=1e-9)
    assert ap(0.0) == pytest.approx(51 / 101, abs=1e-9)


# --- suppression ---


def crowd(persons: int, seed: int = 0) -> tuple[ndarray, ndarray, ndarray]:
    """Joints, scores and areas of persons found about three times each, with errors of all sizes."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(0, 300, (persons, 17, 2))
    twins = rng.integers(0, max(persons // 3, 1), persons)
    joints = joints[twins] + rng.standard_normal((persons, 17, 2)) * 10 ** rng.uniform(-1, 1.3, (persons, 1, 1))
    return joints, rng.random(persons), rng.uniform(1e3, 1e5, persons)


def by_a_plain_loop(joints: ndarray, scores: ndarray, areas: ndarray, threshold: float) -> list[int]:
    """The definition, pair by pair and joint by joint."""
    kept: list[int] = []
    for person in sorted(range(len(scores)), key=lambda n: -scores[n]):  # sorted keeps equals in order
        for better in kept:
            area = (areas[person] + areas[better]) / 2 + np.spacing(1)
            total = 0.0
            for (x, y), (u, v), sigma in zip(joints[person], joints[better], SIGMAS, strict=True):
                total += math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma) ** 2 / area / 2)
            if total / 17 > threshold:
                break
        else:
            kept.append(person)
    return kept


@pytest.mark.parametrize("threshold", [0.9, 0.5, 0.1])
@pytest.mark.parametrize("persons", [1, 2, 40])
def test_those_kept_are_what_a_plain_loop_keeps(persons: int, threshold: float) -> None:
    joints, scores, areas = crowd(persons)
    found = oks_nms(joints, scores, areas, COCO.sigmas, threshold)
    assert found.tolist() == by_a_plain_loop(joints, scores, areas, threshold)
    if persons == 40:
        assert 3 < len(found) < 38


def test_a_similarity_by_hand() -> None:
    """Three joints, area 100: exponents 0, 1/2 and 2, since (2 sigma)^2 area is 4, 16 and 4 and d^2 0, 16 and 16."""
    first = np.zeros((1, 3, 2))
    second = np.array([[[0.0, 0.0], [4.0, 0.0], [0.0, -4.0]]])
    sigmas = np.array([0.1, 0.2, 0.1])
    expected = (1 + math.exp(-1 / 2) + math.exp(-2)) / 3
    assert pose_similarity(first, second, np.array([100.0]), sigmas).item() == pytest.approx(expected, abs=1e-12)
    both = np.concatenate([first, second])
    for areas in ([100.0, 100.0], [60.0, 140.0]):  # their mean enters
        kept = [
            oks_nms(both, np.array([0.4, 0.6]), np.array(areas), sigmas, expected + step).tolist()
            for step in (1e-6, -1e-6)
        ]
        assert kept == [[1, 0], [1]]


def test_the_same_person_twice_and_another_far_away() -> None:
    joints, _, _ = crowd(2)
    joints = np.stack([joints[0], joints[0], joints[0] + 1000])
    assert oks_nms(joints, np.array([0.2, 0.3, 0.1]), np.full(3, 5000.0), COCO.sigmas).tolist() == [1, 2]


def test_one_who_was_dropped_drops_nobody() -> None:
    """Three in a row, neighbours alike, the outer two not: without the middle one, the best, both stay."""
    pose = np.zeros((17, 2))
    joints = np.stack([pose, pose + [6, 0], pose + [12, 0]])
    areas = np.full(3, 10_000.0)
    near, far = (pose_similarity(joints[:1], joints[n : n + 1], areas[:1], SIGMAS).item() for n in (1, 2))
    threshold = (near + far) / 2
    assert far < threshold < near
    assert oks_nms(joints, np.array([0.9, 0.8, 0.7]), areas, COCO.sigmas, threshold).tolist() == [0, 2]
    assert oks_nms(joints, np.array([0.8, 0.9, 0.7]), areas, COCO.sigmas, threshold).tolist() == [1]


def test_among_equal_scores_the_earlier_person_is_kept() -> None:
    joints, _, areas = crowd(40)
    joints[20:] = joints[:20]  # each twice
    scores = np.full(40, 0.5)
    found = oks_nms(joints, scores, areas, COCO.sigmas)
    assert found.tolist() == sorted(found.tolist())
    assert found.max() < 20
    assert found.tolist() == by_a_plain_loop(joints, scores, areas, 0.9)


def test_nobody() -> None:
    nobody = np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0)
    assert oks_nms(*nobody, COCO.sigmas).tolist() == []
    assert oks_nms_per_image([], *nobody, COCO.sigmas).tolist() == []


def test_a_threshold_of_1_keeps_all_and_boxes_without_area_are_no_division_by_0() -> None:
    joints, scores, areas = crowd(10)
    joints[5:] = joints[:5]
    assert sorted(oks_nms(joints, scores, areas, COCO.sigmas, 1.0).tolist()) == list(range(10))
    assert len(oks_nms(joints, scores, 0 * areas, COCO.sigmas)) == 5


def test_each_image_is_on_its_own() -> None:
    """The same as one image after the other, in whatever order the persons of the images come."""
    joints, scores, areas = crowd(60)
    scores[::7] = 0.5
    image_ids = np.random.default_rng(5).choice([9, 4, 700], 60)
    found = oks_nms_per_image(image_ids, joints, scores, areas, COCO.sigmas, 0.5)
    one_by_one = []
    for image_id in (4, 9, 700):
        persons = np.flatnonzero(image_ids == image_id)
        kept = by_a_plain_loop(joints[persons], scores[persons], areas[persons], 0.5)
        one_by_one += persons[kept].tolist()
    assert sorted(found.tolist()) == sorted(one_by_one)
    assert found.tolist() == sorted(one_by_one, key=lambda person: (-scores[person], person))
    assert len(oks_nms(joints, scores, areas, COCO.sigmas, 0.5)) < len(found) < 60


def test_a_hundred_thousand_persons() -> None:
    """5,000 images of 20, every second person a copy of its neighbour with a lower score."""
    persons = 100_000
    rng = np.random.default_rng(6)
    joints = rng.uniform(0, 300, (persons, 17, 2))
    joints[1::2] = joints[::2] + 0.1
    scores = rng.uniform(0.5, 1, persons)
    scores[1::2] = scores[::2] / 2
    begin = time.perf_counter()
    kept = oks_nms_per_image(np.arange(persons) // 20, joints, scores, np.full(persons, 2e4), COCO.sigmas)
    assert time.perf_counter() - begin < 5
    np.testing.assert_array_equal(np.sort(kept), np.arange(0, persons, 2))
    assert (np.diff(scores[kept]) <= 0).all()


# --- refusals ---


def test_unknown_definition() -> None:
    with pytest.raises(InputError, match="unknown person score 'mean': choose one of joints, box"):
        person_scores(JOINT_SCORES, BOX_SCORES, definition="mean")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_numbers(value: float) -> None:
    for joint_scores, box_scores in ((JOINT_SCORES + value, BOX_SCORES), (JOINT_SCORES, BOX_SCORES * value)):
        with pytest.raises(InputError, match="joint or box scores hold NaN"):
            person_scores(joint_scores, box_scores)
    with pytest.raises(InputError, match="threshold of the joint scores is NaN"):
        person_scores(JOINT_SCORES, BOX_SCORES, math.nan)


@pytest.mark.parametrize("name", ["joints", "scores", "areas"])
def test_persons_that_are_not_numbers(name: str) -> None:
    persons = dict(zip(("joints", "scores", "areas"), crowd(4), strict=True))
    persons[name][2] = math.nan
    with pytest.raises(InputError, match=f"{name} of persons hold NaN"):
        oks_nms(**persons, sigmas=COCO.sigmas)


def test_values_that_make_no_similarity() -> None:
    joints, scores, areas = crowd(4)
    with pytest.raises(InputError, match="an area of a person is negative"):
        oks_nms(joints, scores, -areas, COCO.sigmas)
    with pytest.raises(InputError, match="a sigma is not positive"):
        oks_nms(joints, scores, areas, 0 * SIGMAS)
    with pytest.raises(InputError, match="threshold of the similarity is NaN"):
        oks_nms(joints, scores, areas, COCO.sigmas, math.nan)


@pytest.mark.usefixtures("no_shape_checks")
def test_shapes_that_do_not_match() -> None:
    joints, scores, areas = crowd(4)
    for wrong in (
        (joints[:3], scores, areas, SIGMAS),
        (joints, scores, areas[:3], SIGMAS),
        (joints, scores, areas, SIGMAS[:16]),
        (joints, scores, areas, np.float64(0.1)),
        (joints[..., 0], scores, areas, SIGMAS),
    ):
        with pytest.raises(InputError, match=r"do not match: give \(N,\), \(N, K, 2\), \(N,\), \(N,\) and \(K,\)"):
            oks_nms(*wrong)
    with pytest.raises(InputError, match="do not match"):
        oks_nms_per_image([1, 2], joints, scores, areas, SIGMAS)
    with pytest.raises(InputError, match=r"joint scores \(3, 4\) and box scores \(2,\) do not match"):
        person_scores(JOINT_SCORES, BOX_SCORES[:2])
