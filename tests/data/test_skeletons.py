"""The COCO skeleton, against pycocotools and against its own mirror image."""

import numpy as np
from pycocotools.cocoeval import Params

from hdm.data.skeletons import COCO, Skeleton


def mirrored(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    side, _, part = name.partition("_")
    return f"{swap[side]}_{part}" if side in swap else name


def test_similarity_constants_are_those_of_the_evaluation() -> None:
    np.testing.assert_allclose(COCO.sigmas, Params(iouType="keypoints").kpt_oks_sigmas, atol=1e-12)


def test_flip_order_exchanges_left_and_right_and_nothing_else() -> None:
    order = COCO.flip_order
    assert [COCO.names[k] for k in order] == [mirrored(name) for name in COCO.names]
    assert [order[k] for k in order] == list(range(COCO.joints)) == list(range(17))
    assert [COCO.sigmas[k] for k in order] == list(COCO.sigmas)


def test_mirrored_limbs_are_limbs() -> None:
    limbs = {frozenset((COCO.names[a], COCO.names[b])) for a, b in COCO.edges}
    assert limbs == {frozenset(map(mirrored, limb)) for limb in limbs}
    assert len(limbs) == len(COCO.edges)
    assert {joint for edge in COCO.edges for joint in edge} == set(range(17))
    assert frozenset(("left_elbow", "left_wrist")) in limbs
    assert frozenset(("left_hip", "left_knee")) in limbs


def test_a_skeleton_with_a_single_pair() -> None:
    skeleton = Skeleton("toy", ("head", "left", "right"), ((1, 2),), ((0, 1),), (0.1, 0.1, 0.1))
    assert skeleton.joints == 3
    assert skeleton.flip_order == [0, 2, 1]
