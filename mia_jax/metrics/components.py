"""Computes the standard error of a mean over targets from variance components.

The targets share their records and their shadow models. A target's value is that of its unit of
models (twins are one unit) u on N records: a_u + the mean over records of (b_n + e_un). The mean
over U units varies by A + B + E: A = var(a)/U, B = var(b)/N, E = var(e)/(U N). Reweighting records
alone shows B + E, the spread among units is A + E, and the spread of the units' own reactions to
the records' weights is E. A bootstrap that multiplies the counts of records and of units shows A +
B + 3 E (Owen, arXiv:0712.1111, theorem 3), which is up to sqrt 3 too wide for rates at a high
threshold. The components add up to A + B + E.

An attack that compares a target with shadow models is, to first order, a mean over ordered pairs
(target, shadow), and every model has both roles. The spread among targets, given their shadows,
shows only one role. In a U-statistic of degree 2 with equal roles the other one doubles a unit's
influence (Hoeffding 1948), so A counts 4 times for attacks that know shadows. A further factor is
((U - 1)/(U - 2))^2: a target is compared with the U - 1 other units, so what is high about it is
missing among its shadows, and the spread among targets shows (U - 2)/(U - 1) of their part. This is
exact for equal roles, and too much where shadows matter less than the target. Scores alone cannot
show which, because all targets have nearly the same shadows.

Where the attack was rerun without groups of units (`jackknife`), the jackknife variance J is A + E
with both roles of every unit counted, for each metric and for each difference of two attacks. The
reactions of the groups to the records' weights give E on the same terms as J: what several units do
together counts more than once in both, and cancels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

SHARED = 4.0  # by how much A grows, with many units, where targets are each other's shadows
EXCESS = 8 / 21  # excess kurtosis of what groups of units contribute to a number
ALONE = ("nothing", "half_of_target_members")  # what attacks know that read no shadow


def of_shadows(units: int) -> float:
    """Returns how many times A counts where `units` units of targets are each other's shadows."""
    return SHARED * ((units - 1) / max(units - 2, 1)) ** 2


class Parts(NamedTuple):
    """Holds a number unit by unit.

    Attributes:
        value_U: the value of each unit.
        drawn_UR: its draws under the shared weights of the records.
        share_U: the unit's share of the mean.
    """

    value_U: np.ndarray
    drawn_UR: np.ndarray
    share_U: np.ndarray


class Left(NamedTuple):
    """Holds a number without each of G groups of units: pseudo-values of the jackknife.

    Attributes:
        value_G: number + (1/share - 1) (number - number without the group).
        apart_GR: how far these are from the number of the whole under R draws of records.
        share_G: the groups' shares of the targets.
        group_U: the group of each unit of targets.
        whole_R: the number under the draws.
    """

    value_G: np.ndarray
    apart_GR: np.ndarray
    share_G: np.ndarray
    group_U: np.ndarray
    whole_R: np.ndarray = np.zeros(1)


class Error(NamedTuple):
    """Holds a standard error and its degrees of freedom (inf: normal)."""

    deviation: float
    freedom: float = np.inf


def parts(value_T, drawn_TR, unit_T) -> Parts:
    """Averages the values of targets [T] and their draws [T,R] within units [T].

    Targets whose value is NaN are left out.
    """
    value_T, drawn_TR, unit_T = (
        np.asarray(value_T, np.float64),
        np.asarray(drawn_TR),
        np.asarray(unit_T),
    )
    known_T = ~np.isnan(value_T)
    if not known_T.all():
        value_T, drawn_TR, unit_T = value_T[known_T], drawn_TR[known_T], unit_T[known_T]
    _, index_T, count_U = np.unique(unit_T, return_inverse=True, return_counts=True)
    value_U = np.bincount(index_T, value_T) / count_U
    there_TR = ~np.isnan(drawn_TR)
    of_UT = (np.arange(len(count_U))[:, None] == index_T).astype(np.float64)
    sums_UR, known_UR = of_UT @ np.where(there_TR, drawn_TR, 0.0), of_UT @ there_TR
    drawn_UR = np.where(known_UR > 0, sums_UR / np.maximum(known_UR, 1), np.nan)
    return Parts(value_U, drawn_UR.astype(np.float32), count_U / len(value_T))


