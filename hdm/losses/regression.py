"""Losses that regress a heatmap pixel by pixel to a Gaussian of peak 1, the field's standard.

They have in common z the raw map, which is also what a decoder reads; G the target, `sigma` wide in heatmap pixels and
`rounded` to the nearest pixel or not (`hdm.losses.targets.gaussian`); and the joint's weight w = `visible`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.losses.batch import REDUCTIONS, check_batch, check_choice, check_positive, full_precision, weighted
from hdm.losses.targets import gaussian


class GaussianMSE(nn.Module):
    """Mean squared error to a Gaussian heatmap, the field's standard loss.

    Per joint: l = 1/2 mean_i (z_i - G_i)^2 with G_i = exp(-||x_i - q||^2 / (2 sigma^2)), peak 1, sigma in heatmap
    pixels. `rounded=True` puts the centre q on the nearest pixel and cuts G at 3 sigma along each axis, as
    SimpleBaseline and HRNet do (official repositories, `generate_target` and `JointsMSELoss`); `rounded=False` keeps
    the dot and the whole Gaussian (DARK).

    divide_by: what the mean is over, the `visible` joints (sum(w l) / sum(w)) or `all` of them (sum(w l) / (B K)), as
    in those repositories, where a batch with few visible joints counts less. There w enters squared, which is the same
    for 0 and 1.
    margin: how far outside of the map, in its pixels, a visible joint may lie. The official code trains on what is seen
    of a joint's patch, 3 sigma wide, where the joint itself is outside: give 3 sigma for that. (It also counts, as an
    empty map, a joint whose patch misses the left or upper border by up to two pixels; here that joint is not visible.)
    """

    def __init__(
        self,
        sigma: float = 2.0,
        *,
        rounded: bool = True,
        divide_by: str = "visible",
        margin: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("divide_by", divide_by, ("visible", "all"))
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma)
        if not margin >= 0:
            raise InputError(f"margin {margin} must be 0 or more heatmap pixels")
        self.sigma, self.rounded, self.divide_by, self.reduction = sigma, rounded, divide_by, reduction
        self.margin = margin

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The network's output itself."""
        return full_precision(heatmaps)

    def target(self, joints: Float[Tensor, "B K 2"], size: Sequence[int]) -> Float[Tensor, "B K H W"]:
        """G (B, K, H, W) for joints in heatmap pixels and a map of `size` (H, W)."""
        return gaussian(joints, size, self.sigma, rounded=self.rounded)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible, margin=self.margin)
        error = half_squared_error(self.maps(heatmaps), self.target(joints, heatmaps.shape[-2:]))
        if self.divide_by == "all" and self.reduction == "mean":
            return (error * visible).mean()
        return weighted(error, visible, self.reduction)

    def mean_over(self, visible: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """What the mean divides by: sum(w), or B K."""
        return visible.sum() if self.divide_by == "visible" else torch.ones_like(visible).sum()

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, rounded={self.rounded}, divide_by={self.divide_by!r}"


class OHKM(nn.Module):
    """Gaussian MSE of each image's hardest joints (online hard keypoint mining).

    Per joint l as in `GaussianMSE`; per image the mean over its `topk` largest w l (all, where it has fewer joints);
    over images the mean. Joints that are not visible have w l = 0 and count among the topk where an image has no
    others, as in the official code (HRNet repository, `JointsOHKMMSELoss`). `reduction="none"` gives w l, and 0 for
    joints that are not chosen.
    """

    def __init__(self, sigma: float = 2.0, *, topk: int = 8, rounded: bool = True, reduction: str = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, topk=topk)
        self.sigma, self.topk, self.rounded, self.reduction = sigma, topk, rounded, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The network's output itself."""
        return full_precision(heatmaps)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        target = gaussian(joints, heatmaps.shape[-2:], self.sigma, rounded=self.rounded)
        values = visible * half_squared_error(self.maps(heatmaps), target)
        count = min(self.topk, values.shape[1])
        hardest = values.detach().topk(count, dim=1).indices
        chosen = values * torch.zeros_like(values).scatter(1, hardest, 1.0)
        return chosen if self.reduction == "none" else chosen.sum(1).mean() / count

    def mean_over(self, visible: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """What the mean divides by: B, whatever is visible."""
        return visible.new_tensor(float(len(visible)))

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, topk={self.topk}, rounded={self.rounded}"


class AdaptiveWing(nn.Module):
    """Adaptive Wing loss (Wang, Bo, Fuxin, ICCV 2019): steep near the peak, gentle on the background.

    Per joint: l = mean_i f(|z_i - G_i|, G_i) with

        f(d, y) = omega ln(1 + (d / epsilon)^(alpha - y))   if d < theta,   else   A d - C,

    A and C of y such that value and slope are continuous at theta: with r = (theta / epsilon)^(alpha - y),
    A = omega / (1 + r) * (alpha - y) * r / theta and C = theta A - omega ln(1 + r). Constants as in the paper and in
    mmpose. Deviation from the paper: without its weighting of pixels near the peak, as in mmpose.
    """

    def __init__(
        self,
        sigma: float = 2.0,
        *,
        rounded: bool = True,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, omega=omega, epsilon=epsilon, theta=theta)
        if not alpha > 2:
            raise InputError(
                f"alpha {alpha} must be more than 2: below, a peak that is hit exactly has an infinite slope"
            )
        self.sigma, self.rounded, self.reduction = sigma, rounded, reduction
        self.alpha, self.omega, self.epsilon, self.theta = alpha, omega, epsilon, theta

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The network's output itself."""
        return full_precision(heatmaps)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        target = gaussian(joints, heatmaps.shape[-2:], self.sigma, rounded=self.rounded)
        difference = (self.maps(heatmaps) - target).abs()
        power = self.alpha - target
        ratio = (self.theta / self.epsilon) ** power
        slope = self.omega / (1 + ratio) * power * ratio / self.theta
        # Held at theta, so that the power of a large difference, which is not used, has no infinite gradient.
        curved = self.omega * torch.log1p((difference.clamp(max=self.theta) / self.epsilon) ** power)
        error = torch.where(
            difference < self.theta, curved, slope * (difference - self.theta) + self.omega * torch.log1p(ratio)
        )
        return weighted(error.mean((-2, -1)), visible, self.reduction)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, rounded={self.rounded}, alpha={self.alpha}, omega={self.omega}"


def half_squared_error(maps: Float[Tensor, "B K H W"], target: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K"]:
    """1/2 mean_i (z_i - G_i)^2 of each map."""
    return (maps - target).square().mean((-2, -1)) / 2
