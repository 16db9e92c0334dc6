"""Boxes that a detector found, in the format of the COCO keypoint task's detection results.

The file that the field compares on, `COCO_val2017_detections_AP_H_56_person.json` of the HRNet repository, is a list of
{"image_id", "category_id", "bbox": [x, y, width, height], "score"}; its detector has a person AP of 56.4 on val2017.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hdm.data.persons import Person, PersonData, check_box, check_fields, numbers, read_json
from hdm.errors import InputError
from hdm.pixels import centred_box

FIELDS = ("image_id", "category_id", "bbox", "score")


def with_detections(data: PersonData, path: Path | str, least_score: float = 0.0) -> PersonData:
    """The same part with a detector's boxes in the place of the annotated persons; no joint is labelled.

    Boxes of other categories and those with a score below `least_score` are left out, and counted. As the official code
    does (`_load_coco_person_detection_results`), a box is taken to reach from pixel centre x to pixel centre x + width.
    Raises InputError for a file that is no such list, image ids that the part does not list, scores that are not
    finite, and boxes without an area.
    """
    path = Path(path)
    content, _ = read_json(path, "box file")
    if not isinstance(content, list) or not content:
        raise InputError(f"box file {path} is no list of boxes: give detection results in COCO's format")
    joints = np.zeros((data.skeleton.joints, 2))
    visible = np.zeros(data.skeleton.joints, np.float32)
    skipped = {"another category": 0, "low score": 0}
    persons = []
    for number, entry in enumerate(content):
        where = f"box {number} in {path}"
        check_fields(entry, FIELDS, where, "detection results in COCO's format")
        box, score = numbers(entry, "bbox", where), numbers(entry, "score", where)
        if score.shape != () or not np.isfinite(score):
            raise InputError(f"{where} has the score {entry['score']}: give a finite number")
        check_box(box, f"{where} is {entry['bbox']}, which")
        if entry["image_id"] not in data.images:
            raise InputError(
                f"{where} belongs to image id {entry['image_id']!r}, which {data.annotation_file} does not list: "
                "give boxes for the same pictures"
            )
        if entry["category_id"] not in data.skeleton.categories:
            skipped["another category"] += 1
        elif score < least_score:
            skipped["low score"] += 1
        else:
            x, y, width, height = box.tolist()
            area = centred_box((x + width / 2, y + height / 2), width, height)
            image_id = entry["image_id"]
            found = (float(score), entry["category_id"])
            persons.append(Person(number, image_id, data.images[image_id], area, joints, visible, *found))
    if not persons:
        raise InputError(
            f"box file {path} holds no person with a score of {least_score} or more: lower the least score"
        )
    return replace(data, persons=tuple(persons), skipped=skipped, boxes=path.name)
