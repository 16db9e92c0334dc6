"""A network at work: from the crops of a data set to joints in image pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from hdm.data.crops import PersonCrops
from hdm.decode import check_decoder, decode, joint_scores
from hdm.errors import InputError
from hdm.evaluate import localisation_error
from hdm.models import PoseNetwork
from hdm.pixels import crops_to_image, heatmap_to_crop, unflip


@dataclass(frozen=True)
class Predictions:
    """What a network says of the N persons (or boxes) of a data set, in their order.

    predicted, joints: found and annotated joints in crop pixels; visible: which of the annotated ones count.
    image_joints: the found ones in image pixels.
    scores: what the decoder gives each joint; peaks and masses: the largest value of each map, and the mass of the
        3 x 3 pixels around it (`hdm.decode.joint_scores`).
    loss: weighted mean over visible joints of the loss that was passed, NaN where none is visible.
    """

    loss: float
    predicted: Float[Tensor, "N K 2"]
    joints: Float[Tensor, "N K 2"]
    visible: Float[Tensor, "N K"]
    image_joints: Float[ndarray, "N K 2"]
    scores: Float[Tensor, "N K"]
    peaks: Float[Tensor, "N K"]
    masses: Float[Tensor, "N K"]

    @property
    def error_px(self) -> float:
        """Mean distance of found and annotated joints in crop pixels, over the visible ones."""
        return float(localisation_error(self.predicted, self.joints, self.visible))


def choose_device(name: str) -> torch.device:
    """`cpu`, `cuda` or, for `auto`, a GPU where there is one. Raises InputError for a GPU that is not there."""
    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device is cuda, but torch sees no GPU: use auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@torch.no_grad()
def predict_crops(
    model: PoseNetwork,
    crops: PersonCrops,
    loss: nn.Module,
    *,
    decoder: str = "quarter",
    flip_test: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    amp: bool = False,
    progress: bool = False,
) -> Predictions:
    """Runs the network over all crops and reads the joints: with the loss where it can, or with the decoder.

    loss: what the network was trained with, which turns its raw output into maps to decode; `reduction="mean"`.
    flip_test: read the joints from the average of a crop's maps and those of its mirror image, brought back as the
        crops' pixel convention needs (`hdm.pixels.unflip`).
    Raises InputError for an unknown decoder and a flip test of a loss that has no maps.
    """
    if flip_test and hasattr(loss, "joints"):
        raise InputError("a flip test averages heatmaps, which this loss has none of: switch flip_test off")
    check_decoder(decoder)
    model.eval()
    device = next(model.parameters()).device

    def run(images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B K H W"]:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            return model(model.prepare(images.to(device)))

    total = 0.0
    columns, affines = [], []
    loader = DataLoader(crops, batch_size, num_workers=workers)
    for batch in tqdm(loader, desc="validation", unit="batch", disable=not progress):
        raw = run(batch.image)
        shown = batch.visible.any(-1)
        if bool(shown.any()):
            value = loss(raw[shown], batch.joints[shown].to(device), batch.visible[shown].to(device))
            total += float(value) * float(batch.visible.sum())
        if hasattr(loss, "joints"):
            found, score = loss.joints(raw)  # type: ignore[operator]
            peak = mass = score
        else:
            maps = loss.maps(raw)  # type: ignore[operator]
            if flip_test:
                mirrored = loss.maps(run(batch.image.flip(-1)))  # type: ignore[operator]
                maps = (maps + unflip(mirrored, crops.data.skeleton.flip_order, crops.convention)) / 2
            found, score = decode(maps, decoder, sigma=getattr(loss, "sigma", 2.0))
            peak, mass = (joint_scores(maps, method) for method in ("max", "mass"))
        columns.append([value.cpu() for value in (found, score, peak, mass)] + [batch.joints, batch.visible])
        affines.append(batch.affine.numpy())
    found, score, peak, mass, joints, visible = map(torch.cat, zip(*columns, strict=True))
    predicted, joints = (
        heatmap_to_crop(points, convention=crops.convention, input_size=crops.input_size) for points in (found, joints)
    )
    return Predictions(
        loss=total / float(visible.sum()) if visible.any() else float("nan"),
        predicted=predicted,
        joints=joints,
        visible=visible,
        image_joints=crops_to_image(np.concatenate(affines), predicted.double().numpy()),
        scores=score,
        peaks=peak,
        masses=mass,
    )
