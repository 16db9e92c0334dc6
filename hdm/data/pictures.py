"""Pictures: read from their files, at a smaller size where that is enough, and cut to what one crop shows.

A crop needs only a part of its picture, and no more pixels than it has itself. JPEG decoders can leave out whole
frequencies and so give a picture at a half, a quarter or an eighth of its size for less work: a block of n x n pixels
becomes their mean, and x of the full picture lies at (x + 1/2) / n - 1/2 of the reduced one.
"""

import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from hdm.errors import InputError

# What a JPEG decoder can divide the sides by, and what OpenCV calls it. Annotations are in the stored pixels, whatever
# turn the file's EXIF entry asks for, as the official code reads them.
REDUCTIONS = {
    1: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    2: cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION,
    4: cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION,
    8: cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION,
}


class Region(NamedTuple):
    """A rectangle of pixels: columns x0 to x1 and rows y0 to y1, the last ones not included."""

    x0: int
    y0: int
    x1: int
    y1: int

    def holds(self, other: "Region") -> bool:
        """True where `other` lies within."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and other.x1 <= self.x1 and other.y1 <= self.y1

    def cut(self, pixels: UInt8[ndarray, "rows columns 3"]) -> UInt8[ndarray, "r c 3"]:
        """These pixels of a picture, without copying them."""
        return pixels[self.y0 : self.y1, self.x0 : self.x1]


def read_picture(path: Path, reduction: int = 1) -> UInt8[ndarray, "rows columns 3"]:
    """A picture as OpenCV has it, blue first, its sides divided by `reduction` (1, 2, 4 or 8) and rounded up.

    Raises InputError where the file is missing, not an image, cut short or empty.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"image {path} can't be read ({error.strerror}): fetch or generate the data again") from error
    is_jpeg = raw[:2] == b"\xff\xd8"
    # OpenCV fills the missing part of a truncated JPEG with grey and says nothing, so look for the end marker.
    cut_short = is_jpeg and b"\xff\xd9" not in raw[-1024:]
    flag = REDUCTIONS[reduction if is_jpeg else 1]
    image = None if cut_short or not raw else cv2.imdecode(np.frombuffer(raw, np.uint8), flag)
    if image is None or image.size == 0:
        reason = "is cut short" if cut_short else "is not an image"
        raise InputError(f"image {path} {reason} ({len(raw)} bytes): fetch or generate it again")
    # Of other formats OpenCV takes single pixels, and rounds the size down, which moves everything.
    return image if is_jpeg else block_means(image, reduction)


def block_means(pixels: UInt8[ndarray, "rows columns 3"], side: int) -> UInt8[ndarray, "r c 3"]:
    """The means of blocks of side x side pixels; the last row and column are repeated to fill the last blocks."""
    rows, columns = (-length % side for length in pixels.shape[:2])
    filled = cv2.copyMakeBorder(pixels, 0, rows, 0, columns, cv2.BORDER_REPLICATE)
    return cv2.resize(filled, (filled.shape[1] // side, filled.shape[0] // side), interpolation=cv2.INTER_AREA)


def reduction_for(affine: Float[ndarray, "2 3"]) -> int:
    """The largest reduction at which the picture still has as many pixels as its crop: crop pixels per picture pixel
    times the reduction is at most 1.

    affine: image pixels -> crop pixels.
    """
    (a, b, _), (c, d, _) = affine.tolist()
    zoom = max(math.hypot(a, b), math.hypot(c, d))
    return max((n for n in REDUCTIONS if n * zoom <= 1), default=1)


def reduced_affine(affine: Float[ndarray, "2 3"], reduction: int) -> Float[ndarray, "2 3"]:
    """Reduced image pixels -> crop pixels, from image pixels -> crop pixels: x = n x' + (n - 1) / 2."""
    if reduction == 1:
        return affine
    reduced = affine * reduction
    reduced[:, 2] = affine[:, 2] + affine[:, :2].sum(1) * ((reduction - 1) / 2)
    return reduced


def shown_region(affine: Float[ndarray, "2 3"], input_size: tuple[int, int], size: tuple[int, int]) -> Region:
    """The pixels of a picture of `size` (rows, columns) that a crop of `input_size` (rows, columns) depends on, at
    least one.

    affine: pixels of that picture -> crop pixels.
    """
    rows, columns = input_size
    height, width = size
    (a, b, crop_x), (c, d, crop_y) = affine.tolist()
    determinant = a * d - b * c
    # The crop's pixel centres fill a parallelogram: its centre, and how far it reaches to each side.
    from_x, from_y = (columns - 1) / 2 - crop_x, (rows - 1) / 2 - crop_y
    x, y = (d * from_x - b * from_y) / determinant, (a * from_y - c * from_x) / determinant
    reach_x = (abs(d) * (columns - 1) + abs(b) * (rows - 1)) / abs(2 * determinant)
    reach_y = (abs(c) * (columns - 1) + abs(a) * (rows - 1)) / abs(2 * determinant)
    # Bilinear interpolation looks at the two pixels around a point; one more for its rounding.
    x0 = min(max(math.floor(x - reach_x) - 1, 0), width - 1)
    y0 = min(max(math.floor(y - reach_y) - 1, 0), height - 1)
    x1 = min(max(math.ceil(x + reach_x) + 2, x0 + 1), width)
    y1 = min(max(math.ceil(y + reach_y) + 2, y0 + 1), height)
    return Region(x0, y0, x1, y1)


def part_affine(affine: Float[ndarray, "2 3"], region: Region) -> Float[ndarray, "2 3"]:
    """Pixels of a region of a picture, counted from its own corner -> crop pixels, from pixels of the whole picture."""
    matrix = affine.copy()
    matrix[:, 2] += affine[:, 0] * region.x0 + affine[:, 1] * region.y0
    return matrix


def warp_into(
    crop: UInt8[ndarray, "h w 3"],
    part: UInt8[ndarray, "r c 3"],
    affine: Float[ndarray, "2 3"],
    region: Region,
) -> None:
    """Fills `crop`, red first, with bilinear samples of a region of a picture; what lies outside of it is black.

    part: the region's pixels, blue first. affine: pixels of the whole picture -> crop pixels.
    """
    matrix = part_affine(affine, region)
    # OpenCV samples four channels more than twice as fast as three.
    four = cv2.warpAffine(
        cv2.cvtColor(part, cv2.COLOR_BGR2RGBA), matrix, (crop.shape[1], crop.shape[0]), flags=cv2.INTER_LINEAR
    )
    cv2.cvtColor(four, cv2.COLOR_RGBA2RGB, dst=crop)
