"""COCO's average precision over object keypoint similarity (OKS-AP), by pycocotools."""

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hdm.data import skeletons
from hdm.data.skeletons import PERSON
from hdm.errors import InputError
from hdm.files import write_whole

# The order of COCOeval's `stats` for keypoints.
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
FIELDS = ("image_id", "category_id", "keypoints", "score")  # of one person in COCO's result format


def coco_results(
    image_ids: Sequence[int],
    joints: Float[ndarray, "N K 2"],
    scores: Float[ndarray, "N K"],
    person_scores: Float[ndarray, "N"] | None = None,
    category_ids: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Predictions in COCO's result format, one entry per person.

    joints: image pixels. scores: per joint; they stand third beside x and y, rounded to four places as these are.
    person_scores: what AP ranks persons by, such as `hdm.evaluate.person_scores`; by default the mean of the joints'
        scores (ground-truth boxes all have score 1, so no box score enters).
    category_ids: of the persons; by default 1, COCO's person.
    Raises InputError where these are not for the same persons and joints.
    """
    if person_scores is None:
        person_scores = scores.mean(-1)
    if not (scores.shape == joints.shape[:2] and (len(image_ids),) == scores.shape[:1] == person_scores.shape):
        raise InputError(
            f"{len(image_ids)} image ids, joints {joints.shape}, scores {scores.shape} and person scores "
            f"{person_scores.shape} do not match: give N, (N, K, 2), (N, K) and (N,)"
        )
    keypoints = np.concatenate([joints, scores[..., None]], axis=-1, dtype=float).round(4)
    category_ids = [PERSON] * len(image_ids) if category_ids is None else category_ids
    return [
        {
            "image_id": int(image),
            "category_id": int(category),
            "keypoints": points.ravel().tolist(),
            "score": float(score),
        }
        for image, category, points, score in zip(image_ids, category_ids, keypoints, person_scores, strict=True)
    ]


def write_coco_results(path: Path | str, results: list[dict[str, Any]]) -> None:
    """Writes the JSON file that COCO's evaluation server and pycocotools' `loadRes` take.

    One object per person: image_id, category_id, keypoints (3 K numbers: x, y and the joint's score) and score; what
    else an entry holds is left out. COCO's format has a visibility flag where we, as the official code of HRNet, write
    the joint's score: server and pycocotools ignore it. The file is written whole or not at all.
    Raises InputError for no results, results that lack something or are not finite, and where the file can't be
    written.
    """
    _check_entries(results)
    plain = [
        {
            "image_id": int(result["image_id"]),
            "category_id": int(result["category_id"]),
            "keypoints": [float(value) for value in result["keypoints"]],
            "score": float(result["score"]),
        }
        for result in results
    ]
    write_whole(Path(path), json.dumps(plain).encode())


def coco_ap(
    annotation_file: Path | str,
    results: list[dict[str, Any]],
    image_ids: Sequence[int] | None = None,
    sigmas: Sequence[float] = skeletons.COCO.sigmas,
) -> dict[str, float]:
    """AP, AP50, AP75, APM, APL and the same for AR (0 to 1; -1 where the annotations hold no person of that size).

    results: as `coco_results` makes them. image_ids: the images to count, all of the file by default. sigmas: the K
        constants sigma_k of the similarity, by default those of COCO's 17 joints.
    The similarity is exp(-d^2 / (2 area (2 sigma_k)^2)), averaged over labelled joints, as pycocotools computes it.
    The results are left as they are: of each entry only image_id, category_id, keypoints and score are looked at.
    Raises InputError for a file that is no COCO annotation file, no results, and results that do not fit it or are not
    finite.
    """
    _check_entries(results)
    # Copies, since pycocotools writes into the entries it is given; and without a bbox, which it would take areas from.
    results = [{field: result[field] for field in FIELDS} for result in results]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and table
        try:
            truth = COCO(str(annotation_file))
            # pycocotools takes a match with annotation id 0 for no match, and two annotations of one id for one.
            for number, annotation in enumerate(truth.dataset["annotations"], start=1):
                annotation["id"] = number
            truth.createIndex()
        except (OSError, ValueError, AssertionError, KeyError, TypeError) as error:
            raise InputError(f"{annotation_file} can't be read as COCO annotations ({error!r})") from error
        _check_fit(results, truth, annotation_file, len(sigmas))
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(set(image_ids))
        try:
            evaluation.evaluate()
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"annotations in {annotation_file} can't be evaluated ({error!r}): each needs bbox, area, iscrowd, "
                "num_keypoints and keypoints"
            ) from error
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True))


def _check_entries(results: list[dict[str, Any]]) -> None:
    if not results:
        raise InputError("there is no prediction to evaluate: run the network on at least one person")
    for result in results:
        missing = set(FIELDS) - result.keys()
        if missing:
            raise InputError(f"a prediction has no {min(missing)!r}: make predictions with coco_results")
        # NaN would count as a hit at every threshold.
        if not np.isfinite([*result["keypoints"], result["score"]]).all():
            raise InputError(f"a prediction for image id {result['image_id']} holds NaN: check the network's output")


def _check_fit(results: list[dict[str, Any]], truth: COCO, annotation_file: Path | str, joints: int) -> None:
    lengths = {len(result["keypoints"]) for result in results} - {3 * joints}
    if lengths:
        raise InputError(f"a prediction has {min(lengths)} keypoint numbers: COCO's evaluation takes {joints} x 3")
    for key, known in (("image_id", truth.getImgIds()), ("category_id", truth.getCatIds())):
        unknown = {result[key] for result in results} - set(known)
        if unknown:
            raise InputError(
                f"predictions with {key} {sorted(unknown)[:3]} that {annotation_file} does not list: "
                "evaluate against the file that the persons came from"
            )
