"""Measures how much each target overfits beside how much it leaks.

That is its quality on members and on non-members, the gap of the two, and the numbers of the best
attack of each kind of knowledge.

Attacks see what a model does better on its members, so a larger gap often comes with a larger leak;
but targets of one recipe differ by little, and a model without a gap may leak as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import checks
from mia_jax.measures import verdict
from mia_jax.metrics import intervals
from mia_jax.metrics import rows as result_rows

UNITS = 8  # of targets that a correlation needs for an interval
KINDS = ("accuracy", "loss")  # of quality; the first that every target has
KEPT = ("value", "low", "high")  # of a row in a point


def measure(
    models: Sequence[Mapping],
    results: Sequence[Mapping],
    decided: Mapping,
    *,
    unit_T,
    targets: Sequence[int],
    level: float = 0.95,
) -> dict | None:
    """Returns the section `overfitting` of report.json.

    Args:
        models: its section `models`.
        results: the rows of `metrics.summary`.
        decided: its section `verdict`.
        unit_T: targets of equal numbers are not independent (twins).
        targets: the T audited models.
        level: the confidence level of the intervals.

    Returns:
        {quality, metrics, attacks, targets, correlations, units}; None if the quality of a target
        is unknown. `quality` is one of KINDS. `attacks` are the best attack of each kind of
        knowledge. `targets` are {model, train, validation, gap, attacks: {attack: {metric: {value,
        low, high}}}}: the quality on members and on non-members, and by how much it is better on
        members. `correlations` are rows {attack, metric, value, low, high} of the correlation of
        the gap with the number of an attack over the targets; the interval is None with fewer than
        UNITS independent units of targets.
    """
    quality_T2 = {model["model"]: model for model in models}
    of_targets = [quality_T2.get(target, {}) for target in targets]
    sides = ("train", "validation")
    kind = next(
        (
            kind
            for kind in KINDS
            if all(row.get(f"{side}_{kind}") is not None for row in of_targets for side in sides)
        ),
        None,
    )
    if kind is None:
        return None
    rows = result_rows.main_rows(results)
    names = verdict.best_of_kinds(decided, verdict.known(rows))
    metrics = verdict.headline_metrics(rows)
    of_row = {
        (row["attack"], row["metric"], row["target"]): row for row in rows if row["attack"] in names
    }
    points = []
    for target, row in zip(targets, of_targets, strict=True):
        inside, outside = (float(row[f"{side}_{kind}"]) for side in sides)
        numbers = {
            name: {
                metric: {key: of_row.get((name, metric, target), {}).get(key) for key in KEPT}
                for metric in metrics
            }
            for name in names
        }
        gap = inside - outside if kind == "accuracy" else outside - inside
        points.append(
            dict(model=target, train=inside, validation=outside, gap=gap, attacks=numbers)
        )
    gap_T = np.array([point["gap"] for point in points])
    correlations = []
    for name in names:
        for metric in metrics:
            number_T = [point["attacks"][name][metric]["value"] for point in points]
            if None not in number_T:
                found = correlation(gap_T, number_T, unit_T, level=level)
                if found is not None:
                    correlations.append(dict(attack=name, metric=metric, **found))
    return dict(
        quality=kind,
        metrics=metrics,
        attacks=names,
        targets=points,
        correlations=correlations,
        units=len(np.unique(unit_T)),
    )


def correlation(a_T, b_T, unit_T, *, level: float = 0.95) -> dict[str, float | None] | None:
    """Returns Pearson's correlation {value, low, high} of two numbers of T targets.

    The interval is that of a jackknife over units, on Fisher's scale with U - 1 degrees of freedom,
    so that targets of a unit need not be independent.

    Args:
        a_T, b_T: the numbers.
        unit_T: the unit of each target.
        level: the confidence level.

    Returns:
        `low` and `high` are None with fewer than UNITS units. None with fewer than 3 targets, or
        where a number is the same for all of them.

    >>> correlation([0, 1, 2], [0, 2, 4], [0, 1, 2])
    {'value': 1.0, 'low': None, 'high': None}
    """
    a_T, b_T, unit_T = np.asarray(a_T, float), np.asarray(b_T, float), np.asarray(unit_T)
    checks.shape("T", a=a_T, b=b_T, unit=unit_T)
    value = pearson(a_T, b_T)
    if len(a_T) < 3 or value is None:
        return None
    units = np.unique(unit_T)
    left = [pearson(a_T[unit_T != unit], b_T[unit_T != unit]) for unit in units]
    parts = [part for part in left if part is not None]
    whole = dict(value=value, low=None, high=None)
    if len(units) < UNITS or len(parts) < len(units) or max(map(abs, [value, *parts])) >= 1:
        return whole
    z_U = np.arctanh(parts)
    count = len(units)
    deviation = float(np.sqrt((count - 1) / count * ((z_U - z_U.mean()) ** 2).sum()))
    half = intervals.t_half(deviation, level, count - 1)
    low, high = (float(np.tanh(np.arctanh(value) + end)) for end in (-half, half))
    return dict(value=value, low=low, high=high)


def pearson(a_T: np.ndarray, b_T: np.ndarray) -> float | None:
    """Returns the correlation of two numbers; None where one of them does not vary."""
    a_T, b_T = a_T - a_T.mean(), b_T - b_T.mean()
    scale = float(np.sqrt((a_T**2).sum() * (b_T**2).sum()))
    # a mean of equal numbers has a rounding error
    if not scale > 1e-12:
        return None
    return float(np.clip((a_T * b_T).sum() / scale, -1.0, 1.0))
