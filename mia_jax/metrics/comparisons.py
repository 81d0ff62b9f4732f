"""Compares attacks by intervals of their differences.

The intervals come from the draws that all attacks share. Two separate intervals cannot answer
whether one attack is better than another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import (
    bootstrap,
    components,
    intervals,
    jackknife,
    outcomes,
    record_groups,
)
from mia_jax.metrics.components import Error, Left, Parts
from mia_jax.metrics.summary import Drawn


class Number(NamedTuple):
    """Holds one of two numbers that are compared over several targets.

    Attributes:
        parts: the number unit by unit.
        knows: what the attack knows (`threat_model`).
        left: the number without each group of units; None unless the attack was rerun.
    """

    parts: Parts
    knows: str
    left: Left | None


class Accuracy(NamedTuple):
    """Holds an attack's balanced accuracy: its draws [R] for one target, its parts for several."""

    value: float
    drawn_R: np.ndarray
    number: Number | None


def rows(
    kept: Mapping[str, Mapping[tuple, Drawn]], names: Sequence[str], *, level: float = 0.95
) -> list[dict]:
    """Returns the rows of the differences value(attack) - value(versus) of all pairs of attacks.

    Every pair is compared once in every metric and scope (target None = mean over targets, or
    'pooled') that both attacks have.

    Args:
        kept: what `summary.rows(..., keep=)` filled.
        names: the attacks; in each pair the earlier name is `attack`.
        level: the confidence level of the intervals.

    Returns:
        Rows {attack, versus, target, slice, metric, value, low, high, interval, method,
            convention}.
    """
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [
        dict(attack=a, versus=b, target=target, slice="all", metric=metric)
        | difference(drawn, kept[b][target, metric], level=level)
        for a, b in pairs
        for (target, metric), drawn in kept[a].items()
        if (target, metric) in kept[b]
    ]


