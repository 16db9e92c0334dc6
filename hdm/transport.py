r"""Earth Mover's Distance between a heatmap and a dot annotation.

A heatmap's pixels x_i supply mass s_i (sum 1); M demanders q_j ask for mass d_j (sum 1); moving one unit from x_i to
q_j costs c_ij. The distance is the least total cost,

    EMD = min_{P >= 0} sum_ij c_ij P_ij   subject to   sum_j P_ij = s_i,   sum_i P_ij = d_j.            (1)

With one demander the only plan is P_i = s_i, so EMD = sum_i s_i c_i: no solver. With four (`subpixel`) the dual of (1),

    EMD = max_g D(g),   D(g) = sum_j d_j g_j + sum_i s_i f_i(g),   f_i(g) = min_j (c_ij - g_j),         (2)

is a concave maximisation in four numbers. `solver="exact"` maximises it; `solver="sinkhorn"` solves the entropic
relaxation.

Gradient. By the envelope theorem the maximiser g* may be held fixed while (2) is differentiated: dEMD/ds_i = f_i(g*)
and dEMD/dd_j = g*_j. Both potentials are free up to a constant that cancels, because s and d are normalised.

Distances are in heatmap pixels, coordinates as in `hdm.pixels`.
"""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.errors import InputError

DEMANDERS = ("nearest", "dot", "subpixel")
COSTS = ("l2", "l2_squared")
SOLVERS = ("exact", "sinkhorn")


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

    mass: non-negative heatmaps; each is divided by its sum, so the scale of a map does not matter.
    joints: dot annotations (x, y) in heatmap pixels. `nearest` and `subpixel` move a dot outside of the pixel centres
        to the border.
    demanders: `nearest` (one, at the rounded pixel: the paper's naive form, as we read it), `dot` (one, at the
        unrounded dot) or `subpixel` (the four pixels around the dot with bilinear weights, whose mean is the dot).
    cost: `l2` (distance in pixels) or `l2_squared`.
    solver: for `subpixel` only. `exact` maximises the dual (2); `sinkhorn` adds entropy of scale `blur` (pixels) and
        returns the cost of the entropic plan, with the gradient of the entropic problem.
    Returns a value for each map: pixels (l2) or squared pixels (l2_squared), in float32, or float64 for float64 input.
    Raises InputError for an unknown name, a blur that is not positive, shapes that do not match, joints that are not
        finite, and a heatmap that is no distribution (negative, infinite or NaN somewhere, or zero everywhere).

    The paper (Qu et al., NeurIPS 2022) names suppliers, demanders and the two forms of its Figure 2; the bilinear
    weights, the cost and the solver are our choices, because its text does not reach us.
    """
    _check_choices(mass, joints, demanders, cost, solver, blur)
    with torch.autocast(mass.device.type, enabled=False):  # a transport plan in half precision loses the far mass
        dtype = torch.float64 if mass.dtype == torch.float64 else torch.float32
        mass, joints = mass.to(dtype), joints.to(dtype)
        _check_values(mass, joints)
        suppliers = mass / mass.sum((-2, -1), keepdim=True)
        height, width = mass.shape[-2:]
        points, weights = demanders_of(joints, (height, width), demanders)
        costs = transport_costs(points, (height, width), cost)
        if demanders != "subpixel":
            return (suppliers * costs.squeeze(-3)).sum((-2, -1))
        solve = _solve_exact if solver == "exact" else _solve_sinkhorn
        value = solve(
            suppliers.reshape(-1, height * width),
            weights.reshape(-1, 4),
            costs.reshape(-1, 4, height * width),
            blur if cost == "l2" else blur**2,
        )
        return value.view(mass.shape[:-2])


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
    # The floor gives the square root a zero, not an undefined, gradient where a pixel lies on the point.
    return squared if cost == "l2_squared" else squared.clamp(min=1e-30).sqrt()


def _solve_exact(
    suppliers: Float[Tensor, "P N"], weights: Float[Tensor, "P 4"], costs: Float[Tensor, "P 4 N"], eps: float
) -> Float[Tensor, "P"]:
    """EMD of P problems: the dual (2) at its maximiser. `eps` is the other solver's and is not used."""
    g = dual_potentials(suppliers, weights, costs)
    f = (costs.detach() - g.unsqueeze(-1)).amin(-2)
    return (weights * g).sum(-1) + (suppliers * f).sum(-1)


# The ways to part four demanders in two, each named by one side.
_PARTS = ((0,), (1,), (2,), (3,), (0, 1), (0, 2), (0, 3))


