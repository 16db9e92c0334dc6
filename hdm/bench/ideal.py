"""MPII's protocol without a network: perfect maps, and errors of known size.

Perfect maps are what a network would paint that knows every joint. Taken through crop, heatmap, flip test, decoder and
back, they show what these steps alone do. All 2,958 persons of the validation part, and no picture, are needed.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from tqdm import tqdm

from hdm.bench.rows import Row, row_of
from hdm.data import PersonData
from hdm.decode import decode
from hdm.encode import encode
from hdm.evaluate import MpiiTruth, head_distance, pckh
from hdm.evaluate.mpii import HEAD_BIAS, NOT_IN_MEAN
from hdm.pixels import (
    STRIDE,
    apply_affine,
    box_affine,
    crop_to_heatmap,
    crops_to_image,
    heatmap_to_crop,
    moved_right,
    unflip,
)
from hdm.protocols import mpii_truth

SIZE = (256, 256)  # of the crops, in pixels
NOISE = 0.08  # of the simulated errors: standard deviation per axis, in head sizes
# Decoder, the encoder whose maps it is given, and what these maps are.
READINGS = (
    *(("argmax", "dark", "Gaussian"), ("quarter", "dark", "Gaussian"), ("dark", "dark", "Gaussian")),
    *(("argmax", "local", "bilinear"), ("quarter", "local", "bilinear"), ("local", "local", "bilinear")),
)


def map_rows(data: PersonData) -> Iterator[Row]:
    """Decoders, and the shift of the mirrored maps in a flip test, on perfect maps."""
    truth = mpii_truth(data)

    def rows(trap: str, setting: str, right: bool, joints: Float[ndarray, "N K 2"], maps: str) -> Iterator[Row]:
        median = 100 * float(np.median(head_distance(joints, truth)[truth.visible > 0]))
        for metric, value in (("PCKh@0.1", pckh(joints, truth, 0.1)["Mean"]), ("median error, % of the head", median)):
            yield row_of(data, f"perfect {maps} maps", trap, setting, right, metric, value)

    for decoder, encoder, maps in READINGS:
        plain = perfect_joints(data, truth, "hrnet", encoder, decoder)
        yield from rows("decoder", decoder, decoder == encoder, plain, maps)
        if decoder != "argmax":
            for convention, shift in (("hrnet", 0), ("hrnet", 1), ("hrnet", 2), ("half_pixel", 0)):
                joints = perfect_joints(data, truth, convention, encoder, decoder, shift=shift)
                right = (convention, shift) in (("hrnet", 1), ("half_pixel", 0))
                yield from rows("flip test", f"{decoder}, {convention}, moved by {shift} px", right, joints, maps)


def perfect_joints(
    data: PersonData, truth: MpiiTruth, convention: str, encoder: str, decoder: str, *, shift: int | None = None
) -> Float[ndarray, "N K 2"]:
    """The joints, in image pixels counted from 0, that a decoder reads from perfect maps of MPII's persons.

    shift: with a flip test, whose mirrored maps are moved by so many pixels to the right; None for no flip test.
    """
    affines = [box_affine(person.box, SIZE, convention=convention) for person in data.persons]
    crops = torch.from_numpy(
        np.stack([apply_affine(affine, joints - 1) for affine, joints in zip(affines, truth.joints, strict=True)])
    ).float()
    order = data.skeleton.flip_order
    found = []
    for crop in tqdm(crops.split(128), desc=f"{decoder} on perfect maps", leave=False):
        maps = _perfect_maps(crop, convention, encoder)
        if shift is not None:
            mirrored = torch.stack([SIZE[1] - 1 - crop[..., 0], crop[..., 1]], -1)[:, order]
            back = unflip(_perfect_maps(mirrored, convention, encoder), order)
            maps = (maps + moved_right(back, shift)) / 2
        found.append(decode(maps, decoder)[0])
    points = heatmap_to_crop(torch.cat(found), convention=convention, input_size=SIZE).double().numpy()
    return crops_to_image(np.stack(affines), points)


def _perfect_maps(crop: Float[Tensor, "B K 2"], convention: str, encoder: str) -> Float[Tensor, "B K H W"]:
    """A joint outside of the map is put on its border."""
    rows, columns = SIZE[0] // STRIDE, SIZE[1] // STRIDE
    joints = crop_to_heatmap(crop, convention=convention, input_size=SIZE)
    joints = torch.minimum(joints.clamp(min=0), joints.new_tensor([columns - 1, rows - 1]))
    return encode(joints, (rows, columns), encoder)


def error_rows(data: PersonData) -> Iterator[Row]:
    """PCKh itself, computed rightly and wrongly, on joints off by a normal error in proportion to the head."""
    truth = mpii_truth(data)
    noise = np.random.default_rng(0).normal(0, NOISE, truth.joints.shape)
    joints = truth.joints - 1 + noise * truth.head_sizes[:, None, None]
    found = np.linalg.norm(noise, axis=-1) <= 0.1
    seen = truth.visible > 0
    per_joint = [found[seen[:, k], k].mean() for k, name in enumerate(truth.names) if name not in NOT_IN_MEAN]
    whole_diagonal = replace(truth, head_sizes=truth.head_sizes / HEAD_BIAS)
    for setting, right, value in (
        ("threshold 0.1", True, pckh(joints, truth, 0.1)["Mean"]),
        ("threshold 0.11, printed as 0.1", False, pckh(joints, truth, 0.11)["Mean"]),
        ("head box without the factor 0.6", False, pckh(joints, whole_diagonal, 0.1)["Mean"]),
        ("pelvis and thorax in the mean", False, 100 * float(found[seen].mean())),
        ("every joint with the same weight", False, 100 * float(np.mean(per_joint))),
        ("predictions counted from 0", False, pckh(joints, truth, 0.1, one_based=True)["Mean"]),
    ):
        yield row_of(data, f"errors of {NOISE} head sizes", "PCKh", setting, right, "PCKh@0.1", value)
