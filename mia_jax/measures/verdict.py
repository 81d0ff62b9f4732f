"""Which attacks show a leak, and in which order all are listed: decided once, used wherever an
attack is chosen or a verdict is given.

Each attack is tested with every rate that the table of attacks shows (AUC, TPR at each FPR,
balanced accuracy). All tests of all attacks share one error rate by Holm's correction, so a leak is
denied only if none of them differs from guessing, and nothing in the table can contradict the
verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scipy import special

from mia_jax.metrics import multiple, power
from mia_jax.metrics import rows as result_rows

STRONG = 0.001  # largest p-value, after Holm's correction, that is called strong evidence
# Standings, best first: a leak is shown at a low FPR, shown in another rate only, not shown, or the
# score points the wrong way.
SHOWN_LOW, SHOWN, OPEN, INVERTED = 3, 2, 1, 0


def decide(rows: Sequence[Mapping], *, level: float = 0.95) -> dict:
    """Returns the section `verdict` of report.json, from the rows of `result_rows.main_rows`.

    {leak, strongest, ranked, apart, level, tests, attacks}. `leak`: 'shown'; 'inverted' (none that
    a real attacker could run shows one, and the score of one is significantly *lower* on members);
    'privileged' (only attacks that know more than a real attacker show one); 'none'; 'untested' (no
    interval). `strongest`: the attack that leads. `ranked`: attacks that a real attacker could run,
    by falling standing, then by the lower end of the interval; `apart`: the others.
    `attacks[name]`: {standing, shown, alone, p_holm, inverted}: the metrics above guessing after
    Holm's correction over all `tests`, those above guessing by their own interval only, the
    smallest corrected p-value, and whether the AUC is significantly below 1/2.
    """
    knows = {}
    for row in rows:
        if row["metric"] not in result_rows.OPTIMISTIC:
            knows.setdefault(row["attack"], row["knows"])
    low_metric = result_rows.sort_metric(rows)
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
        one, above = attacks[name], row["value"] > guess(metric)
        significant = p_holm <= 1 - level
        if above and significant:
            one["shown"].append(metric)
        elif row["low"] > guess(metric):
            one["alone"].append(metric)
        one["inverted"] |= metric == "auc" and significant and not above
        if above:
            one["p_holm"] = p_holm if one["p_holm"] is None else min(p_holm, one["p_holm"])
    for one in attacks.values():
        if one["shown"]:
            one["standing"] = SHOWN_LOW if low_metric in one["shown"] else SHOWN
        elif one["inverted"]:
            one["standing"] = INVERTED

    def key(name: str) -> tuple:
        ends = [
            lower_end(result_rows.resolved(rows, name, metric))
            for metric in dict.fromkeys((low_metric, "auc"))
        ]
        return (
            attacks[name]["standing"],
            *(ends[::-1] if attacks[name]["standing"] == SHOWN else ends),
            name,
        )

    order = sorted(knows, key=key, reverse=True)
    ranked, apart = (
        [n for n in order if (knows[n] in result_rows.RANKED) == real] for real in (True, False)
    )
    found = dict(
        leak=leak(attacks, ranked, apart, len(tests)),
        ranked=ranked,
        apart=apart,
        level=level,
        tests=len(tests),
        attacks=attacks,
    )
    leading = apart if found["leak"] == "privileged" or not ranked else ranked
    return dict(found, strongest=leading[0] if leading else None)


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


def order(found: Mapping) -> tuple[list[str], list[str]]:
    """Returns (ranked, apart) of a report, the ranking that all lists of attacks use."""
    one = of(found)
    return list(one["ranked"]), list(one["apart"])


def of(found: Mapping) -> Mapping:
    """Returns the verdict of a report, decided now for a report that was written without it."""
    level = found.get("about", {}).get("level", 0.95)
    return found.get("verdict") or decide(result_rows.main_rows(found["results"]), level=level)


def tested(rows: Sequence[Mapping], attack: str) -> list[tuple[str, Mapping]]:
    """Returns (metric, row) of the rates of one attack that are compared with guessing.

    These are the rates in the table of attacks, as the table shows them.
    """
    metrics = ("auc", *(f"tpr@{fpr:g}" for fpr in result_rows.fprs(rows)), "balanced_accuracy")
    found = [(metric, result_rows.resolved(rows, attack, metric)) for metric in metrics]
    return [(metric, row) for metric, row in found if row is not None]


def guess(metric: str) -> float:
    """Returns what random guessing reaches.

    >>> guess('auc'), guess('tpr@0.01'), guess('balanced_accuracy')
    (0.5, 0.01, 0.5)
    """
    return float(metric.removeprefix("tpr@")) if metric.startswith("tpr@") else 0.5


def p_value(row: Mapping, level: float) -> float | None:
    """Returns the two-sided p-value of 'no better than guessing' that belongs to a row's interval.

    None without an interval.

    Twice the row's own one-sided `p_value` where it has one (metrics.summary). Else the interval is
    stretched until it touches guessing, on the logit scale, with Student's t where models were
    resampled. In either case no number is significant whose interval includes guessing. A rate
    below guessing is no evidence (a TPR at a threshold that no score passes is 0), except an AUC:
    its score points the wrong way.
    """
    value, low, high, nothing = row["value"], row["low"], row["high"], guess(row["metric"])
    if value is None or low is None or high is None:
        return None
    above = value >= nothing
    if not above and row["metric"] != "auc":
        return 1.0
    if row.get("p_value") is not None:
        found = min(1.0, 2 * (row["p_value"] if above else 1 - row["p_value"]))
    else:
        found = stretched(value, low if above else high, nothing, level, freedom=freedom(row))
    return max(found, math.nextafter(1 - level, 1)) if low <= nothing <= high else found


def stretched(value: float, end: float, nothing: float, level: float, *, freedom: float) -> float:
    """Returns the two-sided p-value of `nothing` by stretching an interval about `value`.

    The interval has this level, and the end `end` on the side of `nothing`.
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

    They are those of half of the targets where models are resampled (they may be complementary
    pairs), else many.
    """
    return float(max(row["n_targets"] // 2 - 1, 1)) if row.get("interval") == "crossed" else 1e6


def scale(x: float, *shown: float) -> float:
    """Returns x on the logit scale where all numbers `shown` have a logit, else x itself."""
    return float(special.logit(x)) if all(0 < v < 1 for v in shown) else x


def lower_end(row: Mapping | None) -> float:
    """Returns the lower end of a row's interval, or the value where there is no interval.

    Attacks of equal standing are sorted by it.
    """
    known = [row[k] for k in ("low", "value") if row and row.get(k) is not None]
    return known[0] if known else -math.inf


def detectable(
    verdict: Mapping,
    *,
    n_member: int,
    n_nonmember: int,
    units: int,
    resampling: str,
    fprs: Sequence[float],
) -> dict[str, float]:
    """Returns {metric: the smallest value} that one attack would show with 80% power.

    The power is after the correction for all tests; a metric in which no value would show is left
    out.

    `units` are independent targets; the other arguments are those of metrics.power. Used where no
    leak is shown: what was it possible to see?
    """
    level = 1 - (1 - verdict["level"]) / max(verdict["tests"], 1)
    common = dict(units=units, resampling=resampling, level=level)
    found = dict(auc=power.smallest_auc(n_member, n_nonmember, **common))
    for fpr in fprs:
        for pooled in dict.fromkeys((False, units > 1)):
            smallest = power.smallest_tpr(fpr, n_member, n_nonmember, pooled=pooled, **common)
            if smallest is not None:
                found[f"tpr@{fpr:g}"] = smallest
                break
    return {metric: value for metric, value in found.items() if value < 1}
