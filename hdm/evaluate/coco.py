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

    joints: image pixels. scores: per joint; the person's score is their mean (ground-truth boxes all have score 1, so no box
    score enters).
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
    Raises InputError for a file that is no COCO annotation file, no results, and results for images that it does not list.
    """
    if not results:
        raise InputError("there is no prediction to evaluate: run the network on at least one person")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress and table
        try:
            truth = COCO(str(annotation_file))
        except (OSError, ValueError, AssertionError, KeyError) as error:
            raise InputError(f"{annotation_file} can't be read as COCO annotations ({error})") from error
        unknown = {result["image_id"] for result in results} - set(truth.getImgIds())
        if unknown:
            raise InputError(
                f"predictions for image ids {sorted(unknown)[:3]} that {annotation_file} does not list: "
                "evaluate against the file that the persons came from"
            )
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        if image_ids is not None:
            evaluation.params.imgIds = sorted(set(image_ids))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(METRICS, map(float, evaluation.stats), strict=True))
