"""What a followed run tells beside its scores: every joint's loss and error along the way, and in the end how its maps
read by every decoder, under every definition of the score.

For studies; a run that is not followed does none of this. One process only.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.data.crops import Crop, PersonCrops
from hdm.decode import DECODERS, decode
from hdm.evaluate import (
    calibration_error,
    consistency,
    effective_pixels,
    localisation_error,
    score_auc,
    spread,
)
from hdm.inference import Predictions
from hdm.models import PoseNetwork
from hdm.pixels import crops_to_image, heatmap_to_crop
from hdm.protocols import Rescoring, box_sides
from hdm.train.config import TrainConfig
from hdm.train.validation import rescored, scores, validate

FOLLOWED_BY = "local"  # the decoder of the errors along the way, the same for all losses
# Definitions of a joint's score that a person's score is the mean of; `box` is the box's own.
SCORES = ("max", "mass", "box")
LATE = 0.4  # share of the epochs after which a run is late: the longest warm start that is compared with other losses
HIT = 0.1  # a joint is found where its error is at most this share of the person box's longer side, as PCK@0.1


class EpochWatch:
    """Collects loss and error of every joint of one validation, as `predict_crops` shows its batches.

    loss: what the run minimises in the end, also during a warm start. Errors are in crop pixels, by `FOLLOWED_BY`.
    """

    def __init__(self, loss: nn.Module, config: TrainConfig) -> None:
        self.loss = copy.copy(loss)
        self.loss.reduction = "none"  # type: ignore[assignment]
        self.config = config
        self.values: list[Float[Tensor, "2 b K"]] = []

    def __call__(self, raw: Tensor, maps: Tensor, crops: Crop) -> None:
        """Takes one batch."""
        shown, visible = crops.visible.any(-1), crops.visible > 0
        losses = torch.full_like(crops.visible, torch.nan)
        if bool(shown.any()):
            given = (raw[shown], crops.joints[shown].to(raw.device), crops.visible[shown].to(raw.device))
            losses[shown] = self.loss(*given).float().cpu() / crops.visible[shown]
        found, _ = decode(maps, FOLLOWED_BY)
        errors = (_to_crop(found.cpu(), self.config) - _to_crop(crops.joints, self.config)).norm(dim=-1)
        self.values.append(torch.stack([losses, errors]).where(visible, torch.nan))

    def result(self) -> Float[Tensor, "2 N K"]:
        """Losses and errors of all persons, NaN where a joint does not count."""
        return torch.cat(self.values, 1)


def consistency_section(
    followed: Sequence[Float[Tensor, "2 N K"]], history: list[dict[str, Any]], loss: str, *, after: float = 0.0
) -> dict[str, Any]:
    """`hdm.evaluate.consistency` of the epochs in which the loss itself was minimised, as a record keeps it: from the
    end of the warm start, or of the first epoch, to the last. Empty where these are fewer than three epochs.

    after: leave out as well what comes before this share of the epochs, so that runs with a warm start and without one
        are compared over the same epochs.
    """
    minimised = [row["epoch"] for row in history if row["objective"] == loss]
    first = max(1, minimised[0] - 1, math.ceil(after * (len(history) - 1))) if minimised else len(history)
    if len(followed) - first < 3:
        return {}
    values = torch.stack(list(followed)[first:]).double().numpy()
    return {"decoder": FOLLOWED_BY, "first_epoch": first, **asdict(consistency(values[:, 0], values[:, 1]))}


class _Reader:
    """Reads the maps of each batch by every decoder, and measures how compact they are."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.joints: dict[str, list[Tensor]] = {decoder: [] for decoder in DECODERS}
        self.spread: list[Tensor] = []
        self.pixels: list[Tensor] = []
        self.affines: list[Tensor] = []

    def __call__(self, raw: Tensor, maps: Tensor, crops: Crop) -> None:
        last = maps.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
        for decoder in DECODERS:
            joints, _ = decode(maps, decoder, sigma=self.sigma)
            self.joints[decoder].append(torch.minimum(joints.clamp(min=0), last).cpu())
        self.spread.append(spread(maps).cpu())
        self.pixels.append(effective_pixels(maps).cpu())
        self.affines.append(crops.affine)


def read_maps(
    model: PoseNetwork, crops: PersonCrops, loss: nn.Module, config: TrainConfig
) -> tuple[pd.DataFrame, dict[str, float]]:
    """How a network's maps read, and how compact and how honest they are.

    The table has a row for each `decoder` and `score` with pixel errors, PCK and, on the val part, the protocol's
    scores; where these know no scores (MPII, a held-out share) `score` is empty. A joint that a decoder throws off the
    map is put on its border. Scores have no threshold, see `hdm.protocols.Rescoring`.

    The mapping has, over visible joints: `spread_px`, in heatmap pixels, and `effective_pixels` (means);
    `max_auc` and `mass_auc`, how well a joint's score tells found joints (PCK@0.1) from others; `max_calibration` and
    `mass_calibration`, the expected calibration error of the score (cut to 0 to 1) as a probability of being found;
    NaN for the mass of maps that are no distributions.
    """
    reader = _Reader(getattr(loss, "sigma", 2.0))
    found = validate(model, crops, loss, config, watch=reader)
    affines = torch.cat(reader.affines).numpy()
    rows = []
    for decoder in DECODERS:
        predicted = _to_crop(torch.cat(reader.joints[decoder]), config)
        read = replace(
            found,
            predicted=predicted,
            image_joints=crops_to_image(affines, predicted.double().numpy()),
        )
        for score in SCORES if rescored(crops.data, config) else [""]:
            ranking = Rescoring(score or "box", 0.0, None)
            rows.append({"decoder": decoder, "score": score, **scores(read, crops.data, config, ranking)})
    counts = found.visible > 0
    maps = {
        "spread_px": _mean(torch.cat(reader.spread), counts),
        "effective_pixels": _mean(torch.cat(reader.pixels), counts),
        **_trust(found, crops, config),
    }
    return pd.DataFrame(rows), maps


def _trust(found: Predictions, crops: PersonCrops, config: TrainConfig) -> dict[str, float]:
    """How well the joints' scores tell found joints from others, and how far they are from the share of found ones."""
    counts = found.visible > 0
    error = localisation_error(found.predicted, found.joints, found.visible, reduction="none")
    hits = (error <= HIT * box_sides(crops.data, config.input_size, config.convention).unsqueeze(-1))[counts].numpy()
    numbers = {}
    for name, values in (("max", found.peaks), ("mass", found.masses)):
        score = values[counts].double().numpy()
        distribution = name == "max" or score.max(initial=0) < 1.001
        numbers[f"{name}_auc"] = score_auc(score, hits)
        numbers[f"{name}_calibration"] = calibration_error(score.clip(0, 1), hits) if distribution else float("nan")
    return numbers


def _mean(values: Tensor, counts: Tensor) -> float:
    """Over joints that count and have a map with mass."""
    return float(values[counts].nanmean())


def _to_crop(points: Tensor, config: TrainConfig) -> Tensor:
    return heatmap_to_crop(points, config.heatmap_stride, convention=config.convention, input_size=config.input_size)
