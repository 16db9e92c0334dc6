"""PCKh: the annotations themselves score 100, known errors what can be counted by hand, and the rest what a plain loop
over persons and joints counts."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray
from scipy.io import loadmat, savemat

from hdm.errors import InputError
from hdm.evaluate import MpiiTruth, pckh, pckh_table, read_mpii_truth, write_mpii_predictions
from hdm.evaluate.mpii import NAMES

COLUMNS = ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Mean"]


def truth_of(persons: int = 3, head_size: float = 100.0) -> MpiiTruth:
    """Persons who show every joint, all with one head size."""
    joints = np.random.default_rng(1).uniform(1, 500, (persons, 16, 2)).round()
    return MpiiTruth(joints, np.ones((persons, 16)), np.full(persons, head_size))


def moved(truth: MpiiTruth, distance: ndarray | float) -> ndarray:
    """0-based predictions, each joint moved to the right by so many pixels."""
    predicted = truth.joints - 1
    predicted[..., 0] += distance
    return predicted


def index(*names: str) -> list[int]:
    return [NAMES.index(name) for name in names]


# --- the annotations fed back ---


@pytest.fixture(scope="module")
def official(sample_data: Path) -> MpiiTruth:
    return read_mpii_truth(sample_data / "mpii_mini" / "annot" / "gt_valid.mat")


def test_the_official_file(official: MpiiTruth) -> None:
    assert official.joints.shape == (2958, 16, 2)
    assert official.names == NAMES
    assert set(np.unique(official.visible)) == {0, 1}
    assert official.head_sizes.min() > 10
    # The file's upper neck and head top lie 0.8 diagonals of the head box apart, so 0.8 / 0.6 head sizes.
    shown = (official.visible[:, 8] > 0) & (official.visible[:, 9] > 0)
    length = np.linalg.norm(official.joints[:, 9] - official.joints[:, 8], axis=-1)[shown]
    assert np.median(length / official.head_sizes[shown]) == pytest.approx(0.8 / 0.6, abs=1e-3)


def test_the_annotations_score_100(official: MpiiTruth) -> None:
    """Also where joints that are not annotated lie anywhere."""
    predicted = official.joints - 1
    predicted[official.visible == 0] = 12_345.0
    table = pckh_table(predicted, official, thresholds=(0.5, 0.1, 0.11, 0.001))
    assert table[COLUMNS].to_numpy().tolist() == [[100.0] * 8] * 4
    assert pckh(predicted + 1, official, one_based=True) == dict.fromkeys(COLUMNS, 100.0)


# --- counted by a plain loop ---


def by_a_plain_loop(predicted: ndarray, truth: MpiiTruth, threshold: float) -> dict[str, float]:
    """The definition, joint by joint and person by person; predictions 0-based, annotations 1-based."""
    percent, shown = [], []
    for joint in range(16):
        hits = people = 0
        for person in range(len(predicted)):
            if truth.visible[person, joint]:
                x, y = predicted[person, joint] + 1 - truth.joints[person, joint]
                people += 1
                hits += math.hypot(x, y) / truth.head_sizes[person] <= threshold
        percent.append(100 * hits / people)
        shown.append(people)
    pairs = {"Shoulder": (12, 13), "Elbow": (11, 14), "Wrist": (10, 15), "Hip": (2, 3), "Knee": (1, 4), "Ankle": (0, 5)}
    columns = {"Head": percent[9], **{name: (percent[a] + percent[b]) / 2 for name, (a, b) in pairs.items()}}
    counted = [joint for joint in range(16) if joint not in (6, 7)]
    total = sum(shown[joint] for joint in counted)
    return {**columns, "Mean": sum(percent[joint] * shown[joint] / total for joint in counted)}


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.11])
def test_random_predictions_score_what_a_plain_loop_counts(official: MpiiTruth, threshold: float) -> None:
    """Errors from a hundredth of a head to several heads, so that each threshold cuts through the joints."""
    rng = np.random.default_rng(2)
    spread = official.head_sizes[:, None, None] * 10 ** rng.uniform(-2, 0.7, (2958, 16, 1))
    predicted = official.joints - 1 + spread * rng.standard_normal((2958, 16, 2))
    found = pckh(predicted, official, threshold)
    expected = by_a_plain_loop(predicted, official, threshold)
    assert list(found) == COLUMNS
    assert found == pytest.approx(expected, abs=1e-9, rel=0)
    assert len(set(found.values())) == 8
    assert 10 < found["Mean"] < 90


def test_the_whole_validation_set_takes_a_moment(sample_data: Path) -> None:
    begin = time.perf_counter()
    truth = read_mpii_truth(sample_data / "mpii_mini" / "annot" / "gt_valid.mat")
    pckh_table(truth.joints + 3, truth)
    assert time.perf_counter() - begin < 2


# --- counted by hand ---


def test_the_threshold_is_the_number_given() -> None:
    """0.105 head sizes lie between 0.1 and what HRNet's code calls 0.1."""
    truth = truth_of()
    predicted = moved(truth, 10.5)
    table = pckh_table(predicted, truth)
    assert list(table.columns) == ["threshold", *COLUMNS]
    assert table["threshold"].tolist() == [0.5, 0.1, 0.11]
    assert table[COLUMNS].to_numpy().tolist() == [[100.0] * 8, [0.0] * 8, [100.0] * 8]
    assert table.iloc[1, 1:].to_dict() == pckh(predicted, truth, 0.1)
    assert np.arange(0, 0.51, 0.01)[11] == 0.11


