"""What a network does on the validation part: pixel error, PCK and OKS-AP."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hdm.data.coco import PersonData
from hdm.data.crops import STRIDE, PersonCrops
from hdm.decode import decode
from hdm.evaluate import coco_ap, coco_results, localisation_error, mean_pose, pck
from hdm.models import SimpleBaseline
from hdm.pixels import apply_affine, box_affine, heatmap_to_crop, inside, invert_affine
from hdm.train.config import TrainConfig


@dataclass(frozen=True)
class Validation:
    """What a network does on the N persons of a validation part.

    loss: weighted mean over visible joints. error_px: mean pixel error in crop pixels.
    predicted, joints: crop pixels. image_joints: predictions in image pixels. scores: the decoder's.
    """

    loss: float
    error_px: float
    predicted: Float[Tensor, "N K 2"]
    joints: Float[Tensor, "N K 2"]
    visible: Float[Tensor, "N K"]
    image_joints: Float[np.ndarray, "N K 2"]
    scores: Float[Tensor, "N K"]


@torch.no_grad()
def validate(model: SimpleBaseline, crops: PersonCrops, loss: nn.Module, config: TrainConfig) -> Validation:
    """Runs the network over all crops and reads the joints: with the loss where it can, or with the config's decoder.

    loss: with the weights it was trained with, and `reduction="mean"`.
    """
    model.eval()
    device = next(model.parameters()).device
    total, predicted, joints, visible, scores, image_joints = 0.0, [], [], [], [], []
    for batch in DataLoader(crops, config.batch_size, num_workers=config.workers):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
            heatmaps = model(model.prepare(batch.image.to(device)))
        shown = batch.visible.any(-1)
        if bool(shown.any()):
            value = loss(heatmaps[shown], batch.joints[shown].to(device), batch.visible[shown].to(device))
            total += float(value) * float(batch.visible.sum())
        found, score = read_joints(loss, heatmaps, config.decoder)
        found = heatmap_to_crop(found.cpu(), STRIDE)
        predicted.append(found)
        joints.append(heatmap_to_crop(batch.joints, STRIDE))
        visible.append(batch.visible)
        scores.append(score.cpu())
        image_joints += [
            apply_affine(invert_affine(affine), points)
            for affine, points in zip(batch.affine.numpy(), found.numpy(), strict=True)
        ]
    all_predicted, all_joints, all_visible = torch.cat(predicted), torch.cat(joints), torch.cat(visible)
    return Validation(
        loss=total / float(all_visible.sum()),
        error_px=float(localisation_error(all_predicted, all_joints, all_visible)),
        predicted=all_predicted,
        joints=all_joints,
        visible=all_visible,
        image_joints=np.stack(image_joints),
        scores=torch.cat(scores),
    )


def read_joints(
    loss: nn.Module, heatmaps: Float[Tensor, "B K H W"], decoder: str
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Joints in heatmap pixels and their scores: the loss's own reading, or the decoder's of the loss's maps."""
    if hasattr(loss, "joints"):
        return loss.joints(heatmaps)  # type: ignore[operator]
    return decode(loss.maps(heatmaps), decoder)  # type: ignore[operator]


def scores(validation: Validation, data: PersonData, config: TrainConfig) -> dict[str, float]:
    """Pixel errors and PCK in the crop, OKS-AP in the picture (over the images of the validated persons)."""
    points = (validation.predicted, validation.joints, validation.visible)
    boxes = torch.tensor([_box_side(person.box, config.input_size) for person in data.persons])
    image_ids = [person.image_id for person in data.persons]
    results = coco_results(image_ids, validation.image_joints, validation.scores.numpy())
    return {
        "error_px": validation.error_px,
        "median_error_px": float(localisation_error(*points, reduction="median")),
        **{f"PCK@{threshold}": pck(*points, boxes, threshold) for threshold in (0.05, 0.1, 0.2)},
        **coco_ap(data.annotation_file, results, image_ids),
    }


def _box_side(box: tuple[float, float, float, float], input_size: tuple[int, int]) -> float:
    """The longer side of a person box, in crop pixels."""
    return float(np.hypot(*box_affine(box, input_size)[0, :2]) * max(box[2], box[3]))


def mean_pose_error_px(train_data: PersonData, val_data: PersonData, config: TrainConfig) -> float:
    """Pixel error (crop pixels) of predicting the training part's average crop joints for everybody.

    It counts the joints that the network's error counts: labelled and inside the crop.
    """
    rows, columns = config.input_size

    def crop_joints(data: PersonData) -> tuple[Tensor, Tensor]:
        points = [apply_affine(box_affine(person.box, config.input_size), person.joints) for person in data.persons]
        visible = [
            person.visible * inside(crop, columns, rows) for person, crop in zip(data.persons, points, strict=True)
        ]
        return torch.from_numpy(np.stack(points)).float(), torch.from_numpy(np.stack(visible)).float()

    joints, visible = crop_joints(val_data)
    return float(localisation_error(mean_pose(*crop_joints(train_data)).expand_as(joints), joints, visible))
