"""The standard error of a mean over targets that share their records and their shadow models, from
variance components.

A target's value is that of its unit of models (twins are one unit) u on N records: a_u + the mean
over records of (b_n + e_un). The mean over U units varies by A + B + E: A = var(a)/U, B = var(b)/N,
E = var(e)/(U N). Reweighting records alone shows B + E, the spread among units is A + E, and the
spread of the units' own reactions to the records' weights is E. A bootstrap that multiplies the
counts of records and of units shows A + B + 3 E (Owen, arXiv:0712.1111, theorem 3), which is up to
sqrt 3 too wide for rates at a high threshold; the components add up to A + B + E.

An attack that compares a target with shadow models is, to first order, a mean over ordered pairs
(target, shadow), and every model takes both parts. The spread among targets, given their shadows,
shows one part only. In a U-statistic of degree 2 with equal parts the other one doubles a unit's
influence (Hoeffding 1948), so A counts 4 times for attacks that know shadows, and ((U - 1)/(U -
2))^2 times that: a target is compared with the U - 1 other units, so what is high about it is
missing among its shadows, and the spread among targets shows (U - 2)/(U - 1) of their part. This is
exact for equal parts, and too much where shadows matter less than the target. Scores alone cannot
tell: all targets have nearly the same shadows.

Where the attack was rerun without groups of units (`jackknife`), their jackknife variance J is A +
E with both roles of every unit counted, in each metric and in each difference of two attacks, and
the groups' own reactions to the records' weights are E as J shows it: what several units do
together counts more than once in both, and cancels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import special, stats

SHARED = 4.0  # by how much A grows, with many units, where targets are each other's shadows
ALONE = ("nothing", "half_of_target_members")  # what attacks know that read no shadow


def of_shadows(units: int) -> float:
    """Returns how many times A counts where `units` units of targets are each other's shadows."""
    return SHARED * ((units - 1) / max(units - 2, 1)) ** 2


class Parts(NamedTuple):
    """Holds a number unit by unit.

    Its values [U], its draws [U,R] under the shared weights of the records, and the units' shares
    [U] of the mean.
    """

    value_U: np.ndarray
    drawn_UR: np.ndarray
    share_U: np.ndarray


class Left(NamedTuple):
    """Holds a number without each of G groups of units: pseudo-values of the jackknife.

    `value_G` are number + (1/share - 1) (number - number without the group), `apart_GR` how far
    these are from the whole's under R draws of records, `share_G` the groups' shares of the
    targets, `group_U` the group of each unit of targets, and `whole_R` the number under the draws.
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
    """Averages targets [T] and their draws [T,R] within units; targets whose value is NaN are left
    out.
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
    sums_UR, found_UR = of_UT @ np.where(there_TR, drawn_TR, 0.0), of_UT @ there_TR
    drawn_UR = np.where(found_UR > 0, sums_UR / np.maximum(found_UR, 1), np.nan)
    return Parts(value_U, drawn_UR.astype(np.float32), count_U / len(value_T))


def minus(one: Parts, other: Parts) -> Parts:
    """Returns the difference of two numbers of the same units under the same draws."""
    return Parts(one.value_U - other.value_U, one.drawn_UR - other.drawn_UR, one.share_U)


def whole(found: Parts) -> np.ndarray:
    """Returns the number [R] under the draws of records: the mean over the units with a value."""
    drawn_UR = found.drawn_UR.astype(np.float64)
    there_UR = ~np.isnan(drawn_UR)
    weight_R = found.share_U @ there_UR
    total_R = found.share_U @ np.where(there_UR, drawn_UR, 0.0)
    return np.where(weight_R > 0, total_R / np.where(weight_R > 0, weight_R, 1.0), np.nan)


def grouped(found: Parts, group_U) -> Left:
    """Reads a number that is a mean over units as if its groups of units had been left out."""
    of_GU = np.arange(int(group_U.max()) + 1)[:, None] == group_U
    share_G, whole_R = of_GU @ found.share_U, whole(found)
    value_G = of_GU @ (found.share_U * found.value_U) / share_G
    drawn_UR = np.where(np.isnan(found.drawn_UR), whole_R, found.drawn_UR)
    drawn_GR = of_GU @ (found.share_U[:, None] * drawn_UR) / share_G[:, None]
    return Left(value_G, drawn_GR - whole_R, share_G, group_U, whole_R)


