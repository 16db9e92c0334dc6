"""RLE: a joint as coordinates with a learnt error distribution."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from hdm.losses.batch import REDUCTIONS, check_batch, check_choice, weighted
from hdm.losses.heads import check_size, flat_maps, linear
from hdm.losses.targets import demanded_pixels

PRIORS = ("official", "laplace", "gaussian")

# The smallest sigma, in shares of the map's sides: a sixteenth of a pixel on 64. Keeps errors in units of it finite.
FLOOR = 1e-3
# A map whose norm is smaller is not scaled to norm 1, only divided by this: a flat map has no direction.
SMALLEST_NORM = 1e-3


class RLE(nn.Module):
    """Residual log-likelihood estimation (Li et al., ICCV 2021).

    Two linear layers, the same for all joints, turn a joint's map into coordinates u = ((x + 1/2) / W, (y + 1/2) / H),
    which run from 0 to 1 over the map's area, and their scale sigma = sigmoid(.), in the same unit. With the error
    e = (u - u of the dot) / sigma, per joint and summed over the two axes a:

        l = sum_a [ log sigma_a - log phi(e) + prior_a ]

    phi is the density of a normalising flow (`Flow`) that is trained along and not used afterwards. It is one density
    of both axes' errors and counted with each axis, as the official code does.

    prior: `official`  log(sigma sqrt(2 pi)) + |e| / sqrt(2)
           `laplace`   log(2 sigma) + |e|               (mmpose)
           `gaussian`  log(sigma sqrt(2 pi)) + e^2 / 2  (mmpose)
    size: (H, W) of the heatmaps; the default is that of a 256 x 192 crop at stride 4.

    Source: official repository (res-loglikelihood-regression, `regression_nf.py`, `criterion.py`), with its scaling of
    the coordinate layer's input to norm 1 and its initial weights. Deviations: the head reads a joint's heatmap (there
    pooled features, with weights for each joint); a mean over visible joints (there a sum, over the batch size);
    sigma is at least 1e-3; coordinates from 0 to 1 (there from -1/2 to 1/2).
    Raises InputError for unknown names and for heatmaps of another size.
    """

    def __init__(self, size: Sequence[int] = (64, 48), *, prior: str = "official", reduction: str = "mean") -> None:
        super().__init__()
        check_choice("prior", prior, PRIORS)
        check_choice("reduction", reduction, REDUCTIONS)
        self.size, self.prior, self.reduction = check_size(size), prior, reduction
        self.to_place, self.to_sigma = (nn.Linear(math.prod(self.size), 2) for _ in range(2))
        for layer, bias in ((self.to_place, 0.5), (self.to_sigma, 0.0)):  # at first the map's middle, sigma 1/2
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
            nn.init.constant_(layer.bias, bias)
        self.flow = Flow()

    def estimate(self, heatmaps: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K 2"]]:
        """u and sigma, in shares of the map's sides."""
        maps = flat_maps(heatmaps, self.size)
        place = linear(self.to_place, normalize(maps, dim=-1, eps=SMALLEST_NORM))
        return place, FLOOR + (1 - FLOOR) * linear(self.to_sigma, maps).sigmoid()

    def joints(self, heatmaps: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """The coordinates (x, y) in heatmap pixels, which may lie outside of the map, and the score 1 - mean sigma."""
        place, sigma = self.estimate(heatmaps)
        return place * place.new_tensor([self.size[1], self.size[0]]) - 0.5, 1 - sigma.mean(-1)

    def maps(self, heatmaps: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
        """The four bilinear weights of the joint, times its score: decoder `local` reads both exactly.

        A joint beyond the outermost pixel centres is moved onto them.
        """
        joints, scores = self.joints(heatmaps)
        index, weights = demanded_pixels(joints, self.size, "subpixel")
        maps = joints.new_zeros(*joints.shape[:2], math.prod(self.size))
        return maps.scatter_add(-1, index, weights * scores.unsqueeze(-1)).unflatten(-1, self.size)

    def forward(
        self, heatmaps: Float[Tensor, "B K H W"], joints: Float[Tensor, "B K 2"], visible: Float[Tensor, "B K"]
    ) -> Float[Tensor, ""] | Float[Tensor, "B K"]:
        joints = check_batch(heatmaps, joints, visible)
        place, sigma = self.estimate(heatmaps)
        true_place = (joints + 0.5) / joints.new_tensor([self.size[1], self.size[0]])
        error = (place - true_place) / sigma
        log_phi = self.flow.log_density(error.flatten(0, -2)).view_as(error[..., 0])
        loss = sigma.log() - log_phi.unsqueeze(-1) + self._prior(error, sigma)
        return weighted(loss.sum(-1), visible, self.reduction)

    def _prior(self, error: Float[Tensor, "B K 2"], sigma: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
        if self.prior == "laplace":
            return (2 * sigma).log() + error.abs()
        spread = (sigma * math.sqrt(2 * math.pi)).log()
        return spread + (error.square() / 2 if self.prior == "gaussian" else error.abs() / math.sqrt(2))

    def extra_repr(self) -> str:
        return f"size={self.size}, prior={self.prior!r}"


class Flow(nn.Module):
    """RealNVP (Dinh et al., ICLR 2017) in the plane: six couplings map an error e to z, which is standard normal.

    A coupling keeps one coordinate, k, and turns the other, m, into (m - t(k)) exp(-s(k)); the next one swaps them. s
    and t are networks 2-64-64-2 with leaky ReLUs, s with a tanh at its end, as in the official repository of RLE
    (`real_nvp.py`), which feeds them both coordinates, the other one as 0.
    """

    masks: Tensor

    def __init__(self, couplings: int = 6, width: int = 64) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_Network(width) for _ in range(couplings))
        self.shifts = nn.ModuleList(_Network(width) for _ in range(couplings))
        kept = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        self.register_buffer("masks", kept[torch.arange(couplings) % 2], persistent=False)

    def to_normal(self, errors: Float[Tensor, "N 2"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N"]]:
        """z and log |det dz/de|."""
        z, log_det = errors, torch.zeros_like(errors[:, 0])
        couplings = list(zip(self.masks.to(errors.dtype), self.scales, self.shifts, strict=True))
        for mask, scale, shift in reversed(couplings):
            kept = mask * z
            s = (1 - mask) * scale(kept).tanh()
            t = (1 - mask) * shift(kept)
            z = kept + (1 - mask) * (z - t) * (-s).exp()
            log_det = log_det - s.sum(-1)
        return z, log_det

    def log_density(self, errors: Float[Tensor, "N 2"]) -> Float[Tensor, "N"]:
        """log phi(e) = log N(z; 0, 1) + log |det dz/de|."""
        z, log_det = self.to_normal(errors)
        return log_det - z.square().sum(-1) / 2 - math.log(2 * math.pi)


class _Network(nn.Module):
    """2-width-width-2 with leaky ReLUs, in the precision of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        x = leaky_relu(linear(self.first, x))
        return linear(self.last, leaky_relu(linear(self.second, x)))