def test_a_joint_at_the_threshold_counts() -> None:
    truth = truth_of(head_size=64.0)
    assert pckh(moved(truth, 32.0), truth, 0.5)["Mean"] == 100
    assert pckh(moved(truth, 32.001), truth, 0.5)["Mean"] == 0
    assert pckh(moved(truth, 0.0), truth, 0.0)["Mean"] == 100


def test_a_small_table_by_hand() -> None:
    """Of two persons the first misses its right elbow; the second shows its head and both elbows only, and misses the
    left elbow: 17 joints count, pelvis and thorax not among them, 15 of them are found."""
    truth = truth_of(persons=2)
    visible = np.ones((2, 16))
    visible[1] = 0
    visible[1, index("head", "relb", "lelb")] = 1
    error = np.zeros((2, 16))
    error[0, index("relb")] = error[1, index("lelb")] = 60.0
    error[0, index("pelv", "thor")] = 1000.0  # never count
    scores = pckh(moved(truth, error), replace(truth, visible=visible))
    assert scores["Elbow"] == (50 + 50) / 2
    assert scores["Mean"] == pytest.approx(100 * 15 / 17, abs=1e-12)
    assert {scores[name] for name in COLUMNS if name not in ("Elbow", "Mean")} == {100.0}


@pytest.mark.parametrize(
    ("joint", "column"),
    [("head", "Head"), ("lsho", "Shoulder"), ("rwri", "Wrist"), ("rhip", "Hip"), ("lkne", "Knee"), ("rank", "Ankle")],
)
def test_a_column_is_the_mean_of_left_and_right(joint: str, column: str) -> None:
    truth = truth_of()
    error = np.zeros((3, 16))
    error[:, index(joint)] = 51.0
    scores = pckh(moved(truth, error), truth)
    assert scores.pop("Mean") == pytest.approx(100 * 13 / 14, abs=1e-12)
    assert scores.pop(column) == (0 if column == "Head" else 50)
    assert set(scores.values()) == {100.0}


def test_the_upper_neck_has_no_column_but_counts() -> None:
    truth = truth_of()
    error = np.zeros((3, 16))
    error[:, index("neck")] = 51.0
    scores = pckh(moved(truth, error), truth)
    assert scores.pop("Mean") == pytest.approx(100 * 13 / 14, abs=1e-12)
    assert set(scores.values()) == {100.0}


def test_each_person_has_a_head_size() -> None:
    truth = replace(truth_of(), head_sizes=np.array([10.0, 20.0, 100.0]))
    assert pckh(moved(truth, 8.0), truth)["Mean"] == pytest.approx(200 / 3)


