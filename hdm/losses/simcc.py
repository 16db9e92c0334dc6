"""SimCC: a joint as two classifications, one along each axis."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hdm.losses.batch import REDUCTIONS, check_batch, check_choice, check_positive, weighted
from hdm.losses.heads import check_size, flat_maps, linear
from hdm.losses.targets import log_profile


class SimCC(nn.Module):
    """Cross-entropy along each axis, in bins finer than a pixel (Li et al., ECCV 2022; first as SimDR).

    Two linear layers, the same for all joints, turn the H W numbers of a joint's map into scores for the n W bins of
    its x and the n H bins of its y, n = `bins_per_pixel`. Per joint:

        l = (-sum_j d^x_j log p^x_j - sum_j d^y_j log p^y_j) / 2,    p^x, p^y the softmax of the scores.

    target: `one_hot`, the bin that holds the dot (SimCC), or `gaussian`, a Gaussian around it of `sigma` heatmap pixels
        that sums to 1 over the bins (SA-SimCC).
    size: (H, W) of the heatmaps; the default is that of a 256 x 192 crop at stride 4.
    bins_per_pixel: the repository's split ratio k is in bins per crop pixel, so that n = 4 k at stride 4. The default
        is its k = 2. Its sigma is in bins: 6 with k = 2 are the default's 0.75 heatmap pixels.

    Source: official repository (leeyegy/SimCC, `pose_resnet.py` and `NMTCritierion`). Deviations: bins share out the
    map's area, bin j being centred on (j + 1/2) / n - 1/2, so that a mirrored map has mirrored bins (there j / k, in
    crop pixels); the axes are averaged and visible joints too (there summed, over the batch size); for the Gaussian
    the cross-entropy (there the mean over bins of KL, which differs by a factor and a constant, to a target that is
    not divided by its sum); no label smoothing.
    Raises InputError for unknown names and for heatmaps of another size.
    """

    def __init__(
        self,
        size: Sequence[int] = (64, 48),
        *,
        target: str = "one_hot",
        bins_per_pixel: int = 8,
        sigma: float = 0.75,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_choice("target", target, ("one_hot", "gaussian"))
        check_choice("reduction", reduction, REDUCTIONS)
        check_positive(bins_per_pixel=bins_per_pixel, sigma=sigma)
        self.size = check_size(size)
        self.target, self.bins_per_pixel, self.sigma, self.reduction = target, bins_per_pixel, sigma, reduction
        height, width = self.size
        self.to_x = nn.Linear(height * width, width * bins_per_pixel)
        self.to_y = nn.Linear(height * width, height * bins_per_pixel)

    def axes(self, heatmaps: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "B K X"], Float[Tensor, "B K Y"]]:
        """log p^x and log p^y, over X = n W and Y = n H bins."""
        maps = flat_maps(heatmaps, self.size)
        return linear(self.to_x, maps).log_softmax(-1), linear(self.to_y, maps).log_softmax(-1)

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """p^y p^x summed over the bins of each pixel: a map of sum 1, coarser than what `joints` reads."""
        x, y = (log_p.exp().unflatten(-1, (-1, self.bins_per_pixel)).sum(-1) for log_p in self.axes(heatmaps))
        return y.unsqueeze(-1) * x.unsqueeze(-2)

    @torch.no_grad()
    def joints(self, heatmaps: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """The middle of the likeliest bins (x, y), in heatmap pixels, and the smaller of their two probabilities.

        The smaller one as mmpose and the repository's SA-SimCC do; its SimCC takes the larger.
        """
        best = [log_p.max(-1) for log_p in self.axes(heatmaps)]
        index = torch.stack([axis.indices for axis in best], -1)
        score = torch.stack([axis.values for axis in best], -1).amin(-1).exp()
        return (index + 0.5).to(score.dtype) / self.bins_per_pixel - 0.5, score

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        log_x, log_y = self.axes(heatmaps)
        entropy = self._cross_entropy(log_x, joints[..., 0]) + self._cross_entropy(log_y, joints[..., 1])
        return weighted(entropy / 2, visible, self.reduction)

    def _cross_entropy(self, log_p: Float[Tensor, "B K L"], place: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Cross-entropy along one axis to the target around a place in heatmap pixels."""
        bins = log_p.shape[-1]
        if self.target == "one_hot":
            index = ((place + 0.5) * self.bins_per_pixel).floor().clamp(0, bins - 1).long()
            return -log_p.gather(-1, index.unsqueeze(-1)).squeeze(-1)
        centres = (torch.arange(bins, dtype=place.dtype, device=place.device) + 0.5) / self.bins_per_pixel - 0.5
        return -(log_profile(centres, place, self.sigma).exp() * log_p).sum(-1)

    def extra_repr(self) -> str:
        return f"size={self.size}, target={self.target!r}, bins_per_pixel={self.bins_per_pixel}"
