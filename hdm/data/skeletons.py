"""Skeletons: the names of the joints, which are mirror images of each other, and how they are connected."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Skeleton:
    """The K joints of a data set.

    names: K joint names, in the order of the annotations.
    flip_pairs: index pairs that change places in a mirrored picture.
    edges: index pairs to draw as limbs.
    sigmas: K constants of the object keypoint similarity, in units of the square root of the person's area.
    """

    name: str
    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    edges: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

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
)
