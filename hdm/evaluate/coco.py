"""COCO's average precision over object keypoint similarity (OKS-AP), by pycocotools."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hdm.errors import InputError

# The order of COCOeval's `stats` for keypoints.
METRICS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")


def coco_results(
    image_ids: Sequence[int], joints: Float[ndarray, "N K 2"], scores: Float[ndarray, "N K"]
) -> list[dict[str, Any]]:
    """Predictions in COCO's result format, one entry per person.

    joints: image pixels. scores: per joint; the person's score is their mean (ground-truth boxes all have score 1, so
    no box score enters).
    """
    return [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "keypoints": np.column_stack([points, score]).round(4).ravel().tolist(),
            "score": float(score.mean()),
        }
        for image_id, points, score in zip(image_ids, joints, scores, strict=True)
    ]


def coco_ap(
    annotation_file: Path | str, results: list[dict[str, Any]], image_ids: Sequence[int] | None = None
) -> dict[str, float]:
    """AP, AP50, AP75, APM, APL and the same for AR (0 to 1; -1 where the annotations hold no person of that size).

    results: as `coco_results` makes them. image_ids: the images to count, all of the file by default.
    The similarity is exp(-d^2 / (2 area (2 sigma_k)^2)), averaged over labelled joints, as pycocotools computes it.
    Raises InputError for a file that is no COCO annotation file, no results, and results that do not fit it or are not
    finite.
    """
    if not results:
        raise InputError("there is no prediction to evaluate: run the network on at least one person")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and table
        try:
            truth = COCO(str(annotation_file))
            # pycocotools takes a match with annotation id 0 for no match, and two annotations of one id for one.
            for number, annotation in enumerate(truth.dataset["annotations"], start=1):
                annotation["id"] = number
            truth.createIndex()
        except (OSError, ValueError, AssertionError, KeyError, TypeError) as error:
            raise InputError(f"{annotation_file} can't be read as COCO annotations ({error!r})") from error
        _check_results(results, truth, annotation_file)
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
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


def _check_results(results: list[dict[str, Any]], truth: COCO, annotation_file: Path | str) -> None:
    for result in results:
        missing = {"image_id", "category_id", "keypoints", "score"} - result.keys()
        if missing:
            raise InputError(f"a prediction has no {min(missing)!r}: make predictions with coco_results")
        # NaN would count as a hit at every threshold.
        if not np.isfinite([*result["keypoints"], result["score"]]).all():
            raise InputError(f"a prediction for image id {result['image_id']} holds NaN: check the network's output")
    for key, known in (("image_id", truth.getImgIds()), ("category_id", truth.getCatIds())):
        unknown = {result[key] for result in results} - set(known)
        if unknown:
            raise InputError(
                f"predictions with {key} {sorted(unknown)[:3]} that {annotation_file} does not list: "
                "evaluate against the file that the persons came from"
            )
