"""Computes closed-form intervals of rates.

The interval of a report's AUC, TPR at 1% FPR or rate at a threshold is made in metrics/outcomes.py
(TPR of one target: `single_tprs`, of several: `several_tpr`); the standard error over models and
records comes from metrics/components.py and metrics/jackknife.py.

Valid for a threshold fixed beforehand; `box` is for one that is read off the same non-members.
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

from mia_jax import checks
from mia_jax.metrics import roc


def clopper_pearson(k, n, level: float = 0.95) -> tuple:
    """Returns (low, high) of a binomial proportion from k of n, with coverage of at least `level`.

    low = Beta^-1((1-level)/2; k, n-k+1) and high = Beta^-1((1+level)/2; k+1, n-k) (Clopper and
    Pearson 1934).

    Args:
        k, n: the successes and the trials, as numbers or arrays that broadcast.
        level: the confidence level.

    Raises:
        ValueError: unless 0 <= k <= n and n > 0.

    >>> [round(x, 4) for x in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    checks.fraction(closed="neither", level=level)
    k, n = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(n, np.float64))
    if not (np.all(n > 0) and np.all((k >= 0) & (k <= n))):
        raise ValueError(f"k={k} of n={n}: need 0 <= k <= n and n > 0.")
    tail = (1 - level) / 2
    low = np.where(k > 0, stats.beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(1 - tail, k + 1, np.maximum(n - k, 1)), 1.0)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def difference(k1, n1, k0, n0, level: float = 0.95) -> tuple[float, float]:
    """Returns (low, high) of p1 - p0 in [-1, 1] for independent proportions k1 of n1 and k0 of n0.

    Newcombe's square-and-add rule (Statistics in Medicine 17, 1998, method 10) over Clopper-Pearson
    limits.
    """
    p1, p0 = k1 / n1, k0 / n0
    (low1, high1), (low0, high0) = clopper_pearson(k1, n1, level), clopper_pearson(k0, n0, level)
    return square_and_add((p1, low1, high1), (p0, low0, high0))


def square_and_add(
    first: tuple[float, float, float], second: tuple[float, float, float]
) -> tuple[float, float]:
    """Returns (low, high) of the difference of two independent numbers, each (value, low, high).

    The distances to the ends of the two intervals add up as squares (Zou and Donner, Statistics in
    Medicine 27, 2008): an interval of the level of the two.

    >>> [round(x, 3) for x in square_and_add((0.7, 0.67, 0.72), (0.6, 0.56, 0.64))]
    [0.05, 0.145]
    """
    (a, low1, high1), (b, low0, high0) = first, second
    return a - b - float(np.hypot(a - low1, high0 - b)), a - b + float(
        np.hypot(high1 - a, b - low0)
    )


def box(score_N, member_N, fpr: float, level: float = 0.95) -> tuple[float, float]:
    """Returns (low, high) of one target's TPR at a true FPR of `fpr`, for few false positives.

    The method is a threshold band times Clopper-Pearson. The number of the m non-members above the
    true threshold is Binomial(m, fpr), which bounds that threshold by two of their order
    statistics; the members above each bound give Clopper-Pearson limits. Each half takes (1 -
    level)/2, so the coverage is at least `level`, with ties too.

    Args:
        score_N: the scores, higher = more likely a member.
        member_N: whether each row is a member.
        fpr: the true false-positive rate.
        level: the confidence level.
    """
    score_N, member_N = roc.two_sides(score_N, member_N)
    inside, outside = np.sort(score_N[member_N]), np.sort(score_N[~member_N])[::-1]
    half, tail = (1 + level) / 2, (1 - level) / 4
    few, many = (int(stats.binom.ppf(q, len(outside), fpr)) for q in (tail, 1 - tail))
    strict = (
        0 if few == 0 else len(inside) - np.searchsorted(inside, outside[few - 1], side="right")
    )
    loose = (
        len(inside)
        if many >= len(outside)
        else len(inside) - np.searchsorted(inside, outside[many], side="right")
    )
    return clopper_pearson(strict, len(inside), half)[0], clopper_pearson(loose, len(inside), half)[
        1
    ]


