"""Joints -> the heatmaps from which each decoder reads them, and how well it does."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hdm.decode import check_decoder, decode
from hdm.errors import InputError
from hdm.losses.batch import check_positive
from hdm.losses.targets import demanded_pixels, gaussian


def encode(
    joints: Float[Tensor, "B K 2"], size: Sequence[int], method: str, *, sigma: float = 2.0
) -> Float[Tensor, "B K H W"]:
    """The maps that a network would give if it had learnt the target of `method` exactly; the inverse of `decode`.

    joints: (x, y) in heatmap pixels, in [0, W - 1] x [0, H - 1]. size: (H, W). sigma: in heatmap pixels.
    method, one of `hdm.decode.DECODERS`:
        `argmax`, `quarter`: a Gaussian of peak 1 around the rounded joint, cut at 3 sigma (SimpleBaseline, HRNet).
        `dark`, `udp`: a Gaussian around the joint itself over the whole map, 1 at the joint (Zhang et al., CVPR 2020).
        `local`, `integral`: the four pixels around the joint with bilinear weights, of sum 1 and of mean the joint: the
        `subpixel` demanders of HDM. sigma does not matter.
    Raises InputError for an unknown method, a sigma or a size that is not positive, and a joint that is not finite or
    not between the outermost pixel centres, where no map has it as its mean.
    """
    check_decoder(method)
    check_positive(sigma=sigma)
    if joints.ndim != 3 or joints.shape[-1] != 2:
        raise InputError(f"joints have shape {tuple(joints.shape)}: give (B, K, 2)")
    joints = joints if joints.dtype == torch.float64 else joints.float()
    height, width = _checked_size(size)
    on_map = ((joints >= 0) & (joints <= joints.new_tensor([width - 1, height - 1]))).all(-1)  # False for NaN
    if not bool(on_map.all()):
        raise InputError(
            f"{int((~on_map).sum())} of {on_map.numel()} joints are NaN, infinite or beyond the outermost pixel "
            f"centres of their {width} x {height} map: leave them out or clamp them"
        )
    if method in ("local", "integral"):
        index, weights = demanded_pixels(joints, size, "subpixel")
        flat = joints.new_zeros(*joints.shape[:2], height * width)
        return flat.scatter_add(-1, index, weights).unflatten(-1, (height, width))
    return gaussian(joints, size, sigma, rounded=method in ("argmax", "quarter"))


# The decoder, the name of its map, and the method of `encode` that draws it. A network does not see the rounding, it
# averages over it: what `argmax` and `quarter` read in practice is closer to the unrounded Gaussian.
ROUND_TRIPS = (
    ("argmax", "rounded", "argmax"),
    ("argmax", "unrounded", "dark"),
    ("quarter", "rounded", "quarter"),
    ("quarter", "unrounded", "dark"),
    ("dark", "unrounded", "dark"),
    ("udp", "unrounded", "udp"),
    ("local", "bilinear", "local"),
    ("integral", "bilinear", "integral"),
)


def round_trip_errors(
    size: Sequence[int], sigmas: Sequence[float] = (1, 2, 3), *, count: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """How far from a joint its own map is read: the Euclidean distance, in heatmap pixels, of decode(encode(joint)).

    The same `count` joints for every row, drawn uniformly between the outermost pixel centres of a map of `size`
    (H, W). One row per decoder, encoder, sigma and place that has joints:
        method: the decoder, with its defaults and `sigma`.
        encoder: the map it reads, a `rounded` or `unrounded` Gaussian or the `bilinear` one (see `encode`).
        sigma: of the Gaussian, in heatmap pixels; the bilinear map does not depend on it, only `where` does.
        where: `inside`, at least 3 sigma + 2 pixels from the outermost pixel centres, or `border`.
        joints: how many lie there. mean, median, max: of their errors.
    Raises InputError for a count below 1 and as `encode` does.
    """
    if count < 1:
        raise InputError(f"count {count} must be at least 1: it is the number of joints to draw")
    generator = torch.Generator().manual_seed(seed)
    height, width = _checked_size(size)
    last = torch.tensor([width - 1, height - 1])
    joints = torch.rand(1, count, 2, generator=generator) * last
    rows = []
    for sigma in sigmas:
        margin = 3 * sigma + 2
        inside = ((joints >= margin) & (joints <= last - margin)).all(-1)
        for method, encoder, source in ROUND_TRIPS:
            found, _ = decode(encode(joints, size, source, sigma=sigma), method, sigma=sigma)
            names = {"method": method, "encoder": encoder, "sigma": float(sigma)}
            rows += [names | row for row in _summaries((found - joints).norm(dim=-1), inside)]
    return pd.DataFrame(rows)


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size {tuple(size)} must be (H, W), a heatmap's rows and columns, both positive")
    return size[0], size[1]


def _summaries(errors: Float[Tensor, "1 N"], inside: Bool[Tensor, "1 N"]) -> Iterator[dict[str, str | int | float]]:
    """Number, mean, median and largest of the errors inside and at the border, where there are any."""
    for where, chosen in (("inside", errors[inside]), ("border", errors[~inside])):
        if len(chosen):
            mean, median, largest = (float(value) for value in (chosen.mean(), chosen.median(), chosen.max()))
            yield {"where": where, "joints": len(chosen), "mean": mean, "median": median, "max": largest}
