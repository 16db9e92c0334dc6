r"""Earth Mover's Distance between a heatmap and a dot annotation.

A heatmap's pixels x_i supply mass s_i (sum 1); M demanders q_j ask for mass d_j (sum 1); moving one unit from x_i to
q_j costs c_ij. The distance is the least total cost,

    EMD = min_{P >= 0} sum_ij c_ij P_ij   subject to   sum_j P_ij = s_i,   sum_i P_ij = d_j.            (1)

With one demander the only plan is P_i = s_i, so EMD = sum_i s_i c_i: no solver. With four (`subpixel`) the dual of (1),

    EMD = max_g D(g),   D(g) = sum_j d_j g_j + sum_i s_i f_i(g),   f_i(g) = min_j (c_ij - g_j),         (2)

is a concave maximisation in four numbers. `solver="exact"` maximises it (modules `exact` and `dual`);
`solver="sinkhorn"` solves the entropic relaxation (module `sinkhorn`).

Gradient. D is linear in s and d, and at its maximiser g* its slope in g is zero; so by the envelope theorem g* may be
held fixed while (2) is differentiated: dEMD/ds_i = f_i(g*) and dEMD/dd_j = g*_j. Both potentials are free up to a
constant, which is chosen so that sum_i s_i f_i = 0: a change of the heatmap's total mass does not count.

Costs. With d_ij the distance of x_i and q_j, c = d (`l2`), d^2 (`l2_squared`), or, bounded by a length `scale`,
c = min(d, scale) (`truncated`) or c = 1 - exp(-d^2 / (2 scale^2)) (`gaussian`): mass that is far off costs the same
wherever it is. `l2` and `truncated` are metrics. With OKS's constant of joint k and the person's area, scale_k =
2 sigma_k sqrt(area) in heatmap pixels, `gaussian` is 1 less that joint's OKS.

The book's chapter on the method derives them: (1) is its equation eq-emd, (2) eq-dual, and eq-gradient the gradient
through a softmax. Distances are in heatmap pixels, coordinates as in `hdm.pixels`.
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.errors import InputError
from hdm.pixels import inside
from hdm.transport import exact
from hdm.transport.demanders import COSTS, DEMANDERS, check_scale, demanders_of, transport_costs
from hdm.transport.sinkhorn import sinkhorn

SOLVERS = ("exact", "sinkhorn")


class Certificate(NamedTuple):
    """What is proved of the exact solver's values.

    value: what `heatmap_emd` returns, without gradient.
    gap: cost of a plan that meets both marginals, less the value, in the value's unit. The value is D(g) of (2), so the
        EMD is no smaller than it, and no larger than value + gap (up to rounding).
    marginal_error: the mass by which the worst demander misses what it asks for if every pixel ships where it is
        cheapest, and pixels within 1e-3 (float32) or 1e-6 (float64) of a tie, in units of cost (where it is bounded, of
        the stretched cost of `hdm.transport.dual`), go where they are needed. It measures the gradient, as the gap
        measures the value.
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
    scale: float | Tensor | None = None,
) -> Float[Tensor, "*batch"]:
    """Earth Mover's Distance (1) from each heatmap to its dot annotation, differentiable in both.

    mass: non-negative heatmaps, each of sum 1 (off by rounding at most: 1e-3, or 1e-2 in half precision).
    joints: dot annotations (x, y) in heatmap pixels, no more than half a pixel outside of the pixel centres.
    demanders: `nearest` (one, at the rounded pixel: the paper's naive form, as we read it), `dot` (one, at the
        unrounded dot) or `subpixel` (the four pixels around the dot with bilinear weights, whose mean is the dot; a
        dot beyond the outermost pixel centres is moved onto them).
    cost: `l2` (distance in pixels), `l2_squared`, `truncated` or `gaussian`: see above.
    solver: for `subpixel` only. `exact` maximises the dual (2); `sinkhorn` adds entropy of scale `blur` (pixels) and
        returns the cost of the entropic plan, with the gradient of the entropic problem. In units of cost, the entropic
        scale is blur (l2, truncated), blur^2 (l2_squared) or blur^2 / (2 scale^2) (gaussian), which near the dot is the
        same blur^2.
    scale: the length in the bounded costs `truncated` and `gaussian`, which need it, in heatmap pixels: a number, or a
        tensor that broadcasts to the batch (...), such as one for each of K joints. It gets no gradient.
    Returns a value for each map: pixels (l2, truncated), squared pixels (l2_squared) or a number from 0 to 1
        (gaussian), in float32, or float64 for float64 input.
    Raises InputError for an unknown name, a blur or scale that is not positive and finite, a scale that is missing or
        for a cost that takes none, shapes that do not match, a joint that is not finite or outside of the map, and a
        heatmap that is no distribution (negative, infinite or NaN somewhere, or not of sum 1). Under torch.compile and
        torch.func, where values cannot be looked at, only names and shapes are checked.

    The paper (Qu et al., NeurIPS 2022) names suppliers, demanders and the two forms of its Figure 2; the bilinear
    weights, the cost and the solver are our choices, because its text does not reach us.
    """
    _check_choices(mass, joints, demanders, cost, solver, blur, scale)
    mass, joints, total = _in_full_precision(mass, joints)
    return unchecked_emd(mass, joints, total, demanders, cost, solver, blur, scale)


