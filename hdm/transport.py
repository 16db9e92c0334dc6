r"""Earth Mover's Distance between a heatmap and a dot annotation.

A heatmap's pixels x_i supply mass s_i (sum 1); M demanders q_j ask for mass d_j (sum 1); moving one unit from x_i to
q_j costs c_ij. The distance is the least total cost,

    EMD = min_{P >= 0} sum_ij c_ij P_ij   subject to   sum_j P_ij = s_i,   sum_i P_ij = d_j.            (1)

With one demander the only plan is P_i = s_i, so EMD = sum_i s_i c_i: no solver. With four (`subpixel`) the dual of (1),

    EMD = max_g D(g),   D(g) = sum_j d_j g_j + sum_i s_i f_i(g),   f_i(g) = min_j (c_ij - g_j),         (2)

is a concave maximisation in four numbers. `solver="exact"` maximises it (`hdm.dual`); `solver="sinkhorn"` solves the
entropic relaxation (`hdm.sinkhorn`).

What lies on a demander stays there. With c the distance itself, the triangle inequality lets min(s_i, d_j) at x_i = q_j
be taken off both sides without changing the EMD. The exact solver does so: what is left is all that has to move, which
keeps small distances as accurate as large ones. Its g is then a maximiser of the whole problem if |g_j - g_k| is no
more than the distance of q_j and q_k, which raising each g_j to max_k (g_k - |q_j - q_k|) brings about at no cost.

Gradient. D is linear in s and d, and at its maximiser g* its slope in g is zero; so by the envelope theorem g* may be
held fixed while (2) is differentiated: dEMD/ds_i = f_i(g*) and dEMD/dd_j = g*_j. Both potentials are free up to a
constant, which is chosen so that sum_i s_i f_i = 0: a change of the heatmap's total mass does not count.

Distances are in heatmap pixels, coordinates as in `hdm.pixels`.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.dual import optimal_plan, potentials
from hdm.errors import InputError
from hdm.pixels import inside
from hdm.sinkhorn import sinkhorn

DEMANDERS = ("nearest", "dot", "subpixel")
COSTS = ("l2", "l2_squared")
SOLVERS = ("exact", "sinkhorn")

# Pixels whose costs are computed at a time: on a CPU, so that they stay in its cache; elsewhere.
PIXELS_AT_ONCE = (2**18, 2**25)

# The distances between the four `subpixel` demanders.
_BETWEEN = [[math.hypot(j % 2 - k % 2, j // 2 - k // 2) for k in range(4)] for j in range(4)]


class Certificate(NamedTuple):
    """What is proved of the exact solver's values.

    value: what `heatmap_emd` returns, without gradient.
    gap: cost of a plan that meets both marginals, less the value, in the value's unit. The value is D(g) of (2), so the
        EMD is no smaller than it, and no larger than value + gap (up to rounding).
    marginal_error: the mass by which the worst demander misses what it asks for if every pixel ships where it is
        cheapest, and pixels within 1e-3 (float32) or 1e-6 (float64) of a tie, in units of cost, go where they are
        needed. It measures the gradient, as the gap measures the value.
    """

    value: Float[Tensor, "*batch"]
    gap: Float[Tensor, "*batch"]
    marginal_error: Float[Tensor, "*batch"]


def heatmap_emd(
    mass: Float[Tensor, "*batch H W"],
    joints: Float[Tensor, "*batch 2"],
    *,
    demanders: str = "subpixel",
    cost: str = "l2",
    solver: str = "exact",
    blur: float = 0.1,
) -> Float[Tensor, "*batch"]:
    """Earth Mover's Distance (1) from each heatmap to its dot annotation, differentiable in both.

    mass: non-negative heatmaps, each of sum 1 (off by rounding at most: 1e-3, or 1e-2 in half precision).
    joints: dot annotations (x, y) in heatmap pixels, no more than half a pixel outside of the pixel centres.
    demanders: `nearest` (one, at the rounded pixel: the paper's naive form, as we read it), `dot` (one, at the
        unrounded dot) or `subpixel` (the four pixels around the dot with bilinear weights, whose mean is the dot; a
        dot beyond the outermost pixel centres is moved onto them).
    cost: `l2` (distance in pixels) or `l2_squared`.
    solver: for `subpixel` only. `exact` maximises the dual (2); `sinkhorn` adds entropy of scale `blur` (pixels) and
        returns the cost of the entropic plan, with the gradient of the entropic problem.
    Returns a value for each map: pixels (l2) or squared pixels (l2_squared), in float32, or float64 for float64 input.
    Raises InputError for an unknown name, a blur that is not positive, shapes that do not match, a joint that is not
        finite or outside of the map, and a heatmap that is no distribution (negative, infinite or NaN somewhere, or not
        of sum 1). Under torch.compile and torch.func, where values cannot be looked at, only names and shapes are
        checked.

    The paper (Qu et al., NeurIPS 2022) names suppliers, demanders and the two forms of its Figure 2; the bilinear
    weights, the cost and the solver are our choices, because its text does not reach us.
    """
    _check_choices(mass, joints, demanders, cost, solver, blur)
    mass, joints, total = _in_full_precision(mass, joints)
    return unchecked_emd(mass, joints, total, demanders, cost, solver, blur)


def unchecked_emd(
    mass: Float[Tensor, "*batch H W"],
    joints: Float[Tensor, "*batch 2"],
    total: Float[Tensor, "*batch"],
    demanders: str,
    cost: str,
    solver: str,
    blur: float,
) -> Float[Tensor, "*batch"]:
    """`heatmap_emd` of maps and joints that are known to be in order, in float32 or float64, and of these sums."""
    with torch.autocast(mass.device.type, enabled=False):  # a transport plan in half precision loses the far mass
        size = (mass.shape[-2], mass.shape[-1])
        points, weights = demanders_of(joints.to(mass.dtype), size, demanders)
        if demanders != "subpixel":
            return (mass * transport_costs(points, size, cost).squeeze(-3)).sum((-2, -1)) / total
        problem = _flat(mass, total, points, weights)
        if solver == "exact":
            solution = _exact(*problem, cost)
        else:
            solution = _entropic(*problem, cost, blur if cost == "l2" else blur**2)
        maps, totals, _, demand = problem
        return _Envelope.apply(maps, demand, *solution, 1 / totals.detach()).view(total.shape)


@torch.no_grad()
def certify(mass: Float[Tensor, "*batch H W"], joints: Float[Tensor, "*batch 2"], *, cost: str = "l2") -> Certificate:
    """The exact solver's values for `subpixel` demanders, and a proof of them; slow.

    Arguments and errors as in `heatmap_emd`.
    """
    _check_choices(mass, joints, "subpixel", cost, "exact", 1.0)
    mass, joints, total = _in_full_precision(mass, joints)
    points, weights = demanders_of(joints, (mass.shape[-2], mass.shape[-1]), "subpixel")
    problem = _flat(mass, total, points, weights)
    value, _, _, g = _exact(*problem, cost)
    gap, error = _prove(*problem, cost, value, g)
    return Certificate(*(number.view(total.shape) for number in (value, gap, error)))


@torch.no_grad()
def transport_plan(
    mass: Float[Tensor, "*batch H W"], joints: Float[Tensor, "*batch 2"], *, cost: str = "l2"
) -> Float[Tensor, "*batch 4 H W"]:
    """A plan of least cost: the mass that each pixel ships to each `subpixel` demander, in float64.

    Meets both marginals of (1): summed over pixels it is the demand, summed over demanders the mass. Arguments and
    errors as in `heatmap_emd`. For looking at and for proofs; slow.
    """
    _check_choices(mass, joints, "subpixel", cost, "exact", 1.0)
    mass, joints, total = _in_full_precision(mass, joints)
    points, weights = demanders_of(joints.double(), (mass.shape[-2], mass.shape[-1]), "subpixel")
    maps, totals, points, demand = _flat(mass.double(), total.double(), points, weights)
    return _plan(maps / totals.view(-1, 1, 1), demand, points, cost).view(*mass.shape[:-2], 4, *mass.shape[-2:])


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


def _in_full_precision(
    mass: Float[Tensor, "*batch H W"], joints: Float[Tensor, "*batch 2"]
) -> tuple[Float[Tensor, "*batch H W"], Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Checked maps and joints in float32, or in float64 as they came, and the sums of the maps."""
    tolerance = 1e-2 if mass.dtype in (torch.float16, torch.bfloat16) else 1e-3
    dtype = torch.float64 if mass.dtype == torch.float64 else torch.float32
    mass, joints = mass.to(dtype), joints.to(dtype)
    total = mass.sum((-2, -1))
    _check_values(mass, total, joints, tolerance)
    return mass, joints, total


