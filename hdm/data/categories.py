"""The skeleton that an annotation file in COCO's layout describes in its categories: people, hands, animals.

    {"id": 3, "name": "horse", "keypoints": ["nose", "left_ear", ...], "skeleton": [[1, 2], ...], "sigmas": [0.03, ...]}

Limbs in `skeleton` count joints from 1, as in COCO's files. `sigmas`, which COCO's files do not have, are the constants
of the object keypoint similarity; without them there is no OKS-AP for joints other than COCO's.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hdm.data.persons import numbers
from hdm.data.skeletons import COCO, Skeleton
from hdm.errors import InputError

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


def read_skeleton(content: dict[str, Any], path: Path) -> Skeleton:
    """COCO's skeleton for COCO's 17 joints, or else that of the categories with keypoints, which must all be alike.

    Raises InputError where no category has keypoints, two have different joints or limbs, a name is missing or there
    twice, a limb ends in a joint that is not there, sigmas do not fit, or a joint of one side has no partner.
    """
    categories = [category for category in content["categories"] if "keypoints" in category]
    if not categories:
        raise InputError(f"no category of {path} has 'keypoints': give person_keypoints_*.json, not instances_*.json")
    first = categories[0]
    for category in categories[1:]:
        for key in ("keypoints", "skeleton", "sigmas"):
            if category.get(key) != first.get(key):
                raise InputError(
                    f"categories {first.get('name')!r} and {category.get('name')!r} of {path} have different {key}: "
                    "one network reads one skeleton, so make a data set of each"
                )
    ids = tuple(category.get("id") for category in categories)
    if not all(isinstance(number, int) for number in ids) or len(set(ids)) < len(ids):
        listed = ", ".join(map(repr, ids))
        raise InputError(
            f"{path} has categories with keypoints of the ids {listed}: give each a whole number of its own"
        )
    if first["keypoints"] == list(COCO.names):
        return COCO if ids == COCO.categories else replace(COCO, categories=ids)
    where = f"category {first.get('name')!r} of {path}"
    names = _names(first["keypoints"], where)
    return Skeleton(
        name="+".join(str(category.get("name", category["id"])) for category in categories),
        names=names,
        flip_pairs=flip_pairs(names, where),
        edges=_edges(first, names, where),
        sigmas=_sigmas(first, names, where),
        categories=ids,
    )


def flip_pairs(names: tuple[str, ...], where: str) -> tuple[tuple[int, int], ...]:
    """Index pairs of joints whose names differ in the word left or right (or l and r) alone, such as `left_ear` and
    `right_ear`, `L_Eye` and `R_Eye`, `paw left` and `paw right`. A joint without such a word is its own mirror image.

    where: the names' place, in words. Raises InputError for a joint of one side without its partner.
    """
    words = [tuple(re.split(r"[\W_]+", name.lower())) for name in names]
    index = {word: k for k, word in enumerate(words)}
    pairs = []
    for k, word in enumerate(words):
        mirrored = tuple(SIDES.get(part, part) for part in word)
        if mirrored == word:
            continue
        if mirrored not in index:
            raise InputError(
                f"{where} has the joint {names[k]!r} but none for the other side, which a mirrored picture needs: add "
                "it, or leave the side out of the name"
            )
        if k < index[mirrored]:
            pairs.append((k, index[mirrored]))
    return tuple(pairs)


def _names(keypoints: Any, where: str) -> tuple[str, ...]:
    if not isinstance(keypoints, list) or not keypoints or not all(isinstance(name, str) for name in keypoints):
        raise InputError(f"{where} has the keypoints {keypoints!r}: give a list of the joints' names")
    for name in keypoints:
        if keypoints.count(name) > 1:
            raise InputError(f"{where} names the joint {name!r} twice: give each a name of its own")
    return tuple(keypoints)


def _edges(category: dict[str, Any], names: tuple[str, ...], where: str) -> tuple[tuple[int, int], ...]:
    edges = category.get("skeleton") or []
    for edge in edges if isinstance(edges, list) else [edges]:
        pair = isinstance(edge, list) and len(edge) == 2
        if not pair or not all(isinstance(end, int) and 1 <= end <= len(names) for end in edge):
            raise InputError(f"{where} has the limb {edge!r} in its skeleton: give two joints from 1 to {len(names)}")
    return tuple((first - 1, second - 1) for first, second in edges)


def _sigmas(category: dict[str, Any], names: tuple[str, ...], where: str) -> tuple[float, ...]:
    if category.get("sigmas") is None:
        return ()
    sigmas = numbers(category, "sigmas", where)
    if sigmas.shape != (len(names),) or not np.isfinite(sigmas).all() or not (sigmas > 0).all():
        raise InputError(
            f"{where} has the sigmas {category['sigmas']}: give a positive number for each of {len(names)}"
        )
    return tuple(sigmas.tolist())
