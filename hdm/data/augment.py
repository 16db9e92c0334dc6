"""Random turns, sizes and mirror images of a person box, as the official recipes draw them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the augmentation (SimpleBaseline, official `JointsDataset`): the COCO recipe for ResNets by default.

    rotation: standard deviation in degrees; drawn with probability 0.6 and cut at twice its value.
    scale: standard deviation of the factor, which is cut to [1 - scale, 1 + scale].
    flip: probability of a mirror image.
    """

    rotation: float = 40.0
    scale: float = 0.3
    flip: float = 0.5


@dataclass(frozen=True)
class View:
    """How a person box is shown: `rotation` in degrees, `scale` of the box, `mirror` left to right."""

    rotation: float = 0.0
    scale: float = 1.0
    mirror: bool = False


def draw_view(augmentation: Augmentation, rng: np.random.Generator) -> View:
    """A random view of a person box."""
    scale = float(
        np.clip(1 + augmentation.scale * rng.standard_normal(), 1 - augmentation.scale, 1 + augmentation.scale)
    )
    limit = 2 * augmentation.rotation
    rotation = float(np.clip(augmentation.rotation * rng.standard_normal(), -limit, limit))
    turned = rng.random() < 0.6
    return View(rotation if turned else 0.0, scale, bool(rng.random() < augmentation.flip))
