r"""Potentials of the transport problem between many suppliers and four demanders.

With supplies s_i, demands d_j and costs c_ij (`hdm.transport.emd`; the book's equation eq-dual), the Earth Mover's
Distance is the maximum over four potentials g_j of the concave, piecewise linear

    D(g) = sum_j d_j g_j + sum_i s_i min_j (c_ij - g_j).                                                (1)

Soften each minimum over a scale eps, in units of cost, and let the demands weigh in: supplier i ships the share

    p_ij ~ d_j exp((h_j - c_ij) / eps),    g = h + eps log d                                            (2)

to demander j. The best h is where every demander gets what it asks for: m_j = sum_i s_i p_ij = d_j. As eps falls, h
moves along a path that ends in a maximiser of (1), and near its end h is linear in eps wherever few pixels tie and
nearly constant where many do. So the solver follows the path: eps falls by a constant factor, h is extrapolated along
the line through the last two points and corrected by one Newton step. In the end a second step makes sure of the last
point, and the line through it and the one before is followed to eps = 0. (2) makes the path short: if one pixel held
all the mass, h would be right from the start at any eps.

The Newton step. Of what reaches j, let the Markov matrix Pi_jk = sum_i s_i p_ij p_ik / m_j say how it would be shared
again. Then dm_j / dh_k = m_j ([j = k] - Pi_jk) / eps, and with the fundamental matrix of that chain (Kemeny & Snell,
Finite Markov Chains, 1960), the step towards log m = log d is

    eps (I - Pi + 1 m^T)^-1 r,    r_j = log(d_j / m_j), or d_j / m_j - 1 where too much arrives,        (3)

the rank-one term being free to choose because a constant added to h changes nothing. Both forms of r agree near the
solution; the smaller of the two does not overshoot.

Where a supplier changes sides the path turns, and the line through its last two points misses the next one. A step of
more than two eps says so. It is cut to that length, and its problem stays at its eps for another step; each problem has
an eps of its own, and one that had to stay ends at a larger one.

Everything is batched over P problems, takes the same operations whatever the values, and never waits for the device.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import threshold

from hdm.transport.demanders import BOUNDED, ground_cost
from hdm.transport.groups import UNGROUPED, Suppliers, every_pixel, grouped

FAR_OFF = 2.0  # length of a Newton step, in eps, beyond which it is not trusted
# Pixels of the maps solved at a time, to bound memory: on a CPU, elsewhere. Without groups, a twelfth.
PIXELS_AT_ONCE = (2**21, 2**25)


class Path(NamedTuple):
    """The falling scales eps, in units of cost; at which of them to go on with few suppliers, and with how many.

    A problem that stays at a scale falls from then on by the same factors from there.
    """

    scales: list[float]
    narrow_at: float
    kept: int


@torch.no_grad()
def potentials(
    suppliers: Float[Tensor, "P H W"],
    demand: Float[Tensor, "P 4"],
    corner: Float[Tensor, "P 2"],
    cost: str,
    scale: Float[Tensor, "P"] | None = None,
) -> Float[Tensor, "P 4"]:
    """Potentials g at or near a maximiser of (1).

    suppliers, demand: of the same sum, whatever that is. corner: the first demander (x0, y0); the others are
    (x0 + 1, y0), (x0, y0 + 1) and (x0 + 1, y0 + 1). cost, scale: see `hdm.transport.demanders.ground_cost`.

    In float64 all pixels take part, down to an eps of 1e-8. In float32 eps ends at 1e-3, and for `l2` far pixels take
    part as groups (`groups`), whose error in D is of second order. Squared costs differ the more between demanders
    the farther a pixel is, so none can be grouped. With a bounded cost (nearly) all far pixels tie, at any eps: they
    can neither be grouped by the spread of their differences nor be set aside, so all take part to the end.
    """
    precise = suppliers.dtype == torch.float64
    group = grouped if cost == "l2" and not precise else every_pixel
    path = path_for((suppliers.shape[1], suppliers.shape[2]), cost, precise)
    pixels = suppliers.shape[1] * suppliers.shape[2] * (12 if group is every_pixel else 1)
    at_once = max(1, PIXELS_AT_ONCE[suppliers.device.type != "cpu"] // pixels)
    parts = suppliers.split(at_once)
    scales = [None] * len(parts) if scale is None else scale.split(at_once)
    found = [
        follow_path(group(s, q), d, cost, path, r)[0]
        for s, d, q, r in zip(parts, demand.split(at_once), corner.split(at_once), scales, strict=True)
    ]
    return torch.cat(found) if scale is None else torch.cat(found) / stretch(cost, scale)


@torch.no_grad()
def optimal_plan(
    suppliers: Float[Tensor, "P H W"],
    demand: Float[Tensor, "P 4"],
    corner: Float[Tensor, "P 2"],
    cost: str,
    scale: Float[Tensor, "P"] | None = None,
) -> Float[Tensor, "P 4 H W"]:
    """A plan of least cost, in float64: how much each pixel ships to each demander. Both marginals are met.

    The plan (2) at an eps of 1e-8, with what it misses of the demands moved from demanders that have too much to those
    that have too little.
    """
    suppliers, demand, corner = suppliers.double(), demand.double(), corner.double()
    scale = None if scale is None else scale.double()
    parts = every_pixel(suppliers, corner)
    path = path_for((suppliers.shape[1], suppliers.shape[2]), cost, precise=True)
    _, g, eps = follow_path(parts, demand, cost, path, scale)
    costs = _differences(parts, cost, scale).transpose(0, 1)
    plan = ((g.unsqueeze(-1) - costs) / eps.unsqueeze(-1)).softmax(1) * parts.mass.unsqueeze(1)
    arriving = plan.sum(2)
    plan = plan * (demand / arriving.clamp(min=1e-30)).clamp(max=1).unsqueeze(-1)
    left, missing = (parts.mass - plan.sum(1)).clamp(min=0), (demand - plan.sum(2)).clamp(min=0)
    plan = plan + missing.unsqueeze(-1) * (left / left.sum(1, keepdim=True).clamp(min=1e-15)).unsqueeze(1)
    return plan.unflatten(-1, suppliers.shape[-2:])


def path_for(size: tuple[int, int], cost: str, precise: bool) -> Path:
    """Short where many large maps are solved at once, careful where time is no matter."""
    # Costs differ between demanders by up to 1 for l2, also truncated, and by up to twice the map's length for squared
    # ones, also for stretched Gaussian ones.
    first = 0.5 if cost in ("l2", "truncated") else max(size) / 2
    if precise:
        return Path(_geometric(first, 1e-8, 0.8), 0.0, 0)
    if cost in BOUNDED:
        return Path([*_geometric(first, 1e-3, 0.7), 1e-3], 0.0, 0)
    if size[0] * size[1] <= UNGROUPED:
        return Path([*_geometric(first, 1e-3, 0.8), 1e-3], 0.0, 0)
    if cost == "l2":
        return Path([*_geometric(0.4, 0.03, 0.64), *_geometric(0.0226, 1e-3, 0.753), 1e-3], 0.03, 24)
    return Path([*_geometric(first, 0.5, 0.66), *_geometric(0.4, 1e-3, 0.75), 1e-3], 0.5, 256)


def stretch(cost: str, scale: Float[Tensor, "P"]) -> Float[Tensor, "P 1"]:
    """What bounded costs are multiplied by while potentials are sought, so that one eps suits every scale.

    Near the dot, stretched costs are distances (`truncated`) or squared distances (`gaussian`) in pixels; where the
    scale is less than 1 or 2 pixels they are larger, and the largest is 1 or 8.
    """
    if cost == "truncated":
        return (1 / scale).clamp(min=1).unsqueeze(1)
    # The upper limit keeps products with costs that round to 0 from being infinite.
    return 2 * scale.clamp(2, 1e15).square().unsqueeze(1)


def _geometric(first: float, last: float, ratio: float) -> list[float]:
    """From first to last, each `ratio` of the one before, or a little more."""
    steps = math.ceil(math.log(last / first) / math.log(ratio))
    return [*(first * (last / first) ** (step / steps) for step in range(steps)), last]


class _Whole(NamedTuple):
    """All suppliers of the problems. costs: less their mean over the demanders."""

    mass: Float[Tensor, "P N"]
    root: Float[Tensor, "P N"]  # of mass
    costs: Float[Tensor, "4 P N"]


class _Few(NamedTuple):
    """Few suppliers, each with the square of its least softness (`_widths`), and what all others send.

    The others send `sent` to each demander at potentials `at`, with the slope dm_j / dg_k.
    """

    mass: Float[Tensor, "P N"]
    costs: Float[Tensor, "4 P N"]
    widths: Float[Tensor, "P N"]
    sent: Float[Tensor, "P 4"]
    slope: Float[Tensor, "P 4 4"]
    at: Float[Tensor, "P 4"]


def follow_path(
    parts: Suppliers, demand: Float[Tensor, "P 4"], cost: str, path: Path, scale: Float[Tensor, "P"] | None = None
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4"], Float[Tensor, "P 1"]]:
    """g of (2) at eps = 0, where the path leads; g at the last eps of each problem; and that eps.

    All three in units of the cost, times `stretch` where it is bounded.
    """
    # A demander that asks for nothing would have its potential at minus infinity.
    demand = _shares(_shares(demand).clamp(min=1e-7 if demand.dtype == torch.float32 else 1e-12))
    log_demand = demand.log()
    # Masses that do not count become 0, because what is computed with numbers near the smallest there is takes long.
    mass = threshold(_shares(parts.mass), 1e-14 if demand.dtype == torch.float32 else 1e-30, 0.0)
    widths = _widths(parts)
    problem: _Whole | _Few = _Whole(mass, mass.sqrt(), _differences(parts, cost, scale))
    del parts  # the tables of all problems at once are the largest part of the memory
    h = predicted = torch.zeros_like(demand)
    # h and `before` are those of the last point that was trusted: none yet, so that the first line is level.
    eps, before = torch.full_like(h[:, :1], path.scales[0]), torch.full_like(h[:, :1], 1e30)
    for present, following in zip(path.scales, [*path.scales[1:], 0.0], strict=True):
        g = torch.addcmul(predicted, log_demand, eps)
        if isinstance(problem, _Whole) and present == path.narrow_at and path.kept < mass.shape[1]:
            problem = _set_aside(problem, widths, g, eps, path.kept)
        step = _newton_step(problem, log_demand, g, eps)
        length = step.abs().amax(1, keepdim=True)
        corrected = torch.addcmul(predicted, step, eps / (length / FAR_OFF).clamp(min=1))
        # All stay where the scale is repeated, and nobody at the end.
        held = length > (math.inf if not following else FAR_OFF if following < present else -1)
        fallen = torch.where(held, eps, eps * (following / present))
        predicted = torch.lerp(h, corrected, (fallen - before) / (eps - before))
        last, h, before, eps = eps, torch.where(held, h, corrected), torch.where(held, before, eps), fallen
    return predicted, torch.addcmul(corrected, log_demand, last), last


def _newton_step(
    problem: _Whole | _Few, log_demand: Float[Tensor, "P 4"], g: Float[Tensor, "P 4"], eps: Float[Tensor, "P 1"]
) -> Float[Tensor, "P 4"]:
    """The step (3) at potentials g, in units of eps."""
    if isinstance(problem, _Whole):
        arriving, exchange = _arrivals(problem, g, eps)
    else:
        arriving, exchange = _arrivals_of_few(problem, g, eps)
    arriving = arriving.clamp(min=1e-30)
    # The matrix of (3), its rows times m, with the sign turned: m Pi - m m^T, less m Pi 1 on the diagonal. A little
    # more is taken off the diagonal for the case that all suppliers are decided and Pi is the identity.
    matrix = torch.addcmul(exchange, arriving.unsqueeze(2), arriving.unsqueeze(1), value=-1)
    matrix.diagonal(dim1=1, dim2=2).sub_(torch.add(exchange.sum(2), arriving, alpha=1e-4))
    surplus = (arriving.log() - log_demand).clamp(max=1)
    # Not `solve`, which waits for the device to report a singular matrix.
    return torch.linalg.solve_ex(matrix, arriving * surplus).result


def _arrivals(
    problem: _Whole, g: Float[Tensor, "P 4"], eps: Float[Tensor, "P 1"]
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4 4"]]:
    """m of (2), and m_j Pi_jk of (3): the mass that j draws from k as h_j rises by eps, to first order."""
    weights, total = _weights(problem.costs, g, 1 / eps)
    weights = weights.mul_(problem.root / total).transpose(0, 1)
    exchange = torch.bmm(weights, weights.mT)
    return exchange.sum(2), exchange  # the shares of a supplier sum to 1


def _arrivals_of_few(
    problem: _Few, g: Float[Tensor, "P 4"], eps: Float[Tensor, "P 1"]
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4 4"]]:
    """The same with supplier i's minimum softened over sqrt(eps^2 + widths_i), and with what the others send."""
    rate = _rate(problem.widths, eps)
    arriving, exchange = _sent(problem.mass, rate, *_weights(problem.costs, g, rate))
    others = torch.baddbmm(problem.sent.unsqueeze(2), problem.slope, (g - problem.at).unsqueeze(2)).squeeze(2)
    return arriving + others, (exchange - problem.slope).mul_(eps.unsqueeze(2))