def _flat(
    mass: Float[Tensor, "*batch H W"],
    total: Float[Tensor, "*batch"],
    points: Float[Tensor, "*batch 4 2"],
    weights: Float[Tensor, "*batch 4"],
) -> tuple[Float[Tensor, "P H W"], Float[Tensor, "P"], Float[Tensor, "P 4 2"], Float[Tensor, "P 4"]]:
    """The same with one leading dimension."""
    return mass.reshape(-1, *mass.shape[-2:]), total.reshape(-1), points.reshape(-1, 4, 2), weights.reshape(-1, 4)


class _Envelope(torch.autograd.Function):
    """EMD values with the gradient of the envelope theorem: f for the mass, g for the demands."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        mass: Tensor, weights: Tensor, value: Tensor, f: Tensor, mean: Tensor, g: Tensor, per_mass: Tensor
    ) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        f, mean, g, per_mass = ctx.saved_tensors
        scale = (grad * per_mass).view(-1, 1, 1)
        return torch.addcmul(-scale * mean.view(-1, 1, 1), f, scale), grad.view(-1, 1) * g, None, None, None, None, None


@torch.no_grad()
def _exact(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H W"], Float[Tensor, "P"], Float[Tensor, "P 4"]]:
    """EMD of P maps of the given totals, potentials f and g of (2) near or at a maximiser, and f's mean over the mass.

    f, mean, g: in this order after the EMD.
    """
    height, width = mass.shape[-2:]
    demand, corner = weights * total.unsqueeze(1), points[:, 0]
    moving, asking = mass, demand
    if cost == "l2":
        moving, asking, _ = _what_moves(mass, demand, points)
    g = potentials(moving, asking, corner, cost)
    if cost == "l2":
        # To who asks for nothing, nobody ships: its potential is the lowest that the distances allow.
        g = g.where(asking > 0, g.amin(1, keepdim=True) - 2)
        g = (g.unsqueeze(1) - g.new_tensor(_BETWEEN)).amax(2)
    g = g - g[:, :1]  # any constant will do; this one saves a pass over the pixels

    shipped = torch.empty_like(total)
    f = torch.empty_like(mass) if moving is mass else moving  # written over, part by part
    at_once = max(1, PIXELS_AT_ONCE[mass.device.type != "cpu"] // (height * width))
    for start in range(0, len(mass), at_once):
        part = slice(start, start + at_once)
        cheapest = _cheapest(corner[part], g[part], (height, width), cost)
        shipped[part] = torch.linalg.vecdot(moving[part].flatten(1), cheapest.flatten(1))
        f[part] = cheapest
    value = ((asking * g).sum(1) + shipped) / total
    return value, f, value - (demand * g).sum(1) / total, g


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
    corner: Float[Tensor, "P 2"], g: Float[Tensor, "P 4"], size: tuple[int, int], cost: str
) -> Float[Tensor, "P H W"]:
    """f = min_j (c_ij - g_j) at every pixel, for g_0 = 0.

    The costs to the four demanders are one table of H + 1 by W + 1 costs to the first, seen from neighbouring pixels.
    """
    height, width = size
    x = torch.arange(-1, width, dtype=g.dtype, device=g.device) - corner[:, :1]
    y = torch.arange(-1, height, dtype=g.dtype, device=g.device) - corner[:, 1:]
    table = x.square().unsqueeze(1) + y.square().unsqueeze(2)
    if cost == "l2":
        table.sqrt_()
    g = g.unsqueeze(-1).unsqueeze(-1)
    upper = torch.minimum(table[:, 1:, 1:], table[:, 1:, :-1] - g[:, 1])
    lower = torch.minimum(table[:, :-1, 1:] - g[:, 2], table[:, :-1, :-1] - g[:, 3])
    return torch.minimum(upper, lower)


@torch.no_grad()
def _prove(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
    value: Float[Tensor, "P"],
    g: Float[Tensor, "P 4"],
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Gap and marginal error of a `Certificate`."""
    tie = 1e-3 if mass.dtype == torch.float32 else 1e-6
    suppliers, points, demand = mass.double() / total.double().view(-1, 1, 1), points.double(), weights.double()
    costs = transport_costs(points, (mass.shape[1], mass.shape[2]), cost)
    gap = (_plan(suppliers, demand, points, cost) * costs).sum((1, 2, 3)) - value
    reduced = costs - g.view(-1, 4, 1, 1)
    slack = reduced - reduced.amin(1, keepdim=True)
    near = slack <= tie
    alone = near & (near.sum(1, keepdim=True) == 1)
    at_most, at_least = ((choice * suppliers.unsqueeze(1)).sum((2, 3)) for choice in (near, alone))
    error = torch.maximum(demand - at_most, at_least - demand).clamp(min=0).amax(1)
    return gap.to(value.dtype), error.to(value.dtype)


