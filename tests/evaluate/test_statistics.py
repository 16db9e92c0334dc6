"""Comparisons over seeds, against scipy, against numerical integration, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi2, nct, norm, permutation_test, ttest_rel

from hdm.errors import InputError
from hdm.evaluate import holm, mean_interval, paired_comparison

NAN = math.nan
A = [71.2, 70.4, 72.9, 71.0, 70.1, 71.9]
B = [70.3, 70.6, 71.1, 70.2, 69.9, 71.4]


# --- pairs


def test_the_paired_t_test() -> None:
    found = paired_comparison(A, B)
    expected = ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert found.n == 6
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert found.effect == pytest.approx(expected.statistic / math.sqrt(6))


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_effects_interval(level: float) -> None:
    """At its ends the t found lies at the upper and the lower (1 - level) / 2 of the noncentral distribution."""
    found = paired_comparison(A, B, level)
    t = ttest_rel(A, B).statistic
    assert nct.cdf(t, 5, found.effect_low * math.sqrt(6)) == pytest.approx((1 + level) / 2, abs=1e-6)
    assert nct.cdf(t, 5, found.effect_high * math.sqrt(6)) == pytest.approx((1 - level) / 2, abs=1e-6)
    assert found.effect_low < found.effect < found.effect_high


@pytest.mark.parametrize("jitter", [0.3, 1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("pairs", [2, 5])
def test_seeds_that_differ_by_little(pairs: int, jitter: float) -> None:
    """Large t, where scipy's noncentral t is not everywhere defined: P(T <= t) = E[Phi(t S - delta)] integrated."""
    differences = 1 + jitter * np.linspace(-1, 1, pairs)
    found = paired_comparison(differences, np.zeros(pairs))
    t = found.effect * math.sqrt(pairs)

    def below(effect: float) -> float:
        delta = effect * math.sqrt(pairs)
        # Phi is flat but for a few S; their quantiles are where the integrand has to be looked at.
        steps = chi2.cdf((pairs - 1) * (np.clip(delta + np.linspace(-8, 8, 9), 0, None) / t) ** 2, pairs - 1)
        value, _ = quad(
            lambda share: norm.cdf(t * math.sqrt(chi2.ppf(share, pairs - 1) / (pairs - 1)) - delta),
            *(0, 1),
            points=steps,
            limit=400,
        )
        return value

    assert below(found.effect_low) == pytest.approx(0.975, abs=1e-4)
    assert below(found.effect_high) == pytest.approx(0.025, abs=1e-4)


def test_the_other_way_round() -> None:
    found, turned = paired_comparison(A, B), paired_comparison(B, A)
    assert turned.difference == -found.difference
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert (turned.effect_low, turned.effect_high) == pytest.approx((-found.effect_high, -found.effect_low))
    assert (turned.p_value, turned.p_signs) == pytest.approx((found.p_value, found.p_signs))


def test_flips_of_signs() -> None:
    """With the differences 1, 2, 4 up to their signs, the sums are 7, 5, 3, 1 and their negatives."""
    assert paired_comparison([1, 2, 4], [0, 0, 0]).p_signs == 2 / 8
    assert paired_comparison([-1, 2, 4], [0, 0, 0]).p_signs == 4 / 8
    assert paired_comparison([1, -2, 4], [0, 0, 0]).p_signs == 6 / 8
    assert paired_comparison([1, 2, -4], [0, 0, 0]).p_signs == 1