def _rate(widths: Float[Tensor, "P N"], eps: Float[Tensor, "P 1"]) -> Float[Tensor, "P N"]:
    """One over the scale of supplier i's softened minimum."""
    return torch.addcmul(widths, eps, eps).rsqrt_()


def _weights(
    costs: Float[Tensor, "4 P N"], g: Float[Tensor, "P 4"], rate: Float[Tensor, "P #N"]
) -> tuple[Float[Tensor, "4 P N"], Float[Tensor, "P N"]]:
    """exp((g_j - c_ij) rate_i), up to a factor for each supplier, and its sum over the demanders.

    Exponents reach from 0 to 24 (float64: 60): what is smaller than the largest by more no longer counts, and
    exponentials near the smallest number there is would take long.
    """
    reach = 24 if g.dtype == torch.float32 else 60
    weights = torch.sub(g.T.unsqueeze(2), costs).mul_(rate)
    largest = torch.maximum(torch.maximum(weights[0], weights[1]), torch.maximum(weights[2], weights[3]))
    weights.sub_(largest.sub_(reach)).relu_().exp_()
    # In pairs, which is faster than a sum along the first dimension.
    return weights, (weights[0] + weights[1]) + (weights[2] + weights[3])


def _sent(
    mass: Float[Tensor, "P N"],
    rate: Float[Tensor, "P N"],
    weights: Float[Tensor, "4 P N"],
    total: Float[Tensor, "P N"],
) -> tuple[Float[Tensor, "P 4"], Float[Tensor, "P 4 4"]]:
    """sum_i s_i p_ij and sum_i s_i p_ij p_ik rate_i for shares p that are `weights` divided by `total`."""
    flow = weights * (mass / total)
    sent = flow.sum(2).T
    return sent, torch.bmm(flow.mul_(rate / total).transpose(0, 1), weights.permute(1, 2, 0))


