"""The benchmarks' protocols: from predicted joints to the numbers that papers print, and to the files they score.

COCO: OKS-AP over the pictures of the part, with persons rescored and suppressed as the official code does
(HRNet, `COCODataset.evaluate`). MPII: PCKh at 0.5, at 0.1, and at the 0.11 that is widely printed as 0.1. Joints of
other skeletons in COCO's layout have an OKS-AP where the annotation file gives the constants of the similarity
(`hdm.data.categories`), and else pixel errors and PCK alone, as all data sets have.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from hdm.data.persons import GROUND_TRUTH, PersonData
from hdm.errors import InputError
from hdm.evaluate import (
    MpiiTruth,
    coco_ap,
    coco_results,
    localisation_error,
    oks_nms_per_image,
    pck,
    pckh,
    person_scores,
    read_mpii_truth,
    write_coco_results,
    write_mpii_predictions,
)
from hdm.inference import Predictions
from hdm.pixels import box_affine

SCORES = ("joints", "max", "mass", "box")


@dataclass(frozen=True)
class Rescoring:
    """How COCO's persons are ranked.

    score: a person's score is the box score times the mean, over joints whose score is above `threshold`, of what the
        decoder gives (`joints`), of the maps' largest values (`max`), or of the mass around these (`mass`); or it is
        the `box` score alone.
    threshold: 0.2 in the official code, made for maps that peak at 1. Maps that are distributions peak far below:
        choose definition and threshold on training data, the same for all losses that are compared.
    nms: similarity above which the lower of two persons is dropped (OKS-NMS); None keeps all.
    """

    score: str = "joints"
    threshold: float = 0.2
    nms: float | None = 0.9

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise InputError(f"unknown score {self.score!r}: choose one of {', '.join(SCORES)}")


def has_ap(data: PersonData) -> bool:
    """Whether the data set's protocol is OKS-AP, which needs the constants of its joints."""
    return data.kind != "mpii" and bool(data.skeleton.sigmas)


def protocol_scores(
    data: PersonData,
    predictions: Predictions,
    input_size: tuple[int, int],
    convention: str = "half_pixel",
    rescoring: Rescoring | None = None,
) -> dict[str, float]:
    """The scores of the data set's own protocol: AP to ARL (0 to 1) for COCO's layout, none where its joints have no
    constants of the similarity, and PCKh (percent) for MPII's layout."""
    if data.kind == "mpii":
        return mpii_scores(data, predictions.image_joints)
    if not has_ap(data):
        return {}
    results = coco_entries(data, predictions, input_size, convention, rescoring or Rescoring())
    # With ground-truth boxes only the pictures of these persons are looked at; a detector answers for every picture.
    image_ids = sorted({person.image_id for person in data.persons}) if data.boxes == GROUND_TRUTH else None
    return coco_ap(data.annotation_file, results, image_ids, data.skeleton.sigmas)


def pixel_scores(
    data: PersonData, predictions: Predictions, input_size: tuple[int, int], convention: str = "half_pixel"
) -> dict[str, float]:
    """Mean and median pixel error in the crop, and PCK (0 to 1): the share of joints within 0.05, 0.1 and 0.2 of the
    longer side of the person box."""
    points = (predictions.predicted, predictions.joints, predictions.visible)
    sides = box_sides(data, input_size, convention)
    return {
        "error_px": predictions.error_px,
        "median_error_px": float(localisation_error(*points, reduction="median")),
        **{f"PCK@{threshold}": pck(*points, sides, threshold) for threshold in (0.05, 0.1, 0.2)},
    }


def box_sides(data: PersonData, input_size: tuple[int, int], convention: str = "half_pixel") -> Float[Tensor, "N"]:
    """The longer side of each person's box, in crop pixels."""

    def side(box: tuple[float, float, float, float]) -> float:
        affine = box_affine(box, input_size, convention=convention)
        return float(np.hypot(*affine[0, :2]) * max(box[2], box[3]))

    return torch.tensor([side(person.box) for person in data.persons])


def coco_entries(
    data: PersonData,
    predictions: Predictions,
    input_size: tuple[int, int],
    convention: str,
    rescoring: Rescoring,
) -> list[dict[str, Any]]:
    """Predictions in COCO's result format, rescored and with near duplicates dropped; all are kept where the joints
    have no constants of the similarity that duplicates are known by."""
    image_ids = np.array([person.image_id for person in data.persons])
    box_scores = np.array([person.score for person in data.persons])
    by_definition = {"max": predictions.peaks, "mass": predictions.masses}
    joint_scores = by_definition.get(rescoring.score, predictions.scores).double().numpy()
    definition = "box" if rescoring.score == "box" else "joints"
    scores = person_scores(joint_scores, box_scores, rescoring.threshold, definition)
    joints, kept = predictions.image_joints, np.arange(len(scores))
    if rescoring.nms is not None and has_ap(data):
        areas = np.array([crop_area(person.box, input_size, convention) for person in data.persons])
        sigmas = np.array(data.skeleton.sigmas)
        kept = oks_nms_per_image(image_ids, joints, scores, areas, sigmas, rescoring.nms)
    categories = np.array([person.category for person in data.persons])
    return coco_results(
        image_ids[kept].tolist(), joints[kept], joint_scores[kept], scores[kept], categories[kept].tolist()
    )


def crop_area(box: tuple[float, float, float, float], input_size: tuple[int, int], convention: str) -> float:
    """The area of the picture, in pixels, that a person's crop shows: what the official OKS-NMS takes for its size."""
    zoom = np.linalg.det(box_affine(box, input_size, convention=convention)[:, :2])
    return input_size[0] * input_size[1] / float(zoom)


def mpii_scores(data: PersonData, image_joints: Float[ndarray, "N K 2"]) -> dict[str, float]:
    """`PCKh@0.5`, `PCKh@0.1`, `PCKh@0.11`, and the first for each group of joints, in percent."""
    truth = mpii_truth(data)
    scores = {threshold: pckh(image_joints, truth, threshold) for threshold in (0.5, 0.1, 0.11)}
    means = {f"PCKh@{threshold}": score["Mean"] for threshold, score in scores.items()}
    return means | {f"PCKh@0.5 {name}": value for name, value in scores[0.5].items() if name != "Mean"}


def mpii_truth(data: PersonData) -> MpiiTruth:
    """What PCKh compares the persons of MPII's validation part with: `annot/gt_valid.mat`, beside the annotations.

    Raises InputError where the file is not there, or the persons are not those of the validation part.
    """
    if data.part != "val":
        raise InputError("PCKh is defined on MPII's validation part: gt_valid.mat has no other persons")
    truth = read_mpii_truth(data.annotation_file.with_name("gt_valid.mat"))
    return truth.take([person.annotation_id for person in data.persons])


def write_predictions(
    path: Path | str,
    data: PersonData,
    predictions: Predictions,
    input_size: tuple[int, int],
    convention: str = "half_pixel",
    rescoring: Rescoring | None = None,
) -> None:
    """The file that the official evaluation takes: COCO's results as JSON, MPII's predictions as .mat."""
    if data.kind == "mpii":
        write_mpii_predictions(path, predictions.image_joints)
    else:
        write_coco_results(path, coco_entries(data, predictions, input_size, convention, rescoring or Rescoring()))
