"""Persons of a data set in COCO's layout, read once and checked.

    DIR/annotations/person_keypoints_{train,val}2017.json
    DIR/{train,val}2017/*.jpg

The generated data set has the same layout and goes through the same code, and so does one of hands or animals, whose
annotation file says what their joints are (`hdm.data.categories`); a "person" then is whatever has the joints. As in
the official recipe (HRNet, `_load_coco_keypoint_annotation_kernal`) a sample is a person that is no crowd and has a
labelled joint, and its box is cut to the picture.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hdm.data.categories import read_skeleton
from hdm.data.persons import Person, PersonData, check_fields, check_image, image_names, numbers, read_json
from hdm.data.skeletons import Skeleton
from hdm.errors import InputError

FOLDERS = {"train": "train2017", "val": "val2017"}
GIVE = "a COCO keypoint annotation file"  # what error messages ask for
# What every annotation must have: the crops need some of it, COCO's evaluation the rest.
FIELDS = ("id", "image_id", "category_id", "bbox", "keypoints", "num_keypoints", "area", "iscrowd")


def load_coco(source: str, root: Path, part: str, *, check_images: bool = True) -> PersonData:
    """Reads a part (`train` or `val`) of the data set in `root`, which the user called `source`.

    Left out, and counted: crowds, persons without a labelled joint, and persons whose area is 0 or whose box lies
    outside of the picture. Raises InputError where a folder, file, key, id or image is missing or does not fit, and
    where a value is of the wrong kind.
    """
    if not root.is_dir():
        raise InputError(
            f"data directory {root} is not there: give the folder that holds annotations/ and {FOLDERS[part]}/"
        )
    annotation_file = root / "annotations" / f"person_keypoints_{FOLDERS[part]}.json"
    content, sha256 = read_json(annotation_file)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"annotation file {annotation_file} has no list {key!r}: give {GIVE}")
    skeleton = read_skeleton(content, annotation_file)
    images = _images(content, root / FOLDERS[part], annotation_file, check_images)
    sizes = {image["id"]: (image.get("width", np.inf), image.get("height", np.inf)) for image in content["images"]}
    persons: list[Person] = []
    skipped = {"crowd": 0, "no labelled joint": 0, "no area": 0}
    for annotation in content["annotations"]:
        where = f"annotation {annotation.get('id')} in {annotation_file}"
        _check_annotation(annotation, skeleton, images, where)
        joints, visible = _joints(annotation, skeleton, where)
        if annotation["iscrowd"]:
            skipped["crowd"] += 1
        elif not visible.any():
            skipped["no labelled joint"] += 1
        elif (box := _box(annotation, sizes[annotation["image_id"]], where)) is None:
            skipped["no area"] += 1
        else:
            image_id = annotation["image_id"]
            category = annotation["category_id"]
            persons.append(
                Person(annotation["id"], image_id, images[image_id], box, joints, visible, category=category)
            )
    if not persons:
        raise InputError(f"{annotation_file} holds no person with a labelled joint: is it a keypoint annotation file?")
    return PersonData(source, part, annotation_file, skeleton, tuple(persons), skipped, sha256, images)


def _images(content: dict, folder: Path, path: Path, check_images: bool) -> dict[int, Path]:
    """Image id -> file, each looked for once."""
    present = image_names(folder, path.parent) if check_images else set()
    images: dict[int, Path] = {}
    for image in content["images"]:
        where = f"image {image.get('id')} in {path}"
        check_fields(image, ["file_name"], where, GIVE)
        name = str(image["file_name"])
        if check_images:
            check_image(folder / name, present, path)
        image_id = _id(image, "id", where)
        if image_id in images:
            raise InputError(f"{path} lists image id {image_id} twice ({images[image_id].name}, {name}): renumber one")
        images[image_id] = folder / name
    return images


def _check_annotation(annotation: dict, skeleton: Skeleton, images: dict[int, Path], where: str) -> None:
    """Looks that an annotation has every field, and an image and a category that the file knows."""
    check_fields(annotation, FIELDS, where, GIVE)
    _id(annotation, "id", where)
    image_id = _id(annotation, "image_id", where)
    if image_id not in images:
        raise InputError(f"{where} belongs to image id {image_id}, which the file does not list: mend or drop it")
    if annotation["category_id"] not in skeleton.categories:
        raise InputError(
            f"{where} belongs to category id {annotation['category_id']!r}, not "
            f"{' or '.join(map(str, skeleton.categories))}, which has keypoints: mend or drop it"
        )


def _joints(annotation: dict, skeleton: Skeleton, where: str) -> tuple[Float[ndarray, "K 2"], Float[ndarray, "K"]]:
    """Joints (K, 2) in image pixels and which of them are labelled (K,)."""
    keypoints = numbers(annotation, "keypoints", where)
    if keypoints.shape != (3 * skeleton.joints,):
        raise InputError(f"{where} has {keypoints.size} keypoint numbers, not {3 * skeleton.joints}: mend or drop it")
    rows = keypoints.reshape(-1, 3)
    visible = rows[:, 2] > 0
    if not np.isfinite(rows[visible]).all():
        raise InputError(f"{where} has a labelled joint with NaN or infinite coordinates: mend or drop it")
    return rows[:, :2], visible.astype(np.float32)


def _box(annotation: dict, size: tuple[float, float], where: str) -> tuple[float, float, float, float] | None:
    """The part of the person box that lies in the picture of `size` (width, height); None where nothing of it does, or
    the person's area is 0: COCO's similarity divides by that, so that every joint would be wrong, however near."""
    box, area = numbers(annotation, "bbox", where), numbers(annotation, "area", where)
    if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > 0).all():
        raise InputError(f"{where} has the box {annotation['bbox']}, which has no area: mend or drop it")
    if area.shape != () or not 0 <= area < np.inf:
        raise InputError(f"{where} has the area {annotation['area']}, which is no area: mend or drop it")
    # The official code moves a corner beyond the border to the border, without making the box smaller for it.
    x, y = np.maximum(box[:2], 0).tolist()
    width, height = np.minimum(box[2:], np.array(size) - (x, y)).tolist()
    return (x, y, width, height) if area > 0 and width > 0 and height > 0 else None


def _id(entry: dict, key: str, where: str) -> int:
    if not isinstance(entry.get(key), int):
        raise InputError(f"{where} has the {key} {entry.get(key)!r}: ids are whole numbers")
    return entry[key]