def _set_aside(
    problem: _Whole, widths: Float[Tensor, "P N"], g: Float[Tensor, "P 4"], eps: Float[Tensor, "P 1"], kept: int
) -> _Few:
    """The problem of `kept` suppliers, from now on of these widths, with the first-order response of all others.

    From here on, eps matters only to suppliers between demanders, and potentials move little: what the others send
    changes in proportion to the potentials, if at all. Those are kept that make up most of what some demander could
    gain or lose, s_i p_ij (1 - p_ij) / m_j.
    """
    rate = _rate(widths, eps)
    weights, total = _weights(problem.costs, g, rate)
    stakes = weights * (problem.mass / total)
    stakes.div_(stakes.sum(2, keepdim=True).clamp(min=1e-30))
    stake = stakes.sum(0).sub_(stakes.mul_(weights).sum(0).div_(total))
    del stakes
    keep = stake.topk(kept, 1, sorted=False).indices
    sent, exchange = _sent(problem.mass.scatter(1, keep, 0.0), rate, weights, total)
    return _Few(
        problem.mass.gather(1, keep),
        problem.costs.gather(2, keep.expand(4, -1, -1)),
        widths.gather(1, keep),
        sent,
        torch.diag_embed(exchange.sum(2)) - exchange,
        g,
    )


