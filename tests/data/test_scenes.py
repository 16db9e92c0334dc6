"""Pictures and their annotations: what is visible, hidden and cut off."""

from functools import cache

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils

from hdm.data import scenes
from hdm.data.canvas import Bar, Canvas
from hdm.data.people import Person, sample_person
from hdm.data.scenes import annotate, render
from hdm.data.skeletons import COCO

GREY = (0.5, 0.5, 0.5)
COUNT = 40


@cache
def pictures() -> list[tuple[np.ndarray, list[dict]]]:
    return [render(11, index) for index in range(COUNT)]


def people():
    for picture, annotations in pictures():
        for annotation in annotations:
            rows = np.array(annotation["keypoints"]).reshape(17, 3)
            yield picture, annotation, rows[:, :2], rows[:, 2].astype(int)


def blank(height: int = 120, width: int = 160) -> Canvas:
    return Canvas(np.zeros((height, width, 3), np.float32))


def doll(x: float, y: float, z: float = 0.0) -> Person:
    """A stick of radius 8 with its 17 joints along the axis, 4 pixels apart."""
    joints = np.column_stack([np.full(17, x), y + 4.0 * np.arange(17), np.full(17, z)])
    stick = Bar(joints[0], joints[-1], (8.0, 8.0), (8.0, 8.0), GREY)
    return Person(joints, np.full(17, 9.0), (stick,))


def shown(annotation: dict) -> np.ndarray:
    return mask_utils.decode(annotation["segmentation"]).astype(bool)


def flags(annotation: dict | None) -> list[int]:
    assert annotation is not None
    return annotation["keypoints"][2::3]


def draw(canvas: Canvas, person: Person, owner: int) -> None:
    for bar in person.bars:
        canvas.draw(bar, owner)


# --- annotations whose answer is known -------------------------------------------------------------------------------


def test_a_whole_person_is_annotated_as_drawn():
    canvas, person = blank(), doll(40.123, 20.0)
    draw(canvas, person, 1)
    annotation = annotate(canvas, person, 1)
    assert flags(annotation) == [2] * 17
    assert annotation["keypoints"][3:6] == [40.12, 24.0, 2]
    assert annotation["area"] == shown(annotation).sum() == pytest.approx(64 * 16 + np.pi * 64, rel=0.02)
    x, y, width, height = annotation["bbox"]
    assert (x, y, width, height) == pytest.approx((32, 12, 17, 81), abs=1)


def test_what_an_object_hides_is_in_the_box_but_not_in_the_area():
    canvas, person = blank(), doll(40.0, 20.0)
    draw(canvas, person, 1)
    whole = annotate(canvas, person, 1)
    # A plank across the joints at y = 60, 64 and 68.
    canvas.draw(Bar(np.array([10.0, 64, 100]), np.array([70.0, 64, 100]), (6.0, 6.0), (1.0, 1.0), GREY))
    partly = annotate(canvas, person, 1)
    assert flags(partly) == [1 if 58 < y < 70 else 2 for y in person.joints[:, 1]]
    assert partly["bbox"] == whole["bbox"]
    assert partly["num_keypoints"] == 17
    assert partly["area"] == pytest.approx(whole["area"] - 16 * 12, rel=0.03)


def test_a_nearer_person_hides_a_farther_one():
    canvas, near, far = blank(), doll(40.0, 20.0, z=50.0), doll(44.0, 50.0)
    draw(canvas, far, 1)
    draw(canvas, near, 2)
    assert flags(annotate(canvas, near, 2)) == [2] * 17
    assert flags(annotate(canvas, far, 1)) == [1 if y < 91 else 2 for y in far.joints[:, 1]]


def test_the_own_body_hides_what_lies_deep_behind_its_surface():
    canvas, person = blank(), doll(40.0, 20.0)
    belly = Bar(np.array([40.0, 50, 15]), np.array([40.0, 50, 15]), (12.0, 12.0), (12.0, 12.0), GREY)
    person = Person(person.joints, person.cover, (*person.bars, belly))
    draw(canvas, person, 1)
    assert flags(annotate(canvas, person, 1)) == [1 if 38 < y < 62 else 2 for y in person.joints[:, 1]]


def test_joints_outside_of_the_picture_are_zero():
    canvas, person = blank(), doll(40.0, 90.0)
    draw(canvas, person, 1)
    annotation = annotate(canvas, person, 1)
    rows = np.array(annotation["keypoints"]).reshape(17, 3)
    outside = person.joints[:, 1] > 119
    assert outside.sum() == 9
    np.testing.assert_array_equal(rows[outside], 0)
    assert rows[~outside, 2].min() == 2
    assert annotation["num_keypoints"] == 8
    assert annotation["bbox"][1] + annotation["bbox"][3] == 120


def test_a_person_who_hardly_shows_is_not_annotated():
    canvas, person = blank(), doll(40.0, 20.0)
    draw(canvas, person, 1)
    canvas.draw(Bar(np.array([40.0, 0, 100]), np.array([40.0, 95, 100]), (30.0, 30.0), (1.0, 1.0), GREY))
    assert annotate(canvas, person, 1) is None
    away = doll(-100.0, 20.0)
    draw(canvas, away, 2)
    assert annotate(canvas, away, 2) is None