def usable(value_R) -> bool:
    """Checks that 9 of 10 bootstrap values [R] exist.

    With a handful of records most draws leave a side empty (NaN).
    """
    return bool(np.mean(~np.isnan(value_R)) >= 0.9)


def percentile(value_R, level: float = 0.95) -> tuple[float, float]:
    """Returns (low, high), the (1 ± level)/2 quantiles of bootstrap values [R] at ranks p (R + 1).

    NaN values are left out.
    """
    value_R = np.asarray(value_R, np.float64)
    low, high = np.quantile(
        value_R[~np.isnan(value_R)], [(1 - level) / 2, (1 + level) / 2], method="weibull"
    )
    return float(low), float(high)


def normal_half(value_R, level: float = 0.95) -> float:
    """Returns half the width of a normal interval from bootstrap values [R].

    It is from their standard deviation. NaN values are left out.
    """
    return t_half(float(np.nanstd(np.asarray(value_R, np.float64))), level)


def t_half(deviation: float, level: float = 0.95, freedom: float = np.inf) -> float:
    """Returns half the width of a Student's t interval whose standard error is `deviation`.

    `freedom` = inf gives the normal interval.
    """
    return (
        float(
            special.stdtrit(freedom, (1 + level) / 2)
            if np.isfinite(freedom)
            else special.ndtri((1 + level) / 2)
        )
        * deviation
    )


def t_tail(value: float, freedom: float = np.inf) -> float:
    """Returns P(T >= value) for Student's t (normal for `freedom` = inf)."""
    return float(special.stdtr(freedom, -value) if np.isfinite(freedom) else special.ndtr(-value))


def angular(
    value: float, deviation: float, level: float = 0.95, freedom: float = np.inf
) -> tuple[float, float]:
    """Returns (low, high) of a rate in [0, 1] whose standard error is `deviation`.

    Student's t on the scale arcsin(sqrt(rate)), by the delta method. A rate of 0 or 1, or one
    without a standard error, is returned twice: no draw shows how it would vary.

    Args:
        value: the rate.
        deviation: its standard error.
        level: the confidence level.
        freedom: the degrees of freedom of `deviation`; inf gives the normal interval.
    """
    if not deviation > 0 or not 0 < value < 1:
        return value, value
    center, half = (
        np.arcsin(np.sqrt(value)),
        t_half(deviation, level, freedom) / (2 * np.sqrt(value * (1 - value))),
    )
    return float(np.sin(max(center - half, 0.0)) ** 2), float(
        np.sin(min(center + half, np.pi / 2)) ** 2
    )


def angular_difference(
    first: tuple[float, float],
    second: tuple[float, float],
    error: tuple[float, float],
    level: float = 0.95,
) -> tuple[float, float]:
    """Returns (low, high) of the difference of two rates that may depend on each other.

    Student's t along the line through the two rates on which their difference changes most for its
    probability, with both rates on the angular scale. With the variances V1 and V2 of the rates and
    V of the difference, one standard error sqrt(V) of the difference is a move of the first rate by
    (V + V1 - V2)/(2 sqrt(V)) and of the second by the rest, to the other side. A rate of 0 or 1 has
    no scale: then the interval is symmetric.

    Args:
        first, second: (rate, standard error).
        error: the standard error of the difference, and its degrees of freedom.
        level: the confidence level.

    >>> [round(x, 3) for x in angular_difference((0.05, 0.01), (0.02, 0.005), (0.01, 20.0))]
    [0.011, 0.052]
    """
    (a, a_error), (b, b_error), (deviation, freedom) = first, second, error
    half = t_half(deviation, level, freedom)
    if not deviation > 0 or not (0 < a < 1 and 0 < b < 1):
        return a - b - half, a - b + half
    share = (deviation**2 + a_error**2 - b_error**2) / (2 * deviation**2)
    most = a_error / deviation  # of dependent numbers, none moves by more than its standard error
    a_half = half * float(np.clip(share, -most, most))
    b_half = half - a_half

    def moved(value: float, by: float) -> float:
        angle = np.arcsin(np.sqrt(value)) + by / (2 * np.sqrt(value * (1 - value)))
        return float(np.sin(np.clip(angle, 0.0, np.pi / 2)) ** 2)

    return moved(a, -a_half) - moved(b, b_half), moved(a, a_half) - moved(b, -b_half)


