"""Is one attack better than another? The interval of the difference, from the draws that all attacks share; two intervals do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import intervals
from mia_jax.metrics.summary import Drawn


def rows(kept: Mapping[str, Mapping[tuple, Drawn]], names: Sequence[str], *, level: float = 0.95) -> list[dict]:
    """Rows {attack, versus, target, slice, metric, value, low, high, interval, method, convention} of value(attack) - value(versus).

    `kept` is what `summary.rows(..., keep=)` filled; every pair is compared once, the earlier of `names` first, in every metric and scope (target
    None = mean over targets, or 'pooled') that both have.
    """
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return [
        dict(attack=a, versus=b, target=target, slice="all", metric=metric) | difference(one, kept[b][target, metric], level=level)
        for a, b in pairs
        for (target, metric), one in kept[a].items()
        if (target, metric) in kept[b]
    ]


def difference(one: Drawn, other: Drawn, *, level: float = 0.95) -> dict:
    """{value, low, high, interval, method, convention} of one - other, draw by draw.

    AUC: normal with the standard deviation of the drawn differences. TPR@FPR: their percentiles, the wider of those that err low and those that
    err high. Where a closed form made one of the two intervals (few counts, no draw differs), the two intervals' worst corners.
    """
    a, b = one.outcome, other.outcome
    value = a.value - b.value
    found = dict(value=value, interval=a.interval, convention=a.convention)
    spread_R, upper_R = one.low_R - other.low_R, one.high_R - other.high_R
    if _closed_form(one) or _closed_form(other):
        low, high, how = a.low - b.high, a.high - b.low, "worst corners of the two intervals"
    elif one.low_R is one.high_R:
        half = intervals.normal_half(spread_R, level)
        low, high, how = value - half, value + half, f"{a.method.removesuffix(', logit scale')}, paired, normal"
    else:
        bounds = [intervals.percentile(values_R, level) for values_R in (spread_R, upper_R)]
        low, high, how = min(value, *(x[0] for x in bounds)), max(value, *(x[1] for x in bounds)), f"{a.method}, paired"
    return found | dict(low=max(low, -1.0), high=min(high, 1.0), method=how)


def _closed_form(drawn: Drawn) -> bool:
    """Whether the draws of a number do not carry its uncertainty."""
    how = drawn.outcome.method
    return "Clopper-Pearson" in how or not intervals.usable(drawn.low_R) or float(drawn.low_R.max() - drawn.low_R.min()) == 0.0
