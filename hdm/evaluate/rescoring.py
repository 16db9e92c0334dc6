"""From detected boxes to ranked persons: a score for each person, and one answer where two boxes found the same one.

With boxes of a detector, many persons of an image are false or found twice, and OKS-AP depends on how they are ranked.
The official recipe (HRNet repository, `lib/dataset/coco.py` and `lib/nms/nms.py`) scores a person by its box and its
joints (`person_scores`) and drops those whose joints are nearly those of a better one (`oks_nms`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from hdm.errors import InputError

DEFINITIONS = ("joints", "box")


def person_scores(
    joint_scores: Float[ndarray, "N K"],
    box_scores: Float[ndarray, "N"],
    threshold: float = 0.2,
    definition: str = "joints",
) -> Float[ndarray, "N"]:
    """The score of each person.

    definition:
        `joints` box score times the mean of the joint scores above `threshold`, and 0 where none is above it.
        `box`    the box score alone.
    threshold: the official code's is 0.2, for maps that imitate a Gaussian of peak 1; SimCC's is 0.01. Maps that are
        distributions peak far below 1 (a Gaussian of 2 pixels at 0.04): at 0.2 all their persons score 0 and AP falls
        to what an arbitrary order gives. Choose it on training data, and name it beside the AP.
    Raises InputError for an unknown definition, shapes that do not match, and scores or a threshold that are NaN.
    """
    if definition not in DEFINITIONS:
        raise InputError(f"unknown person score {definition!r}: choose one of {', '.join(DEFINITIONS)}")
    if joint_scores.ndim != 2 or box_scores.shape != joint_scores.shape[:1]:
        raise InputError(
            f"joint scores {joint_scores.shape} and box scores {box_scores.shape} do not match: give (N, K) and (N,)"
        )
    if not (np.isfinite(joint_scores).all() and np.isfinite(box_scores).all()):
        raise InputError("joint or box scores hold NaN or infinite values: check the network's output and the boxes")
    if np.isnan(threshold):
        raise InputError("the threshold of the joint scores is NaN: give a number such as 0.2")
    if definition == "box":
        return box_scores.astype(float)
    counts = joint_scores > threshold
    total = np.where(counts, joint_scores, 0).sum(1, dtype=float)
    return box_scores * total / counts.sum(1).clip(min=1)


def pose_similarity(
    first: Float[ndarray, "N K 2"],
    second: Float[ndarray, "N K 2"],
    areas: Float[ndarray, "N"],
    sigmas: Float[ndarray, "K"],
) -> Float[ndarray, "N"]:
    """Object keypoint similarity of two predictions: mean over all K joints of exp(-d_k^2 / (2 a (2 sigma_k)^2)).

    areas: a, the mean of the two persons' areas in square pixels.
    """
    squared = np.square(first - second).sum(-1)
    # np.spacing(1), as in the official code, keeps a box without area from dividing by 0.
    return np.exp(-squared / (2 * (areas[:, None] + np.spacing(1)) * (2 * sigmas) ** 2)).mean(-1)


def oks_nms(
    joints: Float[ndarray, "N K 2"],
    scores: Float[ndarray, "N"],
    areas: Float[ndarray, "N"],
    sigmas: Float[ndarray, "K"] | Sequence[float],
    threshold: float = 0.9,
) -> Int[ndarray, "M"]:
    """Non-maximum suppression among the persons of one image; indices of those kept, best first.

    The best person is kept, all whose `pose_similarity` to it exceeds `threshold` are dropped, and so on with the rest.

    joints: image pixels. areas: of the enlarged boxes, square pixels (official: prod(scale * 200)). sigmas: the
        skeleton's.
    Equal scores: the earlier person comes first, which is also the order of pycocotools. (The official code reverses
    numpy's sort, which promises no order among equals.) All K joints count, also those with a low score: the official
    code has a branch that leaves them out, but never uses it, and that branch would look at one person's scores only.
    Raises InputError for shapes that do not match, values that are not finite, negative areas, sigmas that are not
    positive and a threshold that is NaN.
    """
    return oks_nms_per_image(np.zeros(len(scores), dtype=int), joints, scores, areas, sigmas, threshold)


def oks_nms_per_image(
    image_ids: Int[ndarray, "N"] | Sequence[int],
    joints: Float[ndarray, "N K 2"],
    scores: Float[ndarray, "N"],
    areas: Float[ndarray, "N"],
    sigmas: Float[ndarray, "K"] | Sequence[float],
    threshold: float = 0.9,
) -> Int[ndarray, "M"]:
    """`oks_nms` in each image of a data set; indices of the persons kept, best first over all images.

    All images take their steps together: each step keeps the best of the persons left in every image.
    """
    image_ids, sigmas = np.asarray(image_ids), np.asarray(sigmas, dtype=float)
    _check(image_ids, joints, scores, areas, sigmas, threshold)
    joints, areas = joints.astype(float), areas.astype(float)
    left = np.lexsort((-scores, image_ids))  # image by image, best first, equal scores as they came
    kept = [left[:0]]
    while len(left):
        image = image_ids[left]
        begins = np.append(True, image[1:] != image[:-1])
        best = left[begins]
        kept.append(best)
        rival = best[np.cumsum(begins) - 1]  # for each person the best one of its image
        similarity = pose_similarity(joints[left], joints[rival], (areas[left] + areas[rival]) / 2, sigmas)
        left = left[~(begins | (similarity > threshold))]
    chosen = np.concatenate(kept)
    return chosen[np.lexsort((chosen, -scores[chosen]))]


def _check(
    image_ids: ndarray, joints: ndarray, scores: ndarray, areas: ndarray, sigmas: ndarray, threshold: float
) -> None:
    shape = (len(scores), *sigmas.shape, 2)
    if joints.shape != shape or len(shape) != 3 or not image_ids.shape == scores.shape == areas.shape == shape[:1]:
        raise InputError(
            f"image ids {image_ids.shape}, joints {joints.shape}, scores {scores.shape}, areas {areas.shape} and "
            f"sigmas {sigmas.shape} do not match: give (N,), (N, K, 2), (N,), (N,) and (K,)"
        )
    for name, values in (("joints", joints), ("scores", scores), ("areas", areas)):
        if not np.isfinite(values).all():
            raise InputError(f"{name} of persons hold NaN or infinite values: check the network's output and the boxes")
    if (areas < 0).any():
        raise InputError("an area of a person is negative: give width times height of the enlarged box")
    if not (sigmas > 0).all():
        raise InputError("a sigma is not positive: give the skeleton's, such as hdm.data.skeletons.COCO.sigmas")
    if np.isnan(threshold):
        raise InputError("the threshold of the similarity is NaN: give a number from 0 to 1, such as 0.9")