def left_minus(one: Left, other: Left) -> Left:
    """Returns the difference of two numbers without the same groups under the same draws."""
    return one._replace(
        value_G=one.value_G - other.value_G,
        apart_GR=one.apart_GR - other.apart_GR,
        whole_R=one.whole_R - other.whole_R,
    )


def left_error(left: Left) -> Error:
    """Returns the standard error of a jackknifed number, from B + E + max(0, J - E).

    J is the jackknife variance, E the part of it that is due to records. Where J is hardly above E,
    or below, that may be chance: with d degrees of freedom the variance that J estimates is
    J d / chi^2_d (its fiducial distribution, as in a generalized confidence interval: Weerahandi,
    JASA 88, 1993). The error is Student's t most like the normal mixture over these variances:
    t with d degrees of freedom where J is all, normal where E is far above J. d is G - 2 for G
    groups: what a unit contributes as a shadow depends on the targets, so J varies more than a mean
    of G - 1 squares of normal numbers does.
    """
    records, groups = float(np.nanvar(left.whole_R)), len(left.value_G)
    square_G = left.share_G**2 * groups / (groups - 1)
    among = float(square_G @ (left.value_G - left.share_G @ left.value_G) ** 2)
    own = float(square_G @ np.var(left.apart_GR - left.share_G @ left.apart_GR, axis=1))
    if records == 0 and among <= own:
        return Error(0.0)
    return like_t(records + np.maximum(0.0, among * true_over_estimated(max(1, groups - 2)) - own))


@functools.cache
def true_over_estimated(degrees: int, points: int = 64) -> np.ndarray:
    """Quantiles [points] of d / chi^2_d, falling: a variance over its estimate from d degrees."""
    return degrees / stats.chi2.ppf((np.arange(points) + 0.5) / points, degrees)


def like_t(variance_K: np.ndarray) -> Error:
    """Student's t whose quantiles at one sigma and at .975 are those of a normal mixture.

    Args:
      variance_K: the variances of the mixture's parts, each as likely as any other.
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
    """Degrees of freedom [F], and Student's t quantile at .975 over that at one sigma [F]."""
    freedom_F = np.geomspace(1.0, 2000.0, 400)
    one_sigma = special.ndtr(1.0)
    return freedom_F, special.stdtrit(freedom_F, 0.975) / special.stdtrit(freedom_F, one_sigma)


def of_few(error: Error, events: int) -> Error:
    """Returns the standard error of a rate at a threshold with `events` false positives in all.

    Where the threshold lies is as uncertain as a sum of that many exponentials, whose variance has
    twice as many degrees of freedom.
    """
    return error._replace(freedom=min(error.freedom, 2.0 * events))


def error(found: Parts, *, crossed: bool, knows: str = "shadows") -> Error:
    """Returns the standard error of the mean.

    It is sqrt(B + E) over records only, and sqrt(A + B + E) if `crossed`, with more of A if the
    attack knows shadows.

    Degrees of freedom by Satterthwaite's rule from the U - 1 of the spread among units, at least U
    - 1; of an attack that knows shadows also where A is estimated as 0, for it would count several
    times.
    """
    drawn_UR, mean_R = found.drawn_UR.astype(np.float64), whole(found)
    records = float(np.nanvar(mean_R))
    units = len(found.value_U)
    if not crossed or units < 2:
        return Error(records**0.5)
    square_U = found.share_U**2 * units / (units - 1)
    among = float(square_U @ (found.value_U - found.share_U @ found.value_U) ** 2)
    own = float(square_U @ np.nanvar(drawn_UR - mean_R, axis=1))
    if knows in ALONE and among <= own:
        return Error(records**0.5)
    factor = 1.0 if knows in ALONE else of_shadows(units)
    total = records + factor * max(among - own, 0.0)
    freedom = total**2 * (units - 1) / (factor * among) ** 2 if among > 0 else np.inf
    return Error(total**0.5, max(units - 1.0, freedom))
