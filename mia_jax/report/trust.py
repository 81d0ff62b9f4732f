"""Judges the checks of a report: whether each passed, and what a failure does to the verdict.

What a check says, its title and its remedy are the macros of templates/check_<key>.md.j2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mia_jax.report import rendering

GOOD, BAD, OPEN = "ok", "**failed**", "not checked"
# A failed check that invalidates withholds the verdict; one that qualifies is named before it.
INVALIDATES, QUALIFIES = "invalidates", "qualifies"


class Check(NamedTuple):
    """Holds a check of a report.

    Attributes:
        key: its key in report.json, under `validity`.
        title: its name in the table of checks.
        status: GOOD, BAD or OPEN.
        text: what the check observed.
        effect: what a failure does to the verdict: INVALIDATES or QUALIFIES.
        remedy: what the user can do after a failure.
    """

    key: str
    title: str
    status: str
    text: str
    effect: str
    remedy: str


class Judged(NamedTuple):
    """Holds the status of a check, and the facts that the macro `text` of its template takes."""

    status: str
    facts: Mapping[str, Any]


def checks(report: Mapping) -> list[Check]:
    """Returns every check of a report, in the order of its table.

    [] for a report without the section `validity`. The remedies are those for callers that pass
    arrays, or those for users of launch.py.
    """
    section, arrays = report.get("validity") or {}, bool(report.get("about", {}).get("arrays"))
    return [check(key, section[key], arrays=arrays) for key in CHECKS if section.get(key)]


def check(key: str, result: Mapping, *, arrays: bool = False) -> Check:
    """Returns one check of a report.

    Args:
        key: a key of CHECKS.
        result: what the check measured, `validity[key]` of report.json. Where nothing was
            measured, `why` says why; `drawn` then says that the check is passed by design.
        arrays: whether the remedy is for a caller that passes arrays.
    """
    judge, effect = CHECKS[key]
    words = rendering.macros(f"check_{key}")
    if "why" in result:
        status, text = (GOOD if result.get("drawn") else OPEN), result["why"]
    else:
        status, facts = judge(result)
        text = rendering.line(words.text(**facts))
    return Check(
        key=key,
        title=words.title(),
        status=status,
        text=text,
        # Shadow models that fit their data otherwise than the target only qualify the verdict.
        effect=QUALIFIES if result.get("problem") == "fit" else effect,
        remedy=rendering.line(words.remedy(arrays)),
    )


def failed(report: Mapping, effect: str | None = None) -> list[Check]:
    """Returns the checks that failed, those that invalidate the verdict first.

    With `effect`, only those with this effect.
    """
    bad = [
        check for check in checks(report) if check.status == BAD and effect in (None, check.effect)
    ]
    return sorted(bad, key=lambda check: check.effect != INVALIDATES)


def titles(checks: Sequence[Check]) -> dict[str, list[str]]:
    """Returns the titles of the checks that passed, failed or were not possible (open)."""
    names = dict(passed=GOOD, failed=BAD, open=OPEN)
    return {
        name: [check.title for check in checks if check.status == status]
        for name, status in names.items()
    }


def blind(result: Mapping) -> Judged:
    """Judges the blind baseline: it fails if members are distinguishable at p < 0.01."""
    distinguishable = result["p_value"] < 0.01
    if distinguishable:
        status = BAD
    else:
        status = OPEN if result.get("labels_only") else GOOD
    labels_only = bool(result.get("labels_only"))
    facts = dict(result, labels_only=labels_only)
    return Judged(status, dict(result=facts, distinguishable=distinguishable))


def cross_target(result: Mapping) -> Judged:
    """Judges the cross-target null: it fails if an attack's AUC is too far from 0.5."""
    attacks, excluded = list(result["attacks"].values()), result["excluded"]
    facts = dict(
        smallest=min(attack["auc"] for attack in attacks),
        largest=max(attack["auc"] for attack in attacks),
        covering=sum(attack["low"] <= 0.5 <= attack["high"] for attack in attacks),
        attacks=len(attacks),
        level=f"{100 * result['level']:g}%",
        excluded=excluded,
    )
    return Judged(BAD if excluded else GOOD, facts)


def membership(result: Mapping) -> Judged:
    """Judges the membership matrix: it fails if any problem was noticed."""
    return Judged(BAD if result["problems"] else GOOD, dict(result=result))


def duplicates(result: Mapping) -> Judged:
    """Judges duplicate rows: it fails if members and non-members share identical rows."""
    rows, crossing = result.get("rows") or 0, result.get("crossing", 0)
    return Judged(BAD if rows and crossing else GOOD, dict(rows=rows, crossing=crossing))


def files(result: Mapping) -> Judged:
    """Judges the input digests: it fails if one differs; open if no input has a digest."""
    if result["stale"]:
        status = BAD
    else:
        status = OPEN if result["unknown"] and not result["checked"] else GOOD
    return Judged(status, dict(result=result))


def stated(result: Mapping) -> Judged:
    """Returns the status that a check itself states, as those of metrics/fit.py do."""
    statuses = {"ok": GOOD, "failed": BAD, "not checked": OPEN}
    return Judged(statuses[result["status"]], dict(result=result))


# key of `validity`: (its judge, what a failure does to the verdict), in the order of the table
CHECKS: dict[str, tuple[Callable[[Mapping], Judged], str]] = dict(
    blind=(blind, INVALIDATES),
    cross_target=(cross_target, INVALIDATES),
    membership=(membership, INVALIDATES),
    duplicates=(duplicates, QUALIFIES),
    files=(files, INVALIDATES),
    label_agreement=(stated, INVALIDATES),
    shadow_fit=(stated, INVALIDATES),
)
