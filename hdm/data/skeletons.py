"""Skeletons: the names of the joints, which are mirror images of each other, and how they are connected."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PERSON = 1  # COCO's id of the category person


@dataclass(frozen=True)
class Skeleton:
    """The K joints of a data set.

    names: K joint names, in the order of the annotations.
    flip_pairs: index pairs that change places in a mirrored picture.
    edges: index pairs to draw as limbs.
    sigmas: K constants of the object keypoint similarity, in units of the square root of the person's area; none where
        the data set is not scored by it.
    upper_body: indices of the joints that a half-body view may show instead of the others.
    categories: ids that annotations of this skeleton have in COCO's layout; results are written with the first.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] = ()
    upper_body: tuple[int, ...] = ()
    categories: tuple[int, ...] = (PERSON,)

    @property
    def joints(self) -> int:
        """K, the number of joints."""
        return len(self.names)

    @property
    def flip_order(self) -> list[int]:
        """K indices: joint k of a mirrored picture is joint `flip_order[k]` of the original."""
        order = list(range(self.joints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return order


def skeleton_from(plain: Mapping[str, Any]) -> Skeleton:
    """The skeleton that `dataclasses.asdict` and JSON made plain values of: a file of weights holds it so."""
    pairs = {name: tuple(map(tuple, plain[name])) for name in ("flip_pairs", "edges")}
    lists = {name: tuple(plain[name]) for name in ("names", "sigmas", "upper_body", "categories")}
    return Skeleton(**{"name": plain["name"], **pairs, **lists})


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


# Order, pairs and sigmas of the COCO keypoint task (cocodataset.org; pycocotools' COCOeval).
COCO = Skeleton(
    name="coco",
    names=("nose", *_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
    flip_pairs=tuple((left, left + 1) for left in range(1, 17, 2)),
    edges=(
        *((0, 1), (0, 2), (1, 3), (2, 4)),  # face
        *((5, 6), (5, 11), (6, 12), (11, 12)),  # trunk
        *((5, 7), (7, 9), (6, 8), (8, 10)),  # arms
        *((11, 13), (13, 15), (12, 14), (14, 16)),  # legs
    ),
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035),
        *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
        *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    ),
    upper_body=tuple(range(11)),  # down to the wrists
)

# Order of MPII's annotations (human-pose.mpi-inf.mpg.de); pairs and upper body as in HRNet's `MPIIDataset`.
MPII = Skeleton(
    name="mpii",
    names=(
        *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    edges=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),  # legs
        *((6, 7), (7, 8), (8, 9)),  # spine and head
        *((7, 12), (12, 11), (11, 10), (7, 13), (13, 14), (14, 15)),  # arms
    ),
    upper_body=tuple(range(7, 16)),
)
