"""Collects chosen metrics of chosen attacks from the reports of a grid's variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows

SIDES = ("train_accuracy", "validation_accuracy")
KEPT = ("value", "low", "high", "interval", "method", "convention", "n_targets", "knows")


def accuracy(report: Mapping, side: str) -> list[float]:
    """Returns a report's accuracies of its targets on one side, a name of SIDES.

    The list is empty where there are none (a regression, several seeds together).
    """
    return [
        row[side]
        for row in report.get("models", ())
        if row.get("target", True) and row.get(side) is not None
    ]


def rows(
    reports: Mapping[str, Mapping], *, attacks: Sequence[str], metrics: Sequence[str]
) -> list[dict]:
    """Returns one row per variant, attack and metric, with accuracies (means over targets).

    `member` is the variant's name. `value` and its interval are None where a variant has no such
    number.
    """
    lines = []
    for variant, report in reports.items():
        accuracies = {side: accuracy(report, side) for side in SIDES}
        means = {side: sum(a) / len(a) if a else None for side, a in accuracies.items()}
        for attack in attacks:
            for metric in metrics:
                row = result_rows.resolved(report["results"], attack, metric) or {}
                target = "pooled" if row.get("target") == "pooled" else ""
                lines.append(
                    dict(member=variant, **means, attack=attack, metric=metric, target=target)
                    | {k: row.get(k) for k in KEPT}
                )
    return lines
