"""Losses on the heatmap's expectation: the joint that is predicted is mu = sum_i p_i x_i, p = softmax(z / temperature).

What these train is mu, not the highest pixel; a decoder that reads the neighbourhood of the peak reads something else.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.errors import InputError
from hdm.losses.batch import REDUCTIONS, check_batch, check_choice, check_positive, log_softmax, softmax, weighted
from hdm.losses.distributions import js_divergence
from hdm.losses.targets import log_gaussian


class IntegralRegression(nn.Module):
    """Distance of the expectation from the dot, in shares of the map's sides (Sun et al., ECCV 2018).

    Per joint: l = |mu_x - q_x| / W + |mu_y - q_y| / H, summed over the axes as in the official repository
    (integral-human-pose), whose coordinates x / W - 1/2 have the same differences. The 2D branch of that repository is
    not implemented, so that this form follows its 3D one.
    """

    def __init__(self, *, temperature: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(temperature=temperature)
        self.temperature, self.reduction = temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        offset = (expectation(self.maps(heatmaps)) - joints) / sides(joints, heatmaps.shape[-2:])
        return weighted(offset.abs().sum(-1), visible, self.reduction)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class DSNT(nn.Module):
    """Distance of the expectation from the dot, and a heatmap that looks like a Gaussian (Nibali et al. 2018).

    Per joint: l = ||2 (mu - q) / (W, H)||_2 + js_weight * JS(p, Gaussian around the dot, `sigma` heatmap pixels wide).
    The first term is in the coordinates of the paper, which run from -1 to 1 over the map's area, (2 x + 1) / W - 1;
    the second is that of `JSDivergence`. js_weight (lambda) and sigma are 1 in the paper, as far as we know. Source:
    dsntnn, `euclidean_losses` and `js_reg_losses`.
    """

    def __init__(
        self, sigma: float = 1.0, *, js_weight: float = 1.0, temperature: float = 1.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(sigma=sigma, temperature=temperature)
        if not js_weight >= 0:
            raise InputError(f"js_weight {js_weight} must be 0 or more")
        self.sigma, self.js_weight, self.temperature, self.reduction = sigma, js_weight, temperature, reduction

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p (B, K, H, W): the softmax over each map."""
        return softmax(heatmaps, self.temperature)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        height, width = heatmaps.shape[-2:]
        log_p = log_softmax(heatmaps, self.temperature)
        offset = 2 * (expectation(log_p.exp()) - joints) / sides(joints, (height, width))
        divergence = js_divergence(log_p, log_gaussian(joints, (height, width), self.sigma))
        # vector_norm has the gradient 0, not NaN, where the offset is 0.
        distance = torch.linalg.vector_norm(offset, dim=-1) + self.js_weight * divergence
        return weighted(distance, visible, self.reduction)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, js_weight={self.js_weight}, temperature={self.temperature}"


def expectation(maps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K 2"]:
    """mu = sum_i p_i x_i, in heatmap pixels, of maps that sum to 1."""
    columns = torch.arange(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    rows = torch.arange(maps.shape[-2], dtype=maps.dtype, device=maps.device)
    # Sums of products, because a matrix product would be taken in half precision under autocast.
    return torch.stack([(maps.sum(-2) * columns).sum(-1), (maps.sum(-1) * rows).sum(-1)], -1)


def sides(joints: Float[Tensor, "B K 2"], size: Sequence[int]) -> Float[Tensor, "2"]:
    """(W, H) as a tensor like the joints."""
    return joints.new_tensor([size[1], size[0]])
