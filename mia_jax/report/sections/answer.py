"""The verdict, and the leading attack's AUC and TPR at low FPR, in numbers and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.measures.verdict import OPEN, guess, rank
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, rendering, tables, trust
from mia_jax.report.sections import unresolved

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
            why = unresolved.explained(row["method"], row["target"] == "pooled").strip(": ")
            lines.append([name, tables.UNRESOLVED, "", why])
            continue
        value, _, bounds = tables.number(row).replace("†", "").partition(" ")
        lines.append([f"**{name}**", f"**{value}**", bounds, words("basis", row=row)])
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


def words(macro: str, /, **values) -> str:
    """Writes a sentence: a macro of templates/answer_words.md.j2."""
    return rendering.line(getattr(rendering.macros("answer_words"), macro)(**values))


def in_words(row: Mapping, attack: Mapping | None = None) -> str:
    """Writes a number as a sentence.

    `attack` is the attack's entry of the verdict, which says what is significant.
    """
    fpr = None if row["metric"] == "auc" else float(row["metric"].removeprefix("tpr@"))
    return words("in_words", row=row, fpr=fpr, judgment=judged(row, attack))


def judged(row: Mapping, attack: Mapping | None) -> str:
    """Compares a number with random guessing.

    Returns:
        'significant'; 'uncorrected' if only the number's own interval excludes random guessing;
        'open' if the interval includes it; 'below' it, which of an AUC is 'inverted'; '' without an
        interval.
    """
    if row["low"] is None:
        return ""
    nothing, metric = guess(row["metric"]), row["metric"]
    if row["high"] < nothing:
        return "inverted" if metric == "auc" else "below"
    if row["low"] <= nothing:
        return "open"
    return "significant" if attack is None or metric in attack["shown"] else "uncorrected"


def at_threshold(rows: Sequence[Mapping], attack: str) -> str:
    """Writes the rates at the threshold that an attacker can choose; '' without one."""
    tpr, fpr = (result_rows.find(rows, attack, metric) for metric in ("tpr", "fpr"))
    precisions = (
        row
        for row in rows
        if row["attack"] == attack and row["target"] is None and row["metric"].startswith("ppv@")
    )
    precision = next(precisions, None)
    if not tpr or tpr["value"] is None or not fpr or not precision:
        return ""
    ratio = float(precision["metric"].removeprefix("ppv@"))
    return words("at_threshold", tpr=tpr, fpr=fpr, precision=precision, ratio=ratio)


def highest_auc(rows: Sequence[Mapping], verdict: Mapping) -> str:
    """Names the attack whose AUC has the highest lower end; '' if the leading attack has it."""
    best = next(iter(rank(rows, dict.fromkeys(verdict["ranked"], OPEN), metric="auc")), None)
    both = [
        best and result_rows.resolved(rows, name, "auc") for name in (best, verdict["strongest"])
    ]
    if any(row is None or row["low"] is None for row in both) or both[0]["low"] <= both[1]["low"]:
        return ""
    return words("highest_auc", attack=best, auc=both[0])
