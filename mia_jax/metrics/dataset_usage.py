"""How much of a data set was trained on: a share of rows instead of an answer for each (the idea of
DUCI, Tong et al. 2025).

A membership attack names the share `named` of the rows at a threshold fixed beforehand. If it names
members at rate TPR and non-members at rate FPR, then E[named] = share TPR + (1 - share) FPR, so
share = (named - FPR) / (TPR - FPR). TPR and FPR come from shadow models on the same rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from mia_jax import checks

FEW = 2  # units of shadows below which their spread is not used


class Usage(NamedTuple):
    """Holds the estimated share and its interval, both within [0, 1].

    `unbiased` is the estimate before it is limited to [0, 1]: by chance it lies outside where the
    attack reveals little. share, low and high are None where the whole interval of `unbiased` lies
    outside: then the target does not behave like the shadows that the rates come from.
    """

    share: float | None
    low: float | None
    high: float | None
    unbiased: float
    method: str
    named: float
    tpr: float
    fpr: float
    rows: int
    shadows: int


def unbiased(named, tpr, fpr):
    """Returns (named - fpr) / (tpr - fpr).

    >>> round(unbiased(0.5, 0.8, 0.2), 12)
    0.5
    """
    return (named - fpr) / (tpr - fpr)


def usage(
    score_N,
    *,
    threshold: float,
    rows_N,
    shadow_score_SN,
    shadow_member_SN,
    unit_S=None,
    level: float = 0.95,
) -> Usage:
    """Estimates the share of `rows_N` (bool [N]) in the training set of the model with scores [N].

    A row is flagged if its score >= threshold.

    shadow_score_SN are the scores of S shadows as targets (NaN where unknown), shadow_member_SN
    their members; `unit_S` numbers models that belong together (twins), by default none. Interval,
    method 'shadows': every shadow's share is estimated with the rates of the shadows outside its
    unit, the errors' root mean square is the standard error, and Student's t with as many degrees
    of freedom as units gives the level: it contains the dependence between the rows of one model.
    Below 2 units, method 'records': independent rows, by the delta method, too short if rows depend
    on each other. ValueError if shadows lack known members or non-members on these rows, or TPR is
    not above FPR.
    """
    score_N, rows_N = np.asarray(score_N, np.float64), np.asarray(rows_N, bool)
    shadow_score_SN, shadow_member_SN = (
        np.asarray(shadow_score_SN, np.float64),
        np.asarray(shadow_member_SN, bool),
    )
    checks.shape("N", score=score_N, rows=rows_N)
    shadows = checks.shape("SN", shadow_score=shadow_score_SN, shadow_member=shadow_member_SN)["S"]
    checks.fraction(closed="neither", level=level)
    use_N = rows_N & ~np.isnan(score_N)
    if not use_N.any():
        raise ValueError(f"none of the {int(rows_N.sum())} rows has a score.")
    known_SN = use_N & ~np.isnan(shadow_score_SN)
    positive_SN = known_SN & (np.nan_to_num(shadow_score_SN, nan=-np.inf) >= threshold)
    sides = [known_SN & shadow_member_SN, known_SN & ~shadow_member_SN]
    count_S4 = np.stack(
        [(mask & side_SN).sum(1) for mask in (positive_SN, known_SN) for side_SN in sides], 1
    )
    named, rows = float((score_N[use_N] >= threshold).mean()), int(use_N.sum())
    tpr, fpr = _rates(count_S4)
    share = unbiased(named, tpr, fpr)
    unit_S = np.arange(shadows) if unit_S is None else np.asarray(unit_S)
    units = len(np.unique(unit_S))
    if units >= FEW:
        errors = []
        for s in np.flatnonzero(known_SN.any(1)):
            own = unbiased(
                positive_SN[s].sum() / known_SN[s].sum(), *_rates(count_S4[unit_S != unit_S[s]])
            )
            errors.append(own - count_S4[s, 2] / known_SN[s].sum())
        half = t.ppf((1 + level) / 2, units) * np.sqrt(np.mean(np.square(errors)))
    else:
        inside, outside = count_S4[:, 2:].sum(0)
        variance = (
            named * (1 - named) / rows
            + share**2 * tpr * (1 - tpr) / inside
            + (1 - share) ** 2 * fpr * (1 - fpr) / outside
        )
        half = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (tpr - fpr)
    possible = share - half <= 1 and share + half >= 0
    return Usage(
        share=float(np.clip(share, 0, 1)) if possible else None,
        low=float(np.clip(share - half, 0, 1)) if possible else None,
        high=float(np.clip(share + half, 0, 1)) if possible else None,
        unbiased=float(share),
        method="shadows" if units >= FEW else "records",
        named=named,
        tpr=tpr,
        fpr=fpr,
        rows=rows,
        shadows=shadows,
    )


def table(
    score_MN,
    member_MN,
    evaluated_MN,
    shadow_MM,
    *,
    targets,
    threshold_M,
    rows_N=None,
    unit_M=None,
    level: float = 0.95,
) -> list[dict]:
    """Returns one row per target: target, true_share and the fields of `usage`.

    They are about its evaluated rows (those of `rows_N` if given).

    Shadows are scored as targets of their own, as for shadow-chosen thresholds [M]. ValueError as
    in `usage`.
    """
    score_MN, member_MN = np.where(evaluated_MN, score_MN, np.nan), np.asarray(member_MN, bool)
    unit_M = np.arange(len(score_MN)) if unit_M is None else np.asarray(unit_M)
    found = []
    for m in targets:
        rows = np.asarray(evaluated_MN[m], bool) & (
            True if rows_N is None else np.asarray(rows_N, bool)
        )
        shadows = np.flatnonzero(shadow_MM[m] & ~np.isnan(score_MN).all(1))
        given = dict(
            shadow_score_SN=score_MN[shadows],
            shadow_member_SN=member_MN[shadows],
            unit_S=unit_M[shadows],
        )
        one = usage(score_MN[m], threshold=threshold_M[m], rows_N=rows, level=level, **given)
        found.append(
            dict(target=int(m), true_share=float(member_MN[m, rows].mean())) | one._asdict()
        )
    return found


def _rates(count_S4: np.ndarray) -> tuple[float, float]:
    """Returns (TPR, FPR) over shadows with counts [named members, named non-members, members,
    non-members].
    """
    true, false, inside, outside = count_S4.sum(0)
    if not inside or not outside:
        raise ValueError(
            f"{len(count_S4)} shadows have {inside} known members and {outside} known non-members "
            "on these rows; TPR and FPR need both."
        )
    tpr, fpr = float(true / inside), float(false / outside)
    if tpr <= fpr:
        raise ValueError(
            f"at this threshold the shadows' TPR={tpr:.4g} is not above their FPR={fpr:.4g}: the "
            "attack cannot tell shares apart."
        )
    return tpr, fpr
