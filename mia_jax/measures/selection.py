"""Compares settings of a model by how well they predict and how much they leak.

Every setting was fitted on the same splits, so that differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.measures import two_audits, verdict
from mia_jax.metrics import comparisons, intervals
from mia_jax.metrics import rows as result_rows


class Interval(NamedTuple):
    """Holds a number and the ends of its interval."""

    value: float
    low: float
    high: float


class Leakage(NamedTuple):
    """Holds a setting's leakage in one metric: the number of the strongest attack."""

    attack: str
    row: Mapping

    @property
    def value(self) -> float:
        """Returns the number itself."""
        return self.row["value"]


def mean(value_M, *, test_share: float, level: float = 0.95) -> Interval:
    """Returns the mean over splits with its interval, the corrected resampled t.

    Scores of splits depend on each other, because the training sets overlap: s^2/M is too small a
    variance of their mean. It is s^2 (1/M + n_test/n_train) (Nadeau and Bengio, Machine Learning
    52, 2003), with M - 1 degrees of freedom.

    Args:
        value_M: a number per split, or the difference of two settings per split.
        test_share: n_test/n_train.
        level: the confidence level.

    >>> [round(x, 3) for x in mean([0.9, 0.8], test_share=0.5)]
    [0.85, -0.048, 1.748]
    """
    value_M = np.asarray(value_M, np.float64)
    deviation = float(value_M.std(ddof=1)) * math.sqrt(1 / len(value_M) + test_share)
    center = float(value_M.mean())
    half = intervals.t_half(deviation, level, len(value_M) - 1)
    return Interval(center, center - half, center + half)


def metrics(report: Mapping) -> list[str]:
    """Returns the metrics of leakage: the AUC and the TPRs at a low FPR."""
    rows = result_rows.main_rows(report["results"])
    return ["auc", *(f"tpr@{fpr:g}" for fpr in reversed(result_rows.fprs(rows)))]


def attacks(report: Mapping, metric: str) -> dict[str, Mapping]:
    """Returns {attack: row} of the attacks that a real attacker could run, where it has a value.

    A row is the mean over splits, or the pooled one where only that can be resolved.
    """
    rows = result_rows.main_rows(report["results"])
    every = {
        name: result_rows.resolved(rows, name, metric) for name in verdict.of(report)["ranked"]
    }
    return {n: row for n, row in every.items() if row is not None and row["value"] is not None}


def strongest(report: Mapping, metric: str) -> Leakage | None:
    """Returns the attack that leads in a metric by `verdict.rank`; None if no attack has a value.

    A leak in another metric puts no attack first here: only this metric is asked for.
    """
    rows = attacks(report, metric)
    if not rows:
        return None
    main = result_rows.main_rows(report["results"])
    name = verdict.rank(main, dict.fromkeys(rows, verdict.OPEN), metric=metric)[0]
    return Leakage(name, rows[name])


def dominating(score_S: Sequence[float], leak_S: Sequence[float | None]) -> dict[int, int | None]:
    """Returns {setting: one that is better by point values}; None for those on the Pareto front.

    Setting j dominates i if it predicts at least as well and leaks at most as much, and one of the
    two is strict. Among those that dominate, one of the front is returned: the one with the highest
    score, then with the least leakage. Settings without a number for their leakage are left out.

    >>> dominating([0.9, 0.8, 0.9, 0.7], [0.6, 0.5, 0.7, None])
    {0: None, 1: None, 2: 0}
    """
    place = {
        s: (-score, leak)
        for s, (score, leak) in enumerate(zip(score_S, leak_S, strict=True))
        if leak is not None
    }
    by: dict[int, int | None] = {}
    for i, here in place.items():
        better = [
            j
            for j, there in place.items()
            if there != here and there[0] <= here[0] and there[1] <= here[1]
        ]
        by[i] = min(better, key=place.__getitem__, default=None)
    return by


def leakage_difference(
    first: two_audits.Audit, second: two_audits.Audit, metric: str, *, level: float
) -> Interval | None:
    """Returns the leakage of one setting less that of another, each by its strongest attack.

    The interval is paired: from the draws of rows and splits that both share.

    Returns:
        None if one of them has no interval, or one is pooled over splits and the other is not.
    """
    both = [strongest(audit.report, metric) for audit in (first, second)]
    kept = []
    for audit, leak in zip((first, second), both, strict=True):
        if leak is None or leak.row["low"] is None or leak.row["target"] != both[0].row["target"]:
            return None
        only = audit._replace(score_TN={leak.attack: audit.score_TN[leak.attack]})
        drawn = two_audits.drawn(only, first)[leak.attack]
        kept.append(drawn.get((leak.row["target"], metric)))
    if any(drawn is None or drawn.outcome.low is None for drawn in kept):
        return None
    row = comparisons.difference(*kept, level=level)
    return Interval(row["value"], row["low"], row["high"])