def test_a_joint_that_nobody_shows() -> None:
    truth = truth_of()
    visible = np.ones((3, 16))
    visible[:, index("lwri")] = 0
    error = np.zeros((3, 16))
    error[0, index("relb")] = 99.0
    scores = pckh(moved(truth, error), replace(truth, visible=visible))
    assert math.isnan(scores.pop("Wrist"))
    assert scores["Elbow"] == pytest.approx((100 + 200 / 3) / 2)
    assert scores["Mean"] == pytest.approx(100 * 38 / 39)


def test_forgetting_that_the_file_counts_from_1() -> None:
    """Predictions just within reach to the left of the joint: not moved by one pixel to the right they fall outside."""
    truth = truth_of()
    left, right = moved(truth, -49.5), moved(truth, 49.5)
    assert pckh(left, truth)["Mean"] == pckh(right, truth)["Mean"] == 100
    assert pckh(left, truth, one_based=True)["Mean"] == 0
    assert pckh(left + 1, truth, one_based=True)["Mean"] == 100
    assert pckh_table(left, truth, one_based=True)["Mean"].tolist() == [0.0, 0.0, 0.0]


def test_single_precision_is_enough_for_predictions() -> None:
    truth = truth_of()
    assert pckh(moved(truth, 10.5).astype(np.float32), truth, 0.11) == dict.fromkeys(COLUMNS, 100.0)


def test_some_persons() -> None:
    truth = replace(truth_of(persons=5), head_sizes=np.array([10.0, 20.0, 30.0, 40.0, 50.0]))
    part = truth.take([3, 0])
    np.testing.assert_array_equal(part.joints, truth.joints[[3, 0]])
    assert part.head_sizes.tolist() == [40.0, 10.0]
    assert pckh(moved(part, 9.0), part)["Mean"] == 50
    for wrong in ([5], [0, -1]):
        with pytest.raises(InputError, match="are not all there: choose from 0 to 4"):
            truth.take(wrong)


# --- files ---


def contents(persons: int = 4) -> dict[str, ndarray]:
    rng = np.random.default_rng(3)
    corner = rng.uniform(1, 100, (2, persons))
    return {
        "jnt_missing": (rng.random((16, persons)) < 0.2).astype(np.uint8),
        "pos_gt_src": rng.uniform(1, 500, (16, 2, persons)),
        "headboxes_src": np.stack([corner, corner + [[30.0], [40.0]]]),
        "dataset_joints": np.array([NAMES], dtype=object),
    }


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = contents()
    savemat(tmp_path / "gt.mat", content)
    truth = read_mpii_truth(tmp_path / "gt.mat")
    np.testing.assert_allclose(truth.head_sizes, 0.6 * 50)
    np.testing.assert_array_equal(truth.visible, 1 - content["jnt_missing"].T)
    np.testing.assert_array_equal(truth.joints[2, 5], content["pos_gt_src"][5, :, 2])


def test_predictions_are_written_as_the_official_evaluation_takes_them(tmp_path: Path) -> None:
    truth = truth_of(persons=4)
    path = tmp_path / "new folder" / "pred.mat"
    write_mpii_predictions(path, moved(truth, 0.25))
    preds = loadmat(path)["preds"]
    np.testing.assert_array_equal(preds, truth.joints + [0.25, 0])
    assert pckh(preds, truth, 0.0025, one_based=True)["Mean"] == 100
    assert [entry.name for entry in path.parent.iterdir()] == ["pred.mat"]


def test_predictions_that_cannot_be_written(tmp_path: Path) -> None:
    predicted = moved(truth_of(), 0.0)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "pred.mat", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"{place} can't be written .*choose another place"):
            write_mpii_predictions(place, predicted)
    predicted[1, 2, 0] = np.nan
    with pytest.raises(InputError, match="predictions hold NaN"):
        write_mpii_predictions(tmp_path / "pred.mat", predicted)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def changed(**values: ndarray | None) -> Callable[[Path], object]:
    """The official variables with some replaced, or left out."""
    content = {name: value for name, value in (contents() | values).items() if value is not None}
    return lambda path: savemat(path, content)


def cut(path: Path) -> None:
    savemat(path, contents(persons=200), do_compression=True)
    path.write_bytes(path.read_bytes()[:5000])


def hole(array: ndarray, place: tuple, value: float) -> ndarray:
    array = array.copy()
    array[place] = value
    return array


