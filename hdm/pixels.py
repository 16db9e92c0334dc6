"""The pixel convention: image -> crop -> heatmap and back.

Coordinates are (x, y), x to the right, and pixel centres lie at whole numbers::

    pixel        0       1       2       3            a map of width 4 covers [-0.5, 3.5]
             |-------|-------|-------|-------|
    x      -0.5  0  0.5  1  1.5  2  2.5  3  3.5       mirrored: x -> 3 - x

Convention `half_pixel`: the area of a crop pixel is shared out exactly among heatmap pixels, so that

    heatmap x = (crop x + 0.5) / stride - 0.5,

and mirroring the crop (x -> W - 1 - x) mirrors the heatmap (x -> W / stride - 1 - x) with no shift left over.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hdm.errors import InputError

PADDING = 1.25  # a crop shows the person box enlarged by this factor, as the official recipes do


def crop_to_heatmap(points, stride: float):
    """Points (..., 2) in crop pixels to heatmap pixels, for arrays and tensors alike: (x + 0.5) / stride - 0.5."""
    return (points + 0.5) / stride - 0.5


def heatmap_to_crop(points, stride: float):
    """Points (..., 2) in heatmap pixels to crop pixels, the inverse of `crop_to_heatmap`: (x + 0.5) * stride - 0.5."""
    return (points + 0.5) * stride - 0.5


def box_affine(
    box: tuple[float, float, float, float] | Float[ndarray, "4"],
    input_size: tuple[int, int],
    *,
    padding: float = PADDING,
    scale: float = 1.0,
    rotation: float = 0.0,
    mirror: bool = False,
) -> Float[ndarray, "2 3"]:
    """The affine map from image pixels to crop pixels that shows a person box in a crop.

    The box is widened or heightened to the crop's aspect ratio, enlarged by `padding * scale`, rotated about its centre
    by `rotation` degrees (positive turns the picture clockwise on screen) and, last, mirrored left to right.

    box: (x, y, width, height) in image pixels, as COCO gives it: x, y is the outer corner, so that the box covers
        [x - 0.5, x + width - 0.5] in coordinates whose pixel centres are whole numbers.
    input_size: (rows, columns) of the crop.
    Returns the 2 x 3 matrix A with crop = A @ (x, y, 1).
    Raises InputError where the box has no area or is not finite.
    """
    x, y, width, height = (float(value) for value in box)
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise InputError(f"person box {[x, y, width, height]} has no area: give x, y, width > 0, height > 0 in pixels")
    rows, columns = input_size
    # The side of the image region that becomes the crop's width.
    span = max(width, height * columns / rows) * padding * scale
    zoom = columns / span
    angle = np.deg2rad(rotation)
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([x + (width - 1) / 2, y + (height - 1) / 2])
    crop_centre = np.array([(columns - 1) / 2, (rows - 1) / 2])
    matrix = np.column_stack([linear, crop_centre - linear @ centre])
    if mirror:
        matrix[0] = [0, 0, columns - 1] - matrix[0]
    return matrix


def apply_affine(matrix: Float[ndarray, "2 3"], points: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 2"]:
    """Points (..., 2) mapped by a 2 x 3 affine matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: Float[ndarray, "2 3"]) -> Float[ndarray, "2 3"]:
    """The 2 x 3 matrix of the inverse map."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def inside(points, width: int, height: int):
    """True where a point (..., 2) lies on the area of a map's pixels, [-0.5, width - 0.5] x [-0.5, height - 0.5]."""
    x, y = points[..., 0], points[..., 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
