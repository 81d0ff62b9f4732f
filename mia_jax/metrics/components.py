"""The standard error of a mean over targets that share their records and their shadow models, from variance components.

A target's value is that of its unit of models (twins are one unit) u on N records: a_u + the mean over records of (b_n + e_un). The mean over U units
varies by A + B + E: A = var(a)/U, B = var(b)/N, E = var(e)/(U N). Reweighting records alone shows B + E, the spread among units is A + E, and the
spread of the units' own reactions to the records' weights is E. A bootstrap that multiplies the counts of records and of units shows A + B + 3 E
(Owen, arXiv:0712.1111, theorem 3), which is up to sqrt 3 too wide for rates at a high threshold; the components add up to A + B + E.

An attack that compares a target with shadow models is, to first order, a mean over ordered pairs (target, shadow), and every model takes both
parts. The spread among targets, given their shadows, shows one part only. In a U-statistic of degree 2 with equal parts the other one doubles a
unit's influence (Hoeffding 1948), so A counts 4 times for attacks that know shadows, and ((U - 1)/(U - 2))^2 times that: a target is compared with
the U - 1 other units, so what is high about it is missing among its shadows, and the spread among targets shows (U - 2)/(U - 1) of their part. This
is exact for equal parts, and too much where shadows matter less than the target. Scores alone cannot tell: all targets have nearly the same shadows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SHARED = 4.0  # by how much A grows, with many units, where targets are each other's shadows
ALONE = ("nothing", "half_of_target_members")  # what attacks know that read no shadow


def of_shadows(units: int) -> float:
    """How many times A counts where `units` units of targets are each other's shadows."""
    return SHARED * ((units - 1) / max(units - 2, 1)) ** 2


class Parts(NamedTuple):
    """A number unit by unit: its values [U], its draws [U,R] under the shared weights of the records, and the units' shares [U] of the mean."""

    value_U: np.ndarray
    drawn_UR: np.ndarray
    share_U: np.ndarray


class Error(NamedTuple):
    """A standard error and its degrees of freedom (inf: normal)."""

    deviation: float
    freedom: float = np.inf


def parts(value_T, drawn_TR, unit_T) -> Parts:
    """Averages targets [T] and their draws [T,R] within units; targets whose value is NaN are left out."""
    value_T, drawn_TR, unit_T = np.asarray(value_T, np.float64), np.asarray(drawn_TR), np.asarray(unit_T)
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
    """The difference of two numbers of the same units under the same draws."""
    return Parts(one.value_U - other.value_U, one.drawn_UR - other.drawn_UR, one.share_U)


def error(found: Parts, *, crossed: bool, knows: str = "shadows") -> Error:
    """The standard error of the mean: sqrt(B + E) over records alone, sqrt(A + B + E) if `crossed`, with more of A if the attack knows shadows.

    Degrees of freedom by Satterthwaite's rule from the U - 1 of the spread among units, at least U - 1; of an attack that knows shadows also where A
    is estimated as 0, for it would count several times.
    """
    drawn_UR = found.drawn_UR.astype(np.float64)
    there_UR = ~np.isnan(drawn_UR)
    weight_R = found.share_U @ there_UR
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_R = np.where(weight_R > 0, found.share_U @ np.where(there_UR, drawn_UR, 0.0) / weight_R, np.nan)
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
