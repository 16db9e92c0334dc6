"""The HDM loss and the losses it is compared with, all called as `loss(heatmaps, joints, visible)`.

    heatmaps (B, K, H, W)  the network's raw output
    joints   (B, K, 2)     dot annotations (x, y) in heatmap pixels
    visible  (B, K)        weight of each joint; 0 leaves it out, whatever its coordinates are

`reduction="mean"` returns the weighted mean over visible joints, sum(w l) / sum(w); `reduction="none"` returns the
(B, K) values w l. `loss.maps(heatmaps)` turns the raw output into the map that the loss trains and that a decoder
should read.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from hdm.errors import InputError
from hdm.transport import COSTS, DEMANDERS, SOLVERS, demanders_of, heatmap_emd

SUPPLIERS = ("softmax", "softplus", "relu", "sigmoid")


class HDMLoss(nn.Module):
    """Earth Mover's Distance between the predicted heatmap and the dot annotation (Qu et al., NeurIPS 2022).

    Per joint, in heatmap pixels (squared for `l2_squared`): l = EMD(s, demanders of the dot) with suppliers
    s_i = a(z_i) / sum_k a(z_k), where a is exp(z / temperature) (`softmax`), or max(z, 0), log(1 + exp z),
    1 / (1 + exp(-z)), each plus `floor` (`relu`, `softplus`, `sigmoid`). The floor is a small mass that keeps a map
    without any positive value a distribution.

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
        floor: float = 1e-6,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        _check_choice("suppliers", suppliers, SUPPLIERS)
        _check_choice("demanders", demanders, DEMANDERS)
        _check_choice("cost", cost, COSTS)
        _check_choice("solver", solver, SOLVERS)
        _check_choice("reduction", reduction, ("mean", "none"))
        _check_positive(blur=blur, temperature=temperature, floor=floor)
        self.suppliers, self.demanders, self.cost, self.solver = suppliers, demanders, cost, solver
        self.blur, self.temperature, self.floor, self.reduction = blur, temperature, floor, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The suppliers s (B, K, H, W): non-negative, each map of sum 1."""
        z = _full_precision(heatmaps)
        if self.suppliers == "softmax":
            return _softmax(z, self.temperature)
        activation: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": relu,
            "softplus": softplus,
            "sigmoid": torch.sigmoid,
        }
        mass = activation[self.suppliers](z) + self.floor
        return mass / mass.sum((-2, -1), keepdim=True)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = _check_batch(heatmaps, joints, visible)
        distance = heatmap_emd(
            self.maps(heatmaps), joints, demanders=self.demanders, cost=self.cost, solver=self.solver, blur=self.blur
        )
        return _reduce(distance, visible, self.reduction)

    def extra_repr(self) -> str:
        return f"suppliers={self.suppliers!r}, demanders={self.demanders!r}, cost={self.cost!r}, solver={self.solver!r}"


class GaussianMSE(nn.Module):
    """Mean squared error to a Gaussian heatmap, the field's standard loss.

    Per joint: l = 1/2 mean_i (z_i - G_i)^2 with G_i = exp(-||x_i - q||^2 / (2 sigma^2)), peak 1, sigma in heatmap
    pixels. `rounded=True` puts the centre q on the nearest pixel and cuts G at 3 sigma along each axis, as
    SimpleBaseline and HRNet do (official repositories, `generate_target` and `JointsMSELoss`); `rounded=False` keeps
    the dot and the whole Gaussian (DARK). Deviation: those repositories divide by all B K joints, this divides by the
    visible ones.
    """

    def __init__(self, sigma: float = 2.0, *, rounded: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        _check_choice("reduction", reduction, ("mean", "none"))
        _check_positive(sigma=sigma)
        self.sigma, self.rounded, self.reduction = sigma, rounded, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The network's output itself."""
        return _full_precision(heatmaps)

    def target(self, joints: Float[Tensor, "B K 2"], size: tuple[int, int]) -> Float[Tensor, "B K H W"]:
        """G (B, K, H, W) for joints in heatmap pixels and a map of `size` (H, W)."""
        centre = (joints + 0.5).floor() if self.rounded else joints

        def profile(length: int, axis: int) -> Tensor:
            offset = torch.arange(length, dtype=joints.dtype, device=joints.device) - centre[..., axis : axis + 1]
            values = torch.exp(-offset.square() / (2 * self.sigma**2))
            return values * (offset.abs() <= int(3 * self.sigma)) if self.rounded else values

        return profile(size[0], 1).unsqueeze(-1) * profile(size[1], 0).unsqueeze(-2)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = _check_batch(heatmaps, joints, visible)
        height, width = heatmaps.shape[-2:]
        error = (self.maps(heatmaps) - self.target(joints, (height, width))).square().mean((-2, -1)) / 2
        return _reduce(error, visible, self.reduction)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, rounded={self.rounded}"


