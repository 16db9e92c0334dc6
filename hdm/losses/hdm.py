"""The HDM loss."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from hdm.errors import InputError
from hdm.losses.batch import (
    REDUCTIONS,
    check_batch,
    check_choice,
    check_positive,
    full_precision,
    log_softmax,
    softmax,
    weighted,
)
from hdm.losses.targets import at_demanders
from hdm.transport import COSTS, DEMANDERS, SOLVERS, check_scale, unchecked_emd

SUPPLIERS = ("softmax", "softplus", "relu", "sigmoid")
LEAST_SHARE = 1e-6  # of a pixel in the cross-entropy, where suppliers are not a softmax


class HDMLoss(nn.Module):
    """Earth Mover's Distance between the predicted heatmap and the dot annotation (Qu et al., NeurIPS 2022).

    Per joint, in heatmap pixels (squared for `l2_squared`, without unit for `gaussian`): l = EMD(s, demanders of the
    dot) with suppliers s_i = a(z_i) / sum_k a(z_k) (the book's equation eq-suppliers), where a is exp(z / temperature)
    (`softmax`), or max(z, 0) (`relu`), log(1 + exp z) (`softplus`), 1 / (1 + exp(-z)) (`sigmoid`). A map of the last
    three whose mass sum_k a(z_k) is less than `floor` is filled up to it, evenly, and divided by it: so a map without
    any positive value is a distribution too, and no gradient of the EMD exceeds the largest cost divided by the floor
    (for 64 x 48 maps and any cost, what fp16 can hold).

    demanders, cost, solver, blur: see `hdm.transport.heatmap_emd`. scale: of the costs `truncated` and `gaussian`, in
    heatmap pixels: one number, or one for each joint. The supplier activation, the cost and the solver of the paper are
    not known to us; these are switches in their place.

    cross_entropy: weight w >= 0, in the unit of the distance, of l = EMD - w sum_j d_j log s(q_j), with the same
    demanders (`nearest` or `subpixel`: pixels). Through a softmax, the EMD's gradient at a pixel is proportional to the
    pixel's mass, so that it vanishes where there is none, even at the dot; that of the cross-entropy, `CrossEntropy`'s,
    does not. The shares s of other suppliers count as no less than 1e-6 in it: one below gets no gradient from it, nor
    does a `relu` of a negative value.

    Raises InputError for unknown names, a scale that does not fit the cost or the joints, a cross-entropy to the
    unrounded dot, and non-finite maps.

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
        scale: float | Sequence[float] | None = None,
        cross_entropy: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("suppliers", suppliers, SUPPLIERS)
        check_choice("demanders", demanders, DEMANDERS)
        check_choice("cost", cost, COSTS)
        check_choice("solver", solver, SOLVERS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(blur=blur, temperature=temperature, floor=floor)
        check_scale(scale, cost)
        if not 0 <= cross_entropy < float("inf"):
            raise InputError(f"cross_entropy {cross_entropy} must be 0 or more, and finite: it is a weight")
        if cross_entropy and demanders == "dot":
            raise InputError(
                "no pixel is the unrounded dot: set cross_entropy to 0, or demanders to nearest or subpixel"
            )
        self.suppliers, self.demanders, self.cost, self.solver = suppliers, demanders, cost, solver
        self.blur, self.temperature, self.floor, self.reduction = blur, temperature, floor, reduction
        self.scale, self.cross_entropy = scale, cross_entropy

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
        scale = scale_of_joints(self.scale, mass)
        value = unchecked_emd(mass, joints, total, self.demanders, self.cost, self.solver, self.blur, scale)
        if self.cross_entropy:
            value = value + self.cross_entropy * self._cross_entropy(heatmaps, mass, joints)
        return weighted(value, visible, self.reduction)

    def _cross_entropy(
        self, heatmaps: Float[Tensor, "B K H W"], mass: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"]
    ) -> Float[Tensor, "B K"]:
        """-sum_j d_j log s(q_j) of the suppliers `mass`."""
        if self.suppliers == "softmax":
            log_mass = log_softmax(heatmaps, self.temperature)
        else:
            log_mass = mass.clamp(min=LEAST_SHARE).log()
        demand, log_supply = at_demanders(log_mass, joints, self.demanders)
        return -(demand * log_supply).sum(-1)

    def extra_repr(self) -> str:
        names = ["suppliers", "demanders", "cost", "solver"]
        names += [name for name in ("scale", "cross_entropy") if getattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def scale_of_joints(scale: float | Sequence[float] | None, mass: Float[Tensor, "B K H W"]) -> Tensor | None:
    """The scale as a tensor beside the mass, one number or (K,). Raises InputError where there are not K."""
    if scale is None:
        return None
    lengths = mass.new_tensor(scale)
    if lengths.shape not in ((), mass.shape[1:2]):
        raise InputError(
            f"scale {scale} does not fit heatmaps of {mass.shape[1]} joints: give one number, or a list of one for each"
        )
    return lengths
