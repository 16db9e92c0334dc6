"""Loading persons in COCO's layout: what is counted, and what is said about files that are wrong."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hdm.data import load_persons, prepare_data
from hdm.data.crops import PersonCrops
from hdm.data.skeletons import COCO
from hdm.errors import InputError


def keypoints(labelled: dict[int, tuple[float, float, int]]) -> list[float]:
    """17 x (x, y, v), all 0 but the ones given."""
    rows = np.zeros((17, 3))
    for joint, row in labelled.items():
        rows[joint] = row
    return rows.ravel().tolist()


def annotation(number: int, image: int, labelled: dict[int, tuple[float, float, int]], **other) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [10.0, 5.0, 20.0, 30.0],
        "area": 300.0,
        "iscrowd": 0,
        "num_keypoints": len(labelled),
        "keypoints": keypoints(labelled),
        **other,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures in each part, and five annotations: three persons that count, one of them far from its box, and one
    of each kind that does not."""
    root = tmp_path / "coco"
    content = {
        "info": {},
        "images": [
            {"id": 70, "file_name": "a.jpg", "width": 60, "height": 40},
            {"id": 80, "file_name": "b.jpg", "width": 45, "height": 50},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.names)}],
        "annotations": [
            annotation(1, 70, {k: (12.5 + k, 10.25 + k, 2) for k in range(17)}),
            annotation(2, 70, {0: (15, 15, 2)}, iscrowd=1),
            annotation(3, 80, {}),
            annotation(4, 80, {5: (200, 200, 2)}),
            annotation(5, 80, {5: (12, 6, 1), 10: (29.5, 34.5, 2)}),
        ],
    }
    (root / "annotations").mkdir(parents=True)
    for part in ("train", "val"):
        (root / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(content))
        (root / f"{part}2017").mkdir()
        for name, size in (("a.jpg", (40, 60)), ("b.jpg", (50, 45))):
            cv2.imwrite(str(root / f"{part}2017" / name), np.full((*size, 3), 128, np.uint8))
    return root


def test_persons_are_read_and_the_others_counted_by_reason(folder: Path) -> None:
    data = load_persons(f"coco:{folder}", "val")
    assert [person.annotation_id for person in data.persons] == [1, 4, 5]
    assert data.skipped == {"crowd": 1, "no labelled joint": 1, "no area": 0}
    first, _, second = data.persons
    assert (first.image_id, first.image_path) == (70, folder / "val2017" / "a.jpg")
    assert first.box == (10.0, 5.0, 20.0, 30.0)
    np.testing.assert_array_equal(first.joints[3], [15.5, 13.25])
    np.testing.assert_array_equal(first.visible, np.ones(17))
    # A joint that is labelled but hidden (1) counts as much as one that can be seen (2).
    np.testing.assert_array_equal(np.flatnonzero(second.visible), [5, 10])
    np.testing.assert_array_equal(second.joints[10], [29.5, 34.5])
    assert data.skeleton is COCO


def test_head_takes_the_first_persons(folder: Path) -> None:
    data = load_persons(f"coco:{folder}", "train")
    assert [person.annotation_id for person in data.head(1).persons] == [1]
    assert data.head(None) is data
    assert len(data.head(99).persons) == 3


def test_both_kinds_read_the_same_layout_and_the_hash_is_of_the_file(folder: Path) -> None:
    coco, synthetic = load_persons(f"coco:{folder}", "val"), load_persons(f"synthetic:{folder}", "val")
    assert coco.sha256 == synthetic.sha256 == load_persons(f"coco:{folder}", "train").sha256
    with (folder / "annotations" / "person_keypoints_val2017.json").open("a") as file:
        file.write(" ")
    assert load_persons(f"coco:{folder}", "val").sha256 != coco.sha256


