"""Skeletons from an annotation file's categories: what is read, and what is said about those that are wrong."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from animals import CATEGORY, NAMES, make_animals

from hdm.data import COCO, load_persons, with_detections
from hdm.data.categories import flip_pairs, read_skeleton
from hdm.data.skeletons import Skeleton, skeleton_from
from hdm.errors import InputError

FILE = Path("pets/annotations.json")


def read(*categories: dict[str, Any]) -> Skeleton:
    return read_skeleton({"categories": list(categories)}, FILE)


def test_an_animal_is_read_from_its_category() -> None:
    skeleton = read({"id": 9, "name": "fence"}, CATEGORY | {"sigmas": [0.02, 0.03, 0.03, 0.1, 0.05]})
    assert skeleton == Skeleton(
        name="goat",
        names=NAMES,
        flip_pairs=((1, 2),),
        edges=((0, 1), (0, 2), (0, 3), (3, 4)),
        sigmas=(0.02, 0.03, 0.03, 0.1, 0.05),
        categories=(3,),
    )
    assert skeleton.flip_order == [0, 2, 1, 3, 4]


def test_a_category_needs_neither_limbs_nor_sigmas() -> None:
    skeleton = read({"id": 1, "name": "hand", "keypoints": ["wrist", "thumb"]})
    assert (skeleton.edges, skeleton.sigmas, skeleton.flip_order) == ((), (), [0, 1])


def test_coco_keeps_its_constants_whatever_the_id() -> None:
    person = {"id": 1, "name": "person", "keypoints": list(COCO.names), "skeleton": [[16, 14]]}
    assert read(person) is COCO
    assert read(person | {"id": 4}) == replace(COCO, categories=(4,))


def test_several_kinds_of_animal_may_have_the_same_joints() -> None:
    skeleton = read(CATEGORY, CATEGORY | {"id": 5, "name": "sheep"})
    assert (skeleton.name, skeleton.categories) == ("goat+sheep", (3, 5))


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("nose", "left_ear", "right_ear"), ((1, 2),)),
        (("R_Eye", "L_Eye", "Nose", "L_F_Paw", "R_F_Paw"), ((0, 1), (3, 4))),
        (("paw right", "tail", "paw left"), ((0, 2),)),
        (("hip-left", "hip-right"), ((0, 1),)),
        # "l" and "r" are sides as words of their own only
        (("leftover", "tail_tip", "upright", "roller"), ()),
    ],
)
def test_pairs_come_from_the_names(names: tuple[str, ...], pairs: tuple[tuple[int, int], ...]) -> None:
    assert flip_pairs(names, "here") == pairs


def with_(**fields: Any) -> list[dict[str, Any]]:
    return [CATEGORY | fields]


FAULTS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "no keypoints": ([{"id": 3, "name": "goat"}], ["no category", "'keypoints'"]),
    "none named": (with_(keypoints=[]), ["'goat'", "keypoints []", "names"]),
    "keypoints that are no names": (with_(keypoints=[1, 2]), ["'goat'", "[1, 2]"]),
    "a name twice": (with_(keypoints=["nose", "tail", "tail"]), ["joint 'tail' twice"]),
    "one side only": (with_(keypoints=["nose", "left_ear"]), ["'left_ear'", "other side"]),
    "another skeleton": (
        [CATEGORY, {"id": 4, "name": "hen", "keypoints": ["beak", "tail"]}],
        ["'goat' and 'hen'", "different keypoints", "data set of each"],
    ),
    "other limbs": ([CATEGORY, CATEGORY | {"id": 4, "skeleton": []}], ["different skeleton"]),
    "an id twice": ([CATEGORY, CATEGORY], ["ids 3, 3"]),
    "an id in words": (with_(id="goat"), ["ids 'goat'"]),
    "a limb to nowhere": (with_(skeleton=[[1, 2], [5, 6]]), ["limb [5, 6]", "from 1 to 5"]),
    "a limb from 0": (with_(skeleton=[[0, 1]]), ["limb [0, 1]", "from 1 to 5"]),
    "a limb of three": (with_(skeleton=[[1, 2, 3]]), ["limb [1, 2, 3]"]),
    "limbs that are no list": (with_(skeleton="1-2"), ["limb '1-2'"]),
    "too few sigmas": (with_(sigmas=[0.1, 0.1]), ["sigmas [0.1, 0.1]", "each of 5"]),
    "a sigma of 0": (with_(sigmas=[0.1, 0.1, 0, 0.1, 0.1]), ["sigmas", "positive"]),
    "sigmas in words": (with_(sigmas=["a"] * 5), ["sigmas", "not made of numbers"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place(fault: str) -> None:
    categories, words = FAULTS[fault]
    with pytest.raises(InputError) as raised:
        read(*categories)
    message = str(raised.value)
    for word in [str(FILE), *words]:
        assert word in message, message
    assert "\n" not in message


def test_a_skeleton_survives_json() -> None:
    for skeleton in (COCO, read(CATEGORY)):
        assert skeleton_from(json.loads(json.dumps(asdict(skeleton)))) == skeleton


# --- the loader ---


@pytest.fixture
def change(tmp_path: Path) -> Callable[[Callable[[dict], object]], str]:
    """Animals whose validation part's annotations are changed first."""

    def apply(edit: Callable[[dict], object]) -> str:
        root = make_animals(tmp_path / "pets", images=6)
        path = root / "annotations" / "person_keypoints_val2017.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return f"coco:{root}"

    return apply


def test_animals_are_loaded(tmp_path: Path) -> None:
    data = load_persons(f"coco:{make_animals(tmp_path / 'pets', images=6)}", "train")
    assert data.skeleton.names == NAMES and len(data.persons) == 4
    assert {person.category for person in data.persons} == {3}
    assert all(person.joints.shape == (5, 2) and person.visible.all() for person in data.persons)


def test_an_annotation_of_another_length_is_refused(change: Callable[..., str]) -> None:
    source = change(lambda content: content["annotations"][1]["keypoints"].extend([1, 2, 2]))
    with pytest.raises(InputError, match="annotation 2 in .* has 18 keypoint numbers, not 15"):
        load_persons(source, "val")


def test_an_annotation_of_another_category_is_refused(change: Callable[..., str]) -> None:
    source = change(lambda content: content["annotations"][0].update(category_id=1))
    with pytest.raises(InputError, match="annotation 1 in .* category id 1, not 3"):
        load_persons(source, "val")


def test_boxes_of_a_detector_keep_their_category(change: Callable[..., str], tmp_path: Path) -> None:
    data = load_persons(change(lambda content: content["categories"].append(CATEGORY | {"id": 5})), "val")
    boxes = [
        {"image_id": 1, "category_id": number, "bbox": [5.0, 6.0, 30.0, 40.0], "score": 0.5} for number in (5, 1, 3)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    found = with_detections(data, tmp_path / "boxes.json")
    assert [person.category for person in found.persons] == [5, 3]
    assert found.skipped["another category"] == 1
    np.testing.assert_array_equal(found.persons[0].visible, np.zeros(5))
