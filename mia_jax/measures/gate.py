"""Decides whether an audit's numbers are within limits: each by its interval, never by its value.

A limit such as 'tpr@0.01 <= 0.05' is about every attack that is gated. It is *above* if the lower
end of an attack's interval is above the limit, *within* if the upper ends of all attacks are within
it, and *undecided* otherwise.

The ends are those of the report's own interval (two-sided, so that each is wrong with probability
(1 - level)/2 at most). Where models are resampled (crossed intervals), an estimate that is too low
tends to have a standard error that is too low, and the upper end misses up to 8% of 200 simulated
studies (benchmarks/gate.py): there the ends are stretched until the error of both is 1/STRICTER of
that.

How often is the whole answer wrong? 'Above' in error means that some lower end is: the p-values of
'the value is at most the limit' are corrected over all limits, slices and attacks by Holm's rule.
'Within' in error means that the upper end of a number above its limit is too low, the same one
whatever else was asked: passing needs all to be within, which needs no correction (an
intersection-union test, Berger 1982). So each kind of error has probability (1 - level)/2 at most,
as far as the intervals hold what they promise.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from mia_jax import checks
from mia_jax.measures import verdict
from mia_jax.metrics import multiple, power
from mia_jax.metrics import rows as result_rows
from mia_jax.privacy import audit as privacy_audit

WITHIN, ABOVE, UNDECIDED = "within", "above", "undecided"
STRICTER = 2.5
FORMS = (
    "'tpr@0.01 <= 0.05' (or 'tpr@1% <= 5%'), 'auc <= 0.6', 'advantage <= 0.1', "
    "'balanced_accuracy <= 0.55', 'epsilon <= 3'"
)
MOST_LARGER = 1e4  # a study that would have to be so many times larger decides nothing


class Limit(NamedTuple):
    """Holds a limit: `text` as it was given, the metric's key, and the largest value allowed."""

    text: str
    metric: str
    most: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """Holds what one number says about one limit.

    Attributes:
        limit, metric, most: the limit (`Limit`).
        attack, slice: whose number it is.
        decision: WITHIN, ABOVE or UNDECIDED.
        value: the number in the report; None if there is none.
        low, high: the ends that decide; None if there is no interval.
        level: the level of these ends.
        p: p-value of 'at most the limit' after Holm's correction; None without an interval.
        why: why it is undecided, where that is not the interval's width; ''.
        models_needed, rows_needed: about how many audited models (with these rows) or rows per
            model (with these models; members and as many non-members) would decide with 80% power
            if the value stays; None if no such number is known.
    """

    limit: str
    metric: str
    most: float
    attack: str
    slice: str
    decision: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float
    p: float | None = None
    why: str = ""
    models_needed: int | None = None
    rows_needed: int | None = None


def parse(text: str, metrics: Sequence[str]) -> Limit:
    """Reads a limit.

    Args:
        text: such as 'tpr@0.01 <= 0.05'; rates may be in percent.
        metrics: the metrics that the report has.

    Raises:
        ValueError: the text is no limit, or the report has no such metric.

    >>> parse('tpr@1% <= 5%', ['auc', 'tpr@0.01'])
    Limit(text='tpr@1% <= 5%', metric='tpr@0.01', most=0.05)
    """
    parts = re.fullmatch(r"\s*([^<>=≤\s]+)\s*(?:<=|≤)\s*(\S+)\s*", str(text))
    most = None if parts is None else number(parts[2])
    known = ", ".join(metrics)
    if parts is None or most is None:
        raise ValueError(
            f"limit={text!r} must be a metric, <= and a number: {FORMS}. Metrics of this report: "
            f"{known}."
        )
    kind, at, rate = parts[1].partition("@")
    value = number(rate) if at else None
    metric = parts[1] if value is None else f"{kind}@{value:g}"
    if metric not in metrics:
        raise ValueError(
            f"limit={text!r}: this report has no metric {metric!r}."
            f"{checks.closest(metric, metrics)} Metrics: {known}. Other FPRs are a setting of the "
            "audit (report.fprs)."
        )
    if not 0 <= most <= (math.inf if metric == "epsilon" else 1):
        hint = f" Did you mean {most:g}%?" if 1 < most <= 100 and metric != "epsilon" else ""
        raise ValueError(f"limit={text!r}: {metric} lies between 0 and 1.{hint}")
    return Limit(" ".join(str(text).split()), metric, most)


