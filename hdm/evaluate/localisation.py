"""Pixel error and PCK: how far predicted joints lie from the annotated ones."""

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.errors import InputError


def localisation_error(
    predicted: Float[Tensor, "N K 2"],
    joints: Float[Tensor, "N K 2"],
    visible: Float[Tensor, "N K"],
    reduction: str = "mean",
) -> Float[Tensor, ""] | Float[Tensor, "N K"]:
    """Distance ||predicted - joint|| in the unit of the points, over joints with visible > 0.

    reduction: `mean` or `median` over all visible joints, or `none` for (N, K) distances, NaN where a joint does not
        count.
    Raises InputError where shapes differ, no joint counts, or a point that counts is not finite.
    """
    if reduction not in ("mean", "median", "none"):
        raise InputError(f"unknown reduction {reduction!r}: choose one of mean, median, none")
    counts = _counted(predicted, joints, visible)
    distance = torch.linalg.vector_norm(predicted - joints, dim=-1)
    if reduction == "none":
        return distance.masked_fill(~counts, torch.nan)
    return distance[counts].mean() if reduction == "mean" else distance[counts].quantile(0.5)


def pck(
    predicted: Float[Tensor, "N K 2"],
    joints: Float[Tensor, "N K 2"],
    visible: Float[Tensor, "N K"],
    size: Float[Tensor, "N"],
    threshold: float,
) -> float:
    """Percentage of correct keypoints: the share (0 to 1) of visible joints within threshold * size of the annotation.

    size: the length that the threshold is a fraction of, per person, such as the longer side of the box, in the points'
        unit.
    """
    counts = _counted(predicted, joints, visible)
    within = torch.linalg.vector_norm(predicted - joints, dim=-1) <= threshold * size.unsqueeze(-1)
    return float(within[counts].double().mean())


def mean_pose(joints: Float[Tensor, "N K 2"], visible: Float[Tensor, "N K"]) -> Float[Tensor, "K 2"]:
    """Each joint's average place over the persons that show it; the predictor that never looks at the picture.

    A joint that no person shows is put at the average of the others.
    """
    weight = (visible > 0).to(joints.dtype).unsqueeze(-1)
    seen = weight.sum(0)
    overall = (torch.nan_to_num(joints) * weight).sum((0, 1)) / weight.sum().clamp(min=1)
    average = (torch.nan_to_num(joints) * weight).sum(0) / seen.clamp(min=1)
    return torch.where(seen > 0, average, overall)


def _counted(predicted: Tensor, joints: Tensor, visible: Tensor) -> Tensor:
    if predicted.shape != joints.shape or visible.shape != joints.shape[:-1]:
        raise InputError(
            f"predicted {tuple(predicted.shape)}, joints {tuple(joints.shape)} and visible {tuple(visible.shape)} "
            "do not match: give (N, K, 2), (N, K, 2) and (N, K)"
        )
    counts = visible > 0
    if not bool(counts.any()):
        raise InputError("no joint is visible, so there is no error to measure: check the annotations")
    if not bool(torch.isfinite(predicted[counts]).all()):
        raise InputError("predicted joints hold NaN or infinite values: check the network's output")
    if not bool(torch.isfinite(joints[counts]).all()):
        raise InputError("visible joints hold NaN or infinite values: set their visibility to 0 or mend the annotation")
    return counts
