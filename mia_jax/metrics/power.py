"""Computes what a study of this size can detect: its smallest significant AUC and TPR.

It also computes how many more targets or rows a small leak would need.

The formulas are normal approximations on the ROC family Phi(mu + Phi^-1(FPR)), for scores that
differ in each (model, record) pair and an attack that knows shadows. With few units of models, the
spread among them exceeds by chance what the records explain, and the excess is attributed to the
models (`metrics.components`). Therefore crossed intervals are wider than the spread of the number
itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import optimize, special, stats

from mia_jax import checks
from mia_jax.metrics import components, intervals, roc
from mia_jax.metrics import records as record_tests

POWER = 0.8
RESAMPLINGS = ("crossed", "records")
MOST = 1 << 40
DRAWN_PAIRS = 1 << 22  # scores that are compared to find a record's smallest AUC


def smallest_auc(
    n_member: int,
    n_nonmember: int,
    *,
    units: int = 1,
    resampling: str = "records",
    level: float = 0.95,
    power: float = POWER,
) -> float:
    """Returns the AUC > 1/2 whose interval is above 1/2 with probability `power`.

    It is 1/2 + (c z_level + z_power) sqrt((n + m + 1)/(12 n m units)), at most 1, where c is
    `wider` for crossed intervals, else 1.

    Args:
        n_member, n_nonmember: the numbers n and m of rows per target.
        units: the number of independent targets (twins count once, which is conservative).
        resampling: one of RESAMPLINGS.
        level: the confidence level of the interval.
        power: the probability of detection.
    """
    checks.positive(n_member=n_member, n_nonmember=n_nonmember, units=units)
    checks.one_of(RESAMPLINGS, resampling=resampling)
    deviation = math.sqrt((n_member + n_nonmember + 1) / (12 * n_member * n_nonmember * units))
    return float(min(1.0, 0.5 + _deviations(resampling, units, level, power) * deviation))


def smallest_tpr(
    fpr: float,
    n_member: int,
    n_nonmember: int,
    *,
    units: int = 1,
    resampling: str = "records",
    level: float = 0.95,
    power: float = POWER,
    pooled: bool = False,
) -> float | None:
    """Returns the TPR > fpr whose interval is above fpr with probability `power`.

    It solves t - fpr = (c z_level + z_power) sqrt((t (1 - t)/n + s^2 fpr (1 - fpr)/m)/units), where
    s is the slope of the ROC through (fpr, t), because the threshold is estimated as well. With
    fewer than 5 expected false positives of one target, Clopper-Pearson limits are used instead, as
    for the interval itself.

    Args:
        fpr: the false-positive rate.
        n_member, n_nonmember, units, resampling, level, power: as in `smallest_auc`.
        pooled: whether the ROC is that of all targets together.

    Returns:
        None where the FPR is not resolvable: fpr < 1/m, or fpr < 1/(m units) if `pooled`.
    """
    checks.fraction(closed="neither", fpr=fpr)
    checks.positive(n_member=n_member, n_nonmember=n_nonmember, units=units)
    checks.one_of(RESAMPLINGS, resampling=resampling)
    if not roc.resolvable(fpr, n_nonmember * (units if pooled else 1)):
        return None
    if units == 1 and fpr * n_nonmember < 5:
        return _smallest_by_box(fpr, n_member, n_nonmember, level, power)

    def short(tpr: float) -> float:
        mu = special.ndtri(tpr) - special.ndtri(fpr)
        slope = math.exp((special.ndtri(fpr) ** 2 - (mu + special.ndtri(fpr)) ** 2) / 2)
        variance = (tpr * (1 - tpr) / n_member + slope**2 * fpr * (1 - fpr) / n_nonmember) / units
        return tpr - fpr - _deviations(resampling, units, level, power) * math.sqrt(variance)

    top = 1 - 1e-12
    return 1.0 if short(top) < 0 else float(optimize.brentq(short, fpr, top))


def _deviations(resampling: str, units: int, level: float, power: float) -> float:
    factor = wider(units) if resampling == "crossed" else 1.0
    return factor * special.ndtri((1 + level) / 2) + special.ndtri(power)


def wider(units: int) -> float:
    """Returns how much wider than needed a crossed interval of `units` units is on average.

    The mean of the square gives sqrt(1 + f E(X - 1)+) with f = `of_shadows`. X is the estimated
    share of the spread among units, chi-squared over its U - 1 degrees of freedom. With k = (U -
    1)/2, E(X - 1)+ is k^(k - 1) e^-k / Gamma(k).
    """
    half = (units - 1) / 2
    return (
        math.sqrt(
            1
            + components.of_shadows(units)
            * math.exp((half - 1) * math.log(half) - half - math.lgamma(half))
        )
        if units > 1
        else 1.0
    )


def _smallest_by_box(
    fpr: float, n_member: int, n_nonmember: int, level: float, power: float
) -> float:
    """Returns the smallest detectable TPR for the interval `intervals.box`.

    Enough members must score above the non-member that bounds the threshold from above, at which
    the FPR is lower than `fpr`.
    """
    few = int(stats.binom.ppf((1 - level) / 4, n_nonmember, fpr))
    enough = next(
        (
            k
            for k in range(n_member + 1)
            if intervals.clopper_pearson(k, n_member, (1 + level) / 2)[0] > fpr
        ),
        None,
    )
    if few == 0 or enough is None:
        return 1.0  # the lower end is 0 whatever the members do
    strict = special.ndtri(max(few - 0.5, 0.5) / n_nonmember)

    def short(tpr: float) -> float:
        there = special.ndtr(special.ndtri(tpr) - special.ndtri(fpr) + strict)
        return float(stats.binom.sf(enough - 1, n_member, there)) - power

    return 1.0 if short(1 - 1e-12) < 0 else float(optimize.brentq(short, fpr, 1 - 1e-12))


def larger_study(
    distance: float, half: float, *, level: float = 0.95, power: float = POWER
) -> float:
    """Returns how many times larger a study must be to tell its number from one that far away.

    `half` is half the width of its interval, which shrinks with the square root of the size. Then
    the interval excludes that number with probability `power`, if the value stays; inf where they
    are equal, and never below 1.

    >>> round(larger_study(0.02, 0.02), 2), larger_study(0.0, 0.02)
    (2.04, inf)
    """
    if not distance > 0:
        return math.inf
    with_power = 1 + float(special.ndtri(power) / special.ndtri((1 + level) / 2))
    return max(1.0, (half * with_power / distance) ** 2)


def fewest(enough: Callable[[int], bool], start: int) -> int | None:
    """Returns the smallest count >= start that is enough, within 5%; None above 2^40.

    `enough` must be monotone: once true, it stays true for larger counts.
    """
    low, high = start, start
    if enough(start):
        return start
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > max(1, low // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def table(
    n_member: int,
    n_nonmember: int,
    *,
    units: int,
    resampling: str = "records",
    fprs: Sequence[float] = (0.001, 0.01, 0.1),
    level: float = 0.95,
    power: float = POWER,
    factor: float = 2.0,
) -> list[dict]:
    """Returns for the AUC and each TPR@FPR what is detectable and what a small leak would need.

    Args:
        n_member, n_nonmember, units, resampling, level, power: as in `smallest_auc`.
        fprs: the false-positive rates.
        factor: the TPR of a small leak is `factor` x FPR.

    Returns:
        Rows {metric, guess, smallest, goal, pooled, units, units_needed, rows, rows_needed}.
            `smallest` is the smallest value that this study distinguishes from `guess`. `goal` (AUC
            0.55; TPR = `factor` x FPR) is a small leak; `units_needed` independent targets (with
            these rows) or `rows_needed` members and as many non-members per target (with these
            targets) would show it. `pooled`: the FPR is resolvable only over all targets together.
    """
    common, rows = dict(level=level, power=power), min(n_member, n_nonmember)

    # 5 or more units are resampled, which is what a larger study would do
    def crossed(u):
        return "crossed" if u >= 5 and (u > units or resampling == "crossed") else "records"

    table_rows = []
    for metric, guess, goal in (
        ("auc", 0.5, 0.55),
        *((f"tpr@{f:g}", f, min(1.0, factor * f)) for f in fprs),
    ):
        pooled = metric != "auc" and not roc.resolvable(guess, n_nonmember)

        def smallest(
            n: int, m: int, u: int, metric=metric, guess=guess, pooled=pooled
        ) -> float | None:
            arguments = dict(units=u, resampling=crossed(u), **common)
            return (
                smallest_auc(n, m, **arguments)
                if metric == "auc"
                else smallest_tpr(guess, n, m, pooled=pooled and u > 1, **arguments)
            )

        def units_show(u: int, smallest=smallest, goal=goal) -> bool:
            value = smallest(n_member, n_nonmember, u)
            return value is not None and value <= goal

        def rows_show(r: int, smallest=smallest, goal=goal) -> bool:
            value = smallest(r, r, units)
            return value is not None and value <= goal

        more_units, more_rows = fewest(units_show, units), fewest(rows_show, rows)
        row = dict(
            metric=metric,
            guess=guess,
            smallest=smallest(n_member, n_nonmember, units),
            goal=goal,
            pooled=pooled and units > 1,
        )
        table_rows.append(
            row | dict(units=units, units_needed=more_units, rows=rows, rows_needed=more_rows)
        )
    return table_rows


def record_auc(inside: int, outside: int, *, p_needed: float, power: float = POWER) -> float | None:
    """Returns the smallest AUC of a single record that is detected with probability `power`.

    One fold has `inside` targets that were trained on the record and `outside` that were not; twice
    its Mann-Whitney p-value must be at most `p_needed` (`metrics.records`). Scores are normal with
    equal variances, drawn with a fixed seed; a second fold would detect a little more.

    Returns:
        None if no record can be detected, whatever its AUC.

    >>> record_auc(16, 16, p_needed=0.05) < record_auc(16, 16, p_needed=0.05 / 1600) < 0.97
    True
    >>> record_auc(4, 4, p_needed=0.05 / 1600) is None
    True
    """
    pairs = inside * outside
    won_U = np.arange(pairs + 1.0)
    size_2U = np.tile([[inside], [outside]], pairs + 1)
    rare_U = 2 * record_tests.p_values(won_U, size_2U) <= p_needed
    if not rare_U.any():
        return None
    enough = int(rare_U.argmax())
    draws, rng = min(2000, max(100, DRAWN_PAIRS // pairs)), np.random.default_rng(0)
    members, others = (rng.normal(size=(draws, n)) for n in (inside, outside))
    lead_RP = (others[:, None, :] - members[:, :, None]).reshape(draws, pairs)
    # detected from the shift of the members on at which `enough` of the pairs are won
    shift_R = np.partition(lead_RP, enough - 1, axis=1)[:, enough - 1]
    return float(special.ndtr(np.quantile(shift_R, power) / math.sqrt(2)))


def records(num_records: int, targets: int, *, level: float = 0.95) -> dict:
    """Returns whether a single exposed record can be detected among `num_records`.

    Args:
        num_records: the number of records that are tested.
        targets: the number of targets.
        level: 1 minus the false-discovery rate.

    Returns:
        {p_smallest, p_needed, targets, targets_needed}. `p_smallest` is the smallest p-value of
            `metrics.records` with this many targets in two folds and a record in half of them: 2 /
            C(T/2, T/4). `p_needed` is what Benjamini-Hochberg requires of a single discovery.
    """

    def best(t: int) -> float:
        return min(1.0, 2 * math.exp(2 * math.lgamma(t / 4 + 1) - math.lgamma(t / 2 + 1)))

    needed = (1 - level) / num_records
    return dict(
        p_smallest=best(targets),
        p_needed=needed,
        targets=targets,
        targets_needed=fewest(lambda t: best(t) <= needed, targets),
    )