def minus(first: Parts, second: Parts) -> Parts:
    """Returns the difference of two numbers of the same units under the same draws."""
    return Parts(first.value_U - second.value_U, first.drawn_UR - second.drawn_UR, first.share_U)


def whole(number: Parts) -> np.ndarray:
    """Returns the number [R] under the draws of records: the mean over the units with a value."""
    drawn_UR = number.drawn_UR.astype(np.float64)
    there_UR = ~np.isnan(drawn_UR)
    weight_R = number.share_U @ there_UR
    total_R = number.share_U @ np.where(there_UR, drawn_UR, 0.0)
    return np.where(weight_R > 0, total_R / np.where(weight_R > 0, weight_R, 1.0), np.nan)


def grouped(number: Parts, group_U) -> Left:
    """Returns a number that is a mean over units as if its groups of units had been left out.

    Args:
        number: the number unit by unit.
        group_U: the group, 0 .. G - 1, of each unit.
    """
    of_GU = np.arange(int(group_U.max()) + 1)[:, None] == group_U
    share_G, whole_R = of_GU @ number.share_U, whole(number)
    value_G = of_GU @ (number.share_U * number.value_U) / share_G
    drawn_UR = np.where(np.isnan(number.drawn_UR), whole_R, number.drawn_UR)
    drawn_GR = of_GU @ (number.share_U[:, None] * drawn_UR) / share_G[:, None]
    return Left(value_G, drawn_GR - whole_R, share_G, group_U, whole_R)


def left_minus(first: Left, second: Left) -> Left:
    """Returns the difference of two numbers without the same groups under the same draws."""
    return first._replace(
        value_G=first.value_G - second.value_G,
        apart_GR=first.apart_GR - second.apart_GR,
        whole_R=first.whole_R - second.whole_R,
    )


def left_error(left: Left) -> Error:
    """Returns the standard error of a jackknifed number, from B + E + max(0, J - E).

    J is the jackknife variance, E the part of it that is due to records. Where J is hardly above E,
    or below, that may be chance: with d degrees of freedom the variance that J estimates is
    J d / chi^2_d (its fiducial distribution, as in a generalized confidence interval: Weerahandi,
    JASA 88, 1993). The error is Student's t most like the normal mixture over these variances:
    t with d degrees of freedom where J is all, normal where E is far above J.

    d is that of a sample variance of G values with excess kurtosis k, whose variance is 2/(G - 1) +
    k/G of its mean's square (Box, Biometrika 40, 1953), as that of chi^2_d / d is 2/d: what a unit
    contributes as a shadow depends on the targets, so contributions have longer tails than normal
    numbers. With k = `EXCESS`, d is 6 for 8 groups and 3.5 for 5.
    """
    records, groups = float(np.nanvar(left.whole_R)), len(left.value_G)
    square_G = left.share_G**2 * groups / (groups - 1)
    among = float(square_G @ (left.value_G - left.share_G @ left.value_G) ** 2)
    reaction = float(square_G @ np.var(left.apart_GR - left.share_G @ left.apart_GR, axis=1))
    if records == 0 and among <= reaction:
        return Error(0.0)
    degrees = 2 / (2 / (groups - 1) + EXCESS / groups)
    return like_t(records + np.maximum(0.0, among * true_over_estimated(degrees) - reaction))


@functools.cache
def true_over_estimated(degrees: float, points: int = 64) -> np.ndarray:
    """Returns falling quantiles [points] of d / chi^2_d.

    This is the distribution of a variance over its estimate from d = `degrees` degrees of freedom.
    """
    return degrees / stats.chi2.ppf((np.arange(points) + 0.5) / points, degrees)


