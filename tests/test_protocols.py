"""The protocols of COCO and MPII, with the annotations themselves as predictions and with known mistakes in them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import loadmat

from hdm.data import COCO, Person, PersonData, load_persons, with_detections
from hdm.errors import InputError
from hdm.inference import Predictions
from hdm.protocols import Rescoring, coco_entries, crop_area, mpii_truth, protocol_scores, write_predictions

SIZE = (256, 192)


def predictions_of(data: PersonData, joints: np.ndarray, scores: np.ndarray | float = 1.0) -> Predictions:
    """Predictions with these joints (N, K, 2) in image pixels; one score for each person and definition."""
    count, k = joints.shape[:2]
    score = torch.tensor(np.broadcast_to(scores, count), dtype=torch.float32).unsqueeze(1).repeat(1, k)
    nothing = torch.zeros(count, k, 2)
    visible = torch.zeros(count, k)
    return Predictions(0.0, nothing, nothing, visible, joints, score, score / 2, score / 4)


def truth_of(data: PersonData) -> np.ndarray:
    return np.stack([person.joints for person in data.persons]).astype(float)


# --- COCO ---


@pytest.fixture(scope="module")
def small(small_data: str) -> PersonData:
    return load_persons(small_data, "val")


@pytest.mark.parametrize("nms", [None, 0.9])
def test_annotations_as_predictions_are_perfect(small: PersonData, nms: float | None) -> None:
    metrics = protocol_scores(small, predictions_of(small, truth_of(small)), SIZE, "half_pixel", Rescoring(nms=nms))
    assert metrics["AP"] == metrics["AR"] == pytest.approx(1, abs=1e-12)


def test_annotations_of_the_sample_as_predictions_are_perfect(sample_data: Path) -> None:
    data = load_persons(f"coco:{sample_data / 'coco_mini'}", "val")
    metrics = protocol_scores(data, predictions_of(data, truth_of(data)), SIZE, "hrnet", Rescoring(nms=None))
    for name in ("AP", "AP50", "AP75", "APM", "APL", "AR"):
        assert round(metrics[name], 3) == 1, name


def test_oks_nms_drops_a_person_of_the_sample_who_is_annotated_twice(sample_data: Path) -> None:
    """Even perfect predictions lose by it: with one of 993 persons missed, the last of the 101 recall points.

    OKS-NMS compares all joints: those without a label, which stand at (0, 0), are put somewhere in the box.
    """
    data = load_persons(f"coco:{sample_data / 'coco_mini'}", "val")
    rng = np.random.default_rng(0)
    joints = truth_of(data)
    for person, points in zip(data.persons, joints, strict=True):
        hidden = person.visible == 0
        points[hidden] = person.box[:2] + rng.random((hidden.sum(), 2)) * person.box[2:]
    predictions = predictions_of(data, joints)
    assert len(coco_entries(data, predictions, SIZE, "hrnet", Rescoring())) == 992
    assert protocol_scores(data, predictions, SIZE, "hrnet", Rescoring())["AP"] == pytest.approx(100 / 101)


def boxes_file(path: Path, data: PersonData, scores: list[float], extra: int = 0) -> Path:
    """The annotated boxes as a detector's, and `extra` boxes of nobody in the first picture."""
    first = data.persons[0].image_id
    found = [(person.image_id, person.box, score) for person, score in zip(data.persons, scores, strict=True)]
    found += [(first, (2.0, 3.0, 20.0 + n, 30.0), 0.5) for n in range(extra)]
    entries = [{"image_id": i, "category_id": 1, "bbox": list(box), "score": score} for i, box, score in found]
    path.write_text(json.dumps(entries))
    return path


def test_a_box_found_twice_counts_once(small: PersonData, tmp_path: Path) -> None:
    """Every box is there a second time with a lower score: without OKS-NMS the second ones are false positives."""
    once = with_detections(small, boxes_file(tmp_path / "once.json", small, [0.9] * len(small.persons)))
    weaker = tuple(replace(person, score=0.95 * person.score) for person in once.persons)
    twice = replace(once, persons=once.persons + weaker)
    predictions = predictions_of(twice, np.concatenate([truth_of(small)] * 2))
    kept = coco_entries(twice, predictions, SIZE, "hrnet", Rescoring())
    assert len(kept) == len(small.persons)
    assert len(coco_entries(twice, predictions, SIZE, "hrnet", Rescoring(nms=None))) == 2 * len(kept)
    assert protocol_scores(twice, predictions, SIZE, "hrnet")["AP"] == pytest.approx(1)


def test_a_false_box_with_a_good_score_costs_precision(small: PersonData, tmp_path: Path) -> None:
    count, nobody = len(small.persons), 4
    scores = [0.4] * count
    data = with_detections(small, boxes_file(tmp_path / "boxes.json", small, scores, extra=nobody))
    rng = np.random.default_rng(0)
    joints = np.concatenate([truth_of(small), 500 + 300 * rng.random((nobody, 17, 2))])
    metrics = protocol_scores(data, predictions_of(data, joints), SIZE, "hrnet")
    # All persons are found after `nobody` false ones: precision is at most count / (count + nobody) everywhere.
    assert metrics["AP"] == pytest.approx(count / (count + nobody), abs=1e-9)
    # The joints' scores know better: the false boxes go to the end.
    knowing = predictions_of(data, joints, np.array([1.0] * count + [0.5] * nobody))
    assert protocol_scores(data, knowing, SIZE, "hrnet")["AP"] == pytest.approx(1)
    # Where no joint is above the threshold all scores are 0, and the order of the file decides.
    faint = predictions_of(data, joints, np.array([0.1] * count + [0.05] * nobody))
    assert {entry["score"] for entry in coco_entries(data, faint, SIZE, "hrnet", Rescoring(threshold=0.2))} == {0.0}
    assert len({entry["score"] for entry in coco_entries(data, faint, SIZE, "hrnet", Rescoring(threshold=0))}) == 2


