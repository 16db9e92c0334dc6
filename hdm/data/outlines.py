"""What the views within an augmentation can show of a picture: the parts that the crop cache keeps."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from hdm.data.augment import HALF_BODY_LEAST, Augmentation, half_boxes
from hdm.data.persons import Person
from hdm.data.pictures import REDUCTIONS, Region, read_picture, reduced_affine, shown_region
from hdm.data.skeletons import Skeleton
from hdm.pixels import apply_affine, box_affine, invert_affine

# Room for the rounding of the views' own arithmetic: of scales as a share, of places in picture pixels.
SCALE_SLACK, SLACK = 1e-6, 0.01


class Block(NamedTuple):
    """Pixels to keep, for some persons: a region of a picture of `size` (rows, columns) at a reduction."""

    persons: list[int]
    reduction: int
    size: tuple[int, int]
    region: Region
    pixels: UInt8[ndarray, "r c 3"]


def blocks_of(
    path: Path,
    persons: dict[int, Person],
    input_size: tuple[int, int],
    augmentation: Augmentation,
    skeleton: Skeleton,
    *,
    convention: str = "half_pixel",
    reduced: bool = True,
) -> list[Block]:
    """What to keep of one picture for its persons, decoded once for each reduction that one of their views can use.

    persons: by the number under which a block names them. The other settings are as of `hdm.data.crops.PersonCrops`.
    Raises InputError where the picture can't be read.
    """
    shown = {
        number: outlines(person, input_size, augmentation, skeleton, convention=convention, reduced=reduced)
        for number, person in persons.items()
    }
    blocks = []
    for reduction in sorted({reduction for found in shown.values() for reduction in found}):
        picture = read_picture(path, reduction)
        height, width = picture.shape[:2]
        regions = {
            number: region_of(found[reduction], reduction, (height, width))
            for number, found in shown.items()
            if reduction in found
        }
        for region in _shared(regions.values()):
            served = [number for number, asked in regions.items() if region.holds(asked)]
            blocks.append(Block(served, reduction, (height, width), region, region.cut(picture)))
    return blocks


def outlines(
    person: Person,
    input_size: tuple[int, int],
    augmentation: Augmentation,
    skeleton: Skeleton,
    *,
    convention: str = "half_pixel",
    reduced: bool = True,
) -> dict[int, Float[ndarray, " 4"]]:
    """For each reduction that a view of a person within an augmentation can use: the left, top, right and bottom, in
    image pixels, of all that such views show.

    A box is shown at scales s from 1 - `scale` to 1 + `scale`, turned about its centre c by any angle where there is
    rotation, and mirrored. With r the crop's half sides (its half diagonal where there is rotation) in image pixels at
    scale 1, that is c - s r to c + s r. With z the zoom at scale 1, in crop pixels per image pixel,
    `hdm.data.pictures.reduction_for` takes reduction n, m being the next one, at scales in [n z, m z), so that s need
    be no larger. Half of a person has a box of its own (`hdm.data.augment.draw_half_body`).
    """
    steps = [*REDUCTIONS] if reduced else [1]
    scales = 1 - augmentation.scale, 1 + augmentation.scale
    rows, columns = input_size
    corners = np.array([[0, 0], [columns - 1, rows - 1]], float)
    found: dict[int, Float[ndarray, " 4"]] = {}
    for box in [person.box, *_half_boxes(person, augmentation, skeleton)]:
        affine = box_affine(box, input_size, convention=convention)
        zoom = float(np.hypot(affine[:, 0], affine[:, 1]).max())
        x, y, width, height = box
        centre = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
        # The larger half: under `hrnet` the crop lies half a pixel to one side, mirrored to the other.
        half_sides = np.abs(apply_affine(invert_affine(affine), corners) - centre).max(0)
        reach = np.full(2, np.hypot(*half_sides)) if augmentation.rotation > 0 else half_sides
        for step, following in zip(steps, [*steps[1:], np.inf], strict=True):
            least = step * zoom * (1 - SCALE_SLACK) if step > 1 else 0.0
            most = following * zoom * (1 + SCALE_SLACK)
            if least <= scales[1] and scales[0] <= most:
                extent = reach * min(scales[1], most) + SLACK
                low, high = centre - extent, centre + extent
                if step in found:
                    low, high = np.minimum(low, found[step][:2]), np.maximum(high, found[step][2:])
                found[step] = np.concatenate([low, high])
    return found


def region_of(outline: Float[ndarray, " 4"], reduction: int, size: tuple[int, int]) -> Region:
    """The pixels of a reduced picture of `size` (rows, columns) that are needed to show what lies in an outline."""
    left, top, right, bottom = outline.tolist()
    # A crop of 2 x 2 pixels whose corners are the outline's depends on the same pixels.
    zoom = np.array([1 / (right - left), 1 / (bottom - top)])
    affine = np.column_stack([np.diag(zoom), -zoom * [left, top]])
    return shown_region(reduced_affine(affine, reduction), (2, 2), size)


def _shared(regions: Iterable[Region]) -> list[Region]:
    """Rectangles that hold these regions; people close together share one where that takes no more pixels."""
    blocks: list[Region] = []
    for block in regions:
        for other in list(blocks):
            both = Region(
                min(block.x0, other.x0), min(block.y0, other.y0), max(block.x1, other.x1), max(block.y1, other.y1)
            )
            if _area(both) <= _area(block) + _area(other):
                blocks.remove(other)
                block = both
        blocks.append(block)
    return blocks


def _area(region: Region) -> int:
    return (region.x1 - region.x0) * (region.y1 - region.y0)


def _half_boxes(
    person: Person, augmentation: Augmentation, skeleton: Skeleton
) -> list[tuple[float, float, float, float]]:
    """The boxes that `draw_half_body` can give."""
    if augmentation.half_body <= 0 or (person.visible > 0).sum() <= HALF_BODY_LEAST:
        return []
    return [box for box in half_boxes(person.joints, person.visible, skeleton.upper_body) if box is not None]
