"""Expectations: the mean place of a map's mass, near the peak or everywhere."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hdm.decode.peaks import mass_around


def local_step(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"]
) -> Float[Tensor, "B K 2"]:
    """From (x, y) to the mean of the 3 x 3 pixels around it."""
    offset = torch.arange(-1, 2, dtype=heatmaps.dtype, device=heatmaps.device).view(1, 1, 3)
    return _expectation(mass_around(heatmaps, x, y), offset, offset)


def integral_step(
    heatmaps: Float[Tensor, "B K H W"], x: Int[Tensor, "B K"], y: Int[Tensor, "B K"]
) -> Float[Tensor, "B K 2"]:
    """From (x, y) to the mean of the whole map."""
    rows, columns = (torch.arange(n, dtype=heatmaps.dtype, device=heatmaps.device) for n in heatmaps.shape[-2:])
    return _expectation(heatmaps, columns - x.unsqueeze(-1), rows - y.unsqueeze(-1))


def _expectation(
    values: Float[Tensor, "B K h w"], dx: Float[Tensor, "#B #K w"], dy: Float[Tensor, "#B #K h"]
) -> Float[Tensor, "B K 2"]:
    """The mean offset sum v_i (dx_i, dy_i) / sum v_i, negative values as 0; 0 where there is no mass."""
    mass = values.clamp(min=0)
    total = mass.sum((-2, -1))
    moment = torch.stack([(mass.sum(-2) * dx).sum(-1), (mass.sum(-1) * dy).sum(-1)], -1)
    # Without mass the moment is 0 too; the 1 keeps value and gradient finite.
    return moment / torch.where(total > torch.finfo(total.dtype).tiny, total, 1.0).unsqueeze(-1)
