"""Data sets: persons in COCO's and MPII's layout, detectors' boxes, crops, batches, and the generated data set."""

from pathlib import Path
from typing import Any

from hdm.data.batches import Batch, WorkerDied, epoch_order, steps_per_epoch, train_batches, val_batches
from hdm.data.coco import load_coco
from hdm.data.crops import Crop, PersonCrops
from hdm.data.detections import with_detections
from hdm.data.mpii import load_mpii
from hdm.data.persons import PARTS, Person, PersonData, hold_out, with_label_noise
from hdm.data.skeletons import COCO, MPII, Skeleton
from hdm.data.synthetic import make_synthetic
from hdm.errors import InputError

__all__ = [
    "COCO",
    "MPII",
    "Batch",
    "Crop",
    "Person",
    "PersonCrops",
    "PersonData",
    "Skeleton",
    "WorkerDied",
    "epoch_order",
    "hold_out",
    "load_persons",
    "make_synthetic",
    "prepare_data",
    "steps_per_epoch",
    "train_batches",
    "val_batches",
    "with_detections",
    "with_label_noise",
]

LOADERS = {"coco": load_coco, "synthetic": load_coco, "mpii": load_mpii}


def load_persons(source: str, part: str, *, check_images: bool = True) -> PersonData:
    """Reads a part (`train` or `val`) of `coco:DIR`, `mpii:DIR` or `synthetic:DIR`.

    check_images: look that every listed picture is there; without, annotations alone are enough.
    Raises InputError where the data set is of no known kind, or is not as its layout says.
    """
    kind, _, place = source.partition(":")
    if kind not in LOADERS or not place:
        raise InputError(f"unknown data set {source!r}: write {' or '.join(f'{kind}:DIR' for kind in LOADERS)}")
    if part not in PARTS:
        raise InputError(f"unknown part {part!r} of {source}: choose train or val")
    return LOADERS[kind](source, Path(place), part, check_images=check_images)


def prepare_data(profile: dict[str, Any], *, progress: bool = True) -> str:
    """The data set of a profile, `coco:DIR`, `mpii:DIR` or `synthetic:DIR`; the generated one is made where it is not
    there yet.

    A profile's section `synthetic` holds the settings of `make_synthetic`: `images` and `seed`.
    """
    kind, _, place = profile["data"].partition(":")
    if kind == "synthetic" and "synthetic" in profile:
        make_synthetic(place, **profile["synthetic"], progress=progress)
    return profile["data"]
