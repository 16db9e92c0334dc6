"""Persons of a data set: what every loader returns, and how annotation files are read and refused."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hdm.data.skeletons import PERSON, Skeleton
from hdm.errors import InputError

PARTS = ("train", "val")
GROUND_TRUTH = "ground truth"


@dataclass(frozen=True)
class Person:
    """One person: where the picture is, the box, the joints in image pixels (visible 0: not labelled).

    box: (x, y, width, height) in image pixels as COCO gives it; `hdm.pixels.box_affine` says what it covers.
    score: of the detector that found the box, 1 for an annotated person.
    category: its category id in COCO's layout, 1 for a person.
    """

    annotation_id: int
    image_id: int
    image_path: Path
    box: tuple[float, float, float, float]
    joints: Float[ndarray, "K 2"]
    visible: Float[ndarray, "K"]
    score: float = 1.0
    category: int = PERSON


@dataclass(frozen=True)
class PersonData:
    """One part (train or val) of a data set: every person with a labelled joint, or every box of a detector.

    source: what the user wrote, such as `coco:data/coco`.
    skipped: persons left out, by reason.
    sha256: of the annotation file.
    images: image id -> file, of all pictures of the part.
    boxes: where the boxes come from, `ground truth`, a detector's file or, for MPII, `given centre and scale`: part of
        every result.
    """

    source: str
    part: str
    annotation_file: Path
    skeleton: Skeleton
    persons: tuple[Person, ...]
    skipped: dict[str, int]
    sha256: str
    images: Mapping[int, Path] = field(default_factory=dict)
    boxes: str = GROUND_TRUTH

    @property
    def kind(self) -> str:
        """`coco`, `mpii` or `synthetic`."""
        return self.source.partition(":")[0]

    def head(self, count: int | None) -> "PersonData":
        """The first `count` persons, or all for None."""
        return self if count is None else replace(self, persons=self.persons[:count])


def hold_out(data: PersonData, share: float) -> tuple[PersonData, PersonData]:
    """A part without a share of its pictures, and that share: for choosing settings where the val part must not be
    looked at. By the picture's number alone, so that it is the same whatever else is chosen, and a smaller share is
    part of a larger one. Raises InputError where one of the two would be empty.
    """
    held = [_uniform(f"held out {person.image_id}") < share for person in data.persons]
    kept = replace(data, persons=tuple(person for person, out in zip(data.persons, held, strict=True) if not out))
    rest = replace(data, persons=tuple(person for person, out in zip(data.persons, held, strict=True) if out))
    if not kept.persons or not rest.persons:
        raise InputError(
            f"of {len(data.persons)} persons of {data.source} a share of {share} of the pictures leaves none on one "
            "side: hold out more or less"
        )
    return kept, rest


def _uniform(text: str) -> float:
    """A number from 0 to below 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def with_label_noise(data: PersonData, noise: float) -> PersonData:
    """Every joint moved along both axes by a normal number of standard deviation `noise` times the longer side of the
    person box; the same whenever it is drawn, as it depends on the person's number alone."""

    def moved(person: Person) -> Person:
        shift = np.random.default_rng(person.annotation_id % 2**63).standard_normal(person.joints.shape)
        return replace(person, joints=person.joints + noise * max(person.box[2:]) * shift)

    return data if noise == 0 else replace(data, persons=tuple(map(moved, data.persons)))


def read_json(path: Path, what: str = "annotation file") -> tuple[Any, str]:
    """What a JSON file holds, and the SHA-256 of its bytes. Raises InputError where it can't be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} {path} can't be read ({error.strerror}): check the data directory") from error
    try:
        return json.loads(raw), hashlib.sha256(raw).hexdigest()
    except ValueError as error:
        raise InputError(f"{what} {path} is not valid JSON ({error}): fetch or generate it again") from error


def image_names(folder: Path, beside: Path) -> set[str]:
    """The files in an image directory. Raises InputError where it is not there."""
    if not folder.is_dir():
        raise InputError(f"image directory {folder} is not there: it belongs beside {beside}")
    return {entry.name for entry in folder.iterdir()}


def check_image(path: Path, present: set[str], listed_in: Path) -> None:
    """Raises InputError where a picture that an annotation file lists is not in its directory."""
    if path.name not in present:
        raise InputError(f"image {path} is missing: it is listed in {listed_in}; fetch or generate the data again")


def check_fields(entry: Any, fields: Iterable[str], where: str, give: str) -> None:
    """Raises InputError where an entry of a file lacks one of its fields; `give` says what file to give instead."""
    for name in fields:
        if not isinstance(entry, dict) or name not in entry:
            raise InputError(f"{where} has no {name!r}: give {give}")


def check_box(box: Float[ndarray, "*n"], what: str) -> None:
    """Raises InputError where a box (x, y, width, height) is not made of four finite numbers, or has no area."""
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        raise InputError(f"{what} has no area: give x, y, width > 0, height > 0 in pixels")


def numbers(entry: dict, key: str, where: str) -> Float[ndarray, "*n"]:
    """A field as an array. Raises InputError where it is not made of numbers."""
    try:
        return np.asarray(entry[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has a {key} that is not made of numbers: mend or drop it") from error
