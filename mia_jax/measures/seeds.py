"""Computes the mean and standard deviation of every number over runs with different seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.measures import verdict
from mia_jax.metrics import rows as result_rows

KEY = ("attack", "target", "slice", "metric")
KEYS = ("attack", "metric", "target")  # arguments of result_rows.find
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


def decided(reports: Sequence[Mapping]) -> dict:
    """Returns the section `verdict` of a report over seeds: the ranking of `verdict.rank`.

    What is compared are the means over the seeds, those of the lower ends as well. An attack shows
    a leak, or points the wrong way, if it does so under every seed; one that a seed lacks has no
    means. `leak` is 'untested', because each seed has a verdict of its own.

    Args:
        reports: report.json of each seed. The first one decides which attacks there are.
    """
    each = [verdict.of(report) for report in reports]
    of_seeds = [result_rows.main_rows(report["results"]) for report in reports]
    means = []
    for row in of_seeds[0]:
        if row["target"] not in (None, "pooled"):
            continue
        same = [result_rows.find(rows, *(row[k] for k in KEYS)) for rows in of_seeds]
        mean = {}
        for key in ("value", "low"):
            values = [None if other is None else other[key] for other in same]
            mean[key] = None if None in values else float(np.mean(np.asarray(values, np.float64)))
        means.append(dict(row, **mean))
    standings = {}
    for name in each[0]["attacks"]:
        of_seed = {seed["attacks"].get(name, {}).get("standing") for seed in each}
        agreed = len(of_seed) == 1 and None not in of_seed
        standings[name] = of_seed.pop() if agreed else verdict.OPEN
    order = verdict.rank(means, standings)
    ranked = [name for name in order if name in each[0]["ranked"]]
    return dict(
        leak="untested",
        ranked=ranked,
        apart=[name for name in order if name not in ranked],
        level=each[0]["level"],
        tests=0,
        attacks={
            name: dict(standing=standing, shown=[], alone=[], p_holm=None, inverted=False)
            for name, standing in standings.items()
        },
        strongest=next(iter(ranked or order), None),
    )
