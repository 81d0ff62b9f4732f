"""The checks of a report: what each says, what its failure does to the verdict, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mia_jax.report import tables

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


def checks(found: Mapping) -> list[Check]:
    """Returns every check of a report, in the order of its table.

    [] for a report without the section `validity`. The remedies are those for callers that pass
    arrays, or those for users of launch.py.
    """
    section, arrays = found.get("validity") or {}, bool(found.get("about", {}).get("arrays"))
    listed = []
    for key, (title, speak, effect, remedies) in CHECKS.items():
        if section.get(key):
            result = section[key]
            status, text = speak(result)
            effect = QUALIFIES if result.get("problem") == "fit" else effect
            listed.append(Check(key, title, status, text, effect, remedies[0 if arrays else -1]))
    return listed


def failed(found: Mapping, effect: str | None = None) -> list[Check]:
    """Returns the checks that failed, those that invalidate the verdict first.

    With `effect`, only those with this effect.
    """
    bad = [
        check for check in checks(found) if check.status == BAD and effect in (None, check.effect)
    ]
    return sorted(bad, key=lambda check: check.effect != INVALIDATES)


def counted(found: Mapping) -> str:
    """Returns '4 of 5 passed; 1 failed (duplicate rows)'; '' without checks."""
    listed = checks(found)
    if not listed:
        return ""
    by = {
        status: [check.title for check in listed if check.status == status]
        for status in (GOOD, BAD, OPEN)
    }
    text = f"{len(by[GOOD])} of {len(listed)} passed"
    text += f"; {len(by[BAD])} FAILED ({', '.join(by[BAD])})" if by[BAD] else ""
    return text + (
        f"; {len(by[OPEN])} not possible here ({', '.join(by[OPEN])})" if by[OPEN] else ""
    )


def words(check: Check) -> str:
    """Returns what a check observed and what to do about it, for a terminal."""
    return tables.shown(
        sentence(check.text) + (f" What to do: {check.remedy}" if check.remedy else "")
    )


def sentence(text: str) -> str:
    """Returns the text with a capital letter and a full stop.

    >>> sentence('no two rows are identical')
    'No two rows are identical.'
    """
    return text[:1].upper() + text[1:] + ("" if text.rstrip(")").endswith((".", "?", "!")) else ".")


def blind(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of the blind baseline."""
    if "why" in result:
        return (GOOD if result.get("drawn") else OPEN), result["why"]
    distinguishable = result["p_value"] < 0.01
    text = (
        f"AUC {result['auc']:.3f}, p = {result['p_value']:.2g} ({result['method']}; "
        f"{result['rows']:,} rows, {result['features']} features)"
    )
    if distinguishable:
        text += (
            ": members are distinguishable from non-members without any model, so an attack's "
            "success is no evidence of leakage"
        )
    elif result.get("labels_only"):
        return OPEN, f"the examples were not given (provide x); from the labels only, {text}"
    return (BAD if distinguishable else GOOD), text


def cross_target(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of the cross-target null."""
    if "why" in result:
        return OPEN, result["why"]
    values = [a["auc"] for a in result["attacks"].values()]
    covering = sum(a["low"] <= 0.5 <= a["high"] for a in result["attacks"].values())
    text = (
        f"AUC {min(values):.3f} to {max(values):.3f}; {covering} of {len(values)} intervals "
        f"({100 * result['level']:g}%) include 0.5"
    )
    if result["excluded"]:
        text += f"; too far from 0.5, corrected for {len(values)} attacks: "
        text += ", ".join(result["excluded"])
    return (BAD if result["excluded"] else GOOD), text


def membership(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of the check of the membership matrix."""
    low, high = result["column_sums"]
    text = f"{result['models']} model{'s' * (result['models'] != 1)}"
    if result["twins"]:
        pairs = f"{result['twins']} pair{'s' * (result['twins'] != 1)}"
        text += f", with {pairs} of complementary training sets"
    if result["models"] > 1:
        count = f"{low}" if low == high else f"{low} to {high}"
        text += f"; every scored record is in the training set of {count} of them"
    if result["count_auc"] is not None:
        text += (
            "; guessing the target's membership from the number of shadow models trained on a "
            f"record has AUC {result['count_auc']:.3f} (0.5: no hint)"
        )
    return (BAD if result["problems"] else GOOD), text + "".join(
        f"; {problem}" for problem in result["problems"]
    )


def duplicates(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of the check of duplicate rows."""
    if "why" in result:
        return OPEN, result["why"]
    if not result.get("rows"):
        return GOOD, "no two rows are identical"
    crossing = result.get("crossing", 0)
    text = f"{result['rows']:,} rows have an identical row elsewhere; "
    text += (
        f"{crossing:,} sets of identical rows contain members and non-members of the first target"
    )
    return (BAD if crossing else GOOD), text + (", which hides leakage" if crossing else "")


def files(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of the check of input digests."""
    text = (
        f"{result['checked']} input digests match"
        if not result["stale"]
        else "; ".join(result["stale"])
    )
    if result["unknown"]:
        text += f"; no record for {len(result['unknown'])} (the first: {result['unknown'][0]})"
    return (
        BAD if result["stale"] else OPEN if result["unknown"] and not result["checked"] else GOOD
    ), text


def stated(result: Mapping) -> tuple[str, str]:
    """Returns the status and text of a check that states both and its remedy (metrics/fit.py)."""
    return dict(zip(("ok", "failed", "not checked"), (GOOD, BAD, OPEN), strict=True))[
        result["status"]
    ], result["text"]


# key of `validity`: (title, what it says, effect of a failure, remedies: of a caller with arrays,
# of launch.py's user)
CHECKS: dict[str, tuple[str, Callable[[Mapping], tuple[str, str]], str, tuple[str, ...]]] = dict(
    blind=(
        "blind baseline (examples only, no model)",
        blind,
        INVALIDATES,
        (
            "provide members and non-members from the same source, split at random. With these "
            "rows no attack can be judged.",
            "choose members and non-members from the same source at random (a design that draws "
            "them, or data shuffled before it is split). With "
            "these rows no attack can be judged.",
        ),
    ),
    cross_target=(
        "cross-target null (scores of one model, membership of another)",
        cross_target,
        INVALIDATES,
        (
            "check for models that share their members and for outputs in the wrong order: member, "
            "shadow_member and the outputs must list the same "
            "models and rows.",
            "check for models whose memberships depend on each other, and for files of another run "
            "in this workdir.",
        ),
    ),
    membership=(
        "membership matrix",
        membership,
        INVALIDATES,
        (
            "correct member and shadow_member: every shadow model's members must be drawn "
            "independently of the target's (give models that belong "
            "together one number in pair).",
            "use a design of mia_jax/designs as it is; a membership of your own must be drawn "
            "independently for every model.",
        ),
    ),
    duplicates=(
        "duplicate rows",
        duplicates,
        QUALIFIES,
        (
            "keep one row of each set of identical rows in the arrays.",
            "drop them with data.drop_duplicates=True.",
        ),
    ),
    files=(
        "input provenance",
        files,
        INVALIDATES,
        (
            "delete the files named above, or audit into an empty folder.",
            "delete the files named above and run the same command again.",
        ),
    ),
    label_agreement=("labels and outputs", stated, INVALIDATES, ("",)),
    shadow_fit=(
        "shadow models and target",
        stated,
        INVALIDATES,
        ("",),
    ),  # a fit that differs (problem='fit') only qualifies
)