def number(text: str) -> float | None:
    """Returns a number, of a percentage its hundredth; None if the text is none.

    >>> number('0.05'), number('5%'), number('five')
    (0.05, 0.05, None)
    """
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        return None
    return None if not math.isfinite(value) else value / 100 if text.endswith("%") else value


def metrics(report: Mapping) -> list[str]:
    """Returns the metrics of a report that a limit can be about."""
    there = [
        row["metric"]
        for row in report["results"]
        if row["target"] in (None, "pooled") and row["low"] is not None
    ]
    unresolved = [
        row["metric"] for row in result_rows.main_rows(report["results"]) if row["target"] is None
    ]
    limited = [m for m in dict.fromkeys(unresolved + there) if m not in result_rows.OPTIMISTIC]
    bound = (report.get("audit") or {}).get("bound") or report.get("guarantee")
    return limited + ["epsilon"] * bool(bound)


def decide(
    report: Mapping,
    limits: Sequence[Limit],
    *,
    attacks: Sequence[str],
    slices: Sequence[str] = ("all",),
    withheld: str = "",
) -> list[Decision]:
    """Decides every limit, in every slice, for every attack.

    Args:
        report: report.json.
        limits: the limits (`parse`).
        attacks: the attacks that are gated.
        slices: the slices; a limit on epsilon is about the whole model.
        withheld: the failed check that withholds the report's verdict: all is undecided then.

    Returns:
        A decision per limit, slice and attack; of epsilon one per limit, with the attack of the
        best bound.
    """
    level, inverted = report.get("about", {}).get("level", 0.95), wrong_way(report)
    asked = [
        (limit, attack, where, row_of(report["results"], attack, limit.metric, where))
        for limit in limits
        if limit.metric != "epsilon"
        for where in slices
        for attack in attacks
    ]
    p_values = [p_above(row, limit.most, level) for limit, _, _, row in asked]
    bounds = [limit for limit in limits if limit.metric == "epsilon"]
    p_values += [p_epsilon(report, limit.most) for limit in bounds]
    tested = [at for at, p in enumerate(p_values) if p is not None]
    corrected: dict[int, float] = dict(
        zip(tested, multiple.holm([p_values[at] for at in tested]).tolist(), strict=True)
    )
    decisions = [
        of_row(report, limit, attack, where, row, corrected.get(at), level, attack in inverted)
        for at, (limit, attack, where, row) in enumerate(asked)
    ]
    decisions += [
        of_epsilon(report, limit, corrected.get(len(asked) + at), level)
        for at, limit in enumerate(bounds)
    ]
    if withheld:
        why = f"the verdict is withheld, check failed: {withheld}"
        decisions = [
            dataclasses.replace(
                d, decision=UNDECIDED, why=why, models_needed=None, rows_needed=None
            )
            for d in decisions
        ]
    texts = dict.fromkeys(limit.text for limit in limits)
    place = {text: at for at, text in enumerate(texts)}
    return sorted(decisions, key=lambda decision: place[decision.limit])


def row_of(rows: Sequence[Mapping], attack: str, metric: str, where: str) -> Mapping | None:
    """Returns the mean over targets, or the pooled row where only that one has an interval."""
    both = [result_rows.find(rows, attack, metric, target, where) for target in (None, "pooled")]
    there = [row for row in both if row is not None]
    return next((row for row in there if row["low"] is not None), there[0] if there else None)


def wrong_way(report: Mapping) -> set[str]:
    """Returns the attacks whose scores are significantly lower on members."""
    return {attack for attack, entry in verdict.of(report)["attacks"].items() if entry["inverted"]}


