"""Targets around a dot annotation: Gaussians, and the pixels of HDM's demanders.

`size` is (H, W), `sigma` the standard deviation in heatmap pixels, joints are (x, y) in heatmap pixels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hdm.transport import demanders_of


def gaussian(
    joints: Float[Tensor, "B K 2"], size: Sequence[int], sigma: float, *, rounded: bool
) -> Float[Tensor, "B K H W"]:
    """G_i = exp(-||x_i - q||^2 / (2 sigma^2)), of peak 1.

    rounded: put the centre q on the nearest pixel and cut G at 3 sigma along each axis, as SimpleBaseline and HRNet do
    (official repositories, `generate_target`); otherwise q is the dot and G fills the map (DARK).
    """
    centre = (joints + 0.5).floor() if rounded else joints

    def profile(length: int, axis: int) -> Tensor:
        offset = torch.arange(length, dtype=joints.dtype, device=joints.device) - centre[..., axis : axis + 1]
        values = torch.exp(-offset.square() / (2 * sigma**2))
        return values * (offset.abs() <= int(3 * sigma)) if rounded else values

    return profile(size[0], 1).unsqueeze(-1) * profile(size[1], 0).unsqueeze(-2)


def log_gaussian(joints: Float[Tensor, "B K 2"], size: Sequence[int], sigma: float) -> Float[Tensor, "B K H W"]:
    """log of the unrounded Gaussian divided by its sum over the map; finite everywhere.

    dsntnn (`make_gauss`) adds 1e-24 to the sum, which changes nothing for a joint on the map.
    """
    rows, columns = (torch.arange(length, dtype=joints.dtype, device=joints.device) for length in size)
    along_x = log_profile(columns, joints[..., 0], sigma)
    along_y = log_profile(rows, joints[..., 1], sigma)
    return along_y.unsqueeze(-1) + along_x.unsqueeze(-2)


def log_profile(places: Float[Tensor, "L"], centre: Float[Tensor, "B K"], sigma: float) -> Float[Tensor, "B K L"]:
    """log of exp(-(x - centre)^2 / (2 sigma^2)) over the places x, divided by its sum."""
    return (-(places - centre.unsqueeze(-1)).square() / (2 * sigma**2)).log_softmax(-1)


def demanded_pixels(
    joints: Float[Tensor, "B K 2"], size: Sequence[int], demanders: str
) -> tuple[Int[Tensor, "B K M"], Float[Tensor, "B K M"]]:
    """The M pixels that the `nearest` or `subpixel` demanders lie on, as indices y W + x, and their weights."""
    height, width = size
    points, weights = demanders_of(joints, (height, width), demanders)
    # A map one pixel wide has no right-hand demander; its weight is 0.
    x, y = points[..., 0].clamp(max=width - 1), points[..., 1].clamp(max=height - 1)
    return (y * width + x).long(), weights


def at_demanders(
    log_p: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], demanders: str, sigma: float = 1.0
) -> tuple[Float[Tensor, "B K M"], Float[Tensor, "B K M"]]:
    """The weights d_j of the M pixels that the target asks for, and their log p(q_j).

    demanders: `nearest` or `subpixel` as in `demanded_pixels`, or `gaussian`: all pixels, with a Gaussian of `sigma`
        pixels that sums to one.
    """
    if demanders == "gaussian":
        return log_gaussian(joints, log_p.shape[-2:], sigma).exp().flatten(-2), log_p.flatten(-2)
    index, weights = demanded_pixels(joints, log_p.shape[-2:], demanders)
    return weights, log_p.flatten(-2).gather(-1, index)