class CrossEntropy(nn.Module):
    """Cross-entropy of the softmax heatmap to the same demanders that HDM uses, without any distance between pixels.

    Per joint: l = -sum_j d_j log p(q_j), p = softmax(z / temperature), with `nearest` (one-hot, as Mask R-CNN) or
    `subpixel` (four bilinear weights) demanders. It separates what the target does from what the transport cost does.
    """

    def __init__(self, demanders: str = "subpixel", *, temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        _check_choice("demanders", demanders, ("nearest", "subpixel"))
        _check_choice("reduction", reduction, ("mean", "none"))
        _check_positive(temperature=temperature)
        self.demanders, self.temperature, self.reduction = demanders, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return _softmax(_full_precision(heatmaps), self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = _check_batch(heatmaps, joints, visible)
        height, width = heatmaps.shape[-2:]
        points, weights = demanders_of(joints, (height, width), self.demanders)
        log_p = (_full_precision(heatmaps) / self.temperature).flatten(-2).log_softmax(-1)
        # A map one pixel wide has no right-hand demander; its weight is 0.
        x, y = points[..., 0].clamp(max=width - 1), points[..., 1].clamp(max=height - 1)
        entropy = -(weights * log_p.gather(-1, (y * width + x).long())).sum(-1)
        return _reduce(entropy, visible, self.reduction)

    def extra_repr(self) -> str:
        return f"demanders={self.demanders!r}, temperature={self.temperature}"


LOSSES: dict[str, type[nn.Module]] = {"gaussian_mse": GaussianMSE, "cross_entropy": CrossEntropy, "hdm": HDMLoss}


def make_loss(name: str, **settings) -> nn.Module:
    """The loss of that name in `LOSSES`, with its settings. Raises InputError for an unknown name or setting."""
    _check_choice("loss", name, tuple(LOSSES))
    try:
        return LOSSES[name](**settings)
    except TypeError as error:
        raise InputError(f"loss {name!r} does not take these settings {settings}: {error}") from error


def _softmax(z: Float[Tensor, "B K H W"], temperature: float) -> Float[Tensor, "B K H W"]:
    return (z / temperature).flatten(-2).softmax(-1).view_as(z)


def _full_precision(heatmaps: Tensor) -> Tensor:
    return heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()


def _reduce(per_joint: Float[Tensor, "B K"], visible: Float[Tensor, "B K"], reduction: str) -> Tensor:
    weighted = per_joint * visible
    return weighted if reduction == "none" else weighted.sum() / visible.sum()


def _check_batch(heatmaps: Tensor, joints: Tensor, visible: Tensor) -> Float[Tensor, "B K 2"]:
    """Refuses what no loss can learn from; returns the joints in full precision, those that do not count put at 0."""
    if heatmaps.ndim != 4 or joints.shape != (*heatmaps.shape[:2], 2) or visible.shape != heatmaps.shape[:2]:
        raise InputError(
            f"heatmaps {tuple(heatmaps.shape)}, joints {tuple(joints.shape)} and visible {tuple(visible.shape)} do not "
            "match: give (B, K, H, W), (B, K, 2) and (B, K)"
        )
    joints = torch.where((visible > 0).unsqueeze(-1), _full_precision(joints), 0.0)
    if torch.compiler.is_compiling():
        return joints
    checks = [
        torch.isfinite(heatmaps.detach()).all(),
        ((visible >= 0) & (visible < torch.inf)).all(),
        (visible > 0).any(),
        torch.isfinite(joints).all(),
    ]
    try:
        finite, weights, any_visible, known = torch.stack(checks).tolist()  # waits for a GPU once
    except RuntimeError:  # values cannot be looked at inside torch.func.vmap
        return joints
    if not finite:
        raise InputError("heatmaps hold NaN or infinite values: lower the learning rate, or look for bad input images")
    if not weights:
        raise InputError("visible holds negative, NaN or infinite weights: give 0 for joints that do not count, else 1")
    if not any_visible:
        raise InputError(
            "no joint of the batch is visible: leave out persons without labelled joints inside their crop"
        )
    if not known:
        raise InputError(
            "a visible joint has NaN or infinite coordinates: set its visibility to 0 or mend the annotation"
        )
    return joints


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise InputError(f"{name} {value} must be positive")
