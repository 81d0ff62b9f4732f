"""Estimates which share of a data set a model was trained on (the idea of DUCI, Tong et al. 2025).

A membership attack flags the share `named` of the rows at a threshold fixed beforehand. If it flags
members at rate TPR and non-members at rate FPR, then E[named] = share TPR + (1 - share) FPR, so
share = (named - FPR) / (TPR - FPR). TPR and FPR come from shadow models on the same rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from mia_jax import checks
from mia_jax.metrics import record_groups

FEW = 2  # units of shadows below which their spread is not used


class Usage(NamedTuple):
    """Holds the estimated share and its interval, both within [0, 1].

    Attributes:
        share: the estimated share; None where the whole interval of `unbiased` is outside [0, 1],
            since then the target does not behave like the shadows that the rates come from.
        low, high: its interval; None like `share`.
        unbiased: the estimate before it is clipped to [0, 1]. By chance it can be outside where the
            attack reveals little.
        method: how the interval was made, 'shadows' or 'records' (`usage`).
        named: the share of the rows that is flagged.
        tpr, fpr: the rates of the shadows.
        rows, shadows: the number of rows and of shadows.
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

    The interval of method 'shadows' accounts for the dependence between the rows of a model. The
    share of each shadow is estimated with the rates of the shadows outside its unit, the root mean
    square of the errors is the standard error, and Student's t has as many degrees of freedom as
    there are units. Below 2 units, method 'records' treats rows as independent (delta method); its
    interval is too short if rows depend on each other.

    Args:
        score_N: the scores of the model, NaN where unknown.
        threshold: a row is flagged if its score >= threshold.
        rows_N: the rows of the data set.
        shadow_score_SN: the scores of S shadows as targets, NaN where unknown.
        shadow_member_SN: their members.
        unit_S: models of equal numbers belong together (twins); None: each by itself.
        level: the confidence level.

    Raises:
        ValueError: no row has a score, the shadows lack known members or non-members on these rows,
            or TPR is not above FPR.
    """
    score_N, rows_N = np.asarray(score_N, np.float64), np.asarray(rows_N, bool)
    shadow_score_SN, shadow_member_SN = (
        record_groups.as_scores(shadow_score_SN),
        np.asarray(shadow_member_SN, bool),
    )
    threshold = np.float64(threshold)  # which is not rounded to the scores' float32
    checks.shape("N", score=score_N, rows=rows_N)
    shadows = checks.shape("SN", shadow_score=shadow_score_SN, shadow_member=shadow_member_SN)["S"]
    checks.fraction(closed="neither", level=level)
    use_N = rows_N & ~np.isnan(score_N)
    if not use_N.any():
        raise ValueError(f"none of the {int(rows_N.sum())} rows has a score.")
    known_SN = use_N & ~np.isnan(shadow_score_SN)
    positive_SN = known_SN & (shadow_score_SN >= threshold)
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
            estimate = unbiased(
                positive_SN[s].sum() / known_SN[s].sum(), *_rates(count_S4[unit_S != unit_S[s]])
            )
            errors.append(estimate - count_S4[s, 2] / known_SN[s].sum())
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
    """Returns a row {target, true_share, fields of `Usage`} for each target.

    Args:
        score_MN: the scores of all models, shadows scored as if they were targets.
        member_MN, evaluated_MN: the members and the scored rows of each model.
        shadow_MM: shadow_MM[t, m] says whether model m is a shadow of target t.
        targets: the numbers of the targets.
        threshold_M: the shadow-calibrated threshold of each target.
        rows_N: the rows of the data set, of which the evaluated ones are used; None: all.
        unit_M: models of equal numbers belong together (twins); None: each by itself.
        level: the confidence level.

    Raises:
        ValueError: as in `usage`.
    """
    score_MN, member_MN = np.where(evaluated_MN, score_MN, np.nan), np.asarray(member_MN, bool)
    unit_M = np.arange(len(score_MN)) if unit_M is None else np.asarray(unit_M)
    known_M = ~np.isnan(score_MN).all(1)
    table_rows = []
    for m in targets:
        rows = np.asarray(evaluated_MN[m], bool) & (
            True if rows_N is None else np.asarray(rows_N, bool)
        )
        shadows = np.flatnonzero(shadow_MM[m] & known_M)
        given = dict(
            shadow_score_SN=score_MN[shadows],
            shadow_member_SN=member_MN[shadows],
            unit_S=unit_M[shadows],
        )
        estimate = usage(score_MN[m], threshold=threshold_M[m], rows_N=rows, level=level, **given)
        table_rows.append(
            dict(target=int(m), true_share=float(member_MN[m, rows].mean())) | estimate._asdict()
        )
    return table_rows


def _rates(count_S4: np.ndarray) -> tuple[float, float]:
    """Returns (TPR, FPR) over S shadows.

    The counts are those of flagged members, flagged non-members, members and non-members.
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
            "attack cannot distinguish shares."
        )
    return tpr, fpr
