"""The section 'Can these numbers be trusted?' of report.md."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.report import tables

GOOD, BAD, OPEN = "ok", "**look at this**", "not checked"


def trust(found: Mapping) -> str:
    """A line a check: what was looked at, what was found, and whether it is as it must be; then what a study of this size can see."""
    section = found.get("validity")
    if not section:
        return ""
    lines = [
        ["examples alone (blind baseline)", *blind(section["blind"])],
        ["scores of one model, members of another", *cross_target(section["cross_target"])],
        ["membership matrix", *membership(section["membership"])],
        ["equal rows", *duplicates(section["duplicates"])],
        ["files made from each other", *files(section["files"])],
    ]
    named = dict(label_agreement="labels and answers", shadow_fit="shadows and target")
    lines += [[title, *stated(section[name])] for name, title in named.items() if name in section]
    text = "## Can these numbers be trusted?\n\n" + tables.markdown(["check", "", "what was found"], lines, code_first=False, align="left")
    return text + "\n" + power(section)


def blind(one: Mapping) -> tuple[str, str]:
    if "why" in one:
        return (GOOD if one.get("drawn") else OPEN), one["why"]
    told = one["p_value"] < 0.01
    text = f"AUC {one['auc']:.3f}, p = {one['p_value']:.2g} ({one['method']}; {one['rows']:,} rows, {one['features']} features)"
    if told:
        text += ": members differ from non-members without any model, so an attack's success is no evidence of leakage"
    return (BAD if told else GOOD), text


def cross_target(one: Mapping) -> tuple[str, str]:
    if "why" in one:
        return OPEN, one["why"]
    values = [a["auc"] for a in one["attacks"].values()]
    covering = sum(a["low"] <= 0.5 <= a["high"] for a in one["attacks"].values())
    text = f"AUC {min(values):.3f} to {max(values):.3f}; {covering} of {len(values)} intervals ({100 * one['level']:g}%) hold 0.5"
    if one["excluded"]:
        text += f"; too far from it, corrected for {len(values)} attacks: {', '.join(f'`{name}`' for name in one['excluded'])}"
    return (BAD if one["excluded"] else GOOD), text


def membership(one: Mapping) -> tuple[str, str]:
    low, high = one["column_sums"]
    text = f"{one['models']} models, {one['twins']} complementary pairs; a record is in {low if low == high else f'{low} to {high}'} of them"
    if one["count_auc"] is not None:
        text += f"; counting the shadows that hold a record tells its membership with AUC {one['count_auc']:.3f}"
    return (BAD if one["problems"] else GOOD), text + "".join(f"; {problem}" for problem in one["problems"])


def duplicates(one: Mapping) -> tuple[str, str]:
    if "why" in one:
        return OPEN, one["why"]
    if not one.get("rows"):
        return GOOD, "no row is there twice"
    crossing = one.get("crossing", 0)
    text = f"{one['rows']:,} rows have an equal one; {crossing:,} sets of them lie on both sides of the first target"
    return (BAD if crossing else GOOD), text + (", which hides leakage" if crossing else "")


def files(one: Mapping) -> tuple[str, str]:
    text = f"{one['checked']} digests of inputs agree" if not one["stale"] else "; ".join(one["stale"])
    if one["unknown"]:
        text += f"; no record for {len(one['unknown'])} (the first: {one['unknown'][0]})"
    return (BAD if one["stale"] else OPEN if one["unknown"] and not one["checked"] else GOOD), text


def stated(one: Mapping) -> tuple[str, str]:
    """A check that says its status itself (metrics/fit.py)."""
    return dict(zip(("ok", "failed", "not checked"), (GOOD, BAD, OPEN)))[one["status"]], one["text"]


def power(section: Mapping) -> str:
    """What this many rows and targets can tell from guessing, and what it would take to see a small leak."""
    lines = []
    for row in section["power"]:
        is_auc = row["metric"] == "auc"
        show = (lambda v: f"{v:.3f}") if is_auc else lambda v: tables.percent(v) + "%"
        name = "AUC" if is_auc else f"TPR at {tables.rate_name(row['guess'])} FPR"
        smallest = tables.UNRESOLVED if row["smallest"] is None else show(row["smallest"]) + ("†" if row["pooled"] else "")
        enough = row["smallest"] is not None and row["smallest"] <= row["goal"]
        lines.append([name, show(row["guess"]), smallest, show(row["goal"]), "this study does" if enough else more(row)])
    text = "What a study of this size can tell from guessing (with 80% probability, by an interval as above), and what a small leak would take:\n\n"
    text += tables.markdown(["", "guessing", "smallest it can tell", "a small leak", "would be seen with"], lines, code_first=False, align="left")
    return text + lone(section["records"])


def lone(one: Mapping) -> str:
    """Whether one exposed record among all would be seen."""
    if one["p_smallest"] <= one["p_needed"]:
        return f"\nA single exposed record would be seen: {one['targets']} targets allow p = {one['p_smallest']:.1g}.\n"
    wanted = f"it takes {one['targets_needed']:,} targets" if one["targets_needed"] else "no number of targets is enough"
    count = f"{one['targets']} target{'s' * (one['targets'] != 1)}"
    return f"\nA single exposed record would not be seen among all with {count} ({wanted}); many at once may be.\n"


def more(row: Mapping) -> str:
    """'124 independent targets (now 32) or 3,131 members a target (now 808)'."""
    parts = []
    if row["units_needed"]:
        parts.append(f"{row['units_needed']:,} independent targets (now {row['units']:,})")
    if row["rows_needed"]:
        parts.append(f"{row['rows_needed']:,} members and non-members a target (now {row['rows']:,})")
    return " or ".join(parts) or "no study of this kind"
