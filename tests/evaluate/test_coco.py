"""OKS-AP: the annotations themselves score 1, and known errors score what the formula says."""

import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
import pytest

from hdm.data import PersonData, load_persons
from hdm.data.skeletons import COCO
from hdm.errors import InputError
from hdm.evaluate import coco_ap, coco_results, write_coco_results

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


# --- pycocotools itself ---


def detector_like(path: Path) -> list[dict]:
    """For each labelled person of the file two predictions with errors and scores at random, and some in nobody's
    place, as a detector's boxes give."""
    rng = np.random.default_rng(4)
    people = [entry for entry in json.loads(path.read_text())["annotations"] if entry["num_keypoints"]]
    image_ids = [entry["image_id"] for entry in people] * 3
    joints = np.array([entry["keypoints"] for entry in people]).reshape(-1, 17, 3)[..., :2].astype(float)
    size = np.sqrt([entry["area"] for entry in people])[:, None, None]
    noise = [share * size * rng.standard_normal(joints.shape) for share in (0.03, 0.1)]
    elsewhere = joints + size * rng.uniform(-3, 3, (len(people), 1, 2))
    found = np.concatenate([joints + noise[0], joints + noise[1], elsewhere])
    return coco_results(image_ids, found, rng.random(found.shape[:2]), rng.random(len(found)))


def test_the_values_are_those_of_pycocotools_to_the_last_digit(sample_data: Path) -> None:
    path = sample_data / "coco_mini" / "annotations" / "person_keypoints_val2017.json"
    results = detector_like(path)
    truth = pycocotools.coco.COCO(str(path))
    plain = pycocotools.cocoeval.COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
    plain.evaluate()
    plain.accumulate()
    plain.summarize()
    metrics = coco_ap(path, results)
    assert list(metrics.values()) == plain.stats.tolist()
    assert 0.2 < metrics["AP"] < 0.8


def test_results_are_left_as_they_are(truth: Path) -> None:
    """pycocotools writes id, area and bbox into the entries that it is given."""
    results = predict(POSE, image_id=4) + predict(POSE + 3, image_id=5)
    before = copy.deepcopy(results)
    coco_ap(truth, results)
    assert results == before


def test_a_box_beside_the_joints_changes_nothing(tmp_path: Path) -> None:
    """pycocotools would take the area of an unmatched prediction from it: here that of a person who is too large to
    count as a false medium one."""
    path = write_annotations(tmp_path / "truth.json", [{"area": 5000.0}])
    results = predict(POSE + 600, score=0.9) + predict(POSE, score=0.5)
    area = np.prod(np.ptp(POSE, axis=0))
    assert area > 96**2
    boxed = [entry | {"bbox": [0.0, 0.0, 50.0, 50.0]} for entry in results]
    assert coco_ap(path, boxed) == coco_ap(path, results)
    assert coco_ap(path, results)["APM"] == pytest.approx(1, abs=1e-12)


