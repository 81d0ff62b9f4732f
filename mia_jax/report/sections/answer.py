"""The verdict, and the leading attack's AUC and TPR at low FPR, in numbers and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.measures import verdict as standing
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, rendering, tables, trust

ORDER = 60
NEEDS = ("results", "verdict")


def text(*, results: Sequence[Mapping], verdict: Mapping, **report) -> str:
    """Writes the verdict, or the failed check in its place, and the leading attack's numbers."""
    rows, best = result_rows.main_rows(results), verdict["strongest"]
    if not best:
        return ""
    whole = dict(report, results=results, verdict=verdict)
    lines, sentences = [], []
    for metric in shown_metrics(rows):
        row = result_rows.resolved(rows, best, metric)
        if row is None:
            continue
        name = tables.metric_name(metric)
        if row["value"] is None:
            lines.append([name, tables.UNRESOLVED, "", row["method"]])
            continue
        value, _, bounds = tables.number(row).replace("†", "").partition(" ")
        lines.append([f"**{name}**", f"**{value}**", bounds, basis(row)])
        sentences.append(in_words(row, verdict["attacks"][best]))
    sentences += [at_threshold(rows, best), highest_auc(rows, verdict)]
    realistic = best in verdict["ranked"]
    return rendering.render(
        "answer",
        withheld=[check.title for check in trust.failed(whole, trust.INVALIDATES)],
        qualified=[check.title for check in trust.failed(whole, trust.QUALIFIES)],
        verdict=answer.verdict_text(whole, name=tables.code),
        first="The strongest" if verdict["attacks"][best]["shown"] else "Ranked first",
        count=len(verdict["ranked"] if realistic else verdict["apart"]),
        realistic=realistic,
        attack=best,
        level=f"{100 * verdict['level']:g}%",
        lines=lines,
        sentences=[sentence for sentence in sentences if sentence],
    )


def shown_metrics(rows: Sequence[Mapping]) -> list[str]:
    """Lists the metrics of the answer: AUC, and TPR at 1% FPR and below (at all rates, of few)."""
    rates = result_rows.fprs(rows)
    return [
        "auc",
        *(f"tpr@{fpr:g}" for fpr in sorted(rates, reverse=True) if fpr <= 0.01 or len(rates) < 3),
    ]


def basis(row: Mapping) -> str:
    """Says how many members, non-members and targets a number has, and what its interval
    resamples.
    """
    counts = f"{row['n_member']:,} members and {row['n_nonmember']:,} non-members"
    if row["target"] == "pooled" and row["n_targets"] > 1:
        counts = f"{row['n_targets']} targets pooled: {counts}"
    elif row["n_targets"] > 1:
        counts = f"mean over {row['n_targets']} targets with {counts} each"
    realized = (
        ""
        if row["fpr_realized"] is None
        else f"; realized FPR {tables.percent(row['fpr_realized'])}%"
    )
    return counts + realized + (f"; interval: {row['interval']}" if row["interval"] else "")


def in_words(row: Mapping, attack: Mapping | None = None) -> str:
    """Writes a number as a sentence.

    `attack` is the attack's entry of the verdict, which says what is significant.
    """
    if row["metric"] == "auc":
        percent = tables.percent(row["value"])
        text = f"A random member scores higher than a random non-member in {percent} of 100 pairs "
        text += "(random guessing: 50)."
        return " ".join(filter(None, (text, judged(row, attack))))
    fpr = float(row["metric"].removeprefix("tpr@"))
    per, unit = (100, "100") if fpr >= 0.01 else (1000, "1,000")
    found, guess = row["value"] * per, fpr * per
    text = f"The attack identifies {round(found, 1 if found >= 1 else 2):g} of {unit} members "
    text += f"at {tables.rate_name(fpr)} FPR; random guessing identifies {guess:g}."
    return " ".join(filter(None, (text, judged(row, attack))))


def judged(row: Mapping, attack: Mapping | None) -> str:
    """Writes 'Significant.' or what else the interval says; '' without an interval."""
    if row["low"] is None:
        return ""
    guess, metric = standing.guess(row["metric"]), row["metric"]
    if metric == "auc" and row["high"] < guess:
        return "The score points the wrong way: members score lower than non-members."
    if row["high"] < guess:
        return "Below random guessing."
    if row["low"] <= guess:
        return "Not distinguishable from random guessing."
    if attack is not None and metric not in attack["shown"]:
        text = "Above random guessing by its own interval, "
        return text + "but not significant after the correction for all attacks."
    return "Significant."


def at_threshold(rows: Sequence[Mapping], attack: str) -> str:
    """Writes the rates at the threshold that an attacker can choose; '' without one."""
    tpr, fpr = (result_rows.find(rows, attack, metric) for metric in ("tpr", "fpr"))
    precision = next(
        (
            r
            for r in rows
            if r["attack"] == attack and r["target"] is None and r["metric"].startswith("ppv@")
        ),
        None,
    )
    if not tpr or tpr["value"] is None or not fpr or not precision:
        return ""
    ratio = float(precision["metric"].removeprefix("ppv@"))
    mixture = (
        "members and non-members are equally many"
        if ratio == 1
        else f"there are {ratio:g} non-members per member"
    )
    text = "At the threshold with the best balanced accuracy on the shadow models (or at the "
    text += f"attack's own): TPR {tables.number(tpr)}, FPR {tables.number(fpr)}; "
    text += f"of the records it flags, {tables.number(precision)} are members if {mixture}."
    return text


def highest_auc(rows: Sequence[Mapping], verdict: Mapping) -> str:
    """Names the attack whose AUC has the highest lower end, where another one leads at a low
    FPR.
    """
    auc = {
        name: row
        for name in verdict["ranked"]
        if (row := result_rows.resolved(rows, name, "auc")) and row["low"] is not None
    }
    best, leading = max(auc, key=lambda name: auc[name]["low"], default=None), verdict["strongest"]
    if (
        best is None
        or best == leading
        or leading not in auc
        or auc[best]["low"] <= auc[leading]["low"]
    ):
        return ""
    number = tables.number(auc[best])
    return f"Highest AUC, by the lower end of its interval: {tables.code(best)}, {number}."
