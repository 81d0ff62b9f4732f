"""Says the answer of an audit in plain words: for the first lines of report.md,
`Results.summary()` and the last lines on a terminal.

measures/verdict.py decides the verdict and `trust.checks` says whether it may be given. `of`
collects what there is to say; the sentences are in templates/verdict.md.j2, first_line.md.j2,
terminal.md.j2 and seeds_terminal.md.j2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from mia_jax.measures import verdict
from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables, trust


@dataclasses.dataclass(frozen=True)
class LeakingSlices:
    """Holds the slices that leak although no attack shows a leak on average.

    Attributes:
        attack: the best-ranked attack that has slices.
        slices: the names of the slices that are significant after correction over all slices.
        tested: the number of slices.
    """

    attack: str
    slices: Sequence[str]
    tested: int
    kind = "slices"


@dataclasses.dataclass(frozen=True)
class ExposedRecords:
    """Holds how many of the tested records are exposed under an attack."""

    attack: str
    exposed: int
    tested: int
    kind = "records"


@dataclasses.dataclass(frozen=True)
class CanaryBound:
    """Holds the lower bound on epsilon that the audit of canaries shows."""

    epsilon: float
    kind = "bound"


Part = LeakingSlices | ExposedRecords | CanaryBound


@dataclasses.dataclass(frozen=True)
class Answer:
    """Holds what the verdict says, before it is put into words.

    Attributes:
        leak: what all attacks together show, see `measures.verdict.decide`.
        ranked: the number of attacks that a real attacker could run.
        strongest: the attack that leads; None without attacks.
        shown: attacks of `ranked` that show a leak.
        inverted: attacks of `ranked` whose AUC is significantly below 1/2.
        undecided: attacks of `ranked` above random guessing by their own interval only.
        privileged: the first attack that shows a leak but knows more than a real attacker; or None.
        p_value: corrected p-value of the attack that the verdict names; None if no leak is shown.
        strong: whether the p-value is called strong evidence.
        level: the level of the intervals.
        tests: the number of tests that are corrected for.
        detectable: {metric: smallest value that this study would detect}: of the TPR that attacks
            are ranked by and of the AUC, of other metrics where it would detect neither.
        blind: whether this study would detect no leak, however large.
        in_part: what is shown in slices, single records and canaries, where `leak` is 'none'.
    """

    leak: str
    ranked: int
    strongest: str | None
    shown: Sequence[str]
    inverted: Sequence[str]
    undecided: Sequence[str]
    privileged: str | None
    p_value: float | None
    strong: bool
    level: float
    tests: int
    detectable: Mapping[str, float]
    blind: bool
    in_part: Sequence[Part]


def of(report: Mapping) -> Answer:
    """Collects what the verdict of a report says."""
    decision = verdict.of(report)
    ranked, attacks, leak = decision["ranked"], decision["attacks"], decision["leak"]
    privileged = next((name for name in decision["apart"] if attacks[name]["shown"]), None)
    if leak == "shown":
        named = decision["strongest"]
    else:
        named = privileged if leak == "privileged" else None
    p_value = attacks[named]["p_holm"] if named else None
    detectable = decision.get("detectable")
    main = (result_rows.sort_metric(result_rows.main_rows(report["results"])), "auc")
    kept = {metric: detectable[metric] for metric in main if metric in (detectable or {})}
    return Answer(
        leak=leak,
        ranked=len(ranked),
        strongest=decision["strongest"],
        shown=[name for name in ranked if attacks[name]["shown"]],
        inverted=[name for name in ranked if attacks[name]["inverted"]],
        undecided=[name for name in ranked if attacks[name]["alone"]],
        privileged=privileged,
        p_value=p_value,
        strong=p_value is not None and p_value <= verdict.STRONG,
        level=decision["level"],
        tests=decision["tests"],
        detectable=kept or detectable or {},
        blind=detectable == {},
        in_part=in_part(report) if leak == "none" else (),
    )


def in_part(report: Mapping) -> list[Part]:
    """Returns what the report shows in slices, single records and canaries."""
    level = report.get("about", {}).get("level", 0.95)
    parts: list[Part] = []
    ranking = (report.get("slices") or {}).get("ranking", {})
    best = next((name for name in verdict.order(report)[0] if ranking.get(name)), None)
    entries = ranking[best] if best is not None else ()
    leaking = [
        entry["slice"]
        for entry in entries
        if entry["p_holm"] <= 1 - level and not entry["post_hoc"]
    ]
    if best is not None and leaking:
        parts.append(LeakingSlices(best, leaking, len(entries)))
    for attack, table in (report.get("records") or {}).items():
        if table.get("significant"):
            parts.append(ExposedRecords(attack, table["significant"], table["tested"]))
    bound = (report.get("audit") or {}).get("bound") or {}
    if bound.get("epsilon"):
        parts.append(CanaryBound(bound["epsilon"]))
    return parts


def verdict_text(report: Mapping, name: Callable[[str], str] = tables.shown) -> str:
    """Returns what the attacks show, whatever the checks say.

    Args:
        report: report.json.
        name: writes an attack's name: for a terminal, or `tables.code` for Markdown.
    """
    answer = of(report)
    text = rendering.render("verdict", answer=answer, name=name, level=f"{100 * answer.level:g}%")
    return rendering.line(text)


def first_line(report: Mapping) -> str:
    """Returns the verdict in one line.

    Failed checks come first, then a violated claim of privacy, then what the attacks show.
    """
    audit = report.get("audit") or {}
    text = rendering.render(
        "first_line",
        withheld=trust.failed(report, trust.INVALIDATES),
        qualified=trust.failed(report, trust.QUALIFIES),
        violated=audit if audit.get("violated") else None,
        contradicted=bool((audit.get("releases") or {}).get("contradicted")),
        verdict=verdict_text(report),
    )
    return rendering.line(text)


def numbers(report: Mapping) -> list[str]:
    """Writes the headline numbers of the leading attack.

    An example is 'AUC 0.657 [0.644, 0.669] (random guessing: 0.500)'.
    """
    rows, leading = result_rows.main_rows(report["results"]), verdict.of(report)["strongest"]
    texts = []
    for metric in dict.fromkeys(("auc", result_rows.sort_metric(rows))):
        row = result_rows.resolved(rows, leading, metric) if leading else None
        if row is not None and (metric, row["value"]) != ("auc", None):
            name, number = tables.metric_name(metric), tables.number(row)
            texts.append(f"{name} {number} (random guessing: {guessing(metric)})")
    return texts


def per_record(report: Mapping) -> str:
    """Writes the leading attack's rate pooled over records and the one per record; '' without one.

    The FPR is that of the headline, or the next larger one at which there are rates.
    """
    table = (report.get("records") or {}).get(verdict.of(report)["strongest"]) or {}
    rates = [
        row
        for row in (table.get("at_fpr") or {}).get("rates", ())
        if row["per_record"]["low"] is not None
    ]
    kind, _, fpr = result_rows.sort_metric(result_rows.main_rows(report["results"])).partition("@")
    rates = [row for row in rates if kind != "tpr" or row["fpr"] >= float(fpr)]
    if not rates:
        return ""
    row = min(rates, key=lambda row: row["fpr"])
    return rendering.line(
        rendering.render(
            "record_rates_line",
            fpr=tables.rate_name(row["fpr"]),
            pooled=tables.tpr(row["pooled"]),
            per_record=tables.tpr(row["per_record"]),
        )
    )


def guessing(metric: str) -> str:
    """Writes what random guessing reaches, as the metric is written.

    >>> guessing('auc'), guessing('tpr@0.01')
    ('0.500', '1.0%')
    """
    value = verdict.guess(metric)
    return f"{value:.3f}" if metric == "auc" else f"{tables.percent(value)}%"


def lines(report: Mapping) -> list[str]:
    """Returns the answer for a terminal.

    It is the verdict, the leading attack's numbers, the other failed checks and how many checks
    passed.
    """
    decision, design = verdict.of(report), report.get("design") or {}
    text = rendering.render(
        "terminal",
        first=first_line(report),
        attack=tables.shown(decision["strongest"]) if decision["strongest"] else None,
        withheld=bool(trust.failed(report, trust.INVALIDATES)),
        numbers=numbers(report),
        per_record=per_record(report),
        level=f"{100 * decision['level']:g}%",
        failed=trust.failed(report)[1:],
        guarantee=report.get("guarantee"),
        bound=(report.get("audit") or {}).get("bound"),
        labels=bool((report.get("audit") or {}).get("shift")),
        failed_models=len(design.get("failed") or ()),
        models=design.get("models"),
        checks=checks_passed(report),
    )
    return text.splitlines()


def checks_passed(report: Mapping) -> str:
    """Writes 'checks: 4 of 5 passed; 1 FAILED (duplicate rows)'; '' without checks."""
    checks = trust.checks(report)
    return rendering.line(
        rendering.render("checks_passed", checks=len(checks), titles=trust.titles(checks))
    )


def line(report: Mapping) -> str:
    """Returns the answer of one run among several, in one line."""
    texts = seeds(report) if "seeds" in report else lines(report)
    return rendering.line(" | ".join(text.strip() for text in texts))


def terminal(report: Mapping, *, path: object) -> str:
    """Returns the last lines of a run: the answer, and where the report is.

    Args:
        report: report.json of a run, or of several seeds (`report.seeds`).
        path: the path of report.html.
    """
    if "seeds" in report:
        texts = seeds(report)
    else:
        texts = lines(report) if report.get("results") else []
    return "\n".join([*texts, f"report: {path}"])


def seeds(report: Mapping) -> list[str]:
    """Returns the answer of several seeds.

    It is the verdict of each seed, then mean and sd of the leading attack's numbers.
    """
    ranked, _ = verdict.order(report)
    rows = result_rows.main_rows(report["results"])
    texts = []
    for metric in dict.fromkeys(("auc", result_rows.sort_metric(rows))):
        row = result_rows.resolved(rows, ranked[0], metric) if ranked else None
        if row is not None and row["value"] is not None:
            texts.append(f"{tables.metric_name(metric)} {tables.mean_sd(row)}")
    text = rendering.render(
        "seeds_terminal",
        answers=report.get("answers", {}),
        attack=tables.shown(ranked[0]) if ranked else None,
        seeds=len(report["seeds"]),
        numbers=texts or [tables.UNRESOLVED],
    )
    return text.splitlines()
