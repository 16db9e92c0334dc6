"""Compactness of maps in closed form, calibration of scores that are calibrated by construction."""

import math

import numpy as np
import pytest
import torch
from problems import dirac, gaussian
from scipy.stats import mannwhitneyu
from torch import Tensor

from hdm.errors import InputError
from hdm.evaluate import calibration_error, effective_pixels, score_auc, spread

NAN = math.nan


def batch(*maps: Tensor) -> Tensor:
    """Maps as a batch of two images."""
    return torch.stack(maps).unflatten(0, (2, -1))


# --- maps


def test_maps_in_closed_form() -> None:
    """One pixel; two equal ones, (3, 4) apart; a uniform map, of variance (n^2 - 1) / 12 along each axis; nothing."""
    pair = dirac(12, 9, 1, 2) + dirac(12, 9, 4, 6)
    maps = batch(dirac(12, 9, 8, 0), pair, torch.ones(12, 9).double(), torch.zeros(12, 9).double())
    uniform = math.sqrt((12**2 - 1 + 9**2 - 1) / 12)
    torch.testing.assert_close(spread(maps), torch.tensor([[0, 2.5], [uniform, NAN]]).double(), equal_nan=True)
    torch.testing.assert_close(effective_pixels(maps), torch.tensor([[1, 2], [108, NAN]]).double(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gaussian(dtype: torch.dtype) -> None:
    """Wide enough that its sum is its integral: spread sqrt(2) sigma, entropy 1 + ln(2 pi sigma^2)."""
    sigmas = torch.tensor([[1.5, 2.0], [2.5, 3.0]], dtype=dtype)
    maps = batch(*(gaussian(64, 48, (22.3, 30.6), sigma).to(dtype) for sigma in sigmas.flatten().tolist()))
    torch.testing.assert_close(spread(maps), math.sqrt(2) * sigmas, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(effective_pixels(maps), 2 * math.pi * math.e * sigmas**2, atol=1e-3, rtol=1e-4)


def test_only_the_shape_of_a_map_counts() -> None:
    """Neither its height, nor what is negative, nor where it lies; two far pixels are spread, and still two pixels."""
    near, far = dirac(12, 9, 4, 5) + dirac(12, 9, 5, 5), dirac(12, 9, 0, 0) + dirac(12, 9, 8, 11)
    near, far = near - 2 * dirac(12, 9, 2, 2), 1e-3 * far
    maps = batch(near, near.roll((3, 2), (0, 1)), far, far.flip(0))
    half = math.hypot(8, 11) / 2
    torch.testing.assert_close(spread(maps), torch.tensor([[0.5, 0.5], [half, half]]).double())
    torch.testing.assert_close(effective_pixels(maps), torch.full((2, 2), 2.0).double())


def test_maps_that_cannot_be_read() -> None:
    maps = torch.ones(2, 3, 12, 9)
    maps[1, 2, 3, 4] = NAN
    for measure in (spread, effective_pixels):
        with pytest.raises(InputError, match="heatmaps hold NaN"):
            measure(maps)


# --- calibration


def test_calibration_by_hand() -> None:
    """Two bins: scores 0.1, 0.3 with hits 0, 1 (0.2 against 0.5), and 0.7, 0.9 with hits 1, 1 (0.8 against 1)."""
    scores, hits = np.array([0.9, 0.1, 0.7, 0.3]), np.array([True, False, True, True])
    assert calibration_error(scores, hits, bins=2) == pytest.approx((0.3 + 0.2) / 2)
    assert calibration_error(scores, hits, bins=1) == pytest.approx(0.75 - 0.5)
    # As many bins as scores, or more: each score against its own hit.
    for bins in (4, 10):
        assert calibration_error(scores, hits, bins=bins) == pytest.approx((0.1 + 0.1 + 0.3 + 0.7) / 4)


def test_scores_that_say_how_likely_a_hit_is() -> None:
    """Calibrated, the error is what chance leaves, E|N(0, p (1 - p) / n)| in a bin of n; too high by 0.1, it is 0.1."""
    rng = np.random.default_rng(2)
    likely = rng.uniform(0.05, 0.85, 40_000)
    hits = rng.random(40_000) < likely
    assert calibration_error(likely, hits) < 0.01
    assert calibration_error(likely + 0.1, hits) == pytest.approx(0.1, abs=0.01)
    assert calibration_error(1 - likely, hits) > 0.2


def test_equal_scores_do_not_depend_on_their_order() -> None:
    """Seven of ten with score 0.7 are hits: calibrated, wherever the hits stand and bins are cut."""
    scores = np.full(10, 0.7)
    hits = np.arange(10) < 7
    for order in (hits, hits[::-1], np.roll(hits, 4)):
        assert calibration_error(scores, order.astype(float), bins=3) == pytest.approx(0, abs=1e-12)


def test_the_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 12, 90).astype(float)  # with ties
    hits = rng.random(90) < scores / 12
    pairs = np.sign(scores[hits][:, None] - scores[~hits])
    assert score_auc(scores, hits) == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
    u = mannwhitneyu(scores[hits], scores[~hits]).statistic
    assert score_auc(scores, hits) == pytest.approx(u / (hits.sum() * (~hits).sum()))
    assert score_auc(-scores, hits) == pytest.approx(1 - score_auc(scores, hits))


def test_the_auc_of_extremes() -> None:
    scores = np.array([-3.0, 0.2, 5.0, 7.0])
    assert score_auc(scores, np.array([0.0, 0.0, 1.0, 1.0])) == 1
    assert score_auc(scores, np.array([1.0, 1.0, 0.0, 0.0])) == 0
    assert score_auc(np.ones(4), np.array([1.0, 0.0, 1.0, 1.0])) == 0.5
    assert math.isnan(score_auc(scores, np.ones(4)))
    assert math.isnan(score_auc(scores, np.zeros(4)))


# --- refusals


@pytest.mark.parametrize("measure", [calibration_error, score_auc])
def test_scores_that_cannot_be_compared(measure, no_shape_checks: None) -> None:
    scores = np.array([0.2, 0.5, 0.9])
    with pytest.raises(InputError, match=r"scores \(3,\) and hits \(2,\) do not match"):
        measure(scores, np.ones(2))
    with pytest.raises(InputError, match="scores is empty"):
        measure(scores[:0], scores[:0])
    with pytest.raises(InputError, match="scores hold NaN"):
        measure(np.array([0.2, NAN, 0.4]), np.ones(3))
    with pytest.raises(InputError, match="hits must be 0 or 1"):
        measure(scores, scores)


def test_scores_that_are_no_probabilities() -> None:
    with pytest.raises(InputError, match=r"scores from -0\.1 to 1\.5 are no probabilities"):
        calibration_error(np.array([-0.1, 1.5]), np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="bins 0 must be 1 or more"):
        calibration_error(np.array([0.1, 0.5]), np.array([0.0, 1.0]), bins=0)
