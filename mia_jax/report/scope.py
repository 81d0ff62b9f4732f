"""Collects what a report shows and does not show, for those who sign an assessment.

Every fact is read from report.json. The questions and the answers are the macros `ask_<key>` and
`say_<key>` of templates/scope_words.md.j2; QUESTIONS says where the report has more about each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mia_jax.measures import verdict
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, rendering, tables, trust


class Question(NamedTuple):
    """Names a question and the sections with more about it, by their names."""

    key: str
    where: tuple[str, ...]


class Row(NamedTuple):
    """Holds a line of the section: the question and its key, what this report says, and where."""

    key: str
    question: str
    says: str
    where: Sequence[str]


# Questions of an assessment of a model's anonymity: EDPB Opinion 28/2024.
ASSESSMENT = (
    Question("leak", ("answer",)),
    Question("rates", ("attacks",)),
    Question("means", ("attacks", "appendix")),
    Question("untried", ()),
    Question("subject", ("target",)),
    Question("missed", ("trust",)),
    Question("people", ("identification", "records")),
    Question("groups", ("slices",)),
    Question("guarantee", ("guarantee", "privacy_audit")),
    Question("checks", ("trust",)),
    Question("anonymous", ()),
)
# Topics of OWASP AISVS, chapter C11, section C11.3.
VERIFICATION = (
    Question("calibrated", ("appendix",)),
    Question("budget", ("guarantee", "privacy_audit")),
    Question("simulated", ("answer", "attacks")),
)
# What each section needs of report.json, and its name in the column 'where'.
NEEDS = dict(
    answer="results",
    attacks="results",
    appendix="attacks",
    target="design",
    trust="validity",
    identification="identification",
    records="records",
    slices="slices",
    guarantee="guarantee",
    privacy_audit="audit",
)
NAMES = dict(
    answer="The answer",
    attacks="All attacks",
    appendix="Attacks, in the appendix",
    target="What was attacked",
    trust="Can these numbers be trusted?",
    identification="Records identified with few false ones",
    records="Which records are most exposed",
    slices="Which slices are most exposed",
    guarantee="Differential-privacy guarantee",
    privacy_audit="Audited lower bound on epsilon",
)


@dataclasses.dataclass(frozen=True)
class Facts:
    """Holds what the answers say.

    Attributes:
        leak: what all attacks together show, see `measures.verdict.decide`.
        in_part: whether a leak is shown in slices, records or canaries, where `leak` is 'none'.
        undecided: attacks that are above guessing by their own interval only.
        withheld: the titles of the failed checks that withhold the verdict.
        attacks: the number of attacks.
        leading: the attack that leads; None without attacks.
        auc: its AUC with the interval; '' without one.
        rates: (FPR, TPR with its interval) of it, of the lowest FPR first.
        unresolved: the FPRs at which this study has no TPR.
        kinds: {what the attacker has: number of attacks} of attacks that a real attacker could run.
        apart: the number of attacks that know more.
        sees: {'labels', 'outputs', 'white_box': number of attacks}, by the most that an attack sees
            of a target; None where report.json does not say so.
        defenses: the defenses at query time that some attack faced.
        data, examples, models, targets, members, nonmembers, train_rows: the data and the sizes.
        shadows: (fewest, most) shadow models per target; None where there are none.
        origin: 'here' if the models were trained here, 'recipe' if a user's fit trained them here,
            'model' if a user's model was asked, 'target' if a target of the user's answered, and
            'arrays' if only arrays were given.
        canaries: {kind, count} if only canaries are scored.
        detectable: {metric: smallest value that this study would have seen}; None if unknown.
        identified: {attack, identified, false, share, targets} of the leading attack; None if not
            measured.
        records: {attack, significant, tested}, or {why}, of the first attack; None if not measured.
        slices: (how many leak, how many were tested), under an attack; None if not measured.
        group: {slice, auc, excess} of the most exposed of them, as texts; None if not measured.
        guarantee, audit: these sections of report.json.
        checks: the titles of checks by 'passed', 'failed', 'open'.
        level: the level of the intervals, such as '95%'.
    """

    leak: str
    in_part: bool
    undecided: Sequence[str]
    withheld: Sequence[str]
    attacks: int
    leading: str | None
    auc: str
    rates: Sequence[tuple[str, str]]
    unresolved: Sequence[str]
    kinds: Mapping[str, int]
    apart: int
    sees: Mapping[str, int] | None
    defenses: Sequence[str]
    data: str
    examples: int | None
    models: int | None
    targets: int | None
    members: int | None
    nonmembers: int | None
    train_rows: int | None
    shadows: tuple[int, int] | None
    origin: str
    canaries: Mapping[str, Any] | None
    detectable: Mapping[str, float] | None
    identified: Mapping[str, Any] | None
    records: Mapping[str, Any] | None
    slices: tuple[int, int] | None
    group: Mapping[str, str] | None
    guarantee: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    checks: Mapping[str, Sequence[str]]
    level: str


def of(report: Mapping) -> Facts:
    """Collects the facts of a report."""
    decided, rows = verdict.of(report), result_rows.main_rows(report["results"])
    about, design = report.get("about", {}), report.get("design") or {}
    leading, knows = decided["strongest"], verdict.known(rows)
    named = report.get("attacks") or {}
    kinds: dict[str, int] = {}
    for name in decided["ranked"]:
        has = tables.attacker_has(knows[name])
        kinds[has] = kinds.get(has, 0) + 1
    access = [attack.get("access", "") for attack in named.values()]
    targets = design.get("targets")
    says = answer.of(report)
    main = None if leading is None else result_rows.resolved(rows, leading, "auc")
    rates = _rates(rows, leading) if leading else []
    most = design.get("shadows_max") or 0
    return Facts(
        leak=decided["leak"],
        in_part=bool(says.in_part),
        undecided=says.undecided if decided["leak"] == "none" else (),
        withheld=[check.title for check in trust.failed(report, trust.INVALIDATES)],
        attacks=len(decided["attacks"]),
        leading=leading,
        auc="" if main is None or main["value"] is None else tables.number(main),
        rates=[
            (fpr, tables.number(row).replace("†", ""))
            for fpr, row in rates
            if row["value"] is not None
        ],
        unresolved=[fpr for fpr, row in rates if row["value"] is None],
        kinds=kinds,
        apart=len(decided["apart"]),
        sees=None if not access or "" in access else _count(a for a in access if a),
        defenses=sorted({a["defense"] for a in named.values() if a.get("defense")}),
        data=tables.data_name(about),
        examples=about.get("examples"),
        models=design.get("models"),
        targets=len(targets) if isinstance(targets, Sequence) else targets,
        members=_per_target(main, "n_member"),
        nonmembers=_per_target(main, "n_nonmember"),
        train_rows=design.get("train_rows"),
        shadows=(design.get("shadows_min") or 0, most) if most else None,
        origin=about.get("asked")
        or ("target" if about.get("target") else "arrays" if about.get("arrays") else "here"),
        canaries=about.get("canaries"),
        detectable=decided.get("detectable"),
        identified=_identified(report.get("identification")),
        records=_records(report.get("records")),
        slices=_slices(report, decided["ranked"]),
        group=_group(report, decided["ranked"]),
        guarantee=report.get("guarantee"),
        audit=report.get("audit"),
        checks=trust.titles(trust.checks(report)),
        level=f"{100 * decided['level']:g}%",
    )


def rows(
    report: Mapping, questions: Sequence[Question], *, name: Callable[[str], str] = tables.shown
) -> list[Row]:
    """Returns the lines of a table; a question that this report has no answer to is left out.

    Args:
        report: report.json.
        questions: ASSESSMENT or VERIFICATION.
        name: writes a name from data: `tables.code` for Markdown, `tables.shown` for HTML, which
            escapes it.
    """
    facts, words = of(report), rendering.macros("scope_words")
    listed = []
    for key, where in questions:
        says = rendering.line(getattr(words, f"say_{key}")(facts, name))
        if says:
            there = [section for section in where if report.get(NEEDS[section])]
            if facts.slices is None:
                there = [section for section in there if section != "slices"]
            listed.append(Row(key, rendering.line(getattr(words, f"ask_{key}")()), says, there))
    return listed


def _rates(rows: Sequence[Mapping], leading: str) -> list[tuple[str, Mapping]]:
    each = [(f, result_rows.resolved(rows, leading, f"tpr@{f:g}")) for f in result_rows.fprs(rows)]
    return [(tables.rate_name(fpr), row) for fpr, row in each if row is not None]


def _per_target(row: Mapping | None, key: str) -> int | None:
    return None if row is None else int(row[key])


def _count(values) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _identified(section: Mapping | None) -> dict[str, Any] | None:
    if not section or not section.get("attacks"):
        return None
    name, row = next(iter(section["attacks"].items()))
    return dict(attack=name, share=section["share"], targets=section["targets"]) | dict(row)


def _records(section: Mapping | None) -> dict[str, Any] | None:
    if not section:
        return None
    name, table = next(iter(section.items()))
    kept = {key: table[key] for key in ("why", "significant", "tested") if key in table}
    return dict(attack=name) | kept if "why" in kept or "significant" in kept else None


def _ranked_slices(report: Mapping, ranked: Sequence[str]) -> Sequence[Mapping]:
    ranking = (report.get("slices") or {}).get("ranking", {})
    return next((ranking[name] for name in ranked if ranking.get(name)), [])


def _group(report: Mapping, ranked: Sequence[str]) -> dict[str, str] | None:
    entries = _ranked_slices(report, ranked)
    if not entries:
        return None
    auc, excess = (
        "{} [{}, {}]".format(*(write(entries[0][key]) for key in keys))
        for write, keys in (
            ("{:.3f}".format, ("auc", "low", "high")),
            ("{:+.3f}".format, ("excess", "excess_low", "excess_high")),
        )
    )
    return dict(slice=entries[0]["slice"], auc=auc, excess=excess)


def _slices(report: Mapping, ranked: Sequence[str]) -> tuple[int, int] | None:
    entries = _ranked_slices(report, ranked)
    if not entries:
        return None
    alpha = 1 - report.get("about", {}).get("level", 0.95)
    return sum(entry["p_holm"] <= alpha for entry in entries), len(entries)
