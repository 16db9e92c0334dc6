"""Random turns, sizes, mirror images and halves of a person, as the official recipes draw them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hdm.pixels import PADDING, centred_box

HALF_BODY_LEAST = 8  # a person is shown by half only with more labelled joints than this
HALF_BODY_PADDING = 1.5  # how much larger than its joints' extent a half is shown
UPPER_SHARE = 0.6914624612740131  # probability that a standard normal number is below 0.5


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentation (SimpleBaseline, official `JointsDataset`): the COCO recipe for ResNets by default.

    rotation: standard deviation in degrees; drawn with probability 0.6 and cut at twice its value.
    scale: standard deviation of the factor, which is cut to [1 - scale, 1 + scale].
    flip: probability of a mirror image.
    half_body: probability that a person with more than 8 labelled joints is shown by half (HRNet: 0.3 on COCO).
    """

    rotation: float = 40.0
    scale: float = 0.3
    flip: float = 0.5
    half_body: float = 0.0


@dataclass(frozen=True)
class View:
    """How a person is shown: `rotation` in degrees, `scale` of the box, `mirror` left to right, and another box than
    the person's own where only half of it is shown."""

    rotation: float = 0.0
    scale: float = 1.0
    mirror: bool = False
    box: tuple[float, float, float, float] | None = None


def draw_view(augmentation: Augmentation, rng: np.random.Generator) -> View:
    """A random view of a person box."""
    scale = float(
        np.clip(1 + augmentation.scale * rng.standard_normal(), 1 - augmentation.scale, 1 + augmentation.scale)
    )
    limit = 2 * augmentation.rotation
    rotation = float(np.clip(augmentation.rotation * rng.standard_normal(), -limit, limit))
    turned = rng.random() < 0.6
    return View(rotation if turned else 0.0, scale, bool(rng.random() < augmentation.flip))


def draw_half_body(
    augmentation: Augmentation,
    rng: np.random.Generator,
    joints: Float[ndarray, "K 2"],
    visible: Float[ndarray, "K"],
    upper_body: tuple[int, ...],
) -> tuple[float, float, float, float] | None:
    """The box around half of a person's labelled joints (`half_boxes`), or None for the whole person.

    The upper half is chosen with probability 0.69, as the official code (HRNet, `half_body_transform`) asks whether a
    *normal* number is below 0.5.
    """
    if (visible > 0).sum() <= HALF_BODY_LEAST or rng.random() >= augmentation.half_body:
        return None
    upper, lower = half_boxes(joints, visible, upper_body)
    return upper if rng.random() < UPPER_SHARE else lower


def half_boxes(
    joints: Float[ndarray, "K 2"], visible: Float[ndarray, "K"], upper_body: tuple[int, ...]
) -> list[tuple[float, float, float, float] | None]:
    """The boxes around the upper and the lower half of a person's labelled joints, None where there are too few.

    A box is centred on the mean of its joints and as large as their extent, and shown enlarged by 1.5 instead of 1.25.
    A half of fewer than three joints gives way to the other.
    """
    labelled = np.flatnonzero(visible > 0)
    is_upper = np.isin(labelled, upper_body)
    upper, lower = joints[labelled[is_upper]], joints[labelled[~is_upper]]
    halves = (upper if len(upper) > 2 else lower, lower if len(lower) > 2 or len(upper) <= 2 else upper)
    return [_box_around(chosen) if len(chosen) >= 2 else None for chosen in halves]


def _box_around(joints: Float[ndarray, "N 2"]) -> tuple[float, float, float, float]:
    x, y = joints.mean(0).tolist()
    width, height = (np.ptp(joints, axis=0) * HALF_BODY_PADDING / PADDING).tolist()
    return centred_box((x, y), width, height)