def unchecked_emd(
    mass: Float[Tensor, "*batch H W"],
    joints: Float[Tensor, "*batch 2"],
    total: Float[Tensor, "*batch"],
    demanders: str,
    cost: str,
    solver: str,
    blur: float,
    scale: float | Tensor | None = None,
) -> Float[Tensor, "*batch"]:
    """`heatmap_emd` of maps and joints that are known to be in order, in float32 or float64, and of these sums."""
    with torch.autocast(mass.device.type, enabled=False):  # a transport plan in half precision loses the far mass
        size = (mass.shape[-2], mass.shape[-1])
        points, weights = demanders_of(joints.to(mass.dtype), size, demanders)
        if demanders != "subpixel":
            return (mass * transport_costs(points, size, cost, scale).squeeze(-3)).sum((-2, -1)) / total
        problem, scales = _flat(mass, total, points, weights), _flat_scale(scale, total)
        solution = exact.solve(*problem, cost, scales) if solver == "exact" else _entropic(*problem, cost, scales, blur)
        maps, totals, _, demand = problem
        return _Envelope.apply(maps, demand, *solution, 1 / totals.detach()).view(total.shape)


@torch.no_grad()
def certify(
    mass: Float[Tensor, "*batch H W"],
    joints: Float[Tensor, "*batch 2"],
    *,
    cost: str = "l2",
    scale: float | Tensor | None = None,
) -> Certificate:
    """The exact solver's values for `subpixel` demanders, and a proof of them; slow.

    Arguments and errors as in `heatmap_emd`.
    """
    _check_choices(mass, joints, "subpixel", cost, "exact", 1.0, scale)
    mass, joints, total = _in_full_precision(mass, joints)
    points, weights = demanders_of(joints, (mass.shape[-2], mass.shape[-1]), "subpixel")
    problem, scales = _flat(mass, total, points, weights), _flat_scale(scale, total)
    value, _, _, g = exact.solve(*problem, cost, scales)
    gap, error = exact.prove(*problem, cost, scales, value, g)
    return Certificate(*(number.view(total.shape) for number in (value, gap, error)))


@torch.no_grad()
def transport_plan(
    mass: Float[Tensor, "*batch H W"],
    joints: Float[Tensor, "*batch 2"],
    *,
    cost: str = "l2",
    scale: float | Tensor | None = None,
) -> Float[Tensor, "*batch 4 H W"]:
    """A plan of least cost: the mass that each pixel ships to each `subpixel` demander, in float64.

    Meets both marginals of (1): summed over pixels it is the demand, summed over demanders the mass. Arguments and
    errors as in `heatmap_emd`. For looking at and for proofs; slow.
    """
    _check_choices(mass, joints, "subpixel", cost, "exact", 1.0, scale)
    mass, joints, total = _in_full_precision(mass, joints)
    points, weights = demanders_of(joints.double(), (mass.shape[-2], mass.shape[-1]), "subpixel")
    maps, totals, points, demand = _flat(mass.double(), total.double(), points, weights)
    plan = exact.plan(maps / totals.view(-1, 1, 1), demand, points, cost, _flat_scale(scale, totals.view_as(total)))
    return plan.view(*mass.shape[:-2], 4, *mass.shape[-2:])


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


def _flat_scale(scale: float | Tensor | None, total: Float[Tensor, "*batch"]) -> Float[Tensor, "P"] | None:
    """The scale of each map, if the cost has one."""
    if scale is None:
        return None
    return torch.as_tensor(scale, dtype=total.dtype, device=total.device).detach().expand(total.shape).reshape(-1)


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
def _entropic(
    mass: Float[Tensor, "P H W"],
    total: Float[Tensor, "P"],
    points: Float[Tensor, "P 4 2"],
    weights: Float[Tensor, "P 4"],
    cost: str,
    scale: Float[Tensor, "P"] | None,
    blur: float,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P H W"], Float[Tensor, "P"], Float[Tensor, "P 4"]]:
    """Cost of the entropic plans, and f, its mean and g of their problem.

    The eps of all problems is blur, or blur^2 where costs are squared distances: Gaussian ones, which are that near the
    dot when multiplied by 2 scale^2, are so multiplied first and divided in the end.
    """
    costs = transport_costs(points, (mass.shape[1], mass.shape[2]), cost, scale)
    suppliers = mass / total.view(-1, 1, 1)
    power = 1 if cost in exact.METRICS else 2
    eps, largest = blur**power, math.hypot(*mass.shape[1:]) ** power
    if cost == "gaussian" and scale is not None:
        factor = 2 * scale.clamp(1e-15, 1e15).square()  # of a wider one all costs round to 0
        value, f, g = sinkhorn(
            suppliers.flatten(1), weights, (costs * factor.view(-1, 1, 1, 1)).flatten(2), eps, largest
        )
        value, f, g = value / factor, f / factor.unsqueeze(1), g / factor.unsqueeze(1)
    else:
        value, f, g = sinkhorn(suppliers.flatten(1), weights, costs.flatten(2), eps, largest)
    return value, f.view_as(mass), (suppliers.flatten(1) * f).sum(1), g


def _check_choices(
    mass: Tensor,
    joints: Tensor,
    demanders: str,
    cost: str,
    solver: str,
    blur: float,
    scale: float | Tensor | None,
) -> None:
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
    check_scale(scale, cost)
    batch, shape = tuple(mass.shape[:-2]), tuple(scale.shape) if isinstance(scale, Tensor) else ()
    padded = (1,) * (len(batch) - len(shape)) + shape
    if len(padded) > len(batch) or any(size not in (1, wanted) for size, wanted in zip(padded, batch, strict=True)):
        raise InputError(
            f"scale {shape} does not match heatmaps {tuple(mass.shape)}: give one number, or a tensor that broadcasts "
            f"to {batch}, such as one for each joint"
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