def spoil(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """A change of the content of the validation part's annotation file."""

    def apply(folder: Path) -> None:
        path = folder / "annotations" / "person_keypoints_val2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply


def first(**changes) -> Callable[[Path], None]:
    """A change of the fields of annotation 1; a value of None takes the field away."""

    def apply(content: dict) -> None:
        entry = content["annotations"][0]
        entry.update(changes)
        for name in [name for name, value in changes.items() if value is None]:
            del entry[name]

    return spoil(apply)


def write(text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "annotations" / "person_keypoints_val2017.json").write_bytes(text)


WHOLE = {k: (12.0, 10.0, 2) for k in range(17)}
FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no folder": (shutil.rmtree, ["data directory", "is not there", "annotations/"]),
    "no annotations": (
        lambda folder: shutil.rmtree(folder / "annotations"),
        ["person_keypoints_val2017.json", "No such file"],
    ),
    "no image folder": (lambda folder: shutil.rmtree(folder / "val2017"), ["image directory", "val2017", "not there"]),
    "no image": (lambda folder: (folder / "val2017" / "b.jpg").unlink(), ["b.jpg", "is missing"]),
    "not JSON": (write(b'{"images": ['), ["val2017.json", "not valid JSON"]),
    "not text": (write(b"\xff\xfe\x00"), ["val2017.json", "not valid JSON"]),
    "empty file": (write(b""), ["val2017.json", "not valid JSON"]),
    "a list": (write(b"[]"), ["no list 'images'"]),
    "no categories": (spoil(lambda content: content.pop("categories")), ["no list 'categories'"]),
    "entries of another kind": (spoil(lambda content: content["images"].append(3)), ["no list 'images'"]),
    "instances": (
        spoil(lambda content: content["categories"][0].pop("keypoints")),
        ["no category", "'keypoints'", "person_keypoints"],
    ),
    "other person category": (
        spoil(lambda content: content["categories"][0].update(id=3)),
        ["annotation 1", "category id 1, not 3"],
    ),
    "unknown category": (first(category_id=18), ["annotation 1", "category id 18"]),
    "unknown image id": (first(image_id=71), ["annotation 1", "image id 71", "does not list"]),
    "image id in words": (first(image_id="70"), ["annotation 1", "image_id '70'", "whole numbers"]),
    "image id twice": (
        spoil(lambda content: content["images"][1].update(id=70)),
        ["image id 70 twice", "a.jpg", "b.jpg"],
    ),
    "image without a file": (spoil(lambda content: content["images"][0].pop("file_name")), ["image 70", "'file_name'"]),
    "no keypoints": (first(keypoints=None), ["annotation 1", "has no 'keypoints'"]),
    "no area": (first(area=None), ["annotation 1", "has no 'area'"]),
    "no box": (first(bbox=None), ["annotation 1", "has no 'bbox'"]),
    "keypoint missing": (first(keypoints=keypoints(WHOLE)[:-3]), ["annotation 1", "48 keypoint numbers, not 51"]),
    "keypoints in words": (first(keypoints=["here"] * 51), ["annotation 1", "not made of numbers"]),
    "keypoint not a number": (
        first(keypoints=keypoints(WHOLE | {3: (math.nan, 10, 2)})),
        ["annotation 1", "NaN or infinite coordinates"],
    ),
    "box of zero width": (first(bbox=[10, 5, 0, 30]), ["annotation 1", "[10, 5, 0, 30]", "no area"]),
    "box of negative height": (first(bbox=[10, 5, 20, -1]), ["annotation 1", "no area"]),
    "box not a number": (first(bbox=[10, 5, math.nan, 30]), ["annotation 1", "no area"]),
    "box of three numbers": (first(bbox=[10, 5, 20]), ["annotation 1", "no area"]),
    "negative area": (first(area=-3), ["annotation 1", "area -3", "no area"]),
    "area not a number": (first(area=math.inf), ["annotation 1", "area inf"]),
    "nobody": (spoil(lambda content: content["annotations"].clear()), ["no person with a labelled joint"]),
    "nobody labelled": (
        spoil(lambda content: [entry.update(keypoints=[0] * 51) for entry in content["annotations"]]),
        ["no person with a labelled joint"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(folder: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    change(folder)
    with pytest.raises(InputError) as raised:
        load_persons(f"coco:{folder}", "val")
    message = str(raised.value)
    assert str(folder) in message
    for word in words:
        assert word in message, message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["", "coco", "coco:", "mars:folder", "folder"])
def test_unknown_kind_of_data_set(source: str) -> None:
    with pytest.raises(InputError, match="unknown data set .*write coco:DIR or synthetic:DIR or mpii:DIR"):
        load_persons(source, "val")


def test_unknown_part(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown part 'test'.*choose train or val"):
        load_persons(f"coco:{folder}", "test")


def test_what_is_left_out_may_have_a_box_without_area(folder: Path) -> None:
    """COCO's own file holds such boxes of persons without a labelled joint."""
    spoil(lambda content: content["annotations"][2].update(bbox=[10, 5, 0, 30], area=0))(folder)
    assert load_persons(f"coco:{folder}", "val").skipped["no labelled joint"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"area": 0},
        {"bbox": [60, 5, 20, 30]},
        {"bbox": [10, 41, 20, 30]},
    ],
)
def test_a_person_without_an_area_is_left_out_and_counted(folder: Path, fields: dict) -> None:
    """As the official recipe does: there is nothing to crop, or nothing to measure by."""
    first(**fields)(folder)
    data = load_persons(f"coco:{folder}", "val")
    assert [person.annotation_id for person in data.persons] == [4, 5]
    assert data.skipped["no area"] == 1


def test_a_box_is_cut_to_its_picture(folder: Path) -> None:
    """The picture has 60 x 40 pixels; a corner beyond its border is moved to it, as in the official code, where the
    box (x1, y1, x2 - x1, y2 - y1) runs from max(0, x) to min(width - 1, max(0, x) + w - 1)."""
    first(bbox=[-7.5, 12, 30, 90])(folder)
    assert load_persons(f"coco:{folder}", "val").persons[0].box == (0, 12, 30, 28)
    first(bbox=[50, -3, 30, 90])(folder)
    assert load_persons(f"coco:{folder}", "val").persons[0].box == (50, 0, 10, 40)


def test_annotations_alone_are_enough_where_no_picture_is_needed(folder: Path) -> None:
    shutil.rmtree(folder / "val2017")
    assert len(load_persons(f"coco:{folder}", "val", check_images=False).persons) == 3


# --- the data of a profile ---


def test_a_profile_with_generated_data_has_it_made_once(tmp_path: Path) -> None:
    profile = {"data": f"synthetic:{tmp_path / 'made'}", "synthetic": {"images": 3, "seed": 1}}
    assert prepare_data(profile, progress=False) == profile["data"]
    first = load_persons(profile["data"], "train")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*")}
    prepare_data(profile, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "made").rglob("*")} == times
    assert len(first.persons) > 0


def test_photographs_are_not_made(tmp_path: Path) -> None:
    data = f"coco:{tmp_path / 'missing'}"
    assert prepare_data({"data": data, "synthetic": {"images": 3}}, progress=False) == data
    assert not (tmp_path / "missing").exists()


# --- the real photographs of the sample ---


@pytest.mark.parametrize(("part", "persons"), [("train", 4998), ("val", 993)])
def test_counts_of_the_sample(sample_data: Path, part: str, persons: int) -> None:
    """All persons with a labelled joint, as the README of the sample counts them."""
    assert len(load_persons(f"coco:{sample_data / 'coco_mini'}", part).persons) == persons


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "val"])
def test_every_photograph_of_the_sample_can_be_read_and_every_crop_shows_a_joint(sample_data: Path, part: str) -> None:
    """Also where all labelled joints lie outside of the enlarged box: crops are widened to their shape."""
    crops = PersonCrops(load_persons(f"coco:{sample_data / 'coco_mini'}", part), (64, 48))
    for crop in crops:
        assert crop.visible.any()
        assert crop.image.float().std() > 1
