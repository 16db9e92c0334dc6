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
PERSON = 1  # COCO's id of the category person
# What every annotation must have: the crops need some of it, COCO's evaluation the rest.
FIELDS = ("id", "image_id", "category_id", "bbox", "keypoints", "num_keypoints", "area", "iscrowd")


@dataclass(frozen=True)
class Person:
    """One annotated person: where the picture is, the box, the joints in image pixels (visible 0: not labelled)."""

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

    Left out, and counted: crowds, persons without a labelled joint, and persons none of whose joints lies within the
    box enlarged as for a crop: nothing can be learnt from their crops. Raises InputError where a folder, file, key, id
    or image is missing or does not fit, and where a value is of the wrong kind.
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
        _check_annotation(annotation, images, where)
        joints, visible = _joints(annotation, skeleton, where)
        if annotation["iscrowd"]:
            skipped["crowd"] += 1
        elif not visible.any():
            skipped["no labelled joint"] += 1
        else:
            image_id = annotation["image_id"]
            box = _box(annotation, where)
            person = Person(annotation["id"], image_id, images[image_id], box, joints, visible)
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
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"annotation file {path} has no list {key!r}: give a COCO keypoint annotation file")
    return content, hashlib.sha256(raw).hexdigest()


def _skeleton(content: dict, path: Path) -> Skeleton:
    """The COCO skeleton, after a look that the file's person category names the same joints."""
    for category in content["categories"]:
        if "keypoints" in category:
            if category["keypoints"] != list(COCO.names):
                raise InputError(f"{path} names other joints than COCO's 17, or in another order: not supported yet")
            if category.get("id") != PERSON:
                raise InputError(
                    f"{path} gives the category with keypoints the id {category.get('id')}, not {PERSON}: renumber it"
                )
            return COCO
    raise InputError(f"no category of {path} has 'keypoints': give person_keypoints_*.json, not instances_*.json")


def _images(content: dict, folder: Path, path: Path) -> dict[int, Path]:
    """Image id -> file, each looked for once."""
    if not folder.is_dir():
        raise InputError(f"image directory {folder} is not there: it belongs beside {path.parent}")
    images: dict[int, Path] = {}
    present = {entry.name for entry in folder.iterdir()}
    for image in content["images"]:
        where = f"image {image.get('id')} in {path}"
        name = str(_field(image, "file_name", where))
        if name not in present:
            raise InputError(
                f"image {folder / name} is missing: it is listed in {path}; fetch or generate the data again"
            )
        image_id = _id(image, "id", where)
        if image_id in images:
            raise InputError(f"{path} lists image id {image_id} twice ({images[image_id].name}, {name}): renumber one")
        images[image_id] = folder / name
    return images


def _check_annotation(annotation: dict, images: dict[int, Path], where: str) -> None:
    """Looks that an annotation has every field, and an image and a category that the file knows."""
    for field in FIELDS:
        _field(annotation, field, where)
    _id(annotation, "id", where)
    image_id = _id(annotation, "image_id", where)
    if image_id not in images:
        raise InputError(f"{where} belongs to image id {image_id}, which the file does not list: mend or drop it")
    if annotation["category_id"] != PERSON:
        raise InputError(
            f"{where} belongs to category id {annotation['category_id']!r}, not {PERSON}, the persons': mend or drop it"
        )


def _joints(annotation: dict, skeleton: Skeleton, where: str) -> tuple[Float[ndarray, "K 2"], Float[ndarray, "K"]]:
    """Joints (K, 2) in image pixels and which of them are labelled (K,)."""
    keypoints = _numbers(annotation, "keypoints", where)
    if keypoints.shape != (3 * skeleton.joints,):
        raise InputError(f"{where} has {keypoints.size} keypoint numbers, not {3 * skeleton.joints}: mend or drop it")
    rows = keypoints.reshape(-1, 3)
    visible = rows[:, 2] > 0
    if not np.isfinite(rows[visible]).all():
        raise InputError(f"{where} has a labelled joint with NaN or infinite coordinates: mend or drop it")
    return rows[:, :2], visible.astype(np.float32)


def _box(annotation: dict, where: str) -> tuple[float, float, float, float]:
    """The person box, after a look that it and the person have an area."""
    box = _numbers(annotation, "bbox", where)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        raise InputError(f"{where} has the box {annotation['bbox']}, which has no area: mend or drop it")
    # COCO's similarity divides by the area: with 0 every joint would be wrong, however near.
    area = _numbers(annotation, "area", where)
    if area.shape != () or not 0 < area < np.inf:
        raise InputError(f"{where} has the area {annotation['area']}, which is not positive: mend or drop it")
    x, y, width, height = box.tolist()
    return x, y, width, height


def _joint_near_box(person: Person) -> bool:
    x, y, width, height = person.box
    offset = np.abs(person.joints - [x + (width - 1) / 2, y + (height - 1) / 2])
    near = (offset <= [PADDING * width / 2, PADDING * height / 2]).all(-1)
    return bool((near & (person.visible > 0)).any())


def _field(entry: dict, key: str, where: str):
    if key not in entry:
        raise InputError(f"{where} has no {key!r}: give a COCO keypoint annotation file")
    return entry[key]


def _id(entry: dict, key: str, where: str) -> int:
    if not isinstance(entry.get(key), int):
        raise InputError(f"{where} has the {key} {entry.get(key)!r}: ids are whole numbers")
    return entry[key]


def _numbers(entry: dict, key: str, where: str) -> Float[ndarray, "*n"]:
    try:
        return np.asarray(entry[key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} has a {key} that is not made of numbers: mend or drop it") from error