def like_t(variance_K: np.ndarray) -> Error:
    """Returns Student's t with the quantiles at one sigma and at 0.975 of a normal mixture.

    Args:
        variance_K: the variances of the mixture's parts, which are equally likely.
    """
    sd_K = np.sqrt(variance_K)
    if not sd_K.max() > 0:
        return Error(0.0)
    sd_K = np.maximum(sd_K, 1e-9 * sd_K.max())
    share_P = special.ndtr(np.array([1.0, special.ndtri(0.975)]))
    normal_P = special.ndtri(share_P)
    low_P, high_P = normal_P * sd_K.min(), normal_P * sd_K.max()
    quantile_P = np.clip(normal_P * np.sqrt(variance_K.mean()), low_P, high_P)
    for _ in range(30):  # Newton's steps, which rise to the quantile from the second one on
        at_PK = quantile_P[:, None] / sd_K
        density_P = (np.exp(-(at_PK**2) / 2) / sd_K).mean(1) / math.sqrt(2 * math.pi)
        step_P = (share_P - special.ndtr(at_PK).mean(1)) / np.maximum(density_P, 1e-300)
        quantile_P, before_P = np.clip(quantile_P + step_P, low_P, high_P), quantile_P
        if np.all(np.abs(quantile_P - before_P) <= 1e-9 * quantile_P):
            break
    freedom_F, ratio_F = ratios_of_t()
    ratio = quantile_P[1] / quantile_P[0]
    if ratio <= ratio_F[-1]:
        return Error(float(quantile_P[0]))
    freedom = float(np.interp(-ratio, -ratio_F, freedom_F))
    return Error(float(quantile_P[1] / special.stdtrit(freedom, 0.975)), freedom)


@functools.cache
def ratios_of_t() -> tuple[np.ndarray, np.ndarray]:
    """Returns degrees of freedom [F] and the ratio [F] of two quantiles of Student's t.

    The quantiles are those at 0.975 and at one sigma.
    """
    freedom_F = np.geomspace(1.0, 2000.0, 400)
    one_sigma = special.ndtr(1.0)
    return freedom_F, special.stdtrit(freedom_F, 0.975) / special.stdtrit(freedom_F, one_sigma)


def of_few(error: Error, events: float) -> Error:
    """Returns the standard error of a rate at a threshold with `events` false positives in all.

    The position of the threshold is as uncertain as a sum of that many exponentials, whose variance
    has twice as many degrees of freedom.
    """
    return error._replace(freedom=min(error.freedom, 2.0 * events))


def error(number: Parts, *, crossed: bool, knows: str = "shadows") -> Error:
    """Returns the standard error of the mean.

    It is sqrt(B + E) over records only, and sqrt(A + B + E) if `crossed`, with more of A if the
    attack knows shadows.

    The degrees of freedom follow Satterthwaite's rule from the U - 1 of the spread among units, and
    are at least U - 1. For an attack that knows shadows they are finite even where A is estimated
    as 0, because A would count several times.

    Args:
        number: the number unit by unit.
        crossed: whether the error also covers other units of models.
        knows: what the attack knows.
    """
    drawn_UR, mean_R = number.drawn_UR.astype(np.float64), whole(number)
    records = float(np.nanvar(mean_R))
    units = len(number.value_U)
    if not crossed or units < 2:
        return Error(records**0.5)
    square_U = number.share_U**2 * units / (units - 1)
    among = float(square_U @ (number.value_U - number.share_U @ number.value_U) ** 2)
    reaction = float(square_U @ np.nanvar(drawn_UR - mean_R, axis=1))
    if knows in ALONE and among <= reaction:
        return Error(records**0.5)
    factor = 1.0 if knows in ALONE else of_shadows(units)
    total = records + factor * max(among - reaction, 0.0)
    freedom = total**2 * (units - 1) / (factor * among) ** 2 if among > 0 else np.inf
    return Error(total**0.5, max(units - 1.0, freedom))
