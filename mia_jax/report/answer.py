"""The answer of an audit in plain words, for the first lines of report.md, `Results.summary()` and
the last lines on a terminal.

`standing.decide` decides it, `trust.checks` says whether it may be given; here it is spoken.
Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mia_jax.measures import verdict as standing
from mia_jax.metrics import rows as result_rows
from mia_jax.report import tables, trust


def first_line(found: Mapping) -> str:
    """Returns the verdict in one line.

    A violated claim of privacy comes first, then failed checks, then what the attacks show.
    """
    audit = found.get("audit") or {}
    text = verdict(found)
    if audit.get("violated"):
        claimed, proved = (tables.epsilon(audit[k]["epsilon"]) for k in ("claim", "bound"))
        text = (
            f"PRIVACY CLAIM VIOLATED: epsilon is at least {proved}, and {claimed} is claimed. "
            f"{text}"
        )
    bad = trust.failed(found, trust.INVALIDATES)
    if bad:
        return (
            f"VERDICT WITHHELD, check failed: {'; '.join(check.title for check in bad)}. "
            + trust.words(bad[0])
        )
    marked = trust.failed(found, trust.QUALIFIES)
    if marked:
        return (
            f"CHECK FAILED: {'; '.join(check.title for check in marked)}. {trust.words(marked[0])} "
            f"Subject to this: {text}"
        )
    return text


def verdict(found: Mapping, name: Callable[[str], str] = tables.shown) -> str:
    """Returns what the attacks show, whatever the checks say.

    `name` writes an attack's name: for a terminal, or `tables.code` for Markdown.
    """
    decision = standing.of(found)
    ranked, attacks = decision["ranked"], decision["attacks"]
    shown = [n for n in (*ranked, *decision["apart"]) if attacks[n]["shown"]]
    if decision["leak"] == "untested":
        return (
            "NO VERDICT: no attack has an interval, because there are too few records or no "
            "attacks."
        )
    if decision["leak"] == "shown":
        strongest = attacks[decision["strongest"]]
        real = [n for n in ranked if attacks[n]["shown"]]
        return (
            f"LEAK SHOWN ({strength(strongest)}) by {count(real, ranked)}; strongest: "
            f"{name(decision['strongest'])}."
        )
    privileged = f"{name(shown[0])}, which knows more than a real attacker" if shown else ""
    if decision["leak"] == "inverted":
        wrong = [n for n in ranked if attacks[n]["inverted"]]
        text = (
            f"SCORES POINT THE WRONG WAY ({count(wrong, ranked)}; the first: {name(wrong[0])}): "
            "members score lower than non-members. "
        )
        text += (
            "Check the sign of the score (higher must mean member; a loss is lower on members), "
            "and that member is 1 for the rows of the training "
        )
        text += "set."
        return text + (f" A leak is shown by {privileged}." if shown else "")
    if decision["leak"] == "privileged":
        none = (
            f"no leak shown by {'any of the ' * (len(ranked) > 1)}{len(ranked)} "
            f"attack{'s' * (len(ranked) != 1)} that a real attacker could run"
        )
        return f"LEAK SHOWN ({strength(attacks[shown[0]])}) only by {privileged}; {none}."
    parts = in_parts(found, name)
    words = (
        f"NO LEAK SHOWN{' ON AVERAGE' * bool(parts)} by "
        f"{'any of the ' * (len(ranked) > 1)}{len(ranked)} "
        f"attack{'s' * (len(ranked) != 1)}{seen(decision)}."
    )
    words += f" BUT {'; '.join(parts)}." if parts else ""
    alone = [n for n in ranked if attacks[n]["alone"]]
    if alone:
        are, their = ("is", "its") if len(alone) == 1 else ("are", "their")
        words += f" Undecided: {names(alone, name)} {are} above random guessing by {their} own "
        words += (
            f"{100 * decision['level']:g}% interval, but not after the correction for "
            f"{decision['tests']} tests; a larger study would decide."
        )
    return words


def in_parts(found: Mapping, name: Callable[[str], str]) -> list[str]:
    """Returns what the report shows in slices, single records and canaries.

    It is used where no attack shows a leak on average.
    """
    level = found.get("about", {}).get("level", 0.95)
    notes: list[str] = []
    section = (found.get("slices") or {}).get("ranking", {})
    best = next((n for n in standing.order(found)[0] if section.get(n)), None)
    leaking = [
        entry["slice"]
        for entry in section.get(best, ())
        if entry["p_holm"] <= 1 - level and not entry["post_hoc"]
    ]
    if leaking:
        notes.append(
            f"{len(leaking)} of {len(section[best])} slices leak under {name(best)} (corrected "
            f"over the slices): {names(leaking, name)}"
        )
    for attack, table in (found.get("records") or {}).items():
        if table.get("significant"):
            notes.append(
                f"{table['significant']:,} of {table['tested']:,} records are exposed under "
                f"{name(attack)}"
            )
    bound = (found.get("audit") or {}).get("bound") or {}
    if bound.get("epsilon"):
        notes.append(
            f"the canary audit shows that epsilon is at least {tables.epsilon(bound['epsilon'])}"
        )
    return notes


def strength(attack: Mapping) -> str:
    """Writes 'strong evidence' or 'evidence' with the p-value after correction."""
    p = attack["p_holm"]
    return (
        "strong evidence" if p <= standing.STRONG else "evidence"
    ) + f", p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} after correction"


def count(some: Sequence[str], all_of: Sequence[str]) -> str:
    """Writes '3 of 14 attacks' or 'the only attack'."""
    return f"{len(some)} of {len(all_of)} attacks" if len(all_of) > 1 else "the only attack"


def names(attacks: Sequence[str], name: Callable[[str], str], most: int = 3) -> str:
    """Writes 'a, b, c and 2 more'."""
    first = ", ".join(map(name, attacks[:most]))
    return first + (f" and {len(attacks) - most} more" if len(attacks) > most else "")


def seen(decision: Mapping) -> str:
    """Writes ' (minimum detectable: AUC 0.511, TPR at 1% FPR 1.5%)'."""
    smallest = decision.get("detectable") or {}
    parts = [
        f"{tables.metric_name(m)} {v:.3f}"
        if m == "auc"
        else f"{tables.metric_name(m)} {tables.percent(v)}%"
        for m, v in smallest.items()
    ]
    return f" (minimum detectable: {', '.join(parts)})" if parts else ""


def numbers(found: Mapping) -> list[str]:
    """Writes one line per headline number of the leading attack.

    An example is 'AUC 0.657 [0.644, 0.669] (random guessing: 0.500)'.
    """
    rows, decision = result_rows.main_rows(found["results"]), standing.of(found)
    lines = []
    for metric in ("auc", result_rows.sort_metric(rows)):
        row = (
            result_rows.resolved(rows, decision["strongest"], metric)
            if decision["strongest"]
            else None
        )
        if row is not None and (metric, row["value"]) != ("auc", None):
            lines.append(
                f"{tables.metric_name(metric)} {tables.number(row)} (random guessing: "
                f"{guessing(metric)})"
            )
    return list(dict.fromkeys(lines))


def guessing(metric: str) -> str:
    """Writes what random guessing reaches, as the metric is written.

    >>> guessing('auc'), guessing('tpr@0.01')
    ('0.500', '1.0%')
    """
    value = standing.guess(metric)
    return f"{value:.3f}" if metric == "auc" else f"{tables.percent(value)}%"


def lines(found: Mapping) -> list[str]:
    """Returns the answer for a terminal.

    It is the verdict, the leading attack's numbers, the other failed checks and how many checks
    passed.
    """
    decision, withheld = standing.of(found), trust.failed(found, trust.INVALIDATES)
    text = [first_line(found)]
    if decision["strongest"]:
        lead = "without a verdict, " if withheld else ""
        text.append(
            f"  {lead}{tables.shown(decision['strongest'])}: {'; '.join(numbers(found))}; "
            f"{100 * decision['level']:g}% intervals"
        )
    text += [
        f"  CHECK FAILED, {check.title}: {trust.words(check)}" for check in trust.failed(found)[1:]
    ]
    if found.get("guarantee"):
        text.append("  " + promise(found))
    bound = (found.get("audit") or {}).get("bound")
    if bound:
        proved, most = (tables.epsilon(bound[k]) for k in ("epsilon", "ceiling"))
        text.append(
            f"  canary audit: epsilon is at least {proved} (it could have shown at most {most})"
        )
    design = found.get("design") or {}
    if design.get("failed"):
        text.append(
            f"  excluded: {len(design['failed'])} of {design['models']} models, which failed (see "
            "the report)"
        )
    checks = trust.counted(found)
    return [*text, *([f"checks: {checks}"] if checks else [])]


def line(found: Mapping) -> str:
    """Writes the answer of one run among several, in one line."""
    return " ".join(
        " | ".join(
            text.strip() for text in (seeds(found) if "seeds" in found else lines(found))
        ).split()
    )


def promise(found: Mapping) -> str:
    """Writes the promised epsilon in one line."""
    guarantee = found["guarantee"]
    if guarantee["epsilon"] is None:
        return "differential privacy: no epsilon can be claimed (see the report)"
    return (
        f"differential privacy: epsilon {tables.epsilon(guarantee['epsilon'])} at delta "
        f"{guarantee['delta']:.3g} per model ({guarantee['accountant']})"
    )


def terminal(found: Mapping, *, report: object) -> str:
    """Returns the last lines of a run: the answer, and where the report is.

    `found` is a report, or that of several seeds (`report.seeds`).
    """
    text = seeds(found) if "seeds" in found else lines(found) if found.get("results") else []
    return "\n".join([*text, f"report: {report}"])


def seeds(found: Mapping) -> list[str]:
    """Returns the answer of several seeds.

    It is the verdict of each seed, then mean and sd of the leading attack's numbers.
    """
    text = [f"seed {seed}: {line}" for seed, line in found.get("answers", {}).items()]
    ranked, _ = standing.order(found)
    rows = result_rows.main_rows(found["results"])
    if ranked:
        parts = []
        for metric in dict.fromkeys(("auc", result_rows.sort_metric(rows))):
            row = result_rows.resolved(rows, ranked[0], metric)
            if row is not None and row["value"] is not None:
                parts.append(f"{tables.metric_name(metric)} {tables.mean_sd(row)}")
        text.append(
            f"{tables.shown(ranked[0])}, mean ± sd over {len(found['seeds'])} seeds: "
            + "; ".join(parts or [tables.UNRESOLVED])
        )
    return text
