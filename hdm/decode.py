"""Heatmaps -> joints and scores."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from hdm.errors import InputError

DECODERS = ("argmax", "quarter", "local")


@torch.no_grad()
def decode(
    heatmaps: Float[Tensor, "B K H W"], method: str = "quarter"
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """Joints (x, y) in heatmap pixels and their scores.

    heatmaps: what `loss.maps(output)` returns, non-negative where `local` is used.
    method:
        `argmax`  the largest pixel m; score h(m).
        `quarter` m moved by a quarter pixel per axis towards the higher neighbour, where 1 < x < W - 1 and
                  1 < y < H - 1 (SimpleBaseline and HRNet, official `get_final_preds`); score h(m).
        `local`   the expectation over the 3 x 3 pixels around m, sum h_i x_i / sum h_i. It inverts the bilinear
                  `subpixel` target exactly; score: the mass of the 3 x 3 pixels.
    Raises InputError for an unknown method and for heatmaps with NaN or infinite values.
    """
    if method not in DECODERS:
        raise InputError(f"unknown decoder {method!r}: choose one of {', '.join(DECODERS)}")
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[-2:]:
        raise InputError(f"heatmaps have shape {tuple(heatmaps.shape)}: give (B, K, H, W)")
    if not bool(torch.isfinite(heatmaps).all()):
        raise InputError("heatmaps hold NaN or infinite values, so no joint can be read from them: check the network")
    heatmaps = heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()
    height, width = heatmaps.shape[-2:]
    score, index = heatmaps.flatten(-2).max(-1)
    x, y = index % width, index // width
    peak = torch.stack([x, y], -1).to(heatmaps.dtype)
    if method == "argmax":
        return peak, score
    window = _neighbours(heatmaps, x, y)  # (B, K, 3, 3), 0 outside of the map
    if method == "quarter":
        slope = torch.stack([window[..., 1, 2] - window[..., 1, 0], window[..., 2, 1] - window[..., 0, 1]], -1)
        interior = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        return peak + 0.25 * slope.sign() * interior.unsqueeze(-1), score
    window = window.clamp(min=0)
    mass = window.sum((-2, -1))
    offset = torch.arange(-1, 2, dtype=window.dtype, device=window.device)
    mean = torch.stack([(window.sum(-2) * offset).sum(-1), (window.sum(-1) * offset).sum(-1)], -1)
    # A map without any mass has no expectation: its joint stays on the (arbitrary) peak, with score 0.
    return peak + mean / mass.clamp(min=torch.finfo(mass.dtype).tiny).unsqueeze(-1), mass


def _neighbours(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"]
) -> Float[Tensor, "B K 3 3"]:
    """The 3 x 3 pixels around (x, y), with 0 outside of the map."""
    padded = pad(heatmaps, (1, 1, 1, 1))
    step = torch.arange(3, device=heatmaps.device)
    rows = y[..., None, None] + step[:, None]
    columns = x[..., None, None] + step
    index = rows * padded.shape[-1] + columns
    return padded.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)
