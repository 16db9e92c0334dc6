"""Other libraries' solvers on the same problems, from logits to the gradient of the logits.

Each takes logits (B, K, H, W) that require a gradient and joints (B, K, 2), leaves the gradient of the mean over all
maps in `logits.grad`, and returns the values (B * K,).
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.transport import demanders_of, transport_costs

Solver = Callable[[Tensor, Tensor], Tensor]


# Whose memory torch does not see.
OUTSIDE_TORCH = ("POT emd2, dual as gradient", "ott-jax, blur 1 px")


def installed_peers() -> dict[str, Solver]:
    """The solvers of the libraries that are installed, by the name that the table gives them."""
    solvers: dict[str, tuple[str, Solver]] = {
        "POT emd2, dual as gradient": ("ot", pot_emd2),
        "POT solve_batch, blur 1 px": ("ot", pot_batch),
        "geomloss, blur 1 px": ("geomloss", geomloss_sinkhorn),
        "ott-jax, blur 1 px": ("ott", ott_sinkhorn),
    }
    return {name: solver for name, (library, solver) in solvers.items() if find_spec(library)}


def _problem(
    logits: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"]
) -> tuple[Float[Tensor, "P N"], Float[Tensor, "P 4"], Float[Tensor, "P 4 2"], Float[Tensor, "P 4 N"]]:
    height, width = logits.shape[-2:]
    suppliers = logits.flatten(0, 1).flatten(1).softmax(-1)
    points, weights = demanders_of(joints.flatten(0, 1), (height, width), "subpixel")
    return suppliers, weights, points, transport_costs(points, (height, width), "l2").flatten(2)


def pot_emd2(logits: Tensor, joints: Tensor) -> Tensor:
    """The network simplex of POT, one map after the other in float64, and its dual as the gradient."""
    import ot

    suppliers, weights, _, costs = _problem(logits, joints)
    gradient, values = torch.empty_like(suppliers), []
    for index, (s, d, c) in enumerate(zip(suppliers.detach().cpu(), weights.cpu(), costs.cpu(), strict=True)):
        s, d = s.double().numpy(), d.double().numpy()
        value, log = ot.emd2(s / s.sum(), d / d.sum(), c.T.double().numpy(), log=True, return_matrix=True)
        values.append(float(value))
        gradient[index] = torch.from_numpy(log["u"])
    suppliers.backward(gradient / len(values))
    return torch.tensor(values, device=logits.device)


def pot_batch(logits: Tensor, joints: Tensor) -> Tensor:
    """POT's batched Sinkhorn in the log domain, at most 100 iterations, and its potentials as the gradient."""
    import ot

    suppliers, weights, _, costs = _problem(logits, joints)
    with torch.no_grad():
        masses, cost = suppliers.detach(), costs.mT.contiguous()
        result = ot.solve_batch(cost, 1.0, a=masses, b=weights, max_iter=100, method="log_sinkhorn", grad="detach")
    # POT's potentials contain the logarithm of the masses; the gradient of the problem relative to them does not.
    potentials = result.potentials[0] - masses.clamp(min=torch.finfo(masses.dtype).tiny).log()
    suppliers.backward(potentials / len(suppliers))
    return result.value_linear


def geomloss_sinkhorn(logits: Tensor, joints: Tensor) -> Tensor:
    """geomloss's Sinkhorn loss with falling blur, without its debiasing terms."""
    from geomloss import SamplesLoss

    suppliers, weights, points, _ = _problem(logits, joints)
    height, width = logits.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(float(n), device=logits.device) for n in (height, width)), indexing="ij")
    pixels = torch.stack([x, y], -1).view(1, -1, 2).expand(len(suppliers), -1, -1).contiguous()
    values = SamplesLoss("sinkhorn", p=1, blur=1.0, debias=False, backend="tensorized")(
        suppliers, pixels, weights, points
    )
    values.mean().backward()
    return values.detach()


def ott_sinkhorn(logits: Tensor, joints: Tensor) -> Tensor:
    """ott-jax's Sinkhorn, mapped over the problems and compiled, at most 100 iterations."""
    suppliers, weights, _, costs = _problem(logits, joints)
    values, gradient = _compiled_ott()(*(part.detach().cpu().numpy() for part in (suppliers, weights, costs)))
    suppliers.backward(torch.tensor(gradient.__array__(), device=logits.device) / len(suppliers))
    return torch.tensor(values.__array__(), device=logits.device)


@cache
def _compiled_ott() -> Any:
    """(suppliers, weights, costs) -> (values, their gradients in the suppliers), batched over problems."""
    import jax
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    def value(s: Any, d: Any, c: Any) -> Any:
        return Sinkhorn(max_iterations=100)(LinearProblem(Geometry(c.T, epsilon=1.0), a=s, b=d)).reg_ot_cost

    return jax.jit(jax.vmap(jax.value_and_grad(value)))