def _plan(
    mass: Float[Tensor, "P H W"], demand: Float[Tensor, "P 4"], points: Float[Tensor, "P 4 2"], cost: str
) -> Float[Tensor, "P 4 H W"]:
    """A plan of least cost in float64."""
    if cost != "l2":
        return optimal_plan(mass, demand, points[:, 0], cost)
    moving, asking, stays = _what_moves(mass, demand, points)
    plan = optimal_plan(moving, asking, points[:, 0], cost)
    # A demander beside a map of one row or column has a demand of 0; its pixel is of no matter.
    x, y = points[..., 0].clamp(max=mass.shape[2] - 1), points[..., 1].clamp(max=mass.shape[1] - 1)
    at = (y * mass.shape[2] + x).long().unsqueeze(2)
    return plan.flatten(2).scatter_add(2, at, stays.unsqueeze(2)).view_as(plan)


@torch.no_grad()
def _entropic(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
    eps: float,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H W"], Float[Tensor, "P"], Float[Tensor, "P 4"]]:
    """Cost of the entropic plans of scale eps, in units of cost, and f, its mean and g of their problem."""
    costs = transport_costs(points, (mass.shape[1], mass.shape[2]), cost)
    suppliers = mass / total.view(-1, 1, 1)
    largest = math.hypot(*mass.shape[1:])
    value, f, g = sinkhorn(
        suppliers.flatten(1), weights, costs.flatten(2), eps, largest if cost == "l2" else largest**2
    )
    return value, f.view_as(mass), (suppliers.flatten(1) * f).sum(1), g


def _check_choices(mass: Tensor, joints: Tensor, demanders: str, cost: str, solver: str, blur: float) -> None:
    for name, value, known in (("demanders", demanders, DEMANDERS), ("cost", cost, COSTS), ("solver", solver, SOLVERS)):
        if value not in known:
            raise InputError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    if not 0 < blur < float("inf"):
        raise InputError(f"blur {blur} must be positive and finite: it is the entropic scale in heatmap pixels")
    if mass.ndim < 2 or joints.shape != (*mass.shape[:-2], 2) or 0 in mass.shape[-2:]:
        raise InputError(
            f"heatmaps {tuple(mass.shape)} and joints {tuple(joints.shape)} do not match or have no pixel: "
            "give (..., H, W) and (..., 2)"
        )


def _check_values(
    mass: Float[Tensor, "*batch H W"],
    total: Float[Tensor, "*batch"],
    joints: Float[Tensor, "*batch 2"],
    tolerance: float,
) -> None:
    """Refuses a map that is no distribution and a joint that is nowhere, or not on its map.

    Skipped where values cannot be looked at (torch.compile, torch.func).
    """
    if torch.compiler.is_compiling() or mass.numel() == 0:
        return
    mass, total, joints = mass.detach(), total.detach(), joints.detach()
    sound = ((total - 1).abs() <= tolerance) & (mass.amin((-2, -1)) >= 0)
    on_map = inside(joints, mass.shape[-1], mass.shape[-2])
    try:
        all_sound, all_on_map = torch.stack([sound.all(), on_map.all()]).tolist()  # waits for a GPU once
    except RuntimeError:  # inside torch.func.vmap
        return
    if not all_sound:
        raise InputError(
            f"{int((~sound).sum())} of {sound.numel()} heatmaps are no distribution (negative, infinite or NaN "
            f"somewhere, or not of sum 1: sums reach from {float(total.min()):.4g} to {float(total.max()):.4g}): pass "
            "non-negative maps divided by their sum, such as a softmax over the pixels"
        )
    if not all_on_map:
        raise InputError(
            f"{int((~on_map).sum())} of {on_map.numel()} joints are NaN, infinite or more than half a pixel outside of "
            f"their {mass.shape[-1]} x {mass.shape[-2]} map: leave these maps out or mend the annotation"
        )
