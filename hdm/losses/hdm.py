"""The HDM loss."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from hdm.losses.batch import (
    REDUCTIONS,
    check_batch,
    check_choice,
    check_positive,
    full_precision,
    softmax,
    weighted,
)
from hdm.transport import COSTS, DEMANDERS, SOLVERS, unchecked_emd

SUPPLIERS = ("softmax", "softplus", "relu", "sigmoid")


class HDMLoss(nn.Module):
    """Earth Mover's Distance between the predicted heatmap and the dot annotation (Qu et al., NeurIPS 2022).

    Per joint, in heatmap pixels (squared for `l2_squared`): l = EMD(s, demanders of the dot) with suppliers
    s_i = a(z_i) / sum_k a(z_k), where a is exp(z / temperature) (`softmax`), or max(z, 0) (`relu`), log(1 + exp z)
    (`softplus`), 1 / (1 + exp(-z)) (`sigmoid`). A map of the last three whose mass sum_k a(z_k) is less than `floor` is
    filled up to it, evenly, and divided by it: so a map without any positive value is a distribution too, and no
    gradient exceeds the largest cost divided by the floor (for 64 x 48 maps and either cost, what fp16 can hold).

    demanders, cost, solver, blur: see `hdm.transport.heatmap_emd`. The supplier activation, the cost and the solver of
    the paper are not known to us; these are switches in their place. Raises InputError for unknown names and non-finite
    maps.

    >>> loss = HDMLoss()
    >>> heatmaps = torch.zeros(2, 3, 8, 6, requires_grad=True)
    >>> loss(heatmaps, torch.full((2, 3, 2), 2.25), torch.ones(2, 3)).backward()
    """

    def __init__(
        self,
        suppliers: str = "softmax",
        demanders: str = "subpixel",
        cost: str = "l2",
        solver: str = "exact",
        *,
        blur: float = 0.1,
        temperature: float = 1.0,
        floor: float = 0.1,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("suppliers", suppliers, SUPPLIERS)
        check_choice("demanders", demanders, DEMANDERS)
        check_choice("cost", cost, COSTS)
        check_choice("solver", solver, SOLVERS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(blur=blur, temperature=temperature, floor=floor)
        self.suppliers, self.demanders, self.cost, self.solver = suppliers, demanders, cost, solver
        self.blur, self.temperature, self.floor, self.reduction = blur, temperature, floor, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The suppliers s (B, K, H, W): non-negative, each map of sum 1."""
        if self.suppliers == "softmax":
            return softmax(heatmaps, self.temperature)
        activation: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": relu,
            "softplus": softplus,
            "sigmoid": torch.sigmoid,
        }
        mass = activation[self.suppliers](full_precision(heatmaps))
        total = mass.sum((-2, -1), keepdim=True)
        missing = (self.floor - total).clamp(min=0)
        return (mass + missing / (mass.shape[-2] * mass.shape[-1])) / (total + missing)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        mass = self.maps(heatmaps)  # known to be distributions, which saves looking at them
        total = mass.new_ones(mass.shape[:2])
        distance = unchecked_emd(mass, joints, total, self.demanders, self.cost, self.solver, self.blur)
        return weighted(distance, visible, self.reduction)

    def extra_repr(self) -> str:
        return f"suppliers={self.suppliers!r}, demanders={self.demanders!r}, cost={self.cost!r}, solver={self.solver!r}"
