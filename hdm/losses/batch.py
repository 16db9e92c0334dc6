"""What every loss does with a batch: refuse what nothing can be learnt from, go to full precision, average."""

import torch
from jaxtyping import Float
from torch import Tensor

from hdm.errors import Diverged, InputError
from hdm.pixels import inside

REDUCTIONS = ("mean", "none")


def check_batch(heatmaps: Tensor, joints: Tensor, visible: Tensor, *, margin: float = 0.0) -> Float[Tensor, "B K 2"]:
    """Refuses what no loss can learn from; returns the joints in full precision, those that do not count put at 0.

    Raises InputError for shapes that do not match, heatmaps that are not finite, weights that are none, a batch without
    a visible joint, and a visible joint that is nowhere or more than half a pixel (and `margin`) outside of the
    outermost pixel centres. Under torch.compile and torch.func, where values cannot be looked at, only shapes are
    checked.
    """
    if heatmaps.ndim != 4 or joints.shape != (*heatmaps.shape[:2], 2) or visible.shape != heatmaps.shape[:2]:
        raise InputError(
            f"heatmaps {tuple(heatmaps.shape)}, joints {tuple(joints.shape)} and visible {tuple(visible.shape)} do not "
            "match: give (B, K, H, W), (B, K, 2) and (B, K)"
        )
    joints = torch.where((visible > 0).unsqueeze(-1), full_precision(joints), 0.0)
    if torch.compiler.is_compiling():
        return joints
    height, width = heatmaps.shape[-2:]
    checks = [
        torch.isfinite(heatmaps.detach().sum()),  # a sum reads only once, and few finite maps have an infinite one
        ((visible >= 0) & (visible < torch.inf)).all(),
        (visible > 0).any(),
        torch.isfinite(joints).all(),
        inside(joints, width, height, margin).all(),
    ]
    try:
        finite, weights, any_visible, known, on_map = torch.stack(checks).tolist()  # waits for a GPU once
    except RuntimeError:  # values cannot be looked at inside torch.func.vmap
        return joints
    if not finite and not torch.isfinite(heatmaps.detach()).all():
        raise Diverged("heatmaps hold NaN or infinite values: lower the learning rate, or look for bad input images")
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
    if not on_map:
        raise InputError(
            f"a visible joint lies outside of its {width} x {height} heatmap: give joints in heatmap pixels, and where "
            "one is outside of the crop set its visibility to 0"
        )
    return joints


def full_precision(heatmaps: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return heatmaps if heatmaps.dtype == torch.float64 else heatmaps.float()


def softmax(heatmaps: Float[Tensor, "B K H W"], temperature: float) -> Float[Tensor, "B K H W"]:
    """p = exp(z / temperature) over its sum in each map, in full precision."""
    z = full_precision(heatmaps)
    z = z if temperature == 1 else z / temperature
    return z.flatten(-2).softmax(-1).view_as(z)


def log_softmax(heatmaps: Float[Tensor, "B K H W"], temperature: float) -> Float[Tensor, "B K H W"]:
    """log p of `softmax`, which is finite where p is 0 in floating point."""
    z = full_precision(heatmaps)
    return (z / temperature).flatten(-2).log_softmax(-1).view_as(z)


def weighted(per_joint: Float[Tensor, "B K"], visible: Float[Tensor, "B K"], reduction: str) -> Tensor:
    """With `none` the values w l (B, K), with `mean` sum(w l) / sum(w)."""
    values = per_joint * visible
    return values if reduction == "none" else values.sum() / visible.sum()


def check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"unknown {what} {value!r}: choose one of {', '.join(known)}")


def check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise InputError(f"{name} {value} must be positive")
