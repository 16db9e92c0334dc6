"""Pixel conventions: image -> crop -> heatmap and back, and mirror images.

Coordinates are (x, y), x to the right, and pixel centres lie at whole numbers::

    pixel        0       1       2       3            a map of width 4 covers [-0.5, 3.5]
             |-------|-------|-------|-------|
    x      -0.5  0  0.5  1  1.5  2  2.5  3  3.5       mirrored: x -> 3 - x

With W, w the width of crop and heatmap, `stride` = W / w, and c, s the centre and the width of the image region that
the crop shows, the three conventions are (the same in y):

    convention     crop x of image x              heatmap x             a mirrored crop's joint lies, after
                                                                        the heatmap is mirrored back, at
    `half_pixel`   (x - c) W / s + (W - 1) / 2    (X + 1/2) / stride - 1/2         x
    `hrnet`        (x - c) W / s + W / 2          X / stride                       x + 1/stride - 1
    `udp`          (x - c)(W - 1) / s + (W - 1)/2 X (w - 1) / (W - 1)              x

`half_pixel` (the book's equation eq-half-pixel) shares the area of a crop pixel out exactly among heatmap pixels.
`hrnet` is what the official repositories of SimpleBaseline and HRNet do (`get_affine_transform`, `generate_target`);
they shift the mirrored map by one pixel, which leaves 1/4 pixel at stride 4. `udp` (Huang et al., CVPR 2020) measures
lengths between pixel centres.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from hdm.errors import InputError

CONVENTIONS = ("half_pixel", "hrnet", "udp")
STRIDE = 4  # crop pixels per heatmap pixel, of a network that is not built otherwise
PADDING = 1.25  # a crop shows the person box enlarged by this factor, as the official recipes do


def crop_to_heatmap(
    points,
    stride: float = STRIDE,
    *,
    convention: str = "half_pixel",
    input_size: tuple[int, int] | None = None,
):
    """Points (..., 2) in crop pixels to heatmap pixels, for arrays and tensors alike; see the module's table.

    input_size: (rows, columns) of the crop, which `udp` needs. Raises InputError for an unknown convention.
    """
    factor, shift = _heatmap_axis(points, stride, convention, input_size)
    return (points + shift) * factor - shift


def heatmap_to_crop(
    points,
    stride: float = STRIDE,
    *,
    convention: str = "half_pixel",
    input_size: tuple[int, int] | None = None,
):
    """Points (..., 2) in heatmap pixels to crop pixels, the inverse of `crop_to_heatmap`."""
    factor, shift = _heatmap_axis(points, stride, convention, input_size)
    return (points + shift) / factor - shift


def _heatmap_axis(points, stride: float, convention: str, input_size: tuple[int, int] | None):
    """Factor and shift with heatmap = (crop + shift) * factor - shift."""
    check_convention(convention)
    if convention != "udp":
        return 1 / stride, 0.5 if convention == "half_pixel" else 0.0
    if input_size is None:
        raise InputError("convention udp depends on the size of the crop: give input_size (rows, columns)")
    crop = np.array(input_size[::-1], dtype=np.float64)
    factor = (crop / stride - 1) / (crop - 1)
    return torch.from_numpy(factor).to(points) if isinstance(points, Tensor) else factor, 0.0


def box_affine(
    box: tuple[float, float, float, float] | Float[ndarray, "4"],
    input_size: tuple[int, int],
    *,
    convention: str = "half_pixel",
    padding: float = PADDING,
    scale: float = 1.0,
    rotation: float = 0.0,
    mirror: bool = False,
) -> Float[ndarray, "2 3"]:
    """The affine map from image pixels to crop pixels that shows a person box in a crop.

    The box is widened or heightened to the crop's aspect ratio, enlarged by `padding * scale`, rotated about its centre
    by `rotation` degrees (positive turns the picture clockwise on screen) and, last, mirrored left to right.

    box: (x, y, width, height) in image pixels, as COCO gives it: x, y is the outer corner, so that the box covers
        [x - 0.5, x + width - 0.5] in coordinates whose pixel centres are whole numbers. `hrnet` and `udp` take the
        distances between its outermost pixel centres, width - 1 and height - 1, as the official code does.
    input_size: (rows, columns) of the crop.
    Returns the 2 x 3 matrix A with crop = A @ (x, y, 1). A mirrored crop shows at W - 1 - X what the other shows at X;
    under `hrnet`, where the official code mirrors the image before it crops, at W - X.
    Raises InputError where the box has no area or is not finite.
    """
    check_convention(convention)
    # Plain numbers: this runs for each crop, and arrays of two cost several times as much.
    x, y, width, height = (float(value) for value in box)
    if not (all(map(math.isfinite, (x, y, width, height))) and width > 0 and height > 0):
        raise InputError(f"person box {[x, y, width, height]} has no area: give x, y, width > 0, height > 0 in pixels")
    rows, columns = input_size
    centre_x, centre_y = x + (width - 1) / 2, y + (height - 1) / 2
    if convention != "half_pixel":
        # A box of one pixel has no distance between pixel centres; it is shown as large as that pixel.
        width, height = (width - 1, height - 1) if max(width, height) > 2 else (width, height)
    # The side of the image region that becomes the crop's width.
    span = max(width, height * columns / rows) * padding * scale
    zoom_x = zoom_y = columns / span
    if convention == "udp":
        zoom_x, zoom_y = (columns - 1) / span, (rows - 1) / (span * rows / columns)
    last_x, last_y = (columns, rows) if convention == "hrnet" else (columns - 1, rows - 1)
    angle = math.radians(rotation)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = zoom_x * cos, -zoom_x * sin
    c, d = zoom_y * sin, zoom_y * cos
    crop_x = [a, b, last_x / 2 - (a * centre_x + b * centre_y)]
    crop_y = [c, d, last_y / 2 - (c * centre_x + d * centre_y)]
    if mirror:
        crop_x = [-a, -b, last_x - crop_x[2]]
    return np.array([crop_x, crop_y])


def centred_box(centre: tuple[float, float], width: float, height: float) -> tuple[float, float, float, float]:
    """The box (x, y, width + 1, height + 1) whose outermost pixel centres lie `width` and `height` apart around
    `centre`, so that `box_affine` finds exactly these under `hrnet` and `udp`: for annotations that give a centre and a
    size (MPII), and for detectors' boxes, which the official code reads in this way."""
    return centre[0] - width / 2, centre[1] - height / 2, width + 1, height + 1


