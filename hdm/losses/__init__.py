"""The HDM loss and the losses it is compared with, all called as `loss(heatmaps, joints, visible)`.

    heatmaps (B, K, H, W)  the network's raw output
    joints   (B, K, 2)     dot annotations (x, y) in heatmap pixels
    visible  (B, K)        weight of each joint; 0 leaves it out, whatever its coordinates are

`reduction="mean"` returns the weighted mean over visible joints, sum(w l) / sum(w), where a loss does not say
otherwise; `reduction="none"` returns the (B, K) values w l. `loss.maps(heatmaps)` turns the raw output into the map
that the loss trains and that a decoder should read. `SimCC` and `RLE` have parameters, which must be trained along, and
`loss.joints(heatmaps)`, which returns joints and scores as `hdm.decode.decode` does, without a decoder.
"""

from torch import nn

from hdm.errors import InputError
from hdm.losses.batch import check_choice
from hdm.losses.coordinates import DSNT, IntegralRegression
from hdm.losses.distributions import CrossEntropy, ExpectedCost, JSDivergence, KLDivergence
from hdm.losses.hdm import SUPPLIERS, HDMLoss
from hdm.losses.regression import OHKM, AdaptiveWing, GaussianMSE
from hdm.losses.rle import RLE
from hdm.losses.simcc import SimCC

__all__ = [
    "DSNT",
    "LOSSES",
    "OHKM",
    "RLE",
    "SUPPLIERS",
    "AdaptiveWing",
    "CrossEntropy",
    "ExpectedCost",
    "GaussianMSE",
    "HDMLoss",
    "IntegralRegression",
    "JSDivergence",
    "KLDivergence",
    "SimCC",
    "make_loss",
]

LOSSES: dict[str, type[nn.Module]] = {
    "gaussian_mse": GaussianMSE,
    "ohkm": OHKM,
    "adaptive_wing": AdaptiveWing,
    "cross_entropy": CrossEntropy,
    "kl": KLDivergence,
    "js": JSDivergence,
    "expected_cost": ExpectedCost,
    "integral": IntegralRegression,
    "dsnt": DSNT,
    "simcc": SimCC,
    "rle": RLE,
    "hdm": HDMLoss,
}


def make_loss(name: str, **settings) -> nn.Module:
    """The loss of that name in `LOSSES`, with its settings. Raises InputError for an unknown name or setting."""
    check_choice("loss", name, tuple(LOSSES))
    try:
        return LOSSES[name](**settings)
    except TypeError as error:
        raise InputError(f"loss {name!r} does not take these settings {settings}: {error}") from error
