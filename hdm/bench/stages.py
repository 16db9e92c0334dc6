"""Where the time of the input pipeline goes: each stage of a person crop alone."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from hdm.bench.timing import time_in_turn
from hdm.data import PersonCrops, PersonData
from hdm.data.augment import Augmentation
from hdm.data.pictures import REDUCTIONS, part_affine, read_picture, reduction_for, shown_region
from hdm.models import PoseNetwork
from hdm.pixels import invert_affine

AUGMENTATION = Augmentation(rotation=40.0, scale=0.3, flip=0.5, half_body=0.3)
STAGE_PERSONS = 128  # so many pictures are held in memory while the stages are timed


def stage_times(
    data: PersonData, input_size: tuple[int, int], batch_size: int, rounds: int, device: torch.device, seed: int = 0
) -> dict[str, float]:
    """Milliseconds per image of each stage: CPU time in one thread, or between a GPU's events; the fastest of some
    rounds. Pictures are of full size where nothing else is said.

    `grid_sample` takes the same part of the picture as the warp does to the device, and gives the same crop there: the
    other place where the crop could be cut. A batch is copied only to a GPU.
    """
    rows, columns = input_size
    few = data.persons[:STAGE_PERSONS]
    crops = PersonCrops(replace(data, persons=few), input_size, augmentation=AUGMENTATION, seed=seed)
    affines = [crops.show(index, 1).affine for index in range(len(few))]
    files = [np.frombuffer(person.image_path.read_bytes(), np.uint8) for person in few]
    jobs = [(file, REDUCTIONS[reduction_for(affine)]) for file, affine in zip(files, affines, strict=True)]
    parts, matrices = [], []
    for person, affine in zip(few, affines, strict=True):
        picture = read_picture(person.image_path)
        region = shown_region(affine, input_size, picture.shape[:2])
        parts.append(region.cut(picture))
        matrices.append(part_affine(affine, region))
    fours = [cv2.cvtColor(part, cv2.COLOR_BGR2RGBA) for part in parts]
    warped = [cv2.warpAffine(four, matrix, (columns, rows)) for four, matrix in zip(fours, matrices, strict=True)]
    batch = crops.read(range(min(batch_size, len(few))))[0].image
    network = PoseNetwork().to(device)
    there = batch.to(device)

    def warp(pixels: list[ndarray]) -> None:
        for part, matrix in zip(pixels, matrices, strict=True):
            cv2.warpAffine(part, matrix, (columns, rows), flags=cv2.INTER_LINEAR)

    def colour() -> None:
        for part, four in zip(parts, warped, strict=True):
            cv2.cvtColor(part, cv2.COLOR_BGR2RGBA)
            cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)

    here: dict[str, tuple[int, Callable[[], object]]] = {
        "reading the file": (len(few), lambda: [person.image_path.read_bytes() for person in few]),
        "decoding, full size": (len(few), lambda: [cv2.imdecode(file, REDUCTIONS[1]) for file in files]),
        "decoding, reduced": (len(few), lambda: [cv2.imdecode(file, flag) for file, flag in jobs]),
        "view and affine": (len(few), lambda: [crops.show(index, 1) for index in range(len(few))]),
        "colours of the part and of the crop": (len(few), colour),
        "warp, 4 channels": (len(few), partial(warp, fours)),
        "warp, 3 channels": (len(few), partial(warp, parts)),
    }
    on_device: dict[str, tuple[int, Callable[[], object]]] = {
        f"copy and grid_sample on the {device.type}": (
            len(few),
            lambda: [sample_on(device, *job, input_size) for job in zip(parts, matrices, strict=True)],
        ),
        f"normalising on the {device.type}": (len(batch), lambda: network.prepare(there)),
    }
    if device.type == "cuda":
        pinned = batch.pin_memory()
        on_device["copying a batch to the cuda"] = (len(batch), lambda: pinned.to(device, non_blocking=True))
        times = time_in_turn({name: call for name, (_, call) in on_device.items()}, rounds, device, limit_s=60.0)
    else:
        here, times = here | on_device, {}
    for _ in range(1 + rounds):  # the first is never the fastest
        for name, (_, call) in here.items():
            begin = time.process_time()
            call()
            times.setdefault(name, []).append(1e3 * (time.process_time() - begin))
    return {name: min(times[name]) / images for name, (images, _) in (here | on_device).items()}


def sample_on(
    device: torch.device,
    part: UInt8[ndarray, "r c 3"],
    affine: Float[ndarray, "2 3"],
    input_size: tuple[int, int],
) -> UInt8[Tensor, "3 h w"]:
    """The crop that `cv2.warpAffine` cuts, cut by torch on a device; colours keep their order.

    affine: pixels of the part -> crop pixels. torch's coordinates run from -1 to 1 between the outer edges of the outer
    pixels: x = (2 X + 1) / W - 1.
    """
    height, width = part.shape[:2]
    rows, columns = input_size
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    to_crop = np.array([[columns / 2, 0, (columns - 1) / 2], [0, rows / 2, (rows - 1) / 2], [0, 0, 1]])
    theta = (to_unit @ np.vstack([invert_affine(affine), [0, 0, 1]]) @ to_crop)[:2]
    picture = torch.from_numpy(np.ascontiguousarray(part)).to(device).permute(2, 0, 1).float()
    grid = functional.affine_grid(torch.tensor(theta[None]).float().to(device), [1, 3, rows, columns], False)
    return functional.grid_sample(picture[None], grid, align_corners=False)[0].round().byte()