def apply_affine(matrix: Float[ndarray, "2 3"], points: Float[ndarray, "*n 2"]) -> Float[ndarray, "*n 2"]:
    """Points (..., 2) mapped by a 2 x 3 affine matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: Float[ndarray, "2 3"]) -> Float[ndarray, "2 3"]:
    """The 2 x 3 matrix of the inverse map."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def crops_to_image(affines: Float[ndarray, "N 2 3"], points: Float[ndarray, "N K 2"]) -> Float[ndarray, "N K 2"]:
    """Points of N crops, in crop pixels, to image pixels; affines: image to crop, one for each crop."""
    pairs = zip(affines, points, strict=True)
    return np.stack([apply_affine(invert_affine(affine), joints) for affine, joints in pairs])


def inside(points, width: int, height: int, margin: float = 0.0):
    """True where a point (..., 2) lies on the area of a map's pixels, [-0.5, width - 0.5] x [-0.5, height - 0.5], or up
    to `margin` beyond it."""
    x, y = points[..., 0], points[..., 1]
    low = -0.5 - margin
    return (x >= low) & (x <= width - 1 - low) & (y >= low) & (y <= height - 1 - low)


def unflip(
    heatmaps: Float[Tensor, "B K H W"], flip_order: list[int], convention: str = "half_pixel"
) -> Float[Tensor, "B K H W"]:
    """The maps of mirrored crops, mirrored back: joint k is read from the map of its partner `flip_order[k]`.

    Under `hrnet` they are then moved one pixel to the right, the first column staying, as the official repositories do
    (`SHIFT_HEATMAP`): what is left of the misalignment is 1/stride, a quarter of a pixel.
    """
    check_convention(convention)
    back = heatmaps[:, flip_order].flip(-1)
    return moved_right(back, 1) if convention == "hrnet" else back


def moved_right(heatmaps: Float[Tensor, "B K H W"], columns: int) -> Float[Tensor, "B K H W"]:
    """The maps moved to the right by so many columns; the first ones stay, and the last ones are lost."""
    return torch.cat([heatmaps[..., :columns], heatmaps[..., : heatmaps.shape[-1] - columns]], -1)


def check_convention(convention: str) -> None:
    """Raises InputError for a convention that is none."""
    if convention not in CONVENTIONS:
        raise InputError(f"unknown pixel convention {convention!r}: choose one of {', '.join(CONVENTIONS)}")
