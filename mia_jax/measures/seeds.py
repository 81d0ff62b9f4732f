"""Computes the mean and standard deviation of every number over runs with different seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

KEY = ("attack", "target", "slice", "metric")
KEPT = (*KEY, "convention", "n_member", "n_nonmember", "n_targets", "knows")


def rows(results: Sequence[Sequence[Mapping]]) -> list[dict]:
    """Returns one row per attack and metric over all targets, with mean and sd over the seeds.

    The sd describes the spread between runs; it is not an interval.

    Args:
        results: the rows of results of each seed's report. The first seed decides which rows there
            are.

    Returns:
        Rows of the means over targets and of the pooled targets, with `value` = mean over seeds,
        `sd_over_seeds` (divisor: seeds - 1) and `n_seeds`. A number that one seed could not resolve
        is None.
    """
    by_key = [{tuple(row[k] for k in KEY): row for row in rows_of_seed} for rows_of_seed in results]
    over_seeds = []
    for row in results[0]:
        if row["target"] not in (None, "pooled"):
            continue
        same = [rows_of_seed.get(tuple(row[k] for k in KEY)) for rows_of_seed in by_key]
        values = [None if other is None else other["value"] for other in same]
        mean, sd = None, None
        if None not in values:
            mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
        statistics = dict(
            value=mean,
            low=None,
            high=None,
            interval=None,
            method=f"mean over {len(values)} seeds",
            fpr_realized=None,
            sd_over_seeds=sd,
            n_seeds=len(values),
        )
        over_seeds.append({k: row[k] for k in KEPT} | statistics)
    return over_seeds
