"""Where the mass must go and what it costs to get there.

Coordinates are (x, y) in heatmap pixels as in `hdm.pixels`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

DEMANDERS = ("nearest", "dot", "subpixel")
COSTS = ("l2", "l2_squared")


def demanders_of(
    joints: Float[Tensor, "*batch 2"], size: tuple[int, int], demanders: str
) -> tuple[Float[Tensor, "*batch M 2"], Float[Tensor, "*batch M"]]:
    """Where the mass must go: M points (x, y) in heatmap pixels and their weights, which sum to 1.

    size: (H, W) of the heatmap. With x0 = floor(x), a = x - x0 and likewise y0, b, the four `subpixel` demanders are
    (x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1) with weights (1-a)(1-b), a(1-b), (1-a)b, ab.
    """
    if demanders == "dot":
        return joints.unsqueeze(-2), torch.ones_like(joints[..., :1])
    height, width = size
    last = joints.new_tensor([width - 1, height - 1])
    joints = torch.minimum(joints.clamp(min=0), last)
    if demanders == "nearest":
        return (joints.detach() + 0.5).floor().unsqueeze(-2), torch.ones_like(joints[..., :1])
    corner = torch.minimum(joints.detach().floor(), (last - 1).clamp(min=0))
    a, b = (joints - corner).unbind(-1)
    weights = torch.stack([(1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b], -1)
    return corner.unsqueeze(-2) + corner.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]]), weights


def transport_costs(
    points: Float[Tensor, "*batch M 2"], size: tuple[int, int], cost: str
) -> Float[Tensor, "*batch M H W"]:
    """c(x_i, q_j): the cost from every pixel of an H x W map to each of M points, `l2` or `l2_squared`."""
    height, width = size
    x = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., 0:1]  # (..., M, W)
    y = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:2]  # (..., M, H)
    squared = x.square().unsqueeze(-2) + y.square().unsqueeze(-1)
    if cost == "l2_squared":
        return squared
    # The floor gives the square root a zero, not an undefined, gradient where a pixel lies on the point.
    return squared.clamp(min=1e-30).sqrt() if squared.requires_grad else squared.sqrt()