def test_ten_thousand_persons(tmp_path: Path) -> None:
    """5,000 images with two persons each; every second person is missed by far, so AP is that of half the recall."""
    places = 10.0 * np.arange(10_000).reshape(-1, 1, 1) % 3000 + POSE
    people = [{"image_id": number // 2 + 1, "joints": joints} for number, joints in enumerate(places)]
    path = write_annotations(tmp_path / "truth.json", people)
    right = np.arange(10_000) % 2 == 0
    joints = places + np.where(right, 0.0, 5000.0)[:, None, None]
    scores = np.where(right, 0.9, 0.1)[:, None] * np.ones(17)
    begin = time.perf_counter()
    metrics = coco_ap(path, coco_results([person["image_id"] for person in people], joints, scores))
    assert time.perf_counter() - begin < 15
    assert metrics["AP"] == pytest.approx(51 / 101, abs=1e-9)
    assert metrics["AR"] == pytest.approx(0.5)


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


@pytest.mark.parametrize(("oks", "share"), [(0.725, 0.5), (0.525, 0.1), (0.925, 0.9), (0.475, 0.0), (0.975, 1.0)])
def test_every_joint_displaced_to_a_similarity_between_two_thresholds(tmp_path: Path, oks: float, share: float) -> None:
    """d_k = 2 sigma_k sqrt(-2 area ln OKS) gives every joint, and so the person, just this similarity."""
    area = 20_000.0
    path = write_annotations(tmp_path / "truth.json", [{"area": area}])
    distance = 2 * np.array(COCO.sigmas) * math.sqrt(-2 * area * math.log(oks))
    assert similarity(distance, area) == pytest.approx(oks, abs=1e-12)
    angle = np.arange(17)
    metrics = coco_ap(path, predict(POSE + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)))
    assert metrics["AP"] == metrics["APL"] == pytest.approx(share, abs=1e-12)


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


def test_scores_of_persons_may_be_given() -> None:
    results = coco_results([7, 9], np.stack([POSE, POSE + 1]), np.full((2, 17), 0.25), np.array([0.7, 0.1]))
    assert [entry["score"] for entry in results] == [0.7, 0.1]
    assert results[1]["keypoints"][2::3] == [0.25] * 17


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


# --- files ---


def test_a_file_of_results_is_read_by_pycocotools(truth: Path, tmp_path: Path) -> None:
    results = predict(POSE + 4, image_id=4) + predict(POSE, image_id=5, score=0.5)
    path = tmp_path / "new folder" / "results.json"
    write_coco_results(path, [entry | {"center": np.zeros(2)} for entry in results])
    assert json.loads(path.read_text()) == results
    with_file = pycocotools.coco.COCO(str(truth)).loadRes(str(path))
    assert [entry["keypoints"] for entry in with_file.dataset["annotations"]] == [r["keypoints"] for r in results]
    assert coco_ap(truth, json.loads(path.read_text())) == coco_ap(truth, results)
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


def test_numbers_of_numpy_are_written_as_plain_ones(tmp_path: Path) -> None:
    entry = {
        "image_id": np.int64(4),
        "category_id": np.int32(1),
        "keypoints": np.arange(51, dtype=np.float32),
        "score": np.float32(0.5),
    }
    write_coco_results(tmp_path / "results.json", [entry])
    (read,) = json.loads((tmp_path / "results.json").read_text())
    assert read == {"image_id": 4, "category_id": 1, "keypoints": [float(k) for k in range(51)], "score": 0.5}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    results = predict(POSE)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "results.json", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"{place} can't be written .*choose another place"):
            write_coco_results(place, results)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_results_that_are_not_finite_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_coco_results(path, predict(POSE))
    before = path.read_text()
    for bad in ([], predict(POSE) + predict(POSE + np.nan), [{"image_id": 4}]):
        with pytest.raises(InputError, match=r"no prediction to evaluate|holds NaN|has no 'category_id'"):
            write_coco_results(path, bad)
    assert path.read_text() == before


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


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_numbers(truth: Path, score: float) -> None:
    """pycocotools would sort a NaN last and rank by the rest."""
    results = coco_results([4, 5], np.stack([POSE, POSE]), np.ones((2, 17)), np.array([1.0, score]))
    with pytest.raises(InputError, match="prediction for image id 5 holds NaN"):
        coco_ap(truth, results)


def test_predictions_of_other_joints(truth: Path) -> None:
    results = coco_results([4], POSE[None, :16], np.ones((1, 16)))
    with pytest.raises(InputError, match="a prediction has 48 keypoint numbers: COCO's evaluation takes 17 x 3"):
        coco_ap(truth, results)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize(("ids", "scores", "persons"), [(3, 2, 2), (2, 3, 2), (2, 2, 3), (2, 1, 2)])
def test_results_of_different_lengths(ids: int, scores: int, persons: int) -> None:
    with pytest.raises(InputError, match=r"2, 17, 2.* do not match: give N, \(N, K, 2\), \(N, K\) and \(N,\)"):
        coco_results(range(ids), np.stack([POSE, POSE]), np.ones((scores, 17)), np.ones(persons))


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
