"""Entropic transport between many suppliers and four demanders, by Sinkhorn's iteration in the log domain.

With supplies s_i, demands d_j and costs c_ij (`hdm.transport.emd`), a scale eps in units of cost and the product of the
marginals as reference, the problem

    min_P sum_ij c_ij P_ij + eps KL(P | s d^T)   subject to   sum_j P_ij = s_i,   sum_i P_ij = d_j               (1)

has the solution P_ij = s_i d_j exp((f_i + g_j - c_ij) / eps) for potentials that satisfy, in turn,

    f_i = -eps log sum_j d_j exp((g_j - c_ij) / eps),   g_j = -eps log sum_i s_i exp((f_i - c_ij) / eps).        (2)

Source: Cuturi, Sinkhorn Distances (NeurIPS 2013), in the log domain and with falling eps as Schmitzer, Stabilized
Sparse Scaling Algorithms for Entropy Regularized Transport Problems (SIAM J. Sci. Comput. 2019).
"""

import math
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-4  # mass by which a demander may be off
ITERATIONS = 2000
CHECKED_EVERY = 10  # iterations between two looks at the marginals: each look waits for the device
UNCHECKED = 200  # iterations at the target where nothing can be looked at


@torch.no_grad()
def sinkhorn(
    suppliers: Float[Tensor, "P N"],
    demand: Float[Tensor, "P 4"],
    costs: Float[Tensor, "P 4 N"],
    target: float,
    largest: float,
) -> tuple[Float[Tensor, "P"], Float[Tensor, "P N"], Float[Tensor, "P 4"]]:
    """Cost <P, C> of the entropic plan, and the potentials f and g of (2).

    target: the eps of (1). It is halved from `largest`, about the largest cost, down to there, then (2) repeats until
    no demander's marginal is off by more than 1e-4; the suppliers' marginals are exact. Warns where 2,000 iterations do
    not get there. Under torch.compile and torch.func, where the marginals cannot be looked at, 200 iterations follow.
    """
    log_d = demand.clamp(min=1e-12).log()
    log_s = suppliers.clamp(min=torch.finfo(suppliers.dtype).tiny).log()
    g = torch.zeros_like(demand)
    hidden = _hidden(suppliers)
    eps, error, iteration = max(largest, target), math.inf, 0
    last = math.ceil(math.log2(eps / target)) + UNCHECKED if hidden else ITERATIONS
    while eps > target or (error > TOLERANCE and iteration < last):
        eps = max(eps / 2, target)
        f = soft_minimum(log_d.unsqueeze(-1), costs - g.unsqueeze(-1), eps, 1)
        following = soft_minimum(log_s.unsqueeze(1), costs - f.unsqueeze(1), eps, 2)
        if eps == target and iteration % CHECKED_EVERY == 0 and not hidden:
            wrong = (demand * ((g - following) / eps).exp() - demand).abs()
            error = float(wrong.amax()) if wrong.numel() else 0.0
        g, iteration = following, iteration + 1
    if error > TOLERANCE and not hidden:
        warnings.warn(
            f"Sinkhorn at an entropic scale of {target:g} stopped after {iteration} iterations with a marginal "
            f"error of {error:.1e}; use a larger blur or solver='exact'",
            stacklevel=5,
        )
    f = soft_minimum(log_d.unsqueeze(-1), costs - g.unsqueeze(-1), eps, 1)
    plan = (log_d.unsqueeze(-1) + log_s.unsqueeze(1) + (f.unsqueeze(1) + g.unsqueeze(-1) - costs) / eps).exp()
    return (plan * costs).sum((-2, -1)), f, g


def _hidden(values: Tensor) -> bool:
    """Whether values cannot be looked at, because this is torch.compile's or torch.func's trace."""
    if torch.compiler.is_compiling():
        return True
    try:
        values.sum().item()
    except RuntimeError:
        return True
    return False


def soft_minimum(log_weights: Tensor, values: Tensor, eps: float, dim: int) -> Tensor:
    """-eps log sum_j w_j exp(-values_j / eps) along `dim`."""
    return -eps * torch.logsumexp(log_weights - values / eps, dim)
