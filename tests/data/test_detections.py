"""A detector's boxes in the place of annotated persons."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from hdm.data import PersonData, load_persons, with_detections
from hdm.errors import InputError
from hdm.pixels import apply_affine, box_affine


@pytest.fixture(scope="module")
def data(small_data: str) -> PersonData:
    return load_persons(small_data, "val")


def boxes_file(folder: Path, *entries: dict) -> Path:
    path = folder / "boxes.json"
    path.write_text(json.dumps(list(entries)))
    return path


def box(data: PersonData, number: int = 0, **other) -> dict:
    image_id = list(data.images)[number]
    return {"image_id": image_id, "category_id": 1, "bbox": [10.5, 4.0, 40.0, 60.0], "score": 0.75, **other}


def test_boxes_take_the_place_of_persons(data: PersonData, tmp_path: Path) -> None:
    first, second = list(data.images)[:2]
    path = boxes_file(tmp_path, box(data, 1), box(data, 0, score=0.1, bbox=[0, 0, 5, 5]))
    found = with_detections(data, path)
    assert [(person.image_id, person.score) for person in found.persons] == [(second, 0.75), (first, 0.1)]
    assert found.persons[0].image_path == data.images[found.persons[0].image_id]
    assert not any(person.visible.any() for person in found.persons)
    assert found.boxes == "boxes.json" and data.boxes == "ground truth"


def test_a_box_is_centred_as_in_the_official_code(data: PersonData, tmp_path: Path) -> None:
    """Centre (x + w / 2, y + h / 2), and the height 60 * 1.25 fills the crop."""
    person = with_detections(data, boxes_file(tmp_path, box(data))).persons[0]
    affine = box_affine(person.box, (256, 192), convention="hrnet")
    np.testing.assert_allclose(apply_affine(affine, np.array([10.5 + 20, 4.0 + 30])), [96, 128])
    np.testing.assert_allclose(apply_affine(affine, np.array([30.5, 34 + 0.625 * 60])), [96, 256])


def test_other_categories_and_low_scores_are_left_out_and_counted(data: PersonData, tmp_path: Path) -> None:
    path = boxes_file(tmp_path, box(data), box(data, category_id=18), box(data, score=0.2), box(data, score=0.3))
    found = with_detections(data, path, least_score=0.25)
    assert [person.score for person in found.persons] == [0.75, 0.3]
    assert found.skipped == {"another category": 1, "low score": 1}


FAULTS = {
    "unknown image": ({"image_id": -5}, "box 1 in .* image id -5, which .* does not list"),
    "score not a number": ({"score": math.nan}, "box 1 in .* score nan"),
    "score in words": ({"score": "high"}, "box 1 in .* score that is not made of numbers"),
    "negative width": ({"bbox": [1, 2, -3, 4]}, r"box 1 in .* \[1, 2, -3, 4\], which has no area"),
    "no height": ({"bbox": [1, 2, 3, 0]}, "box 1 in .* no area"),
    "three numbers": ({"bbox": [1, 2, 3]}, "box 1 in .* no area"),
    "not a number": ({"bbox": [1, 2, math.nan, 4]}, "box 1 in .* no area"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(data: PersonData, tmp_path: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    with pytest.raises(InputError, match=words):
        with_detections(data, boxes_file(tmp_path, box(data), box(data, **change)))


@pytest.mark.parametrize("field", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_field(data: PersonData, tmp_path: Path, field: str) -> None:
    entry = box(data)
    del entry[field]
    with pytest.raises(InputError, match=f"box 0 in .* has no '{field}'"):
        with_detections(data, boxes_file(tmp_path, entry))


@pytest.mark.parametrize("text", ["{}", "[]", '"boxes"'])
def test_a_file_of_another_kind(data: PersonData, tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no list of boxes"):
        with_detections(data, path)


def test_a_file_that_is_missing_or_cut_short(data: PersonData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="box file .* can't be read"):
        with_detections(data, tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('[{"image_id": 3')
    with pytest.raises(InputError, match="box file .* is not valid JSON"):
        with_detections(data, tmp_path / "cut.json")


def test_no_box_is_good_enough(data: PersonData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no person with a score of 0.9 or more"):
        with_detections(data, boxes_file(tmp_path, box(data)), least_score=0.9)
