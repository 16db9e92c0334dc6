"""What a network does on the validation part: pixel error, PCK, and the scores of the data set's protocol."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from hdm.data.crops import Crop, PersonCrops
from hdm.data.persons import PersonData
from hdm.evaluate import localisation_error, mean_pose
from hdm.inference import Predictions, interleave, predict_crops
from hdm.models import PoseNetwork
from hdm.pixels import apply_affine, box_affine, inside
from hdm.protocols import Rescoring, has_ap, pixel_scores, protocol_scores
from hdm.train.config import TrainConfig


def validate(
    model: PoseNetwork,
    crops: PersonCrops,
    loss: nn.Module,
    config: TrainConfig,
    engine: Accelerator | None = None,
    watch: Callable[[Tensor, Tensor, Crop], None] | None = None,
) -> Predictions:
    """Runs the network over all crops and reads the joints as the config says.

    loss: with the weights it was trained with, and `reduction="mean"`.
    engine: with several processes each takes its share of the persons, and all get the predictions of all, each person
        exactly once.
    watch: see `hdm.inference.predict_crops`.
    """
    # With fewer persons than processes each takes them all.
    shares = engine.num_processes if engine is not None and len(crops) >= engine.num_processes else 1
    place = 0 if engine is None or shares == 1 else engine.process_index
    found = predict_crops(
        model,
        crops,
        loss,
        decoder=config.decoder,
        flip_test=config.flip_test,
        batch_size=config.batch_size,
        workers=config.workers,
        precision=config.precision,
        share=(place, shares),
        watch=watch,
    )
    return found if shares == 1 else interleave(gather_object([found]))


# What a run's epochs are compared by: COCO's and MPII's main figure, or what there is of persons that are held out and
# of joints without a protocol.
HEADLINES = ("AP", "PCKh@0.5", "PCK@0.1")


def headline(results: dict[str, float]) -> str:
    """The name of a data set's main figure."""
    return next(name for name in HEADLINES if name in results)


def scores(
    found: Predictions, data: PersonData, config: TrainConfig, rescoring: Rescoring | None = None
) -> dict[str, float]:
    """Pixel errors and PCK in the crop, and on the val part the protocol's scores in the picture.

    rescoring: how persons are ranked; by default as the config says.
    """
    rescoring = rescoring or Rescoring(config.score, config.score_threshold, config.nms)
    protocol = {}
    if not config.held_out:
        protocol = protocol_scores(data, found, config.input_size, config.convention, rescoring)
    return {**pixel_scores(data, found, config.input_size, config.convention), **protocol}


def rescored(data: PersonData, config: TrainConfig) -> bool:
    """Whether the protocol's scores depend on how persons are ranked."""
    return has_ap(data) and not config.held_out


def mean_pose_error_px(train_data: PersonData, val_data: PersonData, config: TrainConfig) -> float:
    """Pixel error (crop pixels) of predicting the training part's average crop joints for everybody.

    It counts the joints that the network's error counts: labelled and inside the crop.
    """
    rows, columns = config.input_size

    def crop_joints(data: PersonData) -> tuple[Tensor, Tensor]:
        affines = [box_affine(person.box, config.input_size, convention=config.convention) for person in data.persons]
        points = [apply_affine(affine, person.joints) for affine, person in zip(affines, data.persons, strict=True)]
        visible = [
            person.visible * inside(crop, columns, rows) for person, crop in zip(data.persons, points, strict=True)
        ]
        return torch.from_numpy(np.stack(points)).float(), torch.from_numpy(np.stack(visible)).float()

    joints, visible = crop_joints(val_data)
    return float(localisation_error(mean_pose(*crop_joints(train_data)).expand_as(joints), joints, visible))
