"""The largest pixel of a heatmap, its neighbourhood, and what can be read from them directly."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hdm.errors import InputError


def checked(heatmaps: Tensor) -> Float[Tensor, "B K H W"]:
    """The heatmaps, raised to float32 where they are in half precision."""
    if heatmaps.ndim != 4 or 0 in heatmaps.shape[-2:]:
        raise InputError(f"heatmaps have shape {tuple(heatmaps.shape)}: give (B, K, H, W)")
    if not bool(torch.isfinite(heatmaps).all()):
        raise InputError("heatmaps hold NaN or infinite values, so no joint can be read from them: check the network")
    return heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()


def largest(heatmaps: Float[Tensor, "B K H W"]) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B K"]]:
    """Column x and row y of the largest pixel, the first of several."""
    index = heatmaps.flatten(-2).max(-1).indices
    return index % heatmaps.shape[-1], index // heatmaps.shape[-1]


def window(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"], reach: int
) -> Float[Tensor, "B K n n"]:
    """The n x n pixels around (x, y), n = 2 reach + 1; beyond the map, the nearest border pixel."""
    height, width = heatmaps.shape[-2:]
    offset = torch.arange(-reach, reach + 1, device=heatmaps.device)
    rows = (y.unsqueeze(-1) + offset).clamp(0, height - 1)
    columns = (x.unsqueeze(-1) + offset).clamp(0, width - 1)
    index = rows.unsqueeze(-1) * width + columns.unsqueeze(-2)
    return heatmaps.flatten(-2).gather(-1, index.flatten(-2)).view(index.shape)


def mass_around(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"]
) -> Float[Tensor, "B K 3 3"]:
    """The mass of the 3 x 3 pixels around (x, y): 0 for negative values, and beyond the map."""
    height, width = heatmaps.shape[-2:]
    offset = torch.arange(-1, 2, device=heatmaps.device)
    rows, columns = y.unsqueeze(-1) + offset, x.unsqueeze(-1) + offset
    on_map = ((rows >= 0) & (rows < height)).unsqueeze(-1) & ((columns >= 0) & (columns < width)).unsqueeze(-2)
    return window(heatmaps, x, y, 1).clamp(min=0) * on_map


def score(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"], method: str
) -> Float[Tensor, "B K"]:
    """`max`, the value at (x, y), or `mass`, that of the 3 x 3 pixels around it."""
    if method == "mass":
        return mass_around(heatmaps, x, y).sum((-2, -1))
    return window(heatmaps, x, y, 0)[..., 0, 0]


def quarter_step(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"]
) -> Float[Tensor, "B K 2"]:
    """A quarter pixel per axis towards the higher neighbour, away from the border as in the official code."""
    height, width = heatmaps.shape[-2:]
    h = window(heatmaps, x, y, 1)
    slope = torch.stack([h[..., 1, 2] - h[..., 1, 0], h[..., 2, 1] - h[..., 0, 1]], -1)
    interior = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    return 0.25 * slope.sign() * interior.unsqueeze(-1)
