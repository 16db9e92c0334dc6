"""Taylor steps: the top of the parabola through the logarithm of a blurred map, as in DARK and UDP.

With g the gradient and A the Hessian of log h at the largest pixel m, the joint is m - A^-1 g, which is exact where h
is a Gaussian. The blur is for maps that a network gives, whose logarithm is rough.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hdm.decode.peaks import window
from hdm.errors import InputError

# OpenCV's own taps for Gaussians of these widths whose sigma is left to it; its formula begins above.
_SMALL_TAPS = {
    1: [1.0],
    3: [0.25, 0.5, 0.25],
    5: [0.0625, 0.25, 0.375, 0.25, 0.0625],
    7: [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125],
}


def dark_kernel(sigma: float) -> int:
    """The width of DARK's blur for Gaussians of `sigma` pixels: the odd number nearest 6 sigma - 1.

    That is 11 for sigma 2 and 17 for sigma 3, as in mmpose, and 5 for sigma 1, where the official recipes for 128 x 96
    crops take 3 or 11. Of two odd numbers equally near it is the larger. Raises InputError for a sigma that is not
    positive and finite.
    """
    if not 0 < sigma < math.inf:
        raise InputError(f"sigma {sigma} must be positive and finite: it is a Gaussian's width in heatmap pixels")
    return max(2 * math.floor(3 * sigma - 0.5) + 1, 1)


def dark_step(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"], kernel: int
) -> Float[Tensor, "B K 2"]:
    """DARK: the blur sees 0 outside of the map; the blurred map is scaled to the largest value of the map itself."""
    height, width = heatmaps.shape[-2:]
    blurred = _blur(heatmaps, kernel, "zero")
    top = blurred.amax((-2, -1))
    scale = heatmaps.amax((-2, -1)) / torch.where(top > 0, top, 1.0)
    h = window((blurred * scale[..., None, None]).clamp(min=1e-10).log(), x, y, 2)
    dx = 0.5 * (h[..., 2, 3] - h[..., 2, 1])
    dy = 0.5 * (h[..., 3, 2] - h[..., 1, 2])
    dxx = 0.25 * (h[..., 2, 4] - 2 * h[..., 2, 2] + h[..., 2, 0])
    dyy = 0.25 * (h[..., 4, 2] - 2 * h[..., 2, 2] + h[..., 0, 2])
    dxy = 0.25 * (h[..., 3, 3] - h[..., 1, 3] - h[..., 3, 1] + h[..., 1, 1])
    # Where nothing positive is left, scaling would turn the map upside down.
    where = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2) & (top > 0)
    return _newton_step(h, dx, dy, dxx, dyy, dxy, where)


def udp_step(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"], kernel: int
) -> Float[Tensor, "B K 2"]:
    """UDP: the blur sees the map mirrored at its border pixels; the blurred map is stretched to [0, max h].

    Its dxy knows one diagonal only: a mirrored map gives the mirrored joint where log h is a sum f(x) + g(y), as for a
    Gaussian, but not in general.
    """
    blurred = _blur(heatmaps, kernel, "mirror")
    low, high = blurred.amin((-2, -1)), blurred.amax((-2, -1))
    # A constant map is constant up to rounding after the blur; stretched, this noise would become a peak.
    rounding = 16 * torch.finfo(heatmaps.dtype).eps * heatmaps.abs().amax((-2, -1))
    where = high - low > rounding
    scale = heatmaps.amax((-2, -1)) / torch.where(where, high - low, 1.0)
    stretched = (blurred - low[..., None, None]) * scale[..., None, None]
    h = window(stretched.clamp(1e-3, 50).log(), x, y, 1)
    centre, left, right, up, down = h[..., 1, 1], h[..., 1, 0], h[..., 1, 2], h[..., 0, 1], h[..., 2, 1]
    dxy = 0.5 * (h[..., 2, 2] - right - down + 2 * centre - left - up + h[..., 0, 0])
    dxx, dyy = right - 2 * centre + left, down - 2 * centre + up
    return _newton_step(h, 0.5 * (right - left), 0.5 * (down - up), dxx, dyy, dxy, where)


def _newton_step(
    h: Float[Tensor, "B K n n"],
    dx: Float[Tensor, "B K"],
    dy: Float[Tensor, "B K"],
    dxx: Float[Tensor, "B K"],
    dyy: Float[Tensor, "B K"],
    dxy: Float[Tensor, "B K"],
    where: Bool[Tensor, "B K"],
) -> Float[Tensor, "B K 2"]:
    """-Hess^-1 grad of h; 0 elsewhere than `where`, where the step is not finite, and where the Hessian is singular.

    Singular up to rounding: on a ridge, rounding decides whether the official rule steps by 10^15 pixels or not at all.
    """
    determinant = dxx * dyy - dxy.square()
    # An entry's error: h is a logarithm, so that its own error is the relative one of the blur plus its rounding.
    rounding = 16 * torch.finfo(h.dtype).eps * (1 + h.abs().amax((-2, -1)))
    where = where & (determinant.abs() > rounding * torch.stack([dxx, dyy, dxy]).abs().amax(0))
    # The 1 keeps the gradient of what is not used finite.
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], -1) / torch.where(where, determinant, 1.0)[..., None]
    return torch.where((where & torch.isfinite(step).all(-1)).unsqueeze(-1), step, 0.0)


def _blur(heatmaps: Float[Tensor, "B K H W"], width: int, border: str) -> Float[Tensor, "B K H W"]:
    """cv2.GaussianBlur(h, (width, width), 0) of each map, beyond its border `zero` or the `mirror` image (reflect-101).

    sigma = 0.3 ((width - 1) / 2 - 1) + 0.8, OpenCV's choice, and up to width 7 its table in place of the formula.
    (OpenCV 5 has an entry for 9 as well; the official codes ran with older versions, and so this one is left out.)
    """
    with torch.autocast(heatmaps.device.type, enabled=False):
        rows, columns = (_blur_matrix(n, width, border).to(heatmaps) for n in heatmaps.shape[-2:])
        return rows @ heatmaps @ columns.mT


def _blur_matrix(length: int, width: int, border: str) -> Float[Tensor, "L L"]:
    """M with (M v)_i = sum_t taps_t v_(i + t - (width - 1) / 2): one axis of the blur as a matrix, borders included."""
    offset = torch.arange(width) - width // 2
    sigma = 0.3 * ((width - 1) * 0.5 - 1) + 0.8
    taps = torch.exp(-offset.double().square() / (2 * sigma**2))
    taps = torch.tensor(_SMALL_TAPS[width], dtype=torch.float64) if width in _SMALL_TAPS else taps / taps.sum()
    source = torch.arange(length).unsqueeze(1) + offset
    if border == "mirror":
        period = max(2 * (length - 1), 1)
        source = torch.minimum(source % period, period - source % period)
    # A source outside of the map meets no pixel, and so counts as 0.
    return (taps.unsqueeze(-1) * (source.unsqueeze(-1) == torch.arange(length))).sum(1)