def test_faces_are_seen_from_the_front_only():
    rng = np.random.default_rng(0)
    seen = {0.0: [], 180.0: []}
    for yaw, faces in seen.items():
        for _ in range(25):
            canvas = blank(300, 300)
            person = sample_person(rng, GREY, yaw=yaw).placed(150.0, np.array([150.0, 150.0, 0.0]))
            draw(canvas, person, 1)
            faces.append(flags(annotate(canvas, person, 1))[:3])
    assert (np.array(seen[0.0]) == 2).mean() > 0.7
    assert (np.array(seen[180.0]) == 2).mean() < 0.2


# --- drawn pictures --------------------------------------------------------------------------------------------------


def test_a_picture_depends_on_seed_and_index_alone_and_not_on_opencv_threads():
    picture, annotations = pictures()[3]
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        again, same = render(11, 3)
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(picture, again)
    assert annotations == same
    for seed, index in ((12, 3), (11, 4)):
        other, different = render(seed, index)
        assert other.shape != picture.shape or (other != picture).mean() > 0.5
        assert different != annotations


def test_pictures_are_of_the_size_promised_and_hold_people():
    for picture, annotations in pictures():
        height, width, channels = picture.shape
        assert 224 <= height <= 288 <= width <= 352 and channels == 3
        assert 1 <= len(annotations) <= 3
    assert {len(annotations) for _, annotations in pictures()} == {1, 2, 3}


def test_keypoints_lie_in_the_picture_if_and_only_if_they_are_labelled():
    for picture, annotation, points, v in people():
        height, width = picture.shape[:2]
        assert annotation["num_keypoints"] == (v > 0).sum() > 0
        assert set(v) <= {0, 1, 2}
        np.testing.assert_array_equal(points[v == 0], 0)
        assert (points[v > 0] >= 0).all() and (points[v > 0] <= [width - 1, height - 1]).all()
        np.testing.assert_array_equal(points, np.round(points, 2))


def test_boxes_hold_mask_and_joints_and_stay_in_the_picture():
    for picture, annotation, points, v in people():
        x, y, width, height = annotation["bbox"]
        assert x >= 0 and y >= 0 and x + width <= picture.shape[1] and y + height <= picture.shape[0]
        rows, columns = np.nonzero(shown(annotation))
        assert x <= columns.min() and columns.max() <= x + width - 1
        assert y <= rows.min() and rows.max() <= y + height - 1
        assert (points[v > 0] >= [x, y]).all() and (points[v > 0] <= [x + width - 1, y + height - 1]).all()


def test_visible_joints_lie_on_the_person_and_areas_are_the_masks():
    for picture, annotation, points, v in people():
        mask = shown(annotation)
        assert mask.shape == picture.shape[:2]
        assert annotation["area"] == mask.sum() > 0
        columns, rows = np.rint(points[v == 2]).astype(int).T
        assert mask[rows, columns].all()


def test_people_of_one_picture_share_no_visible_pixel():
    for _, annotations in pictures():
        assert np.sum([shown(annotation) for annotation in annotations], axis=0).max() == 1


def test_every_flag_occurs_and_sizes_vary():
    v = np.concatenate([v for *_, v in people()])
    visible, hidden, outside = ((v == flag).mean() for flag in (2, 1, 0))
    assert visible > 0.55 and 0.1 < hidden < 0.4 and 0.01 < outside < 0.2
    sides = [max(annotation["bbox"][2:]) for _, annotation, *_ in people()]
    assert min(sides) < 90 and max(sides) > 160


def test_the_mean_pose_is_a_poor_guess():
    """In units of the box's longer side, where a network that has learnt the task reaches a few hundredths."""
    places, labelled = [], []
    for _, annotation, points, v in people():
        x, y, width, height = annotation["bbox"]
        places.append((points - [x + width / 2, y + height / 2]) / max(width, height))
        labelled.append(v > 0)
    places, labelled = np.stack(places), np.stack(labelled)
    mean = (places * labelled[..., None]).sum(axis=0) / labelled.sum(axis=0)[:, None]
    assert np.linalg.norm(places - mean, axis=-1)[labelled].mean() > 0.13


def test_faces_that_look_at_the_viewer_have_their_left_at_the_right():
    left, right = COCO.names.index("left_eye"), COCO.names.index("right_eye")
    hips = [COCO.names.index(name) for name in ("left_hip", "right_hip")]
    turned = []
    for _, _, points, v in people():
        if v[left] == v[right] == 2 and (v[hips] > 0).all():
            side, up = points[left] - points[right], points[:3].mean(axis=0) - points[hips].mean(axis=0)
            turned.append(side[0] * -up[1] + side[1] * up[0])
    assert len(turned) >= 10
    assert (np.array(turned) > 0).mean() > 0.9


def test_people_stand_out_from_what_is_behind_them(monkeypatch: pytest.MonkeyPatch):
    """Drawn twice, with and without the people, a picture differs where they are."""
    monkeypatch.setattr(scenes, "_photograph", lambda colour, rng: (255 * np.clip(colour, 0, 1)).astype(np.uint8))
    contrast = []
    for index in range(8):
        picture, annotations = render(11, index)
        background = np.median(picture[::7, ::7].reshape(-1, 3), axis=0)
        mask = np.any([shown(annotation) for annotation in annotations], axis=0)
        contrast.append(np.linalg.norm(picture[mask] - background, axis=1).mean())
    assert min(contrast) > 30