def angular_p(value: float, guess: float, deviation: float, freedom: float = np.inf) -> float:
    """Returns the one-sided p-value of 'rate <= guess'.

    It is below (1 - level)/2 where the lower end of `angular` is above `guess`.

    Args:
        value: the rate.
        guess: the rate of random guessing.
        deviation, freedom: as in `angular`.
    """
    if not deviation > 0 or not 0 < value < 1:
        return 1.0
    return t_tail(
        (np.arcsin(np.sqrt(value)) - np.arcsin(np.sqrt(guess)))
        * 2
        * np.sqrt(value * (1 - value))
        / deviation,
        freedom,
    )


def logit(
    value: float, deviation: float, smaller_side: int, level: float = 0.95, freedom: float = np.inf
) -> tuple[float, float]:
    """Returns (low, high) of an AUC in [0, 1] whose standard error is `deviation`.

    Student's t (normal for `freedom` = inf) on the logit scale, by the delta method. Where the
    draws do not differ (perfect order, or all scores tied), the pairs (member i, non-member i), i
    <= `smaller_side`, are independent trials with equal results: u, the upper Clopper-Pearson limit
    of the other result, bounds the AUC by value - u value and value + u (1 - value).

    Args:
        value: the AUC.
        deviation: its standard error.
        smaller_side: the number of members or of non-members, whichever is smaller.
        level: the confidence level.
        freedom: the degrees of freedom of `deviation`.
    """
    if not deviation > 0 or not 0 < value < 1:
        other = clopper_pearson(0, smaller_side, level)[1]
        return value - other * value, value + other * (1 - value)
    center, half = (
        np.log(value / (1 - value)),
        t_half(deviation, level, freedom) / (value * (1 - value)),
    )
    return float(1 / (1 + np.exp(half - center))), float(1 / (1 + np.exp(-half - center)))


def logit_p(value: float, deviation: float, smaller_side: int, freedom: float = np.inf) -> float:
    """Returns the one-sided p-value of 'AUC <= 1/2'.

    It is below (1 - level)/2 where the lower end of `logit` is above 1/2. Where the draws do not
    differ, `smaller_side` independent pairs had equal results: it is 2^-smaller_side above 1/2,
    else 1.

    Args:
        value, deviation, smaller_side, freedom: as in `logit`.
    """
    if not deviation > 0 or not 0 < value < 1:
        return 0.5**smaller_side if value > 0.5 else 1.0
    return t_tail(float(np.log(value / (1 - value)) * value * (1 - value) / deviation), freedom)


def precision(k1, n1, k0, n0, weight: float, level: float = 0.95) -> tuple[float, float]:
    """Returns (low, high) of p1/(p1 + weight p0) for independent proportions k1 of n1 and k0 of n0.

    It rises with the ratio q = p1/p0, whose limits solve (p1 - q p0)^2 = (distance of p1 from its
    limit)^2 + q^2 (distance of p0 from its opposite limit)^2: the square-and-add rule of
    `difference` for p1 - q p0 (MOVER-R: Donner and Zou, Statistical Methods in Medical Research 21,
    2012; Newcombe, 25, 2016) over Clopper-Pearson limits.
    """
    p1, p0 = k1 / n1, k0 / n0
    (low1, high1), (low0, high0) = clopper_pearson(k1, n1, level), clopper_pearson(k0, n0, level)

    def root(limit1: float, limit0: float) -> float:
        square0 = limit0 * (2 * p0 - limit0)
        inside = (p1 * p0) ** 2 - square0 * limit1 * (2 * p1 - limit1)
        return p1 * p0 + float(np.sqrt(max(inside, 0.0)))

    below = root(low1, high0)  # the ratio's lower limit is low1 (2 p1 - low1) / below
    low = low1 * (2 * p1 - low1) / below if below > 0 else 0.0
    high, over = root(high1, low0), low0 * (2 * p0 - low0)  # its upper one is high / over
    return low / (low + weight), high / (high + weight * over) if over > 0 else 1.0
