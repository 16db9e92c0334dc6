"""Does the error fall when the loss falls?

A loss is trained in the hope that a lower one means better joints. Both are measured here on the same N held-out
persons at C checkpoints of one training, l and e of shape (C, N, K), and compared step by step: over all persons, for
each person, and for each single joint. `gradient_flow` asks the same of heatmaps that descend without a network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr
from torch import Tensor

from hdm.errors import InputError
from hdm.evaluate.localisation import localisation_error

ROUNDING = 1e-12  # a step smaller than this share of a series' largest value is none


@dataclass(frozen=True)
class Consistency:
    """How loss and error of one training go together; `consistency` has the formulas. Shares lie between 0 and 1."""

    checkpoints: int
    kendall: float
    spearman: float
    discordant: float
    discordant_steps: int
    falling_steps: int
    expected: float
    p_value: float
    joint_kendall: float
    joint_discordant: float
    person_kendall: float
    person_discordant: float
    excess_px: float
    excess_share: float


@dataclass(frozen=True)
class Flow:
    """A descent of free heatmaps: losses and errors (C, B, K), which `consistency` takes, and where it ended."""

    losses: Float[ndarray, "C B K"]
    errors: Float[ndarray, "C B K"]
    heatmaps: Float[Tensor, "B K H W"]


def consistency(
    losses: Float[ndarray, "C N K"], errors: Float[ndarray, "C N K"], *, resamples: int = 1000, seed: int = 0
) -> Consistency:
    """Whether the error of N fixed persons falls when their loss falls, over C checkpoints in the order of time.

    losses, errors: per joint, in any unit; NaN where a joint does not count, at all checkpoints and in both. A person
        without a joint that counts is left out.

    With l_c, e_c the means over all joints that count, and a step c -> c + 1 called falling where l_{c+1} < l_c and
    discordant where besides e_{c+1} > e_c (`step_discordance`):

        kendall, spearman      rank correlations of (l_c, e_c); NaN where one of them is constant
        discordant             discordant steps / falling steps; NaN, as are `expected` and `p_value`, where none falls
        expected, p_value      the same share as noise alone brings it about, and how often noise alone brings as much
        joint_kendall          mean of Kendall's tau over the series (l_cnk, e_cnk) of single joints that have one
        joint_discordant       discordant / falling among all steps of all these series
        person_kendall, person_discordant   the same for the series of each person's mean over its joints
        excess_px              mean_c (e_c - min_{j <= c} e_j), the area between the error and its running minimum, in
                               the unit of the errors
        excess_share           excess_px / min_c e_c; NaN where that minimum is 0

    Noise: even if the error is a non-decreasing function of the loss, the means over N persons are not, since the
    persons are a sample. So that function is fitted, f = the isotonic regression of e_c on l_c, and the persons are
    drawn anew with replacement, each with all its checkpoints: with l*_c, e*_c the means of a draw, the share of
    discordant steps of (l*_c, f_c + e*_c - e_c) is one draw from noise alone. `expected` is the mean of `resamples` of
    them (those with a falling step), p_value = (1 + #{share >= discordant}) / (1 + #draws). Two limits: the share sees
    the sign of a step, not its size, so that a steady small rise of the error gets no small p_value where persons rise
    and fall together; and what the training itself jitters is not noise here, because it happens to all persons.

    Raises InputError for shapes that differ, fewer than two checkpoints, fewer than two persons, NaN in different
    places, infinite values, and resamples below 1.
    """
    losses, errors, counts = _checked(losses, errors)
    if resamples < 1:
        raise InputError(f"resamples {resamples} must be 1 or more: it is how often the persons are drawn anew")
    joints = counts.sum(1)
    loss_sums, error_sums = (np.where(counts, values, 0.0).sum(2) for values in (losses, errors))
    loss_curve, error_curve = loss_sums.sum(1) / joints.sum(), error_sums.sum(1) / joints.sum()
    discordant, falling = (int(steps) for steps in step_discordance(loss_curve, error_curve))
    share = _share(discordant, falling)
    noise = _shares_from_noise(loss_sums, error_sums, joints, resamples, seed)
    excess = float((error_curve - np.minimum.accumulate(error_curve)).mean())
    constant = np.ptp(loss_curve) == 0 or np.ptp(error_curve) == 0
    joint_kendall, joint_discordant = _over_series(losses[:, counts], errors[:, counts])
    person_kendall, person_discordant = _over_series(loss_sums / joints, error_sums / joints)
    return Consistency(
        checkpoints=len(losses),
        kendall=float(kendall_tau(loss_curve, error_curve)),
        spearman=math.nan if constant else float(spearmanr(loss_curve, error_curve).statistic),
        discordant=share,
        discordant_steps=discordant,
        falling_steps=falling,
        expected=float(noise.mean()) if falling and len(noise) else math.nan,
        p_value=(1 + int((noise >= share).sum())) / (1 + len(noise)) if falling else math.nan,
        joint_kendall=joint_kendall,
        joint_discordant=joint_discordant,
        person_kendall=person_kendall,
        person_discordant=person_discordant,
        excess_px=excess,
        excess_share=excess / float(error_curve.min()) if error_curve.min() != 0 else math.nan,
    )


def step_discordance(
    losses: Float[ndarray, "C *series"], errors: Float[ndarray, "C *series"]
) -> tuple[Int[ndarray, "*series"], Int[ndarray, "*series"]]:
    """Discordant and falling steps of each series: (#{l falls and e rises}, #{l falls}) over the C - 1 steps.

    A change below 1e-12 of the series' largest absolute value is rounding and counts as none.
    """
    falls = np.diff(losses, axis=0) < -ROUNDING * np.abs(losses).max(0)
    rises = np.diff(errors, axis=0) > ROUNDING * np.abs(errors).max(0)
    return np.asarray((falls & rises).sum(0)), np.asarray(falls.sum(0))


def kendall_tau(x: Float[ndarray, "C *series"], y: Float[ndarray, "C *series"]) -> Float[ndarray, "*series"]:
    """Kendall's tau-b of each series, over its C (C - 1) / 2 pairs of checkpoints; NaN where x or y is constant.

    tau = sum_{i<j} s_ij t_ij / sqrt(sum s_ij^2 sum t_ij^2) with s_ij = sign(x_j - x_i), t_ij = sign(y_j - y_i), which
    is `scipy.stats.kendalltau` for many series at once (Kendall, Biometrika 1945).
    """
    agreement, changes_x, changes_y = (np.zeros(x.shape[1:]) for _ in range(3))
    # Pairs by their distance in time, so that never more than C of them are held for a series.
    for lag in range(1, len(x)):
        s, t = np.sign(x[lag:] - x[:-lag]), np.sign(y[lag:] - y[:-lag])
        agreement += (s * t).sum(0)
        changes_x += np.abs(s).sum(0)
        changes_y += np.abs(t).sum(0)
    with np.errstate(invalid="ignore"):
        return np.asarray(agreement / np.sqrt(changes_x * changes_y))


def gradient_flow(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    heatmaps: Float[Tensor, "B K H W"],
    joints: Float[Tensor, "B K 2"],
    visible: Float[Tensor, "B K"],
    *,
    decoder: Callable[[Tensor], Tensor],
    steps: int,
    rate: float,
    every: int = 1,
) -> Flow:
    """What a loss does to heatmaps that are free to move: each map z is itself the unknown and descends its own loss.

    The path is that of dz/dt = -dl/dz, taken in steps of equal length instead of equal time, so that losses of
    different units and steepness can be compared: z <- z - r g / rms(g) with g = dl/dz and rms(g)^2 = mean_i g_i^2 over
    the map's pixels. A step changes a map by the root mean square r, at first `rate`, in the unit of the raw map. One
    that would raise the map's loss is not taken, and halves that map's r; one that is taken lets it grow again by a
    tenth, up to `rate`, so that a kink on the way does not end it. A map whose gradient is 0 stays. So a loss never
    rises, and near a minimum the steps shrink.

    loss: `loss(z, joints, visible)` with `reduction="none"`, (B, K). Its sum is differentiated, so that a map does not
        depend on how many others there are (with `OHKM` it does, which compares the joints of an image).
    heatmaps: the raw maps at the start; they are left as they are.
    joints: in heatmap pixels; visible: joints with 0 do not count and stay.
    decoder: `decoder(z)` reads joints (B, K, 2) in heatmap pixels from raw maps, such as
        `lambda z: decode(loss.maps(z), "argmax")[0]`.
    every: how many steps lie between two of the C = steps // every + 1 records, the first of which is the start.
    Returns losses and errors (distance to the joint in heatmap pixels), NaN where a joint is not visible.
    Raises InputError for a rate that is not positive, steps or every below 1, a loss that does not return (B, K), and
    what the loss itself refuses.
    """
    if not rate > 0:
        raise InputError(f"rate {rate} must be positive: it is the root mean square by which a step changes a map")
    if steps < 1 or every < 1:
        raise InputError(f"steps {steps} and every {every} must be 1 or more")
    maps = heatmaps.detach() if heatmaps.dtype == torch.float64 else heatmaps.detach().float()
    values, gradient = _loss_and_gradient(loss, maps, joints, visible)
    size = torch.full_like(values, rate)
    records = []
    for step in range(steps + 1):
        if step % every == 0:
            error = localisation_error(decoder(maps).detach(), joints, visible, reduction="none")
            records.append((values.masked_fill(visible <= 0, torch.nan), error))
        if step == steps:
            break
        tried = maps - size[..., None, None] * _unit(gradient)
        tried_values, tried_gradient = _loss_and_gradient(loss, tried, joints, visible)
        taken = tried_values <= values
        values = torch.where(taken, tried_values, values)
        maps = torch.where(taken[..., None, None], tried, maps)
        gradient = torch.where(taken[..., None, None], tried_gradient, gradient)
        size = torch.where(taken, (size * 1.1).clamp(max=rate), size / 2)
    losses, errors = (torch.stack(column).double().cpu().numpy() for column in zip(*records, strict=True))
    return Flow(losses, errors, maps)


def _checked(losses: ndarray, errors: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Both in float64, without persons of whom no joint counts, and which joints (N, K) of the others count."""
    losses, errors = np.asarray(losses, np.float64), np.asarray(errors, np.float64)
    if losses.ndim != 3 or losses.shape != errors.shape:
        raise InputError(
            f"losses {losses.shape} and errors {errors.shape} must have one shape: give (C, N, K) for both"
        )
    if len(losses) < 2:
        raise InputError(f"{len(losses)} checkpoints have no step between them: give two or more")
    counts = ~np.isnan(losses[0])
    if not all((np.isnan(values) == ~counts).all() for values in (losses, errors)):
        raise InputError(
            "losses and errors hold NaN in different places: put NaN where a joint does not count, at every checkpoint "
            "and in both, and nowhere else"
        )
    if np.isinf(losses).any() or np.isinf(errors).any():
        raise InputError("losses or errors hold infinite values: leave out the checkpoints where the training failed")
    shown = counts.any(1)
    if shown.sum() < 2:
        raise InputError(f"{shown.sum()} persons with a joint that counts tell nothing about noise: give two or more")
    return losses[:, shown], errors[:, shown], counts[shown]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _over_series(losses: Float[ndarray, "C S"], errors: Float[ndarray, "C S"]) -> tuple[float, float]:
    """Mean of Kendall's tau over the series that have one, and the share of discordant among all falling steps."""
    tau = kendall_tau(losses, errors)
    tau = tau[~np.isnan(tau)]
    discordant, falling = (int(steps.sum()) for steps in step_discordance(losses, errors))
    return float(tau.mean()) if len(tau) else math.nan, _share(discordant, falling)


def _shares_from_noise(
    loss_sums: Float[ndarray, "C N"],
    error_sums: Float[ndarray, "C N"],
    joints: Int[ndarray, "N"],
    draws: int,
    seed: int,
) -> Float[ndarray, "R"]:
    """Share of discordant steps in draws from noise alone; draws without a falling step are left out."""
    loss_curve, error_curve = loss_sums.sum(1) / joints.sum(), error_sums.sum(1) / joints.sum()
    persons = len(joints)
    times = np.random.default_rng(seed).multinomial(persons, np.full(persons, 1 / persons), size=draws).astype(float)
    seen = times @ joints
    drawn_losses, drawn_errors = loss_sums @ times.T / seen, error_sums @ times.T / seen
    truth = _isotonic(loss_curve, error_curve)
    discordant, falling = step_discordance(drawn_losses, drawn_errors + (truth - error_curve)[:, None])
    return discordant[falling > 0] / falling[falling > 0]


def _isotonic(x: Float[ndarray, "C"], y: Float[ndarray, "C"]) -> Float[ndarray, "C"]:
    """The non-decreasing function of x that is nearest to y in squares, at each x; equal x count as one."""
    levels, index, times = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(index, y, len(levels)) / times
    return isotonic_regression(means, weights=times).x[index]


def _loss_and_gradient(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor], maps: Tensor, joints: Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        free = maps.clone().requires_grad_()
        values = loss(free, joints, visible)
        if values.shape != visible.shape:
            raise InputError(
                f"loss returns {tuple(values.shape)} for {tuple(visible.shape)} joints: make it with reduction='none'"
            )
        (gradient,) = torch.autograd.grad(values.sum(), free)
    return values.detach(), gradient


def _unit(gradient: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
    """Each map's gradient, scaled to root mean square 1; 0 where it is 0."""
    # By the largest entry first: the squares of a confident map's gradient may be too small for float32.
    largest = gradient.abs().amax((-2, -1), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1.0)
    norm = scaled.square().mean((-2, -1), keepdim=True).sqrt()
    return scaled / torch.where(norm > 0, norm, 1.0)
