"""Rows of results: their columns, which rows a headline shows, and how to look up a row.

A row is {attack, target, slice, metric, value, low, high, ...}; metrics/summary.py makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

COLUMNS = (
    *(
        "attack",
        "target",
        "slice",
        "metric",
        "value",
        "low",
        "high",
        "interval",
        "method",
        "convention",
        "fpr_realized",
    ),
    *("n_member", "n_nonmember", "n_targets", "knows", "sd_over_models", "null_mean", "p_value"),
)
# what a real attacker can know: `knows` of the attacks that are ranked
RANKED = ("nothing", "shadows", "population")
OPTIMISTIC = ("advantage_optimistic", "oracle_threshold")
MAIN = ("auc", "tpr", "fpr", "advantage", "balanced_accuracy", *OPTIMISTIC)


def main_rows(rows: Sequence[Mapping]) -> list[Mapping]:
    """Returns the rows of the headline tables: all records, the metrics of `metrics.summary`."""
    return [
        row
        for row in rows
        if row["slice"] == "all"
        and (row["metric"] in MAIN or row["metric"].startswith(("tpr@", "ppv@")))
    ]


def find(
    rows: Sequence[Mapping], attack: str, metric: str, target=None, slice: str = "all"
) -> Mapping | None:
    """Returns the row of an attack, metric, target and slice; None if there is none.

    Args:
        rows: the rows of `metrics.summary`.
        attack, metric, slice: the values of these columns.
        target: None for the mean over targets, 'pooled', or the number of a model.
    """
    same = (
        row
        for row in rows
        if row["metric"] == metric and row["attack"] == attack and row["target"] == target
    )
    return next((row for row in same if row["slice"] == slice), None)


def fprs(rows: Sequence[Mapping]) -> list[float]:
    """Returns the false-positive rates of the tpr@ rows, in rising order."""
    return sorted(
        {
            float(row["metric"].removeprefix("tpr@"))
            for row in rows
            if row["metric"].startswith("tpr@")
        }
    )


def sort_metric(rows: Sequence[Mapping]) -> str:
    """Returns the metric that attacks are sorted by: tpr@0.01, the tpr@ nearest to it, or auc."""
    known = [fpr for fpr in fprs(rows) if fpr > 0]
    return f"tpr@{min(known, key=lambda f: abs(math.log(f / 0.01))):g}" if known else "auc"


def resolved(rows: Sequence[Mapping], attack: str, metric: str) -> Mapping | None:
    """Returns the mean over targets, or the pooled row where only that one has a value."""
    mean, pooled = find(rows, attack, metric), find(rows, attack, metric, "pooled")
    return (
        pooled
        if pooled and pooled["value"] is not None and (mean is None or mean["value"] is None)
        else mean
    )
