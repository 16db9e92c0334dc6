"""OKS-AP: the annotations themselves score 1, and known errors score what the formula says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hdm.data.coco import PersonData, load_persons
from hdm.data.skeletons import COCO
from hdm.errors import InputError
from hdm.evaluate import coco_ap, coco_results

THRESHOLDS = np.arange(0.5, 0.96, 0.05)


def write_annotations(path: Path, people: list[dict]) -> Path:
    """A COCO file of these persons: each may give id, image_id, area, joints (17, 2) and visible (17,)."""
    annotations = []
    for number, person in enumerate(people, start=1):
        joints, visible = person.get("joints", POSE), person.get("visible", np.full(17, 2))
        annotations.append(
            {
                "id": person.get("id", number),
                "image_id": person.get("image_id", number),
                "category_id": 1,
                "bbox": [100, 100, 100, 200],
                "area": person.get("area", 5000.0),
                "iscrowd": 0,
                "num_keypoints": int((visible > 0).sum()),
                "keypoints": np.column_stack([joints, visible]).ravel().tolist(),
            }
        )
    images = [{"id": image_id} for image_id in {entry["image_id"] for entry in annotations}]
    content = {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


POSE = np.stack([100 + 6.25 * np.arange(17), 300 - 12.5 * np.arange(17)], axis=1)


def predict(joints: np.ndarray, *, image_id: int = 1, score: float = 1.0) -> list[dict]:
    return coco_results([image_id], joints[None], np.full((1, 17), score))


def similarity(distance: np.ndarray, area: float, labelled: np.ndarray | None = None) -> float:
    """OKS as the COCO task defines it."""
    terms = np.exp(-(distance**2) / (2 * area * (2 * np.array(COCO.sigmas)) ** 2))
    return float(terms[labelled].mean() if labelled is not None else terms.mean())


# --- the annotations fed back ---


def truth_of(data: PersonData) -> list[dict]:
    joints = np.stack([person.joints for person in data.persons])
    return coco_results([person.image_id for person in data.persons], joints, np.ones((len(joints), 17)))


@pytest.mark.parametrize("part", ["train", "val"])
def test_annotations_of_the_generated_data_score_1(small_data: str, part: str) -> None:
    data = load_persons(small_data, part)
    metrics = coco_ap(data.annotation_file, truth_of(data))
    assert list(metrics) == ["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
    for name, value in metrics.items():
        assert value == pytest.approx(1, abs=1e-12) or (value == -1 and name[-1] in "ML"), name
    assert metrics["APM"] == pytest.approx(1, abs=1e-12)


def test_annotations_of_the_sample_score_1(sample_data: Path) -> None:
    """All 993 labelled persons; the crowds and those without a labelled joint are ignored."""
    path = sample_data / "coco_mini" / "annotations" / "person_keypoints_val2017.json"
    people = [entry for entry in json.loads(path.read_text())["annotations"] if entry["num_keypoints"]]
    assert len(people) == 993
    joints = np.array([entry["keypoints"] for entry in people]).reshape(-1, 17, 3)[..., :2].astype(float)
    results = coco_results([entry["image_id"] for entry in people], joints, np.ones((len(people), 17)))
    assert coco_ap(path, results) == pytest.approx(dict.fromkeys(coco_ap(path, results), 1.0), abs=1e-12)


# --- known errors ---


@pytest.mark.parametrize(("shift", "share"), [(0.5, 1.0), (3.0, 0.9), (6.0, 0.5), (8.0, 0.2), (12.0, 0.0)])
def test_ap_of_one_person_is_the_share_of_thresholds_below_its_similarity(
    tmp_path: Path, shift: float, share: float
) -> None:
    path = write_annotations(tmp_path / "truth.json", [{"area": 5000.0}])
    oks = similarity(np.full(17, shift), 5000.0)
    metrics = coco_ap(path, predict(POSE + [shift * 0.6, -shift * 0.8]))
    assert np.mean(oks >= THRESHOLDS) == pytest.approx(share)
    for name in ("AP", "AR", "APM", "ARM"):
        assert metrics[name] == pytest.approx(share, abs=1e-12)
    assert metrics["AP50"] == pytest.approx(float(oks >= 0.5), abs=1e-12)
    assert metrics["AP75"] == pytest.approx(float(oks >= 0.75), abs=1e-12)
    assert metrics["APL"] == -1  # 5,000 pixels are a medium person: there is no large one


def test_the_same_error_weighs_less_on_a_larger_person(tmp_path: Path) -> None:
    for area in (2_000.0, 20_000.0):
        path = write_annotations(tmp_path / "truth.json", [{"area": area}])
        expected = np.mean(similarity(np.full(17, 8.0), area) >= THRESHOLDS)
        metrics = coco_ap(path, predict(POSE + [8, 0]))
        assert metrics["AP"] == pytest.approx(expected, abs=1e-12)
        assert (metrics["APM"], metrics["APL"]) == ((metrics["AP"], -1) if area < 96**2 else (-1, metrics["AP"]))


def test_only_labelled_joints_count(tmp_path: Path) -> None:
    labelled = np.arange(17) % 3 == 0
    path = write_annotations(tmp_path / "truth.json", [{"visible": np.where(labelled, 1, 0)}])
    distance = np.where(labelled, 4.0, 1000.0)
    metrics = coco_ap(path, predict(POSE + np.stack([distance, np.zeros(17)], axis=1)))
    expected = np.mean(similarity(distance, 5000.0, labelled) >= THRESHOLDS)
    assert 0 < expected < 1
    assert metrics["AP"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("right", "wrong", "precision"), [(0.9, 0.8, 1.0), (0.8, 0.9, 0.5)])
def test_scores_rank_persons(tmp_path: Path, right: float, wrong: float, precision: float) -> None:
    """Two persons, one of them found: recall reaches 1/2, so 51 of the 101 recall points count, at the precision there:
    1 where the right answer comes first, 1/2 where the wrong one does."""
    path = write_annotations(tmp_path / "truth.json", [{}, {}])
    results = predict(POSE, image_id=1, score=right) + predict(POSE + 500, image_id=2, score=wrong)
    metrics = coco_ap(path, results)
    assert metrics["AP"] == pytest.approx(precision * 51 / 101, abs=1e-9)
    assert metrics["AR"] == pytest.approx(0.5)


def test_a_score_of_a_person_is_the_mean_of_its_joints() -> None:
    scores = np.stack([np.linspace(0, 1, 17), np.full(17, 0.25)])
    first, second = coco_results([7, 9], np.stack([POSE, POSE + 1]), scores)
    assert (first["image_id"], second["image_id"]) == (7, 9)
    assert (first["score"], second["score"]) == (pytest.approx(0.5), 0.25)
    assert first["keypoints"][3:6] == pytest.approx([*POSE[1], 1 / 16], abs=1e-4)
    json.dumps([first, second])  # what the evaluation server takes


def test_some_images_only(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "truth.json", [{"image_id": 4}, {"image_id": 5}])
    found = predict(POSE, image_id=4)
    assert coco_ap(path, found)["AR"] == pytest.approx(0.5)
    assert coco_ap(path, found, [4, 4])["AR"] == pytest.approx(1)


@pytest.mark.parametrize("ids", [(0, 1), (3, 3)])
def test_annotation_ids_that_pycocotools_takes_for_something_else(tmp_path: Path, ids: tuple[int, int]) -> None:
    """It reads a match with id 0 as no match, and gives two annotations of one id as the same one twice."""
    people = [{"id": ids[0], "image_id": 1, "joints": POSE}, {"id": ids[1], "image_id": 2, "joints": POSE + 300}]
    path = write_annotations(tmp_path / "truth.json", people)
    results = predict(POSE, image_id=1) + predict(POSE + 300, image_id=2)
    assert coco_ap(path, results)["AP"] == pytest.approx(1, abs=1e-12)


# --- refusals ---


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_annotations(tmp_path / "truth.json", [{"image_id": 4}, {"image_id": 5}])


def test_no_prediction(truth: Path) -> None:
    with pytest.raises(InputError, match="no prediction to evaluate"):
        coco_ap(truth, [])


def test_predictions_for_unknown_images(truth: Path) -> None:
    with pytest.raises(InputError, match=r"image_id \[6, 7\].*truth.json does not list"):
        coco_ap(truth, [entry for image_id in (7, 6, 4) for entry in predict(POSE, image_id=image_id)])


def test_predictions_of_another_category(truth: Path) -> None:
    other = [entry | {"category_id": 2} for entry in predict(POSE, image_id=4)]
    with pytest.raises(InputError, match=r"category_id \[2\].*does not list"):
        coco_ap(truth, other)


def test_predictions_that_lack_something(truth: Path) -> None:
    results = predict(POSE, image_id=4)
    del results[0]["score"]
    with pytest.raises(InputError, match="a prediction has no 'score'"):
        coco_ap(truth, results)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_not_numbers(truth: Path, value: float) -> None:
    """pycocotools would count a NaN as a hit at every threshold."""
    joints = POSE.copy()
    joints[3, 1] = value
    with pytest.raises(InputError, match="prediction for image id 4 holds NaN"):
        coco_ap(truth, predict(joints, image_id=4))


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "not JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]"),
    "no annotations": lambda path: path.write_text('{"images": [{"id": 4}]}'),
    "no ids": lambda path: path.write_text('{"images": [{"id": 4}], "annotations": [{}], "categories": []}'),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_that_holds_no_annotations(truth: Path, fault: str) -> None:
    BROKEN[fault](truth)
    with pytest.raises(InputError, match="truth.json can't be read as COCO annotations"):
        coco_ap(truth, predict(POSE, image_id=4))


@pytest.mark.parametrize("field", ["area", "num_keypoints", "iscrowd", "keypoints", "bbox"])
def test_annotations_that_lack_what_the_similarity_needs(truth: Path, field: str) -> None:
    content = json.loads(truth.read_text())
    del content["annotations"][0][field]
    truth.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"truth.json can't be evaluated .*{field}"):
        coco_ap(truth, predict(POSE, image_id=4))


def test_nothing_is_printed(truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_ap(truth, predict(POSE, image_id=4))
    assert capsys.readouterr().out == ""