ORIGINAL = contents()
SHOWN = tuple(np.argwhere(ORIGINAL["jnt_missing"] == 0)[3])
HDF5 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n"
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, r"can't be read \(No such file.*give annot/gt_valid.mat"),
    "a folder": (Path.mkdir, r"can't be read \(.*irectory"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged or no MATLAB file"),
    "text": (lambda path: path.write_text("not found " * 50), "is damaged or no MATLAB file"),
    "cut short": (cut, "is damaged or no MATLAB file"),
    "MATLAB 7.3": (lambda path: path.write_bytes(HDF5), "is a MATLAB 7.3 file, which can't be read: save it again"),
    "another file": (lambda path: savemat(path, {"preds": np.zeros((4, 16, 2))}), "has no variable 'dataset_joints'"),
    "no head boxes": (changed(headboxes_src=None), "has no variable 'headboxes_src'"),
    "text for numbers": (changed(pos_gt_src=np.array(["far", "near"])), "pos_gt_src in .* does not hold numbers"),
    "other shapes": (changed(pos_gt_src=np.zeros((16, 2, 5))), r"\(16, 2, 5\).*where .* belong"),
    "no third axis": (changed(pos_gt_src=np.zeros((16, 2))), r"\(16, 2\).*where .* belong"),
    "other joints": (changed(dataset_joints=np.array([NAMES[::-1]], dtype=object)), "names the joints 'lwri .*, not"),
    "a flag of 2": (changed(jnt_missing=2 * np.ones((16, 4))), "values other than 0 and 1"),
    "a head without size": (
        changed(headboxes_src=ORIGINAL["headboxes_src"] * [1, 1, 0, 1]),
        "person 2 in .* has a head box without size",
    ),
    "a head that is NaN": (
        changed(headboxes_src=hole(ORIGINAL["headboxes_src"], (0, 1, 3), np.nan)),
        "person 3 in .* has a head box without size",
    ),
    "a joint that is NaN": (
        changed(pos_gt_src=hole(ORIGINAL["pos_gt_src"], (SHOWN[0], 1, SHOWN[1]), np.nan)),
        "visible joints in .* hold NaN",
    ),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_file_that_is_not_the_official_one(tmp_path: Path, fault: str) -> None:
    make, words = BAD_FILES[fault]
    path = tmp_path / "gt_valid.mat"
    make(path)
    with pytest.raises(InputError, match=words) as raised:
        read_mpii_truth(path)
    assert str(path) in str(raised.value)


# --- refusals ---


def test_predictions_for_other_persons() -> None:
    truth = truth_of(persons=7)
    with pytest.raises(InputError, match=r"predictions for 5 persons, truth has 7: give them in the order of valid"):
        pckh(truth.joints[:5], truth)


@pytest.mark.usefixtures("no_shape_checks")
@pytest.mark.parametrize("shape", [(3, 17, 2), (3, 16, 3), (16, 2), (3, 16)])
def test_predictions_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for call in (
        lambda predicted: pckh(predicted, truth_of()),
        lambda predicted: pckh_table(predicted, truth_of()),
        lambda predicted: write_mpii_predictions(tmp_path / "pred.mat", predicted),
    ):
        with pytest.raises(InputError, match=r"predictions have shape .*give \(N, 16, 2\)"):
            call(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_not_numbers(value: float) -> None:
    truth = truth_of()
    predicted = moved(truth, 0.0)
    predicted[2, 7, 1] = value
    with pytest.raises(InputError, match="predictions hold NaN or infinite values"):
        pckh(predicted, truth)


@pytest.mark.parametrize("threshold", [-0.1, math.nan])
def test_a_threshold_that_is_no_share(threshold: float) -> None:
    truth = truth_of()
    with pytest.raises(InputError, match="threshold .* must be 0 or more"):
        pckh_table(moved(truth, 0.0), truth, [0.5, threshold])


def test_nobody_shows_a_joint_that_counts() -> None:
    truth = truth_of()
    visible = np.zeros((3, 16))
    visible[:, index("pelv")] = 1
    with pytest.raises(InputError, match="no joint is visible"):
        pckh(moved(truth, 0.0), replace(truth, visible=visible))