@torch.no_grad()
def dual_potentials(
    suppliers: Float[Tensor, "P N"], weights: Float[Tensor, "P 4"], costs: Float[Tensor, "P 4 N"], rounds: int = 12
) -> Float[Tensor, "P 4"]:
    """A maximiser g of the dual (2), found exactly: ascent along the ways to part the demanders in two.

    Raise the potentials of a part S by t: pixel i ships to S once t exceeds v_i = min_{j in S}(c_ij - g_j) -
    min_{j not in S}(c_ij - g_j), so D changes at the rate d(S) - sum of s_i over v_i < t, and the best t is the
    s-weighted quantile of v at level d(S). -D is L-convex (submodular, and linear along (1, ..., 1)); such a function
    is at its minimum as soon as no part S can be moved to lower it (Murota, Discrete Convex Analysis, SIAM 2003,
    L-optimality criterion). So a round over all parts that leaves D unchanged, up to rounding, proves g optimal, and
    the problem is set aside. A handful of rounds suffices; `rounds` bounds them.
    """
    potentials = torch.zeros_like(weights)
    best = torch.full_like(weights[:, 0], -torch.inf)
    active = torch.arange(len(weights), device=weights.device)
    for _ in range(rounds):
        s, d, c, g = suppliers[active], weights[active], costs[active], potentials[active]
        for part in _PARTS:
            inside = list(part)
            outside = [j for j in range(4) if j not in part]
            reduced = c - g.unsqueeze(-1)
            threshold = reduced[:, inside].amin(1) - reduced[:, outside].amin(1)
            threshold, order = threshold.sort(dim=1)
            shipped = s.gather(1, order).cumsum(1)
            at = (shipped < d[:, inside].sum(1, keepdim=True)).sum(1, keepdim=True).clamp(max=s.shape[1] - 1)
            g[:, inside] += threshold.gather(1, at)
        g -= g.mean(1, keepdim=True)
        value = (d * g).sum(1) + (s * (c - g.unsqueeze(-1)).amin(1)).sum(1)
        rises = value > best[active] + 8 * torch.finfo(value.dtype).eps * value.abs()
        potentials[active], best[active] = g, value
        active = active[rises]
        if len(active) == 0:
            break
    return potentials


def _solve_sinkhorn(
    suppliers: Float[Tensor, "P N"], weights: Float[Tensor, "P 4"], costs: Float[Tensor, "P 4 N"], target: float
) -> Float[Tensor, "P"]:
    """Cost <P, C> of the entropic plan, with the gradient of the entropic problem (f and g of the KL form).

    In the log domain, in float32 at least, with eps lowered by halves from the largest cost to `target` (blur, or its
    square for squared costs), then until no demander's marginal is off by more than 1e-4. Warns where 2,000 iterations
    do not get there.
    """
    with torch.no_grad():
        log_d = weights.clamp(min=1e-12).log()
        log_s = suppliers.clamp(min=torch.finfo(suppliers.dtype).tiny).log()
        g = torch.zeros_like(weights)
        eps = max(float(costs.amax()), target)
        error, iteration = torch.inf, 0
        while eps > target or (error > 1e-4 and iteration < 2000):
            eps = max(eps / 2, target)
            f = _soft_minimum(log_d.unsqueeze(-1), costs - g.unsqueeze(-1), eps, 1)
            plan_columns = _soft_minimum(log_s.unsqueeze(1), costs - f.unsqueeze(1), eps, 2)
            if eps == target and iteration % 10 == 0:
                error = float((weights * ((g - plan_columns) / eps).exp() - weights).abs().amax())
            g, iteration = plan_columns, iteration + 1
        if error > 1e-4:
            warnings.warn(
                f"Sinkhorn at an entropic scale of {target:g} stopped after {iteration} iterations with a marginal "
                f"error of {error:.1e}; use a larger blur or solver='exact'",
                stacklevel=3,
            )
        f = _soft_minimum(log_d.unsqueeze(-1), costs - g.unsqueeze(-1), eps, 1)
        plan = (log_d.unsqueeze(-1) + log_s.unsqueeze(1) + (f.unsqueeze(1) + g.unsqueeze(-1) - costs) / eps).exp()
        value = (plan * costs).sum((-2, -1))
    dual = (weights * g).sum(-1) + (suppliers * f).sum(-1)
    return value + (dual - dual.detach())


def _soft_minimum(log_weights: Tensor, values: Tensor, eps: float, dim: int) -> Tensor:
    """-eps log sum_j w_j exp(-values_j / eps) along `dim`."""
    return -eps * torch.logsumexp(log_weights - values / eps, dim)


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


def _check_values(mass: Float[Tensor, "*batch H W"], joints: Float[Tensor, "*batch 2"]) -> None:
    """Refuses a map that is no distribution and a joint that is nowhere.

    Skipped where values cannot be looked at (torch.compile, torch.func).
    """
    if torch.compiler.is_compiling() or mass.numel() == 0:
        return
    total = mass.detach().sum((-2, -1))
    sound = (total > 0) & torch.isfinite(total) & (mass.detach().amin((-2, -1)) >= 0)
    try:
        checks = torch.stack([sound.all(), torch.isfinite(joints.detach()).all()])
        all_sound, all_known = checks.tolist()  # waits for a GPU once
    except RuntimeError:  # inside torch.func.vmap
        return
    if not all_sound:
        raise InputError(
            f"{int((~sound).sum())} of {sound.numel()} heatmaps are no distribution (all zero, negative, infinite or "
            "NaN): pass non-negative, finite maps with some mass, such as a softmax over the pixels"
        )
    if not all_known:
        raise InputError("joints hold NaN or infinite coordinates: leave these maps out or mend the annotation")
