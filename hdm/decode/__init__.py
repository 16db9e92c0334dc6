"""Heatmaps -> joints and scores.

Every decoder starts from the largest pixel of a map, m, and says how far from it the joint lies (`peaks`, `taylor`,
`expectation`). Coordinates are (x, y) in heatmap pixels. All maps are read at once, (B, K), none in a loop.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.decode.expectation import integral_step, local_step
from hdm.decode.peaks import checked, largest, quarter_step, score
from hdm.decode.taylor import dark_kernel, dark_step, udp_step
from hdm.errors import InputError

__all__ = ["DECODERS", "SCORES", "check_decoder", "dark_kernel", "decode", "joint_scores"]

DECODERS = ("argmax", "quarter", "dark", "udp", "local", "integral")
SCORES = ("max", "mass")


def decode(
    heatmaps: Float[Tensor, "B K H W"], method: str = "quarter", *, sigma: float = 2.0, blur_kernel: int | None = None
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Joints (x, y) in heatmap pixels and their scores, in float32 or, for maps in float64, in float64.

    heatmaps: what `loss.maps(output)` returns; h(m) is the value at the largest pixel m.
    method:
        `argmax`   m itself. Score `max`.
        `quarter`  m moved by a quarter pixel per axis towards the higher neighbour, where 1 < x < W - 1 and
                   1 < y < H - 1 (SimpleBaseline and HRNet, official `get_final_preds`). Score `max`.
        `dark`     m - Hess^-1 grad of the log of the blurred map, derivatives over two pixels, where 1 < x < W - 2 and
                   1 < y < H - 2 (Zhang et al., CVPR 2020; official DarkPose). Score `max`.
        `udp`      the same with derivatives over one pixel, also at the border (Huang et al., CVPR 2020; official
                   UDP-Pose, `post`). Score `max`. It clips maps to [0.001, 50]: made for peaks near 1.
        `local`    the expectation over the 3 x 3 pixels around m, sum h_i x_i / sum h_i. It inverts the bilinear
                   `subpixel` target exactly. Score `mass`.
        `integral` the expectation over all pixels of the map, as trained by integral regression (Sun et al., ECCV
                   2018). Score `mass`, around m, so that maps with the same peak get the same score as from `local`.
    sigma: of the Gaussians that the network was trained on, in heatmap pixels. It sets the blur of `dark` (see
        `dark_kernel`), and nothing else.
    blur_kernel: width in pixels, odd, of the Gaussian that `dark` (default: `dark_kernel(sigma)`) and `udp` (default:
        7, as official, whatever sigma) blur with; 1 does not blur. OpenCV's rule gives its standard deviation.

    A Taylor step of `dark` and `udp` has no limit in the official codes and none here: a map without a clear peak may
    throw its joint off the map. Negative values count as 0 for `local` and `integral`. A map without any mass leaves
    its joint on the (arbitrary) largest pixel, with score 0.

    Deviations: the official codes put the joint of a map without a positive value at (0, 0), here it stays on m; where
    their Taylor step is not finite, or its Hessian singular up to rounding (as on a ridge), there is none here.

    Gradients flow into the heatmaps from joints and scores of `dark`, `udp`, `local` and `integral`, m being held
    constant; what `argmax` and `quarter` return is detached.
    Raises InputError for an unknown method, a sigma that is not positive, a blur_kernel that is not odd and positive, a
    shape that is not (B, K, H, W), and heatmaps with NaN or infinite values.
    """
    check_decoder(method)
    if blur_kernel is not None and (not isinstance(blur_kernel, int) or blur_kernel < 1 or blur_kernel % 2 == 0):
        raise InputError(f"blur_kernel {blur_kernel} must be odd and positive: it is a width in pixels")
    default_kernel = dark_kernel(sigma)
    heatmaps = checked(heatmaps)
    if method in ("argmax", "quarter"):
        heatmaps = heatmaps.detach()
    x, y = largest(heatmaps)
    peak = torch.stack([x, y], -1).to(heatmaps.dtype)
    if method == "argmax":
        step = torch.zeros_like(peak)
    elif method == "quarter":
        step = quarter_step(heatmaps, x, y)
    elif method == "dark":
        step = dark_step(heatmaps, x, y, blur_kernel or default_kernel)
    elif method == "udp":
        step = udp_step(heatmaps, x, y, blur_kernel or 7)
    elif method == "local":
        step = local_step(heatmaps, x, y)
    else:
        step = integral_step(heatmaps, x, y)
    return peak + step, score(heatmaps, x, y, "mass" if method in ("local", "integral") else "max")


def check_decoder(method: str) -> None:
    """Raises InputError for a decoder that is none."""
    if method not in DECODERS:
        raise InputError(f"unknown decoder {method!r}: choose one of {', '.join(DECODERS)}")


def joint_scores(heatmaps: Float[Tensor, "B K H W"], method: str) -> Float[Tensor, "B K"]:
    """How sure a heatmap is of its joint, whichever decoder reads the joint; differentiable.

    method: `max`, the largest value; `mass`, the sum of the 3 x 3 pixels around the largest one, negative values as 0.
    For maps of sum 1 both lie between 0 and 1.
    Raises InputError for an unknown method and for heatmaps as `decode` does.
    """
    if method not in SCORES:
        raise InputError(f"unknown score {method!r}: choose one of {', '.join(SCORES)}")
    heatmaps = checked(heatmaps)
    return score(heatmaps, *largest(heatmaps), method)