@pytest.mark.parametrize("pairs", [4, 9, 16])
def test_flips_of_signs_agree_with_scipy(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    a, b = rng.normal(0.4, 1, pairs), rng.normal(0, 1, pairs)
    expected = permutation_test((a - b,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert paired_comparison(a, b).p_signs == pytest.approx(expected.pvalue)


def test_flips_of_signs_are_drawn_where_there_are_too_many() -> None:
    """For normal differences the sign-flip test comes close to the t test; a seed gives the same draw again."""
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    found = paired_comparison(a, b)
    assert found.p_signs == pytest.approx(found.p_value, abs=0.01)
    assert paired_comparison(a, b).p_signs == found.p_signs
    assert paired_comparison(a, b, seed=1).p_signs != found.p_signs
    assert paired_comparison(a + 10, b).p_signs == 1 / 20_001


def test_differences_that_are_all_equal() -> None:
    found = paired_comparison([0.3, 0.4, 0.5], [0.2, 0.3, 0.4])  # 0.1 up to rounding
    assert found.difference == found.low == found.high == pytest.approx(0.1)
    assert found.effect == found.effect_low == found.effect_high == math.inf
    assert (found.p_value, found.p_signs) == (0, 2 / 8)
    assert paired_comparison([0.2, 0.3], [0.3, 0.4]).effect == -math.inf


@pytest.mark.parametrize("scores", [[0.7, 0.8, 0.9], [0.0, 0.0]])
def test_no_difference_at_all(scores: list[float]) -> None:
    found = paired_comparison(scores, scores)
    assert found.difference == found.low == found.high == 0
    assert math.isnan(found.effect) and math.isnan(found.effect_low) and math.isnan(found.effect_high)
    assert (found.p_value, found.p_signs) == (1, 1)


# --- many comparisons


def test_holm_by_hand() -> None:
    """4 * 0.005, 3 * 0.01, 2 * 0.03, and 1 * 0.04, which may not be below the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_is_not_known() -> None:
    np.testing.assert_allclose(holm([NAN, 0.02, 0.4, NAN, 0.9]), [NAN, 0.06, 0.8, NAN, 0.9])
    np.testing.assert_allclose(holm([0.7, 0.8]), [1, 1])
    assert len(holm([])) == 0
    assert np.isnan(holm([NAN, NAN])).all()


def test_holm_keeps_the_rate_of_false_finds() -> None:
    """Of 5 true null hypotheses any has an adjusted p below 0.1 in about a tenth of the cases: 1 - (1 - 0.02)^5."""
    rng = np.random.default_rng(0)
    found = np.mean([holm(rng.random(5)).min() < 0.1 for _ in range(4000)])
    assert found == pytest.approx(1 - 0.98**5, abs=0.015)


# --- one method


def test_the_mean_of_three_seeds() -> None:
    """Of 1, 2, 3: 2 -+ 4.302653 * 1 / sqrt(3)."""
    mean, low, high = mean_interval([1, 2, 3])
    assert (mean, low, high) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        _, low, high = mean_interval(rng.normal(3, 2, size=4), level=0.9)
        held += low <= 3 <= high
    assert held / 2000 == pytest.approx(0.9, abs=0.03)


def test_one_seed_has_no_interval() -> None:
    mean, low, high = mean_interval([0.5])
    assert mean == 0.5
    assert math.isnan(low) and math.isnan(high)


# --- refusals


def test_pairs_that_are_none() -> None:
    with pytest.raises(InputError, match="a holds 3 values and b 2"):
        paired_comparison([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="1 pair of values has no spread"):
        paired_comparison([1.0], [2.0])
    with pytest.raises(InputError, match="b holds NaN"):
        paired_comparison([1, 2], [1, NAN])
    with pytest.raises(InputError, match="a holds NaN or infinite"):
        paired_comparison([1, math.inf], [1, 2])
    with pytest.raises(InputError, match="level 95"):
        paired_comparison([1, 2], [1, 3], level=95)


def test_p_values_that_are_none() -> None:
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        holm([0.5, 1.2])


def test_values_without_a_mean(no_shape_checks: None) -> None:
    with pytest.raises(InputError, match="values is empty"):
        mean_interval([])
    with pytest.raises(InputError, match="values holds NaN"):
        mean_interval([1.0, NAN])
    with pytest.raises(InputError, match="give a list of numbers"):
        mean_interval([[1.0, 2.0]])  # type: ignore[list-item]
    with pytest.raises(InputError, match="level 0"):
        mean_interval([1.0, 2.0], level=0)
