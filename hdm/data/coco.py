"""Persons of a data set in COCO's layout, read once and checked.

    DIR/annotations/person_keypoints_{train,val}2017.json
    DIR/{train,val}2017/*.jpg

The generated data set has the same layout and goes through the same code.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hdm.data.skeletons import COCO, Skeleton
from hdm.errors import InputError
from hdm.pixels import PADDING

KINDS = ("coco", "synthetic")
PARTS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class Person:
    """One annotated person: where the picture is, the box, and the joints in image pixels (0 visible = not labelled)."""

    annotation_id: int
    image_id: int
    image_path: Path
    box: tuple[float, float, float, float]
    joints: Float[ndarray, "K 2"]
    visible: Float[ndarray, "K"]


@dataclass(frozen=True)
class PersonData:
    """One part (train or val) of a data set: every person with a labelled joint.

    source: what the user wrote, such as `coco:data/coco`.
    skipped: persons left out, by reason.
    sha256: of the annotation file.
    """

    source: str
    part: str
    annotation_file: Path
    skeleton: Skeleton
    persons: tuple[Person, ...]
    skipped: dict[str, int]
    sha256: str

    def head(self, count: int | None) -> "PersonData":
        """The first `count` persons, or all for None."""
        return self if count is None else replace(self, persons=self.persons[:count])


def load_persons(source: str, part: str) -> PersonData:
    """Reads a part (`train` or `val`) of `coco:DIR` or `synthetic:DIR`.

    Left out, and counted: crowds, persons without a labelled joint, and persons none of whose joints lies within the box
    enlarged as for a crop: nothing can be learnt from their crops. Raises InputError where a folder, file, key, id or image is missing or does not fit.
    """
    kind, _, place = source.partition(":")
    if kind not in KINDS or not place:
        raise InputError(f"unknown data set {source!r}: write {' or '.join(f'{kind}:DIR' for kind in KINDS)}")
    if part not in PARTS:
        raise InputError(f"unknown part {part!r} of {source}: choose train or val")
    root = Path(place)
    if not root.is_dir():
        raise InputError(
            f"data directory {place} is not there: give the folder that holds annotations/ and {PARTS[part]}/"
        )
    annotation_file = root / "annotations" / f"person_keypoints_{PARTS[part]}.json"
    content, sha256 = _read_json(annotation_file)
    skeleton = _skeleton(content, annotation_file)
    images = _images(content, root / PARTS[part], annotation_file)
    persons: list[Person] = []
    skipped = {"crowd": 0, "no labelled joint": 0, "no joint near the box": 0}
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')} in {annotation_file}"
        if annotation.get("iscrowd"):
            skipped["crowd"] += 1
        elif not any(_field(annotation, "keypoints", where)[2::3]):
            skipped["no labelled joint"] += 1
        else:
            person = _person(annotation, images, skeleton, where)
            if _joint_near_box(person):
                persons.append(person)
            else:
                skipped["no joint near the box"] += 1
    if not persons:
        raise InputError(f"{annotation_file} holds no person with a labelled joint: is it a keypoint annotation file?")
    return PersonData(source, part, annotation_file, skeleton, tuple(persons), skipped, sha256)


def _read_json(path: Path) -> tuple[dict, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"annotation file {path} can't be read ({error.strerror}): check the data directory"
        ) from error
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise InputError(f"annotation file {path} is not valid JSON ({error}): fetch or generate it again") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"annotation file {path} has no list {key!r}: give a COCO keypoint annotation file")
    return content, hashlib.sha256(raw).hexdigest()


def _skeleton(content: dict, path: Path) -> Skeleton:
    """The COCO skeleton, after a look that the file's person category names the same joints."""
    for category in content["categories"]:
        if "keypoints" in category:
            if tuple(category["keypoints"]) != COCO.names:
                raise InputError(
                    f"{path} names other joints than COCO's 17 ({len(category['keypoints'])} joints): not supported yet"
                )
            return COCO
    raise InputError(f"no category of {path} has 'keypoints': give person_keypoints_*.json, not instances_*.json")


def _images(content: dict, folder: Path, path: Path) -> dict[int, Path]:
    """Image id -> file, each looked for once."""
    if not folder.is_dir():
        raise InputError(f"image directory {folder} is not there: it belongs beside {path.parent}")
    images = {}
    present = {entry.name for entry in folder.iterdir()}
    for image in content["images"]:
        name = _field(image, "file_name", f"image {image.get('id')} in {path}")
        if name not in present:
            raise InputError(
                f"image {folder / name} is missing: it is listed in {path}; fetch or generate the data again"
            )
        images[_field(image, "id", f"image {name} in {path}")] = folder / name
    return images


def _person(annotation: dict, images: dict[int, Path], skeleton: Skeleton, where: str) -> Person:
    keypoints = annotation["keypoints"]
    if len(keypoints) != 3 * skeleton.joints:
        raise InputError(f"{where} has {len(keypoints)} keypoint numbers, not {3 * skeleton.joints}: mend or drop it")
    image_id = _field(annotation, "image_id", where)
    if image_id not in images:
        raise InputError(f"{where} belongs to image id {image_id!r}, which the file does not list: mend or drop it")
    box = tuple(float(value) for value in _field(annotation, "bbox", where))
    if len(box) != 4 or not np.isfinite(box).all() or box[2] <= 0 or box[3] <= 0:
        raise InputError(f"{where} has the box {list(box)}, which has no area: mend or drop it")
    rows = np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)
    visible = (rows[:, 2] > 0).astype(np.float32)
    if not np.isfinite(rows[visible > 0]).all():
        raise InputError(f"{where} has a labelled joint with NaN or infinite coordinates: mend or drop it")
    return Person(_field(annotation, "id", where), image_id, images[image_id], box, rows[:, :2], visible)  # type: ignore[arg-type]


def _joint_near_box(person: Person) -> bool:
    x, y, width, height = person.box
    offset = np.abs(person.joints - [x + (width - 1) / 2, y + (height - 1) / 2])
    near = (offset <= [PADDING * width / 2, PADDING * height / 2]).all(-1)
    return bool((near & (person.visible > 0)).any())


def _field(entry: dict, key: str, where: str):
    if key not in entry:
        raise InputError(f"{where} has no {key!r}: give a COCO keypoint annotation file")
    return entry[key]