def stretch(row: Mapping) -> float:
    """Returns by how much the error of a row's interval is divided; see the module."""
    return STRICTER if row["interval"] == "crossed" else 1.0


def on_scale(metric: str, *values: float) -> list[float]:
    """Returns numbers on the scale on which intervals of a metric are symmetric: the logit of an
    AUC, the angle of a rate, TPR - FPR and what is linear in it as they are.
    """
    if metric == "auc" and all(0 < value < 1 for value in values):
        return [float(special.logit(value)) for value in values]
    if metric in ("advantage", "balanced_accuracy"):
        return [float(value) for value in values]
    return [float(np.arcsin(np.sqrt(min(max(value, 0.0), 1.0)))) for value in values]


def p_above(row: Mapping | None, most: float, level: float) -> float | None:
    """Returns the p-value of 'at most `most`' that belongs to a row's interval; None without one.

    It is two-sided, so `p <= 1 - level` where the lower end is above `most`; the interval is
    stretched until it touches `most`, with the degrees of freedom of `verdict.freedom`.
    """
    if row is None or row["low"] is None or row["high"] is None:
        return None
    low, high, limit = on_scale(row["metric"], row["low"], row["high"], most)
    center, half = (low + high) / 2, (high - low) / 2
    if limit >= center:
        return 1.0
    if half == 0:
        return 0.0
    freedom = verdict.freedom(row)
    reach = special.stdtrit(freedom, (1 + level) / 2) * (center - limit) / half
    p = min(1.0, stretch(row) * 2 * float(special.stdtr(freedom, -reach)))
    return max(p, math.nextafter(1 - level, 1)) if row["low"] <= most else p


def ends(row: Mapping, level: float) -> tuple[float, float, float]:
    """Returns (low, high, level) that decide: those of the row, stretched where `stretch` says so.

    >>> row = dict(metric='advantage', low=0.1, high=0.3, n_targets=16)
    >>> [round(x, 3) for x in ends(row | dict(interval='crossed'), 0.95)]
    [0.073, 0.327, 0.98]
    >>> ends(row | dict(interval='records'), 0.95)
    (0.1, 0.3, 0.95)
    """
    factor = stretch(row)
    if factor == 1:
        return row["low"], row["high"], level
    stricter, freedom = 1 - (1 - level) / factor, verdict.freedom(row)
    wider = special.stdtrit(freedom, (1 + stricter) / 2) / special.stdtrit(freedom, (1 + level) / 2)
    metric = row["metric"]
    low, high = on_scale(metric, row["low"], row["high"])
    center, half = (low + high) / 2, (high - low) / 2 * float(wider)
    if metric in ("advantage", "balanced_accuracy"):
        return max(center - half, -1.0), min(center + half, 1.0), stricter
    if metric == "auc" and 0 < row["low"] and row["high"] < 1:
        return float(special.expit(center - half)), float(special.expit(center + half)), stricter
    near, far = max(center - half, 0.0), min(center + half, math.pi / 2)
    return float(np.sin(near) ** 2), float(np.sin(far) ** 2), stricter


def of_row(
    report: Mapping,
    limit: Limit,
    attack: str,
    where: str,
    row: Mapping | None,
    p: float | None,
    level: float,
    inverted: bool,
) -> Decision:
    """Decides one limit by one row."""
    made = Decision(
        limit=limit.text,
        metric=limit.metric,
        most=limit.most,
        attack=attack,
        slice=where,
        decision=UNDECIDED,
        level=level,
        p=p,
    )
    if row is None:
        return dataclasses.replace(made, why="the report has no such number")
    made = dataclasses.replace(made, value=row["value"])
    if p is None:
        return dataclasses.replace(made, why=row["method"], rows_needed=rows_to_see(limit, row))
    low, high, stricter = ends(row, level)
    made = dataclasses.replace(made, low=low, high=high, level=stricter)
    if p <= 1 - level:
        return dataclasses.replace(made, decision=ABOVE)
    if high <= limit.most:
        if inverted:
            why = (
                "its scores are significantly lower on members, so with the sign turned it may be "
                "above; check that a higher score means member"
            )
            return dataclasses.replace(made, why=why)
        return dataclasses.replace(made, decision=WITHIN)
    if low > limit.most:
        why = "above its own interval, but not after the correction for all that was asked"
        made = dataclasses.replace(made, why=why)
    distance = abs(row["value"] - limit.most)
    half = high - row["value"] if row["value"] <= limit.most else row["value"] - low
    larger = power.larger_study(distance, max(half, (high - low) / 2), level=stricter)
    if larger > MOST_LARGER:
        return made
    rows = min(row["n_member"], row["n_nonmember"])
    rows = rows // row["n_targets"] if row["target"] == "pooled" and row["n_targets"] else rows
    return dataclasses.replace(
        made,
        models_needed=math.ceil(row["n_targets"] * larger) if row["n_targets"] > 1 else None,
        rows_needed=math.ceil(rows * larger),
    )


