"""Decides which attacks show a leak, and in which order all attacks are listed.

The verdict is decided once and used wherever an attack is chosen or a verdict is given. Each attack
is tested with every rate that the table of attacks shows (AUC, TPR at each FPR, balanced accuracy).
All tests of all attacks share one error rate by Holm's correction. So a leak is denied only if no
rate differs from guessing, and nothing in the table can contradict the verdict.

Wherever an attack is called the leading, the strongest or the best one, `rank` has decided, by the
rule in its docstring.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy import special

from mia_jax.metrics import multiple, power
from mia_jax.metrics import rows as result_rows

STRONG = 0.001  # largest p-value, after Holm's correction, that is called strong evidence
# Standings, best first: a leak is shown, not shown, or the score points the wrong way.
SHOWN, OPEN, INVERTED = 2, 1, 0


def decide(rows: Sequence[Mapping], *, level: float = 0.95) -> dict:
    """Returns the section `verdict` of report.json, from the rows of `result_rows.main_rows`.

    Returns:
        {leak, strongest, ranked, apart, level, tests, attacks}.
            - `leak`: 'shown'; 'inverted' (no attack that a real attacker could run shows a leak,
              and the scores of such an attack are significantly *lower* on members); 'privileged'
              (only attacks that know more than a real attacker show a leak); 'none'; 'untested' (no
              interval).
            - `strongest`: the attack that leads: the first of `ranked`; of `apart` if only these
              show a leak, or if there are no others.
            - `ranked`: attacks that a real attacker could run, in the order of `rank`; `apart`: the
              others.
            - `attacks[name]`: {standing, shown, alone, p_holm, inverted}. `shown` are the metrics
              above guessing after Holm's correction over all `tests`, `alone` those above guessing
              by their own interval only, `p_holm` is the smallest corrected p-value, and `inverted`
              says whether the AUC is significantly below 1/2.
    """
    knows = {}
    for row in rows:
        if row["metric"] not in result_rows.OPTIMISTIC:
            knows.setdefault(row["attack"], row["knows"])
    tests = [
        (name, metric, row, p)
        for name in knows
        for metric, row in tested(rows, name)
        if (p := p_value(row, level)) is not None
    ]
    corrected = multiple.holm([p for *_, p in tests]).tolist()
    attacks: dict[str, dict] = {
        name: dict(standing=OPEN, shown=[], alone=[], p_holm=None, inverted=False) for name in knows
    }
    for (name, metric, row, _), p_holm in zip(tests, corrected, strict=True):
        entry, above = attacks[name], row["value"] > guess(metric)
        significant = p_holm <= 1 - level
        if above and significant:
            entry["shown"].append(metric)
        elif row["low"] > guess(metric):
            entry["alone"].append(metric)
        entry["inverted"] |= metric == "auc" and significant and not above
        if above:
            entry["p_holm"] = p_holm if entry["p_holm"] is None else min(p_holm, entry["p_holm"])
    for entry in attacks.values():
        if entry["shown"]:
            entry["standing"] = SHOWN
        elif entry["inverted"]:
            entry["standing"] = INVERTED

    standings = {name: entry["standing"] for name, entry in attacks.items()}
    order = rank(rows, standings)
    ranked, apart = (
        [n for n in order if (knows[n] in result_rows.RANKED) == real] for real in (True, False)
    )
    outcome = leak(attacks, ranked, apart, len(tests))
    leading = apart if outcome == "privileged" or not ranked else ranked
    return dict(
        leak=outcome,
        ranked=ranked,
        apart=apart,
        level=level,
        tests=len(tests),
        attacks=attacks,
        strongest=leading[0] if leading else None,
    )


def rank(
    rows: Sequence[Mapping], standings: Mapping[str, int], *, metric: str | None = None
) -> list[str]:
    """Returns the attacks, the leading one first: the only rule by which attacks are ranked.

    Attacks are compared by, from the first that differs:

    1. their standing: those that show a leak, in whatever rate; those that show none; those whose
       scores point the wrong way.
    2. the lower end of the interval of TPR at 1% FPR (`result_rows.sort_metric`). Ends at or below
       random guessing count as equal, because they say nothing about which attack is stronger.
    3. the lower end of the interval of the AUC.
    4. the values of these two metrics, then the name.

    An attack without an interval of a metric comes after those that have one. Its value does not
    count there, so that a number that nobody knows how well is known leads nowhere.

    Args:
        rows: rows of `result_rows.main_rows`.
        standings: {attack: SHOWN, OPEN or INVERTED}.
        metric: asks for the strongest attack in this metric, which then comes before the two
            others.
    """
    metrics = headline_metrics(rows)
    metrics = metrics if metric is None else list(dict.fromkeys((metric, *metrics)))

    def key(name: str) -> tuple:
        there = [result_rows.resolved(rows, name, each) for each in metrics]
        ends = (lower_end(row) for row in there)
        values = (-math.inf if row is None else _or_least(row["value"]) for row in there)
        return (-standings[name], *(-end for end in ends), *(-value for value in values), name)

    return sorted(standings, key=key)


def lower_end(row: Mapping | None) -> float:
    """Returns the lower end of a row's interval as `rank` compares it.

    That of a TPR is at least random guessing; -inf without an interval.

    >>> row = dict(metric='tpr@0.01', value=0.02, low=0.004, high=0.05)
    >>> lower_end(row), lower_end(row | dict(metric='auc', low=0.48)), lower_end(None)
    (0.01, 0.48, -inf)
    """
    if row is None or row["value"] is None or row["low"] is None:
        return -math.inf
    tpr = row["metric"].startswith("tpr@")
    return float(max(row["low"], guess(row["metric"]))) if tpr else float(row["low"])


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else float(value)


def leak(
    attacks: Mapping[str, Mapping], ranked: Sequence[str], apart: Sequence[str], tests: int
) -> str:
    """Returns what all attacks together show; see `decide`."""
    if not tests:
        return "untested"
    if any(attacks[name]["shown"] for name in ranked):
        return "shown"
    if any(attacks[name]["inverted"] for name in ranked):
        return "inverted"
    return "privileged" if any(attacks[name]["shown"] for name in apart) else "none"


def order(report: Mapping) -> tuple[list[str], list[str]]:
    """Returns (ranked, apart) of a report, the ranking that all lists of attacks use."""
    verdict = of(report)
    return list(verdict["ranked"]), list(verdict["apart"])


def of(report: Mapping) -> Mapping:
    """Returns the verdict of a report, decided now for a report that was written without it."""
    level = report.get("about", {}).get("level", 0.95)
    return report.get("verdict") or decide(result_rows.main_rows(report["results"]), level=level)


def known(rows: Sequence[Mapping]) -> dict[str, str]:
    """Returns {attack: what it knows}."""
    return {r["attack"]: r["knows"] for r in rows if r["metric"] not in result_rows.OPTIMISTIC}


def headline_metrics(rows: Sequence[Mapping]) -> list[str]:
    """Returns the metrics at the head of a page: TPR at 1% FPR, or that nearest to it, and AUC."""
    return list(dict.fromkeys((result_rows.sort_metric(rows), "auc")))


def best_of_kinds(decided: Mapping, knows: Mapping[str, str]) -> list[str]:
    """Returns the first attack of each kind of knowledge, in the verdict's order.

    That is the order of `rank`; attacks that know more than a real attacker come last.

    Args:
        decided: what `decide` returned.
        knows: {attack: what it knows}.
    """
    first: dict[str, str] = {}
    for name in (*decided["ranked"], *decided["apart"]):
        first.setdefault(knows[name], name)
    return list(first.values())


def tested(rows: Sequence[Mapping], attack: str) -> list[tuple[str, Mapping]]:
    """Returns (metric, row) of the rates of one attack that are compared with guessing.

    These are the rates in the table of attacks, as the table shows them.
    """
    metrics = ("auc", *(f"tpr@{fpr:g}" for fpr in result_rows.fprs(rows)), "balanced_accuracy")
    rates = [(metric, result_rows.resolved(rows, attack, metric)) for metric in metrics]
    return [(metric, row) for metric, row in rates if row is not None]


def guess(metric: str) -> float:
    """Returns what random guessing reaches.

    >>> guess('auc'), guess('tpr@0.01'), guess('balanced_accuracy')
    (0.5, 0.01, 0.5)
    """
    return float(metric.removeprefix("tpr@")) if metric.startswith("tpr@") else 0.5


def p_value(row: Mapping, level: float) -> float | None:
    """Returns the two-sided p-value of 'no better than guessing' that belongs to a row's interval.

    It is twice the row's own one-sided `p_value` if there is one (metrics.summary). Otherwise the
    interval is stretched until it touches guessing, on the logit scale, with Student's t where
    models were resampled. In either case no number whose interval includes guessing is significant.
    A rate below guessing is not evidence (a TPR at a threshold that no score passes is 0), except
    for the AUC, whose scores then point the wrong way.

    Returns:
        None without an interval.
    """
    value, low, high, nothing = row["value"], row["low"], row["high"], guess(row["metric"])
    if value is None or low is None or high is None:
        return None
    above = value >= nothing
    if not above and row["metric"] != "auc":
        return 1.0
    if row.get("p_value") is not None:
        p = min(1.0, 2 * (row["p_value"] if above else 1 - row["p_value"]))
    else:
        p = stretched(value, low if above else high, nothing, level, freedom=freedom(row))
    return max(p, math.nextafter(1 - level, 1)) if low <= nothing <= high else p


def stretched(value: float, end: float, nothing: float, level: float, *, freedom: float) -> float:
    """Returns the two-sided p-value of `nothing` by stretching an interval about `value`.

    Args:
        value: the number.
        end: the end of its interval on the side of `nothing`.
        nothing: what random guessing reaches.
        level: the confidence level of the interval.
        freedom: the degrees of freedom of Student's t.
    """
    distance, half = (
        abs(scale(value, value, end, nothing) - scale(x, value, end, nothing))
        for x in (nothing, end)
    )
    if distance == 0 or half == 0:
        return 1.0 if distance == 0 else 0.0
    return float(
        2 * special.stdtr(freedom, -special.stdtrit(freedom, (1 + level) / 2) * distance / half)
    )


def freedom(row: Mapping) -> float:
    """Returns the degrees of freedom of a row's standard error.

    Where models are resampled they are those of half of the targets, which may be complementary
    pairs. Otherwise they are practically infinite.
    """
    return float(max(row["n_targets"] // 2 - 1, 1)) if row.get("interval") == "crossed" else 1e6


def scale(x: float, *shown: float) -> float:
    """Returns x on the logit scale where all numbers `shown` have a logit, else x itself."""
    return float(special.logit(x)) if all(0 < v < 1 for v in shown) else x


def detectable(
    verdict: Mapping,
    *,
    n_member: int,
    n_nonmember: int,
    units: int,
    resampling: str,
    fprs: Sequence[float],
) -> dict[str, float]:
    """Returns the smallest value of each metric that an attack would show with 80% power.

    The power is after the correction for all tests. It tells, where no leak is shown, what could
    have been detected.

    Args:
        verdict: what `decide` returned.
        n_member, n_nonmember, units, resampling: as in `power.smallest_auc`.
        fprs: the false-positive rates.

    Returns:
        {metric: value}; a metric that would show no value is left out.
    """
    level = 1 - (1 - verdict["level"]) / max(verdict["tests"], 1)
    common = dict(units=units, resampling=resampling, level=level)
    smallest_of = dict(auc=power.smallest_auc(n_member, n_nonmember, **common))
    for fpr in fprs:
        for pooled in dict.fromkeys((False, units > 1)):
            smallest = power.smallest_tpr(fpr, n_member, n_nonmember, pooled=pooled, **common)
            if smallest is not None:
                smallest_of[f"tpr@{fpr:g}"] = smallest
                break
    return {metric: value for metric, value in smallest_of.items() if value < 1}
