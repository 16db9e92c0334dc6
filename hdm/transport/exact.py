"""The transport problem of four demanders, solved exactly, and a proof that it is.

Everything here is of P problems: maps `mass` of sums `total`, the four demanders `points`, their `weights` of sum 1,
and for bounded costs the `scale` of each.

What lies on a demander stays there. With c the distance itself, truncated or not, which is a metric, the triangle
inequality lets min(s_i, d_j) at x_i = q_j be taken off both sides without changing the Earth Mover's Distance. What is
left is all that has to move, which keeps small distances as accurate as large ones. Its g is then a maximiser of the
whole problem if |g_j - g_k| is no more than the cost from q_j to q_k, which raising each g_j to
max_k (g_k - c(q_j, q_k)) brings about at no cost.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.transport.demanders import ground_cost, transport_costs
from hdm.transport.dual import optimal_plan, potentials, stretch

METRICS = ("l2", "truncated")

# Pixels whose costs are computed at a time: on a CPU, so that they stay in its cache; elsewhere.
PIXELS_AT_ONCE = (2**18, 2**25)

# The distances between the four `subpixel` demanders.
_BETWEEN = [[math.hypot(j % 2 - k % 2, j // 2 - k // 2) for k in range(4)] for j in range(4)]


@torch.no_grad()
def solve(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
    scale: Float[Tensor, "P"] | None,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H W"], Float[Tensor, "P"], Float[Tensor, "P 4"]]:
    """The EMD; f at every pixel, its mean over the mass, and g, of (2) in `emd`, at a maximiser or near."""
    height, width = mass.shape[-2:]
    demand, corner = weights * total.unsqueeze(1), points[:, 0]
    moving, asking = mass, demand
    if cost in METRICS:
        moving, asking, _ = _what_moves(mass, demand, points)
    g = potentials(moving, asking, corner, cost, scale)
    if cost != "l2_squared":
        # To who asks for nothing, nobody ships: its potential is the lowest that the costs allow.
        g = g.where(asking > 0, g.amin(1, keepdim=True) - 2)
        g = (g.unsqueeze(1) - _farthest_apart(g.new_tensor(_BETWEEN), cost, scale)).amax(2)
    g = g - g[:, :1]  # any constant will do; this one saves a pass over the pixels

    shipped = torch.empty_like(total)
    f = torch.empty_like(mass) if moving is mass else moving  # written over, part by part
    at_once = max(1, PIXELS_AT_ONCE[mass.device.type != "cpu"] // (height * width))
    for start in range(0, len(mass), at_once):
        part = slice(start, start + at_once)
        cheapest = _cheapest(corner[part], g[part], (height, width), cost, None if scale is None else scale[part])
        shipped[part] = torch.linalg.vecdot(moving[part].flatten(1), cheapest.flatten(1))
        f[part] = cheapest
    value = ((asking * g).sum(1) + shipped) / total
    return value, f, value - (demand * g).sum(1) / total, g


def _farthest_apart(
    between: Float[Tensor, "4 4"], cost: str, scale: Float[Tensor, "P"] | None
) -> Float[Tensor, "4 4"] | Float[Tensor, "P 4 4"]:
    """The most, or more, by which the costs from one place to two demanders differ, these being so far apart.

    For a metric it is the cost from one to the other; the Gaussian's steepest slope is exp(-1/2) / scale.
    """
    if scale is None:
        return between
    scale = scale.view(-1, 1, 1)
    return between.minimum(scale) if cost == "truncated" else (math.exp(-0.5) * between / scale).clamp(max=1)


def _what_moves(
    mass: Float[Tensor, "P H W"], demand: Float[Tensor, "P 4"], points: Float[Tensor, "P 4 2"]
) -> tuple[Float[Tensor, "P H W"], Float[Tensor, "P 4"], Float[Tensor, "P 4"]]:
    """Mass and demand less what lies on its demander already, and that."""
    height, width = mass.shape[1:]
    if min(height, width) == 1:  # two demanders lie beside the map: few enough pixels to let them all move
        return mass, demand, torch.zeros_like(demand)
    at = (points[..., 1] * width + points[..., 0]).long()
    present = mass.flatten(1).gather(1, at)
    stays = torch.minimum(present, demand)
    return mass.flatten(1).scatter(1, at, present - stays).view_as(mass), demand - stays, stays


def _cheapest(
    corner: Float[Tensor, "P 2"],
    g: Float[Tensor, "P 4"],
    size: tuple[int, int],
    cost: str,
    scale: Float[Tensor, "P"] | None,
) -> Float[Tensor, "P H W"]:
    """f = min_j (c_ij - g_j) at every pixel, for g_0 = 0.

    The costs to the four demanders are one table of H + 1 by W + 1 costs to the first, seen from neighbouring pixels.
    """
    height, width = size
    x = torch.arange(-1, width, dtype=g.dtype, device=g.device) - corner[:, :1]
    y = torch.arange(-1, height, dtype=g.dtype, device=g.device) - corner[:, 1:]
    squared = x.square().unsqueeze(1) + y.square().unsqueeze(2)
    table = ground_cost(squared, cost, None if scale is None else scale.view(-1, 1, 1))
    g = g.unsqueeze(-1).unsqueeze(-1)
    upper = torch.minimum(table[:, 1:, 1:], table[:, 1:, :-1] - g[:, 1])
    lower = torch.minimum(table[:, :-1, 1:] - g[:, 2], table[:, :-1, :-1] - g[:, 3])
    return torch.minimum(upper, lower)


@torch.no_grad()
def prove(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
    scale: Float[Tensor, "P"] | None,
    value: Float[Tensor, "P"],
    g: Float[Tensor, "P 4"],
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Gap and marginal error of a `Certificate` (`emd`)."""
    tie: float | Tensor = 1e-3 if mass.dtype == torch.float32 else 1e-6
    if scale is not None:
        scale = scale.double()
        tie = (tie / stretch(cost, scale)).view(-1, 1, 1, 1)
    suppliers, points, demand = mass.double() / total.double().view(-1, 1, 1), points.double(), weights.double()
    costs = transport_costs(points, (mass.shape[1], mass.shape[2]), cost, scale)
    gap = (plan(suppliers, demand, points, cost, scale) * costs).sum((1, 2, 3)) - value
    reduced = costs - g.view(-1, 4, 1, 1)
    slack = reduced - reduced.amin(1, keepdim=True)
    near = slack <= tie
    alone = near & (near.sum(1, keepdim=True) == 1)
    at_most, at_least = ((choice * suppliers.unsqueeze(1)).sum((2, 3)) for choice in (near, alone))
    error = torch.maximum(demand - at_most, at_least - demand).clamp(min=0).amax(1)
    return gap.to(value.dtype), error.to(value.dtype)


def plan(
    mass: Float[Tensor, "P H W"],
    demand: Float[Tensor, "P 4"],
    points: Float[Tensor, "P 4 2"],
    cost: str,
    scale: Float[Tensor, "P"] | None,
) -> Float[Tensor, "P 4 H W"]:
    """A plan of least cost in float64."""
    if cost not in METRICS:
        return optimal_plan(mass, demand, points[:, 0], cost, scale)
    moving, asking, stays = _what_moves(mass, demand, points)
    moved = optimal_plan(moving, asking, points[:, 0], cost, scale)
    # A demander beside a map of one row or column has a demand of 0; its pixel is of no matter.
    x, y = points[..., 0].clamp(max=mass.shape[2] - 1), points[..., 1].clamp(max=mass.shape[1] - 1)
    at = (y * mass.shape[2] + x).long().unsqueeze(2)
    return moved.flatten(2).scatter_add(2, at, stays.unsqueeze(2)).view_as(moved)
