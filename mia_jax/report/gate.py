"""Speaks a gate: which limits an audit keeps, as text, JSON and JUnit XML.

`measures.gate` decides; here it is spoken.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from mia_jax import checks
from mia_jax.measures import gate, verdict
from mia_jax.measures.gate import ABOVE, UNDECIDED, WITHIN, Decision
from mia_jax.report import rendering, tables, trust

EXIT = {WITHIN: 0, ABOVE: 1, UNDECIDED: 2}
TITLE = {
    WITHIN: "GATE PASSED: every interval is within its limit.",
    ABOVE: "GATE FAILED: a limit is exceeded.",
    UNDECIDED: "GATE UNDECIDED: this study cannot tell.",
}
WORDS = {WITHIN: "passed", ABOVE: "FAILED", UNDECIDED: "undecided"}
LISTED = 3  # attacks that are listed below a limit


@dataclasses.dataclass(frozen=True, repr=False)
class Gate:
    """Holds the answer of a gate.

    Attributes:
        decisions: one per limit, slice and attack.
        notes: what must be known with it.
    """

    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()

    @property
    def decision(self) -> str:
        """Returns 'above' if a number is above its limit, else 'undecided' if one is, else
        'within'.
        """
        return together(self.decisions)

    @property
    def exit_code(self) -> int:
        """Returns 0 (within), 1 (above) or 2 (undecided)."""
        return EXIT[self.decision]

    @property
    def limits(self) -> list[tuple[str, str, list[Decision]]]:
        """Returns (limit, slice, decisions of its attacks), in the order in which they were
        asked.
        """
        keys = dict.fromkeys((d.limit, d.slice) for d in self.decisions)
        return [
            (limit, where, [d for d in self.decisions if (d.limit, d.slice) == (limit, where)])
            for limit, where in keys
        ]

    def text(self) -> str:
        """Returns the answer for a terminal."""
        lines = [TITLE[self.decision]]
        for limit, where, decisions in self.limits:
            answer = together(decisions)
            lines.append(f"{WORDS[answer]}: {shown(limit, where)}, {over(decisions)}")
            lines += [f"  {sentence(d)}" for d in deciding(decisions)]
            left = sum(d.decision == answer for d in decisions) - len(deciding(decisions))
            if left and answer != WITHIN:
                lines.append(f"  and {left} more attack{'s' * (left > 1)}")
        return "\n".join([*lines, *(f"note: {tables.shown(note)}" for note in self.notes)])

    __repr__ = text

    def to_json(self) -> str:
        """Returns {decision, exit_code, decisions, notes} as JSON."""
        return json.dumps(
            dict(
                decision=self.decision,
                exit_code=self.exit_code,
                decisions=[dataclasses.asdict(d) for d in self.decisions],
                notes=list(self.notes),
            ),
            indent=1,
            allow_nan=False,
        )

    def junit(self) -> str:
        """Returns JUnit XML with a test case per limit and slice: a failure where the limit is
        exceeded, an error where it is undecided.
        """
        answers = [together(decisions) for *_, decisions in self.limits]
        counts = dict(
            tests=str(len(answers)),
            failures=str(answers.count(ABOVE)),
            errors=str(answers.count(UNDECIDED)),
        )
        root = ElementTree.Element("testsuites", counts)
        suite = ElementTree.SubElement(root, "testsuite", dict(name="mia_jax gate") | counts)
        for (limit, where, decisions), answer in zip(self.limits, answers, strict=True):
            name = dict(classname="mia_jax.gate", name=tables.shown(shown(limit, where)))
            case = ElementTree.SubElement(suite, "testcase", name)
            text = "\n".join(sentence(d) for d in deciding(decisions))
            if answer == WITHIN:
                ElementTree.SubElement(case, "system-out").text = text
                continue
            kind = "failure" if answer == ABOVE else "error"
            element = ElementTree.SubElement(
                case, kind, dict(type=answer, message=f"{WORDS[answer]}: {over(decisions)}")
            )
            element.text = text
        ElementTree.indent(root)
        return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(
            root, encoding="unicode"
        )


def of(
    report: Mapping,
    limits: str | Sequence[str],
    *,
    attack: str | Sequence[str] | None = None,
    slice: str | Sequence[str] = "all",
) -> Gate:
    """Compares an audit with limits.

    Args:
        report: report.json.
        limits: one limit or several, such as 'tpr@0.01 <= 0.05'.
        attack: the attacks whose numbers must be within; None: all that a real attacker could run.
        slice: the slices of records in which they must be.

    Raises:
        ValueError: no limit, or one that the report cannot answer: the message lists the forms, the
            metrics, the attacks or the slices that there are.
    """
    texts = [limits] if isinstance(limits, str) else list(limits)
    if not texts:
        raise ValueError(f"limit is empty; give one or more: {gate.FORMS}.")
    if "seeds" in report:
        raise ValueError(
            "this report is over several seeds and has no intervals of its own; gate the report of "
            "one seed, such as the folder seed-0 in this workdir."
        )
    rows = report["results"]
    parsed = [gate.parse(text, gate.metrics(report)) for text in texts]
    ranked, apart = verdict.order(report)
    attacks = ranked if attack is None else [attack] if isinstance(attack, str) else list(attack)
    slices = [slice] if isinstance(slice, str) else list(slice)
    for name in attacks:
        checks.one_of([*ranked, *apart], attack=name)
    for name in slices:
        checks.one_of(dict.fromkeys(["all", *(row["slice"] for row in rows)]), slice=name)
    if not attacks and any(limit.metric != "epsilon" for limit in parsed):
        raise ValueError(
            "the report has no attack that a real attacker could run; name one with attack: "
            f"{', '.join(apart) or 'none'}."
        )
    bad = trust.failed(report, trust.INVALIDATES)
    advice = rendering.macros("advice").advice
    notes = [
        f"check failed, {check.title}: {rendering.line(advice(check))}"
        for check in trust.failed(report)
    ]
    if attack is None and apart:
        notes.append(
            f"not gated, because {'they know' if len(apart) > 1 else 'it knows'} more than a real "
            f"attacker could: {', '.join(apart)}; an attack that is named is gated all the same"
        )
    decisions = gate.decide(
        report,
        parsed,
        attacks=attacks,
        slices=slices,
        withheld="; ".join(check.title for check in bad),
    )
    return Gate(tuple(decisions), tuple(notes))


def together(decisions: Sequence[Decision]) -> str:
    """Returns what several decisions say together."""
    there = {d.decision for d in decisions}
    return next(answer for answer in (ABOVE, UNDECIDED, WITHIN) if answer in there)


def deciding(decisions: Sequence[Decision]) -> list[Decision]:
    """Returns the decisions that are listed: those that decide.

    Attacks above the limit stay in the verdict's order, the leading one first. Where none is above,
    the one with the highest upper end comes first, because that end decides.
    """
    answer = together(decisions)
    listed = [d for d in decisions if d.decision == answer]
    if answer != ABOVE:
        listed.sort(key=lambda d: -(2.0 if d.high is None else d.high))
    return listed[: 1 if answer == WITHIN else LISTED]


def shown(limit: str, where: str) -> str:
    """Writes a limit and its slice."""
    return limit if where == "all" else f"{limit} [{where}]"


def over(decisions: Sequence[Decision]) -> str:
    """Writes how many attacks a limit was compared with, and how many exceed it."""
    answer, total = together(decisions), len(decisions)
    count = sum(d.decision == answer for d in decisions)
    what = {WITHIN: "within it", ABOVE: "above it", UNDECIDED: "undecided"}[answer]
    return f"{count} of {total} attack{'s' * (total != 1)} {what}"


def sentence(d: Decision) -> str:
    """Writes a decision in one line."""
    show = (lambda v: f"{v:.3g}") if d.metric in ("auc", "epsilon") else tables.percent
    unit = "" if d.metric in ("auc", "epsilon") else "%"
    name = tables.shown(d.attack) + ": " if d.attack else ""
    if d.metric == "epsilon":
        low = "not bounded below" if d.low is None else f"at least {tables.epsilon(d.low)}"
        text = f"{name}epsilon is {low}"
        text += "" if d.high is None else f", at most {tables.epsilon(d.high)} by the accountant"
    elif d.value is None or d.low is None or d.high is None:
        text = f"{name}no interval"
    else:
        ends = f"[{show(d.low)}, {show(d.high)}]"
        text = f"{name}{show(d.value)}{unit} {ends} ({100 * d.level:g}% interval)"
    if d.decision == ABOVE and d.p is not None:
        p = f"= {d.p:.3f}" if d.p >= 0.001 else "< 0.001"
        text += f", p {p} after Holm's correction"
    if d.why:
        text += f"; {tables.shown(d.why)}"
    needed = [
        f"{count:,} {what}"
        for count, what in (
            (d.models_needed, "audited models"),
            (d.rows_needed, "members and as many non-members per model"),
        )
        if count
    ]
    if needed and d.decision == UNDECIDED:
        text += f"; about {' or '.join(needed)} would decide"
    return text