@pytest.mark.parametrize(("score", "expected"), [("joints", 0.72), ("max", 0.36), ("mass", 0.18), ("box", 0.9)])
def test_definitions_of_the_score(small: PersonData, tmp_path: Path, score: str, expected: float) -> None:
    """Joint scores of 0.8, peaks of half and masses of a quarter of that, a box score of 0.9."""
    data = with_detections(small, boxes_file(tmp_path / "boxes.json", small, [0.9] * len(small.persons)))
    entries = coco_entries(data, predictions_of(data, truth_of(small), 0.8), SIZE, "hrnet", Rescoring(score, 0.0))
    assert [entry["score"] for entry in entries] == pytest.approx([expected] * len(small.persons))


def test_a_detector_answers_for_every_picture(small: PersonData, tmp_path: Path) -> None:
    """Without a box in one of the pictures, the persons there are missed."""
    last = small.persons[-1].image_id
    found = replace(small, persons=tuple(person for person in small.persons if person.image_id != last))
    missed = 1 - len(found.persons) / len(small.persons)
    data = with_detections(small, boxes_file(tmp_path / "boxes.json", found, [1.0] * len(found.persons)))
    metrics = protocol_scores(data, predictions_of(data, truth_of(found)), SIZE, "hrnet")
    assert metrics["AR"] == pytest.approx(1 - missed)
    assert protocol_scores(found, predictions_of(found, truth_of(found)), SIZE)["AR"] == pytest.approx(1)


def test_the_area_is_that_of_the_enlarged_box() -> None:
    """99 x 199 between pixel centres, widened to 149.25 x 199, enlarged by 1.25 on each side."""
    area = crop_area((10.0, 20.0, 100.0, 200.0), SIZE, "hrnet")
    assert area == pytest.approx(149.25 * 199 * 1.25**2)


def test_a_file_for_the_server(small: PersonData, tmp_path: Path) -> None:
    write_predictions(tmp_path / "found.json", small, predictions_of(small, truth_of(small)), SIZE)
    entries = json.loads((tmp_path / "found.json").read_text())
    assert len(entries) == len(small.persons)
    assert set(entries[0]) == {"image_id", "category_id", "keypoints", "score"}
    assert len(entries[0]["keypoints"]) == 51


def test_unknown_score() -> None:
    with pytest.raises(InputError, match="unknown score 'mean': choose one of joints, max, mass, box"):
        Rescoring("mean")


# --- MPII ---


@pytest.fixture(scope="module")
def mpii(sample_data: Path) -> PersonData:
    return load_persons(f"mpii:{sample_data / 'mpii_mini'}", "val", check_images=False)


def test_annotations_of_mpii_as_predictions_are_perfect(mpii: PersonData) -> None:
    """All 2,958 persons, with the joints of gt_valid.mat counted from 0."""
    metrics = protocol_scores(mpii, predictions_of(mpii, mpii_truth(mpii).joints - 1), SIZE)
    assert set(metrics.values()) == {100.0}
    assert {"PCKh@0.5", "PCKh@0.1", "PCKh@0.11", "PCKh@0.5 Head", "PCKh@0.5 Ankle"} <= set(metrics)


def test_joints_of_valid_json_agree_with_the_mat(mpii: PersonData) -> None:
    """But for 13 of the joints, the sample's README says: so the loader's 0-based joints score nearly 100."""
    metrics = protocol_scores(mpii, predictions_of(mpii, truth_of(mpii)), SIZE)
    assert 99.9 < metrics["PCKh@0.1"] < 100


def test_a_joint_between_two_thresholds_counts_at_one_of_them(mpii: PersonData) -> None:
    truth = mpii_truth(mpii)
    away = truth.joints - 1 + (0.105 * truth.head_sizes)[:, None, None] * [0.6, 0.8]
    metrics = protocol_scores(mpii, predictions_of(mpii, away), SIZE)
    assert (metrics["PCKh@0.11"], metrics["PCKh@0.1"]) == (100, 0)


def test_the_first_persons_are_scored_alone(mpii: PersonData) -> None:
    some = mpii.head(7)
    assert len(mpii_truth(some).head_sizes) == 7
    joints = mpii_truth(some).joints - 1
    assert protocol_scores(some, predictions_of(some, joints), SIZE)["PCKh@0.1"] == 100


def test_the_file_for_mpii_counts_from_one(mpii: PersonData, tmp_path: Path) -> None:
    joints = mpii_truth(mpii).joints - 1
    write_predictions(tmp_path / "pred.mat", mpii, predictions_of(mpii, joints), SIZE)
    np.testing.assert_allclose(loadmat(tmp_path / "pred.mat")["preds"], joints + 1)


def test_pckh_has_no_other_part(mpii: PersonData) -> None:
    with pytest.raises(InputError, match="PCKh is defined on MPII's validation part"):
        mpii_truth(replace(mpii, part="train"))


def test_without_the_mat_it_is_named(tmp_path: Path) -> None:
    joints = np.zeros((16, 2))
    person = Person(0, 0, tmp_path / "a.jpg", (0.0, 0.0, 9.0, 9.0), joints, np.ones(16, np.float32))
    data = PersonData("mpii:made", "val", tmp_path / "annot" / "valid.json", COCO, (person,), {}, "")
    with pytest.raises(InputError, match="gt_valid.mat"):
        protocol_scores(data, predictions_of(data, joints[None]), SIZE)