def rows_to_see(limit: Limit, row: Mapping) -> int | None:
    """Returns how many members (and as many non-members) a target needs so that a study of these
    models tells the limit from guessing; None if that is not known.
    """
    kind, _, rate = limit.metric.partition("@")
    targets = max(int(row["n_targets"] or 1), 1)
    if limit.metric == "auc":
        if limit.most <= 0.5:
            return None
        return power.fewest(lambda n: power.smallest_auc(n, n, units=targets) <= limit.most, 2)
    if kind != "tpr" or not rate or not 0 < float(rate) < limit.most:
        return None

    def enough(n: int) -> bool:
        smallest = power.smallest_tpr(float(rate), n, n, units=targets)
        return smallest is not None and smallest <= limit.most

    return power.fewest(enough, math.ceil(1 / float(rate)))


def p_epsilon(report: Mapping, most: float) -> float | None:
    """Returns the p-value of 'epsilon is at most `most`' from the canaries; None without an audit.

    Exact for the method 'one_run'; of others it is known on which side of 1 - level it is.
    """
    bound = (report.get("audit") or {}).get("bound")
    if not bound:
        return None
    if bound["method"] != "one_run":
        return 1 - bound["level"] if bound["epsilon"] > most else 1.0
    counts = {key: bound[key] for key in ("canaries", "guesses", "correct")}
    p = privacy_audit.p_value(**counts, epsilon=most, delta=bound["delta"])
    return min(1.0, bound["tests"] * p)


def of_epsilon(report: Mapping, limit: Limit, p: float | None, level: float) -> Decision:
    """Decides a limit on epsilon: the canaries' lower bound against it, the accountant's proof for
    it.
    """
    section, promise = report.get("audit") or {}, report.get("guarantee") or {}
    bound = section.get("bound") or {}
    low, high = bound.get("epsilon"), promise.get("epsilon")
    made = Decision(
        limit=limit.text,
        metric=limit.metric,
        most=limit.most,
        attack=bound.get("attack", ""),
        slice="all",
        decision=UNDECIDED,
        value=low,
        low=low,
        high=high,
        level=bound.get("level", level),
        p=p,
    )
    if p is not None and p <= 1 - level:
        return dataclasses.replace(made, decision=ABOVE)
    if section.get("violated"):
        return dataclasses.replace(made, why="the canaries contradict the claimed epsilon")
    if (section.get("releases") or {}).get("contradicted"):
        why = "what training released contradicts the mechanism that was accounted for"
        return dataclasses.replace(made, why=why)
    if high is not None and high <= limit.most:
        return dataclasses.replace(made, decision=WITHIN)
    if high is not None:
        return dataclasses.replace(
            made, why=f"the accountant proves {high:.3g}, and the canaries do not show more"
        )
    if bound and bound["ceiling"] <= limit.most:
        why = f"with so few canaries the audit could have shown {bound['ceiling']:.3g} at most"
        return dataclasses.replace(made, why=why)
    why = "canaries give a lower bound alone; only an accountant's proof can show that it is within"
    return dataclasses.replace(made, why=why)
