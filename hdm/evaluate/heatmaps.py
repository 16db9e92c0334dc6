"""Heatmaps and their scores, rather than joints: how compact maps are, and how far scores can be trusted."""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata
from torch import Tensor

from hdm.decode.peaks import checked
from hdm.errors import InputError


def spread(maps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K"]:
    """How far a map's mass lies from its own centre: sqrt(E ||x - E x||^2), in heatmap pixels.

    The expectation is over the map as a distribution, p_i = max(z_i, 0) / sum_j max(z_j, 0); a map without mass has
    NaN. One pixel has 0, a Gaussian sqrt(2) sigma, and two equal peaks half the distance between them.
    Raises InputError for a shape that is not (B, K, H, W), and for maps with NaN or infinite values.
    """
    mass = _distribution(maps)
    rows, columns = (torch.arange(n, dtype=mass.dtype, device=mass.device) for n in mass.shape[-2:])
    return (_variance(mass.sum(-1), rows) + _variance(mass.sum(-2), columns)).sqrt()


def effective_pixels(maps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K"]:
    """How many pixels a map's mass is shared among: exp(-sum_i p_i ln p_i), with p as in `spread`.

    n equal pixels have n, a Gaussian 2 pi e sigma^2. Unlike `spread` it does not ask how far apart they lie. A map
    without mass has NaN.
    Raises InputError as `spread` does.
    """
    return torch.special.entr(_distribution(maps)).sum((-2, -1)).exp()


def calibration_error(
    scores: Float[ndarray, "n"], hits: Bool[ndarray, "n"] | Float[ndarray, "n"], bins: int = 10
) -> float:
    """Expected calibration error: how far scores are from the share of hits, sum_b n_b / n |mean score - mean hit|.

    scores: between 0 and 1; one that is calibrated says how likely a hit is.
    hits: 1 where the joint was right, else 0.
    bins: the scores in their order, cut into so many parts of equal count (n_b differ by one at most). Equal scores
        share their hits, so that it does not matter where they are cut.
    Source: Naeini, Cooper, Hauskrecht, AAAI 2015, there with bins of equal width, most of which stay empty where scores
    crowd near 0 or 1.
    Raises InputError for shapes that differ, no score, scores outside of [0, 1], hits other than 0 and 1, and bins
    below 1.
    """
    scores, hits = _paired(scores, hits)
    if scores.min() < 0 or scores.max() > 1:
        raise InputError(
            f"scores from {scores.min():.4g} to {scores.max():.4g} are no probabilities: give them between 0 and 1"
        )
    if bins < 1:
        raise InputError(f"bins {bins} must be 1 or more")
    levels, index, times = np.unique(scores, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(index, hits, len(levels)) / times, times)
    gaps = np.array_split(np.sort(scores) - shared, bins)
    return sum(abs(float(gap.sum())) for gap in gaps) / len(scores)


def score_auc(scores: Float[ndarray, "n"], hits: Bool[ndarray, "n"] | Float[ndarray, "n"]) -> float:
    """How well scores tell hits from misses: the probability that a hit scores above a miss, ties counting 1/2.

    AUC = (R - n_1 (n_1 + 1) / 2) / (n_1 n_0), with R the sum of the ranks of the n_1 hits among all scores and n_0 the
    number of misses, which is the Mann-Whitney U statistic over its largest value, and the area under the ROC curve
    (Hanley and McNeil, Radiology 1982). NaN where all are hits or none is.
    scores: any finite numbers; hits: 1 where the joint was right, else 0.
    Raises InputError for shapes that differ, no score, scores that are not finite, and hits other than 0 and 1.
    """
    scores, hits = _paired(scores, hits)
    right = hits.sum()
    wrong = len(hits) - right
    if right == 0 or wrong == 0:
        return math.nan
    return float((rankdata(scores)[hits > 0].sum() - right * (right + 1) / 2) / (right * wrong))


def _distribution(maps: Tensor) -> Float[Tensor, "B K H W"]:
    """Each map without its negative values, divided by its sum; NaN where nothing is left."""
    mass = checked(maps).clamp(min=0)
    total = mass.sum((-2, -1), keepdim=True)
    return mass / torch.where(total > torch.finfo(total.dtype).tiny, total, torch.nan)


def _variance(mass: Float[Tensor, "B K n"], places: Float[Tensor, "n"]) -> Float[Tensor, "B K"]:
    centre = (mass * places).sum(-1, keepdim=True)
    return (mass * (places - centre).square()).sum(-1)


def _paired(scores: ndarray, hits: ndarray) -> tuple[Float[ndarray, "n"], Float[ndarray, "n"]]:
    scores, hits = np.asarray(scores, np.float64), np.asarray(hits, np.float64)
    if scores.ndim != 1 or scores.shape != hits.shape:
        raise InputError(f"scores {scores.shape} and hits {hits.shape} do not match: give one hit for each score")
    if len(scores) == 0:
        raise InputError("scores is empty: give one score or more")
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinite values: leave out joints that do not count")
    if not ((hits == 0) | (hits == 1)).all():
        raise InputError(
            "hits must be 0 or 1: give 1 where the joint was right, and leave out joints that do not count"
        )
    return scores, hits
