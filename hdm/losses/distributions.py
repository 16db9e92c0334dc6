"""Losses on the heatmap as a distribution p = softmax(z / temperature) over its pixels, other than HDM's.

All but `ExpectedCost` compare p with a target pixel by pixel, without any distance between pixels: beside HDM they
separate what the target does from what the transport cost does.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.losses.batch import REDUCTIONS, check_batch, check_choice, check_positive, log_softmax, softmax, weighted
from hdm.losses.hdm import scale_of_joints
from hdm.losses.targets import at_demanders, log_gaussian
from hdm.transport import COSTS, check_scale, heatmap_emd

TARGETS = ("nearest", "subpixel", "gaussian")


class CrossEntropy(nn.Module):
    """Cross-entropy of the softmax heatmap to the same demanders that HDM uses, without any distance between pixels.

    Per joint: l = -sum_j d_j log p(q_j), p = softmax(z / temperature), with `nearest` (one-hot, as Mask R-CNN) or
    `subpixel` (four bilinear weights) demanders, or `gaussian`: every pixel, with the weights of a Gaussian around the
    dot that is `sigma` heatmap pixels wide and sums to 1 over the map. It separates what the target does from what the
    transport cost does.
    """

    def __init__(
        self, demanders: str = "subpixel", *, sigma: float = 2.0, temperature: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        check_choice("demanders", demanders, TARGETS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, temperature=temperature)
        self.demanders, self.sigma, self.temperature, self.reduction = demanders, sigma, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        demand, log_p = at_demanders(log_softmax(heatmaps, self.temperature), joints, self.demanders, self.sigma)
        return weighted(-(demand * log_p).sum(-1), visible, self.reduction)

    def extra_repr(self) -> str:
        return f"demanders={self.demanders!r}, temperature={self.temperature}"


class KLDivergence(nn.Module):
    """Kullback-Leibler divergence from the softmax heatmap to a target: KL(d || p).

    Per joint: l = sum_j d_j log(d_j / p(q_j)), 0 log 0 = 0, targets as in `CrossEntropy`, here `gaussian` at first. It
    is the cross-entropy less the target's entropy: the same gradient, and 0 where p is the target.
    """

    def __init__(
        self, demanders: str = "gaussian", *, sigma: float = 2.0, temperature: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        check_choice("demanders", demanders, TARGETS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, temperature=temperature)
        self.demanders, self.sigma, self.temperature, self.reduction = demanders, sigma, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        demand, log_p = at_demanders(log_softmax(heatmaps, self.temperature), joints, self.demanders, self.sigma)
        return weighted((torch.xlogy(demand, demand) - demand * log_p).sum(-1), visible, self.reduction)

    def extra_repr(self) -> str:
        return f"demanders={self.demanders!r}, sigma={self.sigma}, temperature={self.temperature}"


class JSDivergence(nn.Module):
    """Jensen-Shannon divergence of the softmax heatmap and a Gaussian around the dot, in nats, at most log 2.

    Per joint: l = KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2, q the Gaussian of `sigma` heatmap pixels that
    sums to 1 over the map: the regulariser of DSNT alone (Nibali et al. 2018; dsntnn, `js_reg_losses`).
    """

    def __init__(self, sigma: float = 1.0, *, temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, temperature=temperature)
        self.sigma, self.temperature, self.reduction = sigma, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        log_q = log_gaussian(joints, heatmaps.shape[-2:], self.sigma)
        return weighted(js_divergence(log_softmax(heatmaps, self.temperature), log_q), visible, self.reduction)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, temperature={self.temperature}"


class ExpectedCost(nn.Module):
    """Expected distance from the dot of a pixel drawn from the softmax heatmap.

    Per joint, in heatmap pixels (squared for `l2_squared`, without unit for `gaussian`): l = sum_i p_i c(x_i, q), q the
    unrounded dot. It is the Earth Mover's Distance to a single demander, so what `HDMLoss` adds to it is what its four
    demanders add, and the quantity that Sampling-Argmax (NeurIPS 2021) estimates by sampling. Its minimum puts all mass
    on the nearest pixel. The same as HDMLoss("softmax", "dot"), also in cost and scale.
    """

    def __init__(
        self,
        cost: str = "l2",
        *,
        scale: float | Sequence[float] | None = None,
        temperature: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("cost", cost, COSTS)
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(temperature=temperature)
        check_scale(scale, cost)
        self.cost, self.scale, self.temperature, self.reduction = cost, scale, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        maps = self.maps(heatmaps)
        scale = scale_of_joints(self.scale, maps)
        expected = heatmap_emd(maps, joints, demanders="dot", cost=self.cost, scale=scale)
        return weighted(expected, visible, self.reduction)

    def extra_repr(self) -> str:
        scale = f", scale={self.scale!r}" if self.scale else ""
        return f"cost={self.cost!r}{scale}, temperature={self.temperature}"


def js_divergence(log_p: Float[Tensor, "B K H W"], log_q: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K"]:
    """Jensen-Shannon divergence of two maps given by their logarithms, in nats.

    In logarithms, because there p log p has a gradient where p is 0 in floating point.
    """
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    both = log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)
    return both.sum((-2, -1)) / 2
