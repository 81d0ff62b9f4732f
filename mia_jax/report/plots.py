"""What the interactive figures of report.html draw: numbers of report.json as lists, side by side.

Attacks are given by their places in a list of names, which stands once in the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mia_jax.measures import verdict
from mia_jax.metrics import rows as result_rows
from mia_jax.privacy import audit, risk
from mia_jax.report import tables
from mia_jax.report.sections.epochs import title

ENDS = ("value", "low", "high")
PER_DECADE = 25  # points of the curve of a bound, which has two straight pieces


def epochs(report: Mapping, place: Mapping[str, int]) -> dict[str, Any] | None:
    """Returns leakage and accuracy over the epochs; None without a report over epochs.

    Args:
        report: report.json.
        place: {attack: its place}.

    Returns:
        {epoch, train, validation, metrics, attacks, shown}: lists over the epochs; of each metric
            its {key, name, unit, guess}; {place: {metric: {value, low, high}}} of each attack; the
            places of those that are shown first, the best of each kind of knowledge.
    """
    over = report.get("epochs")
    if not over:
        return None
    knows = verdict.known(result_rows.main_rows(report["results"]))
    decided = verdict.of(report)
    first: dict[str, int] = {}
    for name in (*decided["ranked"], *decided["apart"]):
        if name in over["attacks"]:
            first.setdefault(knows[name], place[name])
    accuracy = over["accuracy"]
    return dict(
        epoch=[row["epoch"] for row in accuracy],
        train=[row["train_accuracy"] for row in accuracy],
        validation=[row["validation_accuracy"] for row in accuracy],
        metrics=[described(metric) for metric in over["metrics"]],
        attacks={
            str(place[name]): {
                metric: numbers([point[metric] for point in points]) for metric in over["metrics"]
            }
            for name, points in over["attacks"].items()
            if name in place
        },
        shown=list(first.values()),
    )


def overfitting(report: Mapping, place: Mapping[str, int]) -> dict[str, Any] | None:
    """Returns quality and leakage of every target; None where they are not known.

    Args:
        report: report.json.
        place: {attack: its place}.

    Returns:
        {quality, model, train, validation, gap, metrics, attacks}: lists over the targets, and as
            `epochs` returns them.
    """
    measured = report.get("overfitting")
    if not measured:
        return None
    targets = measured["targets"]
    return dict(
        quality=measured["quality"],
        **{key: [point[key] for point in targets] for key in ("model", "train", "validation")},
        gap=[point["gap"] for point in targets],
        metrics=[described(metric) for metric in measured["metrics"]],
        attacks={
            str(place[name]): {
                metric: numbers([point["attacks"][name][metric] for point in targets])
                for metric in measured["metrics"]
            }
            for name in measured["attacks"]
            if name in place
        },
    )


def numbers(points: Sequence[Mapping]) -> dict[str, list[float | None]]:
    """Returns {value, low, high}, a list each, of numbers with their intervals.

    >>> numbers([dict(value=0.6, low=None, high=None), dict(value=0.7, low=0.6, high=0.8)])
    {'value': [0.6, 0.7], 'low': [None, 0.6], 'high': [None, 0.8]}
    """
    return {end: [point[end] for point in points] for end in ENDS}


def described(metric: str) -> dict[str, Any]:
    """Returns {key, name, unit, guess} of a metric; `guess` is None where it has no fixed value.

    >>> described('tpr@0.01')
    {'key': 'tpr@0.01', 'name': 'TPR at 1% FPR', 'unit': '%', 'guess': 0.01}
    """
    guessed = verdict.guess(metric) if metric == "auc" or metric.startswith("tpr@") else None
    return dict(key=metric, name=title(metric), unit=unit(metric), guess=guessed)


def unit(metric: str) -> str:
    """Returns how a metric is written: '%' for a rate, '' for an AUC, 'raw' for what else there is.

    >>> unit('tpr@0.01'), unit('auc'), unit('mann_whitney')
    ('%', '', 'raw')
    """
    kind = metric.partition("@")[0]
    if kind == "auc":
        return ""
    rates = ("tpr", "fpr", "ppv", "advantage", "balanced_accuracy", *result_rows.OPTIMISTIC)
    return "%" if kind in rates or kind.startswith(("tpr_", "fpr_")) else "raw"


def bound(
    epsilon: float,
    delta: float,
    fprs: Sequence[float] = (),
    proven: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, list[float]]:
    """Returns the largest TPR that (epsilon, delta)-DP allows at each FPR: {fpr, tpr}, rising.

    It is min(1, e^epsilon FPR + delta, 1 - e^-epsilon (1 - delta - FPR)) (Kairouz, Oh and Viswanath
    2015, arXiv:1311.0776, Theorem 2.1), one minus the trade-off function at 1 - FPR.

    Args:
        epsilon, delta: the guarantee.
        fprs: rates in (0, 1] that are among the points; the others are from a third of the
            smallest of them (or of 1e-3) to 1, with the bend among them.
        proven: further pairs {epsilon, remove, add} of the same mechanism (privacy/risk.py); the
            TPR is then at most what they allow as well.

    >>> curve = bound(math.log(2), 0.0, [0.25])
    >>> [round(dict(zip(*curve.values()))[fpr], 12) for fpr in (0.25, 1.0)]
    [0.5, 1.0]
    """
    first = min([*fprs, 1e-3]) / 3
    count = math.ceil(-PER_DECADE * math.log10(first))
    grid = [first ** (1 - at / count) for at in range(count + 1)]
    bend = (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))
    points = sorted({*grid, *fprs, *([bend] if first < bend < 1 else [])})
    false_negatives = audit.approximate(epsilon, delta)
    rates = [1 - false_negatives(1 - fpr) for fpr in points]
    if proven:
        tighter = risk.from_json(proven).tpr(points)
        rates = [min(rate, float(other)) for rate, other in zip(rates, tighter, strict=True)]
    return dict(fpr=points, tpr=rates)


def bound_text(bound: Mapping[str, Sequence[float]], fpr: float) -> str:
    """Writes the bound at one of its rates; a dash at others."""
    if fpr not in bound["fpr"]:
        return tables.ABSENT
    return f"at most {tables.percent(bound['tpr'][bound['fpr'].index(fpr)])}%"
