"""A network at work: from the crops of a data set to joints in image pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn
from tqdm import tqdm

from hdm.data.batches import val_batches
from hdm.data.crops import Crop, PersonCrops
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
    precision: str = "float32",
    share: tuple[int, int] = (0, 1),
    watch: Callable[[Tensor, Tensor, Crop], None] | None = None,
    progress: bool = False,
) -> Predictions:
    """Runs the network over the crops and reads the joints: with the loss where it can, or with the decoder.

    loss: what the network was trained with, which turns its raw output into maps to decode; `reduction="mean"`.
    flip_test: read the joints from the average of a crop's maps and those of its mirror image, brought back as the
        crops' pixel convention needs (`hdm.pixels.unflip`).
    precision: of the network, `float32`, `bfloat16` or `float16`.
    share: (r, n) for the persons r, r + n, r + 2 n, ... only, see `interleave`.
    watch: is called with each batch's raw output, the maps that are decoded, and its crops.
    Raises InputError for an unknown decoder and a flip test of a loss that has no maps.
    """
    if flip_test and hasattr(loss, "joints"):
        raise InputError("a flip test averages heatmaps, which this loss has none of: switch flip_test off")
    check_decoder(decoder)
    model.eval()
    device = next(model.parameters()).device
    dtype = getattr(torch, precision)

    def run(images: UInt8[Tensor, "B 3 h w"]) -> Float[Tensor, "B K H W"]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(model.prepare(images.to(device, non_blocking=True)))

    total = 0.0
    columns, affines = [], []
    persons = len(range(share[0], len(crops), share[1]))
    loader = val_batches(crops, batch_size, share=share, workers=workers, pin=device.type == "cuda")
    for batch in tqdm(loader, "validation", math.ceil(persons / batch_size), unit="batch", disable=not progress):
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
            if watch is not None:
                watch(raw, maps, batch)
        columns.append([value.cpu() for value in (found, score, peak, mass)] + [batch.joints, batch.visible])
        affines.append(batch.affine.numpy())
    found, score, peak, mass, joints, visible = map(torch.cat, zip(*columns, strict=True))
    predicted, joints = (
        heatmap_to_crop(points, crops.heatmap_stride, convention=crops.convention, input_size=crops.input_size)
        for points in (found, joints)
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


def interleave(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all persons, in their order, from those of the shares (0, n), (1, n), ... of n processes."""
    count = len(parts)
    values: dict[str, Tensor | ndarray] = {}
    for name in (entry.name for entry in fields(Predictions) if entry.name != "loss"):
        columns = [getattr(part, name) for part in parts]
        shape = (sum(map(len, columns)), *columns[0].shape[1:])
        whole = np.empty(shape, columns[0].dtype) if name == "image_joints" else columns[0].new_empty(shape)
        for place, column in enumerate(columns):
            whole[place::count] = column
        values[name] = whole
    weights = [float(part.visible.sum()) for part in parts]
    total = sum(part.loss * weight for part, weight in zip(parts, weights, strict=True) if weight)
    return Predictions(loss=total / sum(weights) if sum(weights) else float("nan"), **values)  # type: ignore[arg-type]