def _differences(parts: Suppliers, cost: str, scale: Float[Tensor, "P"] | None) -> Float[Tensor, "4 P N"]:
    """The costs, stretched, less their mean over the four demanders, which would shift D and cost digits."""
    x, y = (torch.stack([place, place - 1]).square() for place in (parts.x, parts.y))
    costs = ground_cost((y.unsqueeze(1) + x).flatten(0, 1), cost, None if scale is None else scale.unsqueeze(1))
    if scale is not None:
        costs = costs.mul_(stretch(cost, scale))
    return costs.sub_(costs.mean(0))


def _widths(parts: Suppliers) -> Float[Tensor, "P N"]:
    """The square of the eps at which (2) shares a block about as its pixels would be shared, in squared pixels.

    Per pixel across the direction to the dot, the difference of the costs of two demanders side by side changes by
    sin(angle) / distance, in the mean square by 1 / (2 distance^2); a logistic step of scale eps is the distribution
    function of a standard deviation of pi / sqrt(3) eps.
    """
    distance = (parts.x - 0.5).square() + (parts.y - 0.5).square()
    return parts.spread / distance.clamp(min=1) * (3 / (2 * math.pi**2))


def _shares(mass: Float[Tensor, "P N"]) -> Float[Tensor, "P N"]:
    """Each row divided by its sum; a row of zeros stays one."""
    return mass / mass.sum(1, keepdim=True).clamp(min=torch.finfo(mass.dtype).tiny)
