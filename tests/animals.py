"""A data set of other joints than people's, in COCO's layout: five coloured discs on a body, one for each joint."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAMES = ("nose", "left_ear", "right_ear", "tail", "hoof")
# Joints in the animal's own frame, a square of side 1, and how they are painted (blue, green, red).
PLACES = np.array([[0.1, 0.4], [0.3, 0.1], [0.5, 0.15], [0.9, 0.45], [0.6, 0.9]])
COLOURS = ((40, 40, 230), (40, 230, 40), (230, 40, 40), (230, 230, 40), (40, 230, 230))
CATEGORY = {"id": 3, "name": "goat", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3], [1, 4], [4, 5]]}


def make_animals(root: Path, *, images: int = 12, seed: int = 0, **category: Any) -> Path:
    """Writes `images` pictures, two thirds of them to train, of 120 x 90 pixels with one animal each; returns `root`.

    category: fields of the category in the place of the usual ones; `sigmas` make an OKS-AP possible.
    """
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    for part, count in (("train", 2 * images // 3), ("val", images - 2 * images // 3)):
        (root / f"{part}2017").mkdir()
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": [CATEGORY | category]}
        for number in range(1, count + 1):
            side = float(rng.uniform(40, 56))
            corner = rng.uniform((4, 4), (116 - side, 86 - side))
            joints = corner + side * (PLACES + rng.uniform(-0.06, 0.06, PLACES.shape))
            picture = np.full((90, 120, 3), 110, np.uint8)
            body = (_sixteenths(corner + side / 2), _sixteenths(np.array([side / 2, side / 3])))
            cv2.ellipse(picture, *body, 0, 0, 360, (70, 90, 120), -1, cv2.LINE_AA, 4)
            for joint, colour in zip(joints, COLOURS, strict=True):
                cv2.circle(picture, _sixteenths(joint), 48, colour, -1, cv2.LINE_AA, 4)
            name = f"{number:03d}.png"
            cv2.imwrite(str(root / f"{part}2017" / name), picture)
            content["images"].append({"id": number, "file_name": name, "width": 120, "height": 90})
            content["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": content["categories"][0]["id"],
                    "bbox": [*corner.tolist(), side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "num_keypoints": len(NAMES),
                    "keypoints": np.column_stack([joints, np.full(len(NAMES), 2.0)]).ravel().tolist(),
                }
            )
        (root / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(content))
    return root


def _sixteenths(place: np.ndarray) -> tuple[int, int]:
    """A point in the fractions of a pixel that OpenCV draws with."""
    x, y = np.rint(place * 16).astype(int).tolist()
    return x, y