def accuracies(
    attacks: Mapping[str, Mapping],
    member_TN,
    evaluated_TN,
    *,
    names: Sequence[str],
    draws: bootstrap.Draws,
    level: float = 0.95,
) -> list[dict]:
    """Returns the rows of the differences in balanced accuracy at shadow-calibrated thresholds.

    Differences are taken draw by draw. For one target the draws resample its records, members and
    non-members separately; for several targets they resample records and units of targets.

    Args:
        attacks: as in `summary.rows`; attacks without `threshold_T` are left out.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        names: the attacks; in each pair the earlier name is `attack`.
        draws: the draws that all attacks share.
        level: the confidence level of the intervals.

    Returns:
        Rows with the columns of `rows`, with target None.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    single = len(member_TN) == 1
    accuracy_of: dict[str, Accuracy] = {}
    record_NR = (
        bootstrap.stratified(
            draws.seed + 1, member_TN[0], evaluated_TN[0], draws.record_NR.shape[1]
        )
        if single
        else draws.record_NR
    )
    inside_TR, outside_TR = bootstrap.side_weights(member_TN, evaluated_TN, evaluated_TN, record_NR)
    for name in names:
        threshold_T, score_TN = (
            attacks[name].get("threshold_T"),
            record_groups.as_scores(attacks[name]["score_TN"]),
        )
        if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
            continue
        named_TN = evaluated_TN & (score_TN >= np.asarray(threshold_T, np.float64)[:, None])
        tp_TR, fp_TR = bootstrap.side_weights(member_TN, evaluated_TN, named_TN, record_NR)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn_TR = (1 + tp_TR / inside_TR - fp_TR / outside_TR) / 2
        rate_T = [
            (1 + n[e & m].mean() - n[e & ~m].mean()) / 2
            for n, m, e in zip(named_TN, member_TN, evaluated_TN, strict=True)
        ]
        number = None
        if not single:
            parts = components.parts(rate_T, drawn_TR, draws.index_T)
            left = jackknife.parts(
                attacks[name], member_TN, evaluated_TN, draws=draws, fprs=None
            ).get((None, "balanced_accuracy"))
            left = None if left is None else left._replace(whole_R=components.whole(parts))
            number = Number(parts, attacks[name].get("knows", "shadows"), left)
        accuracy_of[name] = Accuracy(float(np.mean(rate_T)), drawn_TR[0], number)
    kept = [name for name in names if name in accuracy_of]
    return [
        dict(attack=a, versus=b, target=None, slice="all", metric="balanced_accuracy")
        | _accuracy_difference(accuracy_of[a], accuracy_of[b], draws, level)
        for i, a in enumerate(kept)
        for b in kept[i + 1 :]
    ]


def _accuracy_difference(
    first: Accuracy, second: Accuracy, draws: bootstrap.Draws, level: float
) -> dict:
    value = first.value - second.value
    if first.number is None or second.number is None:
        low, high = intervals.percentile(first.drawn_R - second.drawn_R, level)
        return dict(
            value=value,
            interval="records",
            convention=outcomes.RULE,
            low=min(value, low),
            high=max(value, high),
            method="stratified bootstrap, paired, percentiles",
        )
    error, groups = paired(first.number, second.number, crossed=draws.unit_TR is not None)
    half = intervals.t_half(error.deviation, level, error.freedom)
    how = dataclasses.replace(draws, reruns=groups).method
    return dict(
        value=value,
        interval=draws.resampling,
        convention=outcomes.RULE,
        low=value - half,
        high=value + half,
        method=f"{how}, paired, Student's t",
    )


def paired(first: Number, second: Number, *, crossed: bool) -> tuple[Error, int]:
    """Returns the standard error of a difference and how many reruns it comes from (0: none).

    An attack that knows no shadows needs no rerun, because without a group it scores the other
    targets as before. Where an attack that knows shadows was not rerun, the difference is not
    jackknifed either.
    """
    error, _, groups = _errors(first, second, crossed)
    return error, groups


def _errors(first: Number, second: Number, crossed: bool) -> tuple[Error, tuple[Error, Error], int]:
    """Returns what `paired` returns, and between the two the errors of both numbers, made alike."""
    numbers = (first, second)
    groups = next((n.left.group_U for n in numbers if n.left is not None), None)
    if groups is None or any(n.left is None and n.knows not in components.ALONE for n in numbers):
        known = knowing(first.knows, second.knows)
        difference_of_parts = components.minus(first.parts, second.parts)
        error, own, other = (
            components.error(parts, crossed=crossed, knows=known)
            for parts in (difference_of_parts, first.parts, second.parts)
        )
        return error, (own, other), 0
    left, other_left = (
        components.grouped(n.parts, groups) if n.left is None else n.left for n in numbers
    )
    error, own, other = (
        components.left_error(x)
        for x in (components.left_minus(left, other_left), left, other_left)
    )
    return error, (own, other), len(left.value_G)


def difference(first: Drawn, second: Drawn, *, level: float = 0.95) -> dict:
    """Returns {value, low, high, interval, method, convention} of the difference, draw by draw.

    - Several targets: Student's t about the difference of the centers of the two intervals, for
      rates on the angular scale (`intervals.angular_difference`). The standard error comes from the
      variance components of the units' differences, or from the differences without each group of
      units (`paired`). For rates its degrees of freedom are those of few false positives, as in the
      two intervals (`components.of_few`).
    - One target: for the AUC, normal with the standard deviation of the drawn differences; for
      TPR@FPR, their percentiles, the wider of those that err low and those that err high.
    - Where one of the two intervals is a closed form (few counts, or draws that do not differ): the
      worst corners of the two intervals.
    """
    a, b = first.outcome, second.outcome
    (a_value, a_low, a_high), (b_value, b_low, b_high) = _ends(a), _ends(b)
    value = a_value - b_value
    spread_R, upper_R = first.low_R - second.low_R, first.high_R - second.high_R
    how = f"{a.method.removesuffix(', logit scale').removesuffix(', angular scale')}, paired"
    if _closed_form(first) or _closed_form(second):
        low, high, how = a_low - b_high, a_high - b_low, "worst corners of the two intervals"
    elif (
        first.parts is not None
        and second.parts is not None
        and first.center is not None
        and second.center is not None
    ):
        error, (own, other), groups = _errors(
            Number(first.parts, first.knows, first.left),
            Number(second.parts, second.knows, second.left),
            crossed=a.interval == "crossed",
        )
        error = components.of_few(error, min(first.events, second.events))
        # the method of the interval that was computed like the difference
        how = a.method if (first.left is not None) == (groups > 0) else b.method
        how = f"{how.removesuffix(', logit scale').removesuffix(', angular scale')}, paired"
        if a.convention == outcomes.STEP:
            low, high = intervals.angular_difference(
                (first.center, own.deviation), (second.center, other.deviation), error, level
            )
            how += ", Student's t, angular scale"
        else:
            center = first.center - second.center
            half = intervals.t_half(error.deviation, level, error.freedom)
            low, high, how = center - half, center + half, how + ", Student's t"
        low, high = min(value, low), max(value, high)
    elif first.low_R is first.high_R:
        half = intervals.normal_half(spread_R, level)
        low, high, how = value - half, value + half, how + ", normal"
    else:
        bounds = [intervals.percentile(values_R, level) for values_R in (spread_R, upper_R)]
        low, high = min(value, *(x[0] for x in bounds)), max(value, *(x[1] for x in bounds))
    return dict(
        value=value,
        interval=a.interval,
        convention=a.convention,
        low=max(low, -1.0),
        high=min(high, 1.0),
        method=how,
    )


def _ends(outcome: outcomes.Outcome) -> tuple[float, float, float]:
    """Returns value, low and high of a number; raises ValueError if it has no interval."""
    if outcome.value is None or outcome.low is None or outcome.high is None:
        raise ValueError(f"a number without an interval cannot be compared ({outcome.method}).")
    return outcome.value, outcome.low, outcome.high


def knowing(*knows: str) -> str:
    """Returns what a difference of attacks knows: shadow models if any of the attacks does."""
    return next((k for k in knows if k not in components.ALONE), knows[0])


def _closed_form(drawn: Drawn) -> bool:
    """Checks whether the draws of a number fail to show its uncertainty."""
    how = drawn.outcome.method
    return (
        "Clopper-Pearson" in how
        or not intervals.usable(drawn.low_R)
        or float(drawn.low_R.max() - drawn.low_R.min()) == 0.0
    )
