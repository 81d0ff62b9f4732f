"""Is one attack better than another?

The interval of the difference, from the draws that all attacks share; two intervals do not tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import bootstrap, components, intervals, jackknife, outcomes
from mia_jax.metrics.components import Error, Left, Parts
from mia_jax.metrics.summary import Drawn


def rows(
    kept: Mapping[str, Mapping[tuple, Drawn]], names: Sequence[str], *, level: float = 0.95
) -> list[dict]:
    """Rows {attack, versus, target, slice, metric, value, low, high, interval, method, convention}
    of value(attack) - value(versus).

    `kept` is what `summary.rows(..., keep=)` filled; every pair is compared once, the earlier of
    `names` first, in every metric and scope (target None = mean over targets, or 'pooled') that
    both have.
    """
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [
        dict(attack=a, versus=b, target=target, slice="all", metric=metric)
        | difference(one, kept[b][target, metric], level=level)
        for a, b in pairs
        for (target, metric), one in kept[a].items()
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
    """Rows as `rows`, of the balanced accuracy at the threshold that each attack chose without the
    target (attacks[name]['threshold_T']).

    The difference of every draw: one target's records within members and non-members, or records
    and units of targets where there are several.
    """
    member_TN, evaluated_TN = np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool)
    single, found = len(member_TN) == 1, {}
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
            np.asarray(attacks[name]["score_TN"], np.float64),
        )
        if threshold_T is None or np.isnan(np.asarray(threshold_T, np.float64)).any():
            continue
        named_TN = evaluated_TN & (score_TN >= np.asarray(threshold_T, np.float64)[:, None])
        tp_TR, fp_TR = bootstrap.side_weights(member_TN, evaluated_TN, named_TN, record_NR)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn_TR = (1 + tp_TR / inside_TR - fp_TR / outside_TR) / 2
        value = np.mean(
            [
                (1 + n[e & m].mean() - n[e & ~m].mean()) / 2
                for n, m, e in zip(named_TN, member_TN, evaluated_TN, strict=True)
            ]
        )
        if single:
            found[name] = float(value), drawn_TR[0], None, "", None
        else:
            rate_T = [
                (1 + n[e & m].mean() - n[e & ~m].mean()) / 2
                for n, m, e in zip(named_TN, member_TN, evaluated_TN, strict=True)
            ]
            parts = components.parts(rate_T, drawn_TR, draws.index_T)
            common = dict(draws=draws, fprs=None)
            left = jackknife.parts(attacks[name], member_TN, evaluated_TN, **common).get(
                (None, "balanced_accuracy")
            )
            left = None if left is None else left._replace(whole_R=components.whole(parts))
            found[name] = float(value), None, parts, attacks[name].get("knows", "shadows"), left
    kept = [name for name in names if name in found]
    return [
        dict(attack=a, versus=b, target=None, slice="all", metric="balanced_accuracy")
        | _accuracy_difference(found[a], found[b], draws, single, level)
        for i, a in enumerate(kept)
        for b in kept[i + 1 :]
    ]


def _accuracy_difference(
    one: tuple, other: tuple, draws: bootstrap.Draws, single: bool, level: float
) -> dict:
    value = one[0] - other[0]
    found = dict(
        value=value, interval="records" if single else draws.resampling, convention=outcomes.RULE
    )
    if single:
        low, high = intervals.percentile(one[1] - other[1], level)
        return found | dict(
            low=min(value, low),
            high=max(value, high),
            method="stratified bootstrap, paired, percentiles",
        )
    error, groups = paired(one[2:], other[2:], crossed=draws.unit_TR is not None)
    half, how = (
        intervals.t_half(error.deviation, level, error.freedom),
        dataclasses.replace(draws, reruns=groups).method,
    )
    return found | dict(low=value - half, high=value + half, method=f"{how}, paired, Student's t")


def paired(
    one: tuple[Parts, str, Left | None], other: tuple[Parts, str, Left | None], *, crossed: bool
) -> tuple[Error, int]:
    """The standard error of a difference from (parts, knows, left) of either number, and from how
    many reruns it is (0: none).

    An attack that knows no shadows needs no rerun: without a group it scores the other targets as
    before. Where an attack that knows shadows was not rerun, the difference is not jackknifed
    either.
    """
    lefts = [n[2] for n in (one, other)]
    groups = next((left.group_U for left in lefts if left is not None), None)
    if groups is None or any(
        left is None and n[1] not in components.ALONE for n, left in zip((one, other), lefts)
    ):
        knows = knowing(one[1], other[1])
        return components.error(components.minus(one[0], other[0]), crossed=crossed, knows=knows), 0
    first, second = (
        components.grouped(n[0], groups) if left is None else left
        for n, left in zip((one, other), lefts)
    )
    return components.left_error(components.left_minus(first, second)), len(first.value_G)


def difference(one: Drawn, other: Drawn, *, level: float = 0.95) -> dict:
    """{value, low, high, interval, method, convention} of one - other, draw by draw.

    Several targets: the standard error of the difference by the variance components of the units'
    differences, or of the differences without each group of units (`paired`), with Student's t,
    about the difference of the centers of the two intervals. One target: AUC normal with the
    standard deviation of the drawn differences, TPR@FPR their percentiles, the wider of those that
    err low and those that err high. Where a closed form made one of the two intervals (few counts,
    no draw differs), the two intervals' worst corners.
    """
    a, b = one.outcome, other.outcome
    value = a.value - b.value
    found = dict(value=value, interval=a.interval, convention=a.convention)
    spread_R, upper_R = one.low_R - other.low_R, one.high_R - other.high_R
    how = f"{a.method.removesuffix(', logit scale').removesuffix(', angular scale')}, paired"
    if _closed_form(one) or _closed_form(other):
        low, high, how = a.low - b.high, a.high - b.low, "worst corners of the two intervals"
    elif one.parts is not None:
        error, groups = paired(
            (one.parts, one.knows, one.left),
            (other.parts, other.knows, other.left),
            crossed=a.interval == "crossed",
        )
        how = (
            a.method if (one.left is not None) == (groups > 0) else b.method
        )  # of the one that was made like the difference
        how = f"{how.removesuffix(', logit scale').removesuffix(', angular scale')}, paired"
        center, half = (
            one.center - other.center,
            intervals.t_half(error.deviation, level, error.freedom),
        )
        low, high, how = min(value, center - half), max(value, center + half), how + ", Student's t"
    elif one.low_R is one.high_R:
        half = intervals.normal_half(spread_R, level)
        low, high, how = value - half, value + half, how + ", normal"
    else:
        bounds = [intervals.percentile(values_R, level) for values_R in (spread_R, upper_R)]
        low, high = min(value, *(x[0] for x in bounds)), max(value, *(x[1] for x in bounds))
    return found | dict(low=max(low, -1.0), high=min(high, 1.0), method=how)


def knowing(*knows: str) -> str:
    """What a difference of attacks knows: shadows, if one of them does."""
    return next((k for k in knows if k not in components.ALONE), knows[0])


def _closed_form(drawn: Drawn) -> bool:
    """Whether the draws of a number do not carry its uncertainty."""
    how = drawn.outcome.method
    return (
        "Clopper-Pearson" in how
        or not intervals.usable(drawn.low_R)
        or float(drawn.low_R.max() - drawn.low_R.min()) == 0.0
    )
