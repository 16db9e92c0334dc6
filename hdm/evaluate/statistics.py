"""Statistics of a comparison: two methods trained with the same seeds, many comparisons at once, one method alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import brentq
from scipy.stats import chi2, nct, norm
from scipy.stats import t as student

from hdm.errors import InputError

EXACT_PAIRS = 16  # up to here all 2^n flips of signs are tried
RANDOM_FLIPS = 20_000
LARGE_T = 1000.0  # from here on the noncentrality's limit is right to 1e-4
ROUNDING = 1e-12  # relative to the largest value: what differs by less does not differ


@dataclass(frozen=True)
class Comparison:
    """The difference between two methods over n pairs; `paired_comparison` has the formulas."""

    n: int
    difference: float
    low: float
    high: float
    effect: float
    effect_low: float
    effect_high: float
    p_value: float
    p_signs: float


def paired_comparison(
    a: Sequence[float] | Float[ndarray, "n"],
    b: Sequence[float] | Float[ndarray, "n"],
    level: float = 0.95,
    *,
    seed: int = 0,
) -> Comparison:
    """The mean difference a - b over pairs, how sure it is and how large.

    a, b: scores of two methods, paired by position (the same seed).
    level: of the confidence intervals.
    seed: of the random flips behind `p_signs`, where there are more than 16 pairs.

    With d = a - b, n pairs, m = mean(d), s = sd(d) (n - 1 in its denominator) and t = sqrt(n) m / s:

        difference, low, high       m and its interval m -+ t_{n-1} s / sqrt(n) of Student's t
        effect                      Cohen's d_z = m / s (Cohen, Statistical Power Analysis, 1988, section 2.3.5)
        effect_low, effect_high     delta / sqrt(n) for those noncentralities delta of t's distribution with n - 1
                                    degrees of freedom under which t lies at its upper and lower (1 - level) / 2
                                    (Cumming and Finch, Educ. Psychol. Meas. 2001)
        p_value                     two-sided paired t test: for normally distributed differences
        p_signs                     two-sided sign-flip test, the share of the 2^n ways to flip signs of d that give an
                                    |m| at least as large: for any symmetric distribution, and never below 2^(1 - n);
                                    above 16 pairs (1 + #) / (1 + 20,000) of random flips

    Where all differences are equal up to rounding, s counts as 0, low and high equal the difference, and p_value is 0
    and all effects infinite, of the difference's sign; where they are all 0, p_value is 1 and the effects are NaN.
    Raises InputError for lengths that differ, fewer than two pairs, values that are not finite, and a level outside of
    (0, 1).
    """
    first, second = _values("a", a), _values("b", b)
    if len(first) != len(second):
        raise InputError(f"a holds {len(first)} values and b {len(second)}: give one of each for every seed")
    n = len(first)
    if n < 2:
        raise InputError(f"{n} pair of values has no spread: give two pairs or more")
    _check_level(level)
    differences = first - second
    rounding = ROUNDING * max(float(np.abs([first, second]).max()), np.finfo(float).tiny)
    p_signs = _sign_flip_test(differences, rounding, seed)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread <= rounding:
        certain = abs(mean) > rounding
        effect = math.copysign(math.inf, mean) if certain else math.nan
        return Comparison(n, mean, mean, mean, effect, effect, effect, 0.0 if certain else 1.0, p_signs)
    mean, low, high = mean_interval(differences, level)
    t = math.sqrt(n) * mean / spread
    effect_low, effect_high = (delta / math.sqrt(n) for delta in _noncentralities(t, n - 1, level))
    p_value = float(2 * student.sf(abs(t), n - 1))
    return Comparison(n, mean, low, high, mean / spread, effect_low, effect_high, p_value, p_signs)


def holm(p_values: Sequence[float] | Float[ndarray, "m"]) -> Float[ndarray, "m"]:
    """p values of m comparisons, adjusted so that any false one among those below a bound is as rare as the bound says.

    With p_(1) <= ... <= p_(m): adjusted p_(i) = min(1, max_{j <= i} (m - j + 1) p_(j)) (Holm, Scand. J. Statist. 1979,
    the step-down form). NaN stays NaN and does not count in m.
    Raises InputError for a value outside of [0, 1].
    """
    values = np.array(p_values, dtype=np.float64)
    known = values[~np.isnan(values)]
    if ((known < 0) | (known > 1)).any():
        raise InputError(f"p values {known.tolist()} must lie between 0 and 1")
    order = np.argsort(known)
    stepped = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
    known[order] = np.minimum(stepped, 1.0)
    values[~np.isnan(values)] = known
    return values


def mean_interval(values: Sequence[float] | Float[ndarray, "n"], level: float = 0.95) -> tuple[float, float, float]:
    """Mean, and lower and upper end of its interval m -+ t_{n-1} s / sqrt(n) by Student's t, as over seeds.

    One value has no spread: (m, NaN, NaN).
    Raises InputError for no value, values that are not finite, and a level outside of (0, 1).
    """
    numbers = _values("values", values)
    _check_level(level)
    if len(numbers) == 0:
        raise InputError("values is empty and has no mean: give one value or more")
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return mean, math.nan, math.nan
    error = float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    reach = float(student.ppf((1 + level) / 2, len(numbers) - 1)) * error
    return mean, mean - reach, mean + reach


def _values(name: str, values: Sequence[float] | ndarray) -> ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1:
        raise InputError(f"{name} has shape {numbers.shape}: give a list of numbers")
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{name} holds NaN or infinite values: leave out the seeds that have no score, in both methods"
        )
    return numbers


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level {level} must lie between 0 and 1, such as 0.95")


def _sign_flip_test(differences: Float[ndarray, "n"], rounding: float, seed: int) -> float:
    """Two-sided p value of the mean under flips of signs, the observed ones among them."""
    n = len(differences)
    observed = abs(differences.sum()) - n * rounding  # sums in another order may differ in their last digits
    if n <= EXACT_PAIRS:
        signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
        return float((np.abs(signs @ differences) >= observed).mean())
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(RANDOM_FLIPS, n))
    return (1 + int((np.abs(signs @ differences) >= observed).sum())) / (1 + RANDOM_FLIPS)


def _noncentralities(t: float, freedom: int, level: float) -> tuple[float, float]:
    """The delta with P(T <= t | delta) = (1 + level) / 2, and that with (1 - level) / 2.

    T = (Z + delta) / S with Z normal and S^2 chi-squared over its `freedom` f. For large t only S matters.
    """
    if t < 0:
        low, high = _noncentralities(-t, freedom, level)
        return -high, -low
    tail = (1 - level) / 2
    if t > LARGE_T:
        return t * math.sqrt(chi2.ppf(tail, freedom) / freedom), t * math.sqrt(chi2.isf(tail, freedom) / freedom)
    # No delta lies below that of t = 0, nor so high that Z or S would have to be in half of its tail for T to reach t.
    # Further out scipy's distribution is NaN.
    lowest = norm.ppf(tail) - 1e-6
    highest = t * math.sqrt(chi2.isf(tail / 2, freedom) / freedom) + norm.isf(tail / 2)

    def delta(share: float) -> float:
        return float(brentq(lambda delta: nct.cdf(t, freedom, delta) - share, lowest, highest))

    return delta(1 - tail), delta(tail)
