"""Persons of MPII in the layout that the HRNet and SimpleBaseline repositories prepared.

    DIR/annot/train.json, valid.json    a list of persons: image, center, scale, joints, joints_vis
    DIR/annot/gt_valid.mat              what the evaluation compares with (`hdm.evaluate.mpii`)
    DIR/images/*.jpg

The files count pixels from 1, as MATLAB does; everything here counts from 0. A person is given by a centre c and a
scale s, in units of 200 pixels. As the official `MPIIDataset` does, the centre is moved down by 15 s pixels, so that
feet are not cut off, and the box is a square of side 200 s around it, which a crop shows enlarged by 1.25 like any box.
"""

from pathlib import Path

import numpy as np

from hdm.data.persons import Person, PersonData, check_fields, check_image, image_names, numbers, read_json
from hdm.data.skeletons import MPII
from hdm.errors import InputError
from hdm.pixels import centred_box

FILES = {"train": "train.json", "val": "valid.json"}
SCALE_UNIT = 200  # image pixels per unit of an annotation's scale
BOXES = "given centre and scale"
SHIFT_DOWN = 15  # image pixels per unit of scale
FIELDS = ("image", "center", "scale", "joints", "joints_vis")


def load_mpii(source: str, root: Path, part: str, *, check_images: bool = True) -> PersonData:
    """Reads a part (`train` or `val`) of MPII in `root`, which the user called `source`, in the order of the file.

    Raises InputError where a folder, file, field or image is missing, and where a value is of the wrong kind.
    """
    if not root.is_dir():
        raise InputError(f"data directory {root} is not there: give the folder that holds annot/ and images/")
    annotation_file = root / "annot" / FILES[part]
    content, sha256 = read_json(annotation_file)
    if not isinstance(content, list) or not content:
        raise InputError(f"annotation file {annotation_file} is no list of persons: give MPII's as HRNet prepared it")
    folder = root / "images"
    present = image_names(folder, annotation_file.parent) if check_images else set()
    image_ids: dict[str, int] = {}
    persons = []
    for number, entry in enumerate(content):
        where = f"person {number} in {annotation_file}"
        check_fields(entry, FIELDS, where, "MPII's annotations as HRNet prepared them")
        name = str(entry["image"])
        if check_images:
            check_image(folder / name, present, annotation_file)
        image_id = image_ids.setdefault(name, len(image_ids))
        joints, visible = _joints(entry, where)
        persons.append(Person(number, image_id, folder / name, _box(entry, where), joints, visible))
    images = {image_id: folder / name for name, image_id in image_ids.items()}
    return PersonData(source, part, annotation_file, MPII, tuple(persons), {}, sha256, images, boxes=BOXES)


def _joints(entry: dict, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Joints (16, 2) in image pixels counted from 0, and which of them are labelled (16,)."""
    joints, visible = numbers(entry, "joints", where), numbers(entry, "joints_vis", where)
    if joints.shape != (MPII.joints, 2) or visible.shape != (MPII.joints,):
        raise InputError(f"{where} has joints of shape {joints.shape}, not {(MPII.joints, 2)}: mend or drop it")
    if not np.isfinite(joints[visible > 0]).all():
        raise InputError(f"{where} has a labelled joint with NaN or infinite coordinates: mend or drop it")
    return joints - 1, (visible > 0).astype(np.float32)


def _box(entry: dict, where: str) -> tuple[float, float, float, float]:
    centre, scale = numbers(entry, "center", where), numbers(entry, "scale", where)
    if centre.shape != (2,) or scale.shape != () or not (np.isfinite(centre).all() and 0 < scale < np.inf):
        raise InputError(f"{where} has the centre {entry['center']} and the scale {entry['scale']}: mend or drop it")
    x, y = (centre + [0, SHIFT_DOWN * scale] - 1).tolist()
    side = SCALE_UNIT * float(scale)
    return centred_box((x, y), side, side)
