"""MPII's PCKh: the percentage of joints found within a share of the person's head size.

Joint k of person n counts as found at threshold t where

    ||predicted_nk - joint_nk|| / s_n <= t,      s_n = 0.6 ||headbox2_n - headbox1_n||,

the 0.6 being MPII's own bias towards the head's size from its box. With hits h_k and visible persons v_k, joint k has
100 h_k / v_k percent. A column averages its left and right joint; `Mean` is 100 sum_k h_k / sum_k v_k over all joints
but pelvis and thorax, so joints that more persons show weigh more. `Head` is the head's top; the upper neck has no
column of its own but counts in `Mean`. All of it as in the official code (HRNet repository, `lib/dataset/mpii.py`).

Threshold 0.1: the "Mean@0.1" that SimpleBaseline, HRNet, DARK and UDP print is `np.arange(0, 0.51, 0.01)[11]`, that is
0.11, and lies four to five points higher. SimCC and mmpose 1.x use 0.1. Here the threshold is exactly the number given,
and `pckh_table` shows both. mmpose counts a joint where the distance is below the threshold, not at it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.io import loadmat, savemat

from hdm.errors import InputError
from hdm.files import write_whole

# `dataset_joints` of the official file, in its order.
NAMES = (
    *("rank", "rkne", "rhip", "lhip", "lkne", "lank"),  # right ankle, knee, hip, left hip, knee, ankle
    *("pelv", "thor", "neck", "head"),  # pelvis, thorax, upper neck, head top
    *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),  # right wrist, elbow, shoulder, left shoulder, elbow, wrist
)
# The official columns, in their order, and the joints that each averages.
COLUMNS = {
    "Head": ("head",),
    "Shoulder": ("lsho", "rsho"),
    "Elbow": ("lelb", "relb"),
    "Wrist": ("lwri", "rwri"),
    "Hip": ("lhip", "rhip"),
    "Knee": ("lkne", "rkne"),
    "Ankle": ("lank", "rank"),
}
NOT_IN_MEAN = ("pelv", "thor")
HEAD_BIAS = 0.6  # head size = 0.6 times the diagonal of the head box
SHAPES = "jnt_missing (16, N), pos_gt_src (16, 2, N), headboxes_src (2, 2, N)"


@dataclass(frozen=True)
class MpiiTruth:
    """What PCKh needs to know of N persons.

    joints: 1-based image pixels, as in MPII's files; arbitrary where `visible` is 0.
    visible: 1 for an annotated joint, else 0. head_sizes: 0.6 ||headbox2 - headbox1|| in pixels.
    names: the joints' names, `NAMES`.
    """

    joints: Float[ndarray, "N 16 2"]
    visible: Float[ndarray, "N 16"]
    head_sizes: Float[ndarray, "N"]
    names: tuple[str, ...] = NAMES

    def take(self, persons: Int[ndarray, "M"] | Sequence[int]) -> "MpiiTruth":
        """These persons only, in this order: for predictions of a part. Raises InputError for a person not there."""
        index, count = np.asarray(persons, dtype=int), len(self.head_sizes)
        if ((index < 0) | (index >= count)).any():
            raise InputError(f"persons {index.min()} to {index.max()} are not all there: choose from 0 to {count - 1}")
        return replace(self, joints=self.joints[index], visible=self.visible[index], head_sizes=self.head_sizes[index])


def read_mpii_truth(path: Path | str) -> MpiiTruth:
    """Reads `annot/gt_valid.mat`, whose persons stand in the order of `annot/valid.json`.

    Raises InputError for a file that is missing, damaged or of MATLAB 7.3 (HDF5), and for one whose variables,
    shapes or joint names are not the official ones or whose values can't be used.
    """
    content = _load(path)
    missing, joints, boxes = (content[name] for name in ("jnt_missing", "pos_gt_src", "headboxes_src"))
    count = missing.shape[-1]
    if missing.shape != (16, count) or joints.shape != (16, 2, count) or boxes.shape != (2, 2, count):
        raise InputError(
            f"{path} holds {missing.shape}, {joints.shape} and {boxes.shape} where {SHAPES} belong: fetch it again"
        )
    if not np.isin(missing, (0, 1)).all():
        raise InputError(f"jnt_missing in {path} holds values other than 0 and 1: fetch the file again")
    visible = 1.0 - missing.T.astype(float)
    positions = joints.transpose(2, 0, 1).astype(float)
    if not np.isfinite(positions[visible > 0]).all():
        raise InputError(f"visible joints in {path} hold NaN or infinite values: fetch the file again")
    head_sizes = HEAD_BIAS * np.linalg.norm(boxes[1].astype(float) - boxes[0], axis=0)
    usable = np.isfinite(head_sizes) & (head_sizes > 0)
    if not usable.all():
        raise InputError(f"person {usable.argmin()} in {path} has a head box without size: mend or drop the person")
    return MpiiTruth(positions, visible, head_sizes)


def head_distance(
    predicted: Float[ndarray, "N 16 2"], truth: MpiiTruth, *, one_based: bool = False
) -> Float[ndarray, "N 16"]:
    """||predicted - joint|| in head sizes, of every joint, also those that are not visible; see `pckh`."""
    _check_predicted(predicted)
    if len(predicted) != len(truth.joints):
        raise InputError(
            f"predictions for {len(predicted)} persons, truth has {len(truth.joints)}: "
            "give them in the order of valid.json"
        )
    offset = predicted.astype(float) + (0 if one_based else 1) - truth.joints
    return np.linalg.norm(offset, axis=-1) / truth.head_sizes[:, None]


def pckh(
    predicted: Float[ndarray, "N 16 2"], truth: MpiiTruth, threshold: float = 0.5, *, one_based: bool = False
) -> dict[str, float]:
    """PCKh at one threshold, in percent (0 to 100): Head, Shoulder, Elbow, Wrist, Hip, Knee, Ankle, Mean.

    predicted: 0-based image pixels, to which 1 is added, since the annotations are 1-based; as they are where
        `one_based` says that they are 1-based already. One person for each of `truth`, in its order.
    threshold: share of the head size, a joint at exactly that distance being found.
    A column with a joint that no person shows is NaN; `Mean` does without such joints.
    Raises InputError where the shapes do not fit, predictions are not finite, no joint counts or the threshold is
    negative.
    """
    distance = head_distance(predicted, truth, one_based=one_based)
    return _percentages(distance, truth, threshold)


def pckh_table(
    predicted: Float[ndarray, "N 16 2"],
    truth: MpiiTruth,
    thresholds: Sequence[float] = (0.5, 0.1, 0.11),
    *,
    one_based: bool = False,
) -> pd.DataFrame:
    """`pckh` at each threshold, one row each: `threshold`, then the official columns.

    0.11 is what HRNet and SimpleBaseline print as "Mean@0.1".
    """
    distance = head_distance(predicted, truth, one_based=one_based)
    rows = [{"threshold": threshold, **_percentages(distance, truth, threshold)} for threshold in thresholds]
    return pd.DataFrame(rows, columns=["threshold", *COLUMNS, "Mean"])


def write_mpii_predictions(path: Path | str, predicted: Float[ndarray, "N 16 2"]) -> None:
    """Writes the file that MPII's official evaluation takes: `preds` (N, 16, 2) in 1-based pixels, HRNet's `pred.mat`.

    predicted: 0-based image pixels; 1 is added. The file is written whole or not at all.
    Raises InputError for another shape, values that are not finite, and where the file can't be written.
    """
    _check_predicted(predicted)
    content = io.BytesIO()
    savemat(content, {"preds": predicted.astype(float) + 1})
    write_whole(Path(path), content.getvalue())


def _load(path: Path | str) -> dict[str, ndarray]:
    names = ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src")
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}): give annot/gt_valid.mat of the prepared MPII data"
        ) from error
    try:
        content = loadmat(io.BytesIO(raw), variable_names=names)
    except NotImplementedError as error:
        raise InputError(f"{path} is a MATLAB 7.3 file, which can't be read: save it again with -v7") from error
    except Exception as error:  # scipy's parser raises many kinds for a damaged file
        raise InputError(f"{path} is damaged or no MATLAB file ({error!r}): fetch it again") from error
    for name in names:
        if name not in content:
            raise InputError(f"{path} has no variable {name!r}: give annot/gt_valid.mat of the prepared MPII data")
        if name != "dataset_joints" and content[name].dtype.kind not in "bifu":
            raise InputError(f"{name} in {path} does not hold numbers: fetch the file again")
    found = tuple(str(np.squeeze(name)) for name in content["dataset_joints"].ravel())
    if found != NAMES:
        raise InputError(f"{path} names the joints {' '.join(found)!r}, not MPII's {' '.join(NAMES)!r}: fetch it again")
    return {name: content[name] for name in names}


def _check_predicted(predicted: ndarray) -> None:
    if predicted.ndim != 3 or predicted.shape[1:] != (16, 2):
        raise InputError(f"predictions have shape {predicted.shape}: give (N, 16, 2), MPII's 16 joints of N persons")
    if not np.isfinite(predicted).all():
        raise InputError("predictions hold NaN or infinite values: check the network's output")


def _percentages(distance: Float[ndarray, "N 16"], truth: MpiiTruth, threshold: float) -> dict[str, float]:
    if not threshold >= 0:
        raise InputError(f"threshold {threshold} must be 0 or more, a share of the head size such as 0.5")
    visible = truth.visible > 0
    shown = visible.sum(0)
    hits = (visible & (distance <= threshold)).sum(0)
    counts = [name not in NOT_IN_MEAN for name in truth.names]
    if not shown[counts].any():
        raise InputError("no joint is visible, so there is nothing to count: check the annotations")
    with np.errstate(invalid="ignore"):
        percent = dict(zip(truth.names, 100 * hits / shown, strict=True))
    columns = {column: float(np.mean([percent[name] for name in names])) for column, names in COLUMNS.items()}
    return {**columns, "Mean": float(100 * hits[counts].sum() / shown[counts].sum())}
