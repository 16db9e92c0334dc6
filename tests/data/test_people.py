"""Figures: their build, which side is which, and how far they move."""

import numpy as np
import pytest

from hdm.data.canvas import Canvas
from hdm.data.people import sample_person, sample_pose, turn
from hdm.data.skeletons import COCO

GREY = (0.5, 0.5, 0.5)
LEFT, RIGHT = slice(1, 17, 2), slice(2, 17, 2)


def joint(pose, name: str) -> np.ndarray:
    return pose.joints[COCO.names.index(name)]


def test_turns_go_where_they_say():
    left, down, forward = np.eye(3)
    np.testing.assert_allclose(turn(yaw=90.0) @ forward, left, atol=1e-12)  # the face to the body's left
    np.testing.assert_allclose(turn(pitch=90.0) @ -down, forward, atol=1e-12)  # the head forward
    np.testing.assert_allclose(turn(roll=90.0) @ -down, left, atol=1e-12)  # the head to the left
    several = turn(yaw=20.0, pitch=30.0, roll=40.0)
    np.testing.assert_allclose(several @ several.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(several) == pytest.approx(1)


def test_left_is_at_the_right_of_the_picture_from_the_front_and_at_the_left_from_behind():
    rng = np.random.default_rng(3)
    for yaw, sign in ((0.0, 1), (180.0, -1)):
        poses = [sample_pose(rng, yaw=yaw) for _ in range(100)]
        for name in ("shoulder", "hip", "eye", "ear"):
            # Measured along the body's own "up", because some lie down and some lean.
            sides = [pose.pair(name)[0] - pose.pair(name)[1] for pose in poses]
            ups = [pose.neck - pose.joints[11:13].mean(axis=0) for pose in poses]
            crossed = np.array([s[0] * -u[1] + s[1] * u[0] for s, u in zip(sides, ups, strict=True)])
            assert (np.sign(crossed) == sign).mean() > 0.9, name


def test_limbs_keep_their_lengths_and_sides_their_symmetry():
    rng = np.random.default_rng(0)
    for _ in range(50):
        pose = sample_pose(rng)
        for upper, lower in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle")):
            lengths = np.linalg.norm(pose.pair(upper) - pose.pair(lower), axis=1)
            assert lengths[0] == pytest.approx(lengths[1])
            assert 0.12 < lengths[0] < 0.27
        assert np.linalg.norm(joint(pose, "left_ear") - joint(pose, "right_ear")) == pytest.approx(1.96 * pose.size)


def test_poses_vary_so_that_their_mean_says_little():
    rng = np.random.default_rng(1)
    joints = np.stack([sample_pose(rng).joints[:, :2] for _ in range(400)])
    spread = np.linalg.norm(joints - joints.mean(axis=0), axis=-1).mean(axis=0)
    for name in ("wrist", "elbow", "ankle", "nose"):
        assert spread[COCO.names.index(name if name == "nose" else f"left_{name}")] > 0.1, name


def test_left_and_right_are_dressed_and_drawn_alike():
    """The mirror image of a figure is a figure too, so that mirroring a picture in training teaches nothing false."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        person = sample_person(rng, GREY)
        for name in ("shoulder", "elbow", "hip", "knee", "ankle"):
            k = COCO.names.index(f"left_{name}")
            left, right = (
                next(bar for bar in person.bars if np.array_equal(bar.start, person.joints[i])) for i in (k, k + 1)
            )
            assert (left.colour, left.widths, left.caps) == (right.colour, right.widths, right.caps)
        np.testing.assert_array_equal(person.cover[LEFT], person.cover[RIGHT])


def test_every_joint_lies_in_the_body():
    rng = np.random.default_rng(4)
    for yaw in (0.0, 90.0, 180.0, None):
        for _ in range(10):
            person = sample_person(rng, GREY, yaw=yaw).placed(150.0, np.array([150.0, 150.0, 0.0]))
            canvas = Canvas(np.zeros((300, 300, 3), np.float32))
            for bar in person.bars:
                canvas.draw(bar, 1)
            x, y = np.rint(person.joints[:, :2]).astype(int).T
            assert canvas.body(1)[y, x].mean() > 0.9  # an eye's or ear's rounded pixel may lie just beyond the outline


def test_placing_scales_joints_and_covers():
    person = sample_person(np.random.default_rng(5), GREY)
    placed = person.placed(100.0, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(placed.joints, person.joints * 100 + [1, 2, 3])
    np.testing.assert_allclose(placed.cover, person.cover * 100)
    assert len(placed.bars) == len(person.bars)
