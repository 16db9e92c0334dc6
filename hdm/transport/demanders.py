"""Where the mass must go and what it costs to get there.

Coordinates are (x, y) in heatmap pixels as in `hdm.pixels`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.errors import InputError

DEMANDERS = ("nearest", "dot", "subpixel")
COSTS = ("l2", "l2_squared", "truncated", "gaussian")
BOUNDED = ("truncated", "gaussian")  # these need a scale


def demanders_of(
    joints: Float[Tensor, "*batch 2"], size: tuple[int, int], demanders: str
) -> tuple[Float[Tensor, "*batch M 2"], Float[Tensor, "*batch M"]]:
    """Where the mass must go: M points (x, y) in heatmap pixels and their weights, which sum to 1.

    size: (H, W) of the heatmap. With x0 = floor(x), a = x - x0 and likewise y0, b, the four `subpixel` demanders are
    (x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1) with weights (1-a)(1-b), a(1-b), (1-a)b, ab (the
    book's equation eq-demanders).
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
    points: Float[Tensor, "*batch M 2"], size: tuple[int, int], cost: str, scale: float | Tensor | None = None
) -> Float[Tensor, "*batch M H W"]:
    """c(x_i, q_j): the cost from every pixel of an H x W map to each of M points, by `ground_cost`.

    scale: for the bounded costs, in heatmap pixels, a number or a tensor that broadcasts to (*batch). Raises InputError
    where it is missing, or for a cost that takes none.
    """
    height, width = size
    if (scale is None) == (cost in BOUNDED):
        check_scale(scale, cost)
    if scale is not None:
        scale = torch.as_tensor(scale, dtype=points.dtype, device=points.device).detach()[..., None, None, None]
    x = torch.arange(width, dtype=points.dtype, device=points.device) - points[..., 0:1]  # (..., M, W)
    y = torch.arange(height, dtype=points.dtype, device=points.device) - points[..., 1:2]  # (..., M, H)
    return ground_cost(x.square().unsqueeze(-2) + y.square().unsqueeze(-1), cost, scale)


def ground_cost(squared: Tensor, cost: str, scale: Tensor | None) -> Tensor:
    """c of the squared distance d^2, which may be written over.

    `l2`: d. `l2_squared`: d^2. `truncated`: min(d, scale). `gaussian`: 1 - exp(-d^2 / (2 scale^2)).
    """
    if cost == "l2_squared":
        return squared
    if cost == "gaussian" and scale is not None:
        return -torch.expm1(squared / scale / scale / -2)  # the square of a scale may be too small or large a number
    # The floor gives the square root a zero, not an undefined, gradient where a pixel lies on the point.
    distance = squared.clamp(min=1e-30).sqrt() if squared.requires_grad else squared.sqrt_()
    return distance if scale is None else torch.minimum(distance, scale)


def check_scale(scale: float | Sequence[float] | Tensor | None, cost: str) -> None:
    """Raises InputError for a scale that `cost` lacks or does not take, or that is not positive and finite.

    Under torch.compile and torch.func, where values cannot be looked at, these are not checked.
    """
    if cost not in BOUNDED:
        if scale is not None:
            raise InputError(f"cost {cost!r} takes no scale: leave it out, or choose cost {' or '.join(BOUNDED)}")
        return
    if scale is None:
        raise InputError(f"cost {cost!r} needs a scale: give a length in heatmap pixels, such as scale=3.0")
    try:
        lengths = scale if isinstance(scale, Tensor) else torch.tensor(scale)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"scale {scale!r} is no length: give heatmap pixels, a number or one for each joint") from None
    if torch.compiler.is_compiling():
        return
    lengths = lengths.detach().float()  # in which it must not round to 0 or infinity
    try:
        sound = bool(((lengths > 0) & (lengths < torch.inf)).all())
    except RuntimeError:  # inside torch.func.vmap
        return
    if not sound:
        shown = scale.tolist() if isinstance(scale, Tensor) else scale
        raise InputError(f"scale {shown} must be positive and finite: it is a length in heatmap pixels")
