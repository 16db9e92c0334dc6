"""Data sets: persons in COCO's layout, their crops, and the generated data set."""

from typing import Any

from hdm.data.coco import load_persons
from hdm.data.crops import PersonCrops
from hdm.data.skeletons import COCO, Skeleton
from hdm.data.synthetic import make_synthetic

__all__ = ["COCO", "PersonCrops", "Skeleton", "load_persons", "make_synthetic", "prepare_data"]


def prepare_data(profile: dict[str, Any], *, progress: bool = True) -> str:
    """The data set of a profile, `coco:DIR` or `synthetic:DIR`; the generated one is made where it is not there yet.

    A profile's section `synthetic` holds the settings of `make_synthetic`: `images` and `seed`.
    """
    kind, _, place = profile["data"].partition(":")
    if kind == "synthetic" and "synthetic" in profile:
        make_synthetic(place, **profile["synthetic"], progress=progress)
    return profile["data"]
