"""Sections of report.md beside the headline: differences between attacks, exposed slices and records, thresholds in practice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.report import tables

MOST_SLICES = 8


def signed(value: float, show) -> str:
    """'+1.2' or '-0.3'."""
    return ("+" if value >= 0 else "-") + show(abs(value))


def difference_cell(row: Mapping | None) -> str:
    """'+0.120 [0.101, 0.139]', in bold where the interval excludes 0."""
    if row is None:
        return tables.ABSENT
    show = (lambda v: f"{v:.3f}") if row["metric"] == "auc" else lambda v: tables.percent(v) + "%"
    text = f"{signed(row['value'], show)} [{', '.join(signed(row[k], show) for k in ('low', 'high'))}]"
    text = f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text
    return text + ("†" if row["target"] == "pooled" else "")


def differences(found: Mapping, ranked: Sequence[str]) -> str:
    """The best attack minus every other, with the intervals of the differences."""
    rows = [row for row in found.get("comparisons", ()) if ranked and row["attack"] == ranked[0]]
    if not rows:
        return ""
    by = tables.sort_metric(tables.main_rows(found["results"]))
    metrics = ["auc", by] if by != "auc" else ["auc"]
    if any(row["metric"] == "balanced_accuracy" for row in rows):
        metrics.append("balanced_accuracy")

    def cell(other: str, metric: str) -> str:
        same = {row["target"]: row for row in rows if (row["versus"], row["metric"]) == (other, metric)}
        return difference_cell(same.get(None, same.get("pooled")))

    lines = [[f"{ranked[0]} − {other}", *(cell(other, m) for m in metrics)] for other in dict.fromkeys(row["versus"] for row in rows)]
    text = "## Pairwise comparison\n\nDifferences and their intervals, from draws that the attacks share; bold: the interval excludes 0.\n\n"
    return text + tables.markdown(["", *map(tables.metric_name, metrics)], lines)


def slices(found: Mapping, ranked: Sequence[str]) -> str:
    """The most exposed slices under the best attack."""
    section = found.get("slices") or {}
    best = next((name for name in ranked if section.get("ranking", {}).get(name)), None)
    if best is None:
        return "".join(f"\n{tables.plain(text)}\n" for text in section.get("said", ()))
    entries, level = section["ranking"][best], found.get("about", {}).get("level", 0.95)
    lines = [
        [
            entry["slice"] + ("*" if entry["post_hoc"] else ""),
            f"{entry['auc']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]",
            f"{signed(entry['excess'], '{:.3f}'.format)} [{', '.join(signed(entry[k], '{:.3f}'.format) for k in ('excess_low', 'excess_high'))}]",
            p_text(entry["p_holm"]),
            f"{entry['n_records']:,}",
        ]
        for entry in entries[:MOST_SLICES]
    ]
    leaking = sum(entry["p_holm"] <= 1 - level for entry in entries)
    text = (
        f"## Which slices are most exposed\n\nUnder {tables.code(best)}, by the lower end of the interval; {leaking} of {len(entries)} slices leak "
    )
    text += f"(AUC above 0.5 at {100 * (1 - level):.3g}% after Holm's correction over these slices)."
    text += f" The {MOST_SLICES} most exposed of {len(entries)} are shown; all are in results.csv." if len(entries) > MOST_SLICES else ""
    small = section.get("too_small", 0)
    text += f" {small} more {'is' if small == 1 else 'are'} too small to rank." if small else ""
    text += " `*`: made from the target's own answers, after the fact." if any(entry["post_hoc"] for entry in entries[:MOST_SLICES]) else ""
    text += "".join(f" {tables.plain(said)}" for said in section.get("said", ()))
    return text + "\n\n" + tables.markdown(["slice", "AUC", "minus all records", "p (Holm)", "records"], lines)


def p_text(p: float) -> str:
    """'0.031', '< 0.001'."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def records(found: Mapping) -> str:
    """Per-record vulnerability: which records stand out, and how exposed they are among the targets that did not rank them."""
    parts = [of_attack(name, table, found) for name, table in (found.get("records") or {}).items()]
    return "## Which records are most exposed\n\n" + "\n".join(parts) if parts else ""


def of_attack(name: str, table: Mapping, found: Mapping = {}) -> str:
    """The records under one attack; they are listed only where some are significantly exposed."""
    if "why" in table:
        return f"Not measured for {tables.code(name)}: {tables.plain(table['why'])}.{more_targets(found) if table.get('few') else ''}\n"
    targets, false = table["targets"], 100 * (1 - table["level"])
    under = f"Under {tables.code(name)}, from {targets} targets in two folds whose attackers used the shadow models of the other fold"
    if not table["significant"]:
        text = f"No record can be singled out with {targets} models: under {tables.code(name)}, none of {table['tested']:,} is exposed at a false "
        return text + f"discovery rate of {false:.3g}%. {needed(found)}All records are in records.csv.\n"
    text = (
        under
        + f" (all in records.csv): {table['significant']:,} of {table['tested']:,} records are exposed at a false discovery rate of {false:.3g}%; "
    )
    text += f"mean AUC of a record {table['mean_auc']:.3f}."
    winner = table["most_exposed"]
    if not winner["records"]:
        return text + "\n"
    bounds = "" if winner["low"] is None else f" [{winner['low']:.3f}, {winner['high']:.3f}]"
    text += f" The {winner['records']} records ranked highest on one half of the targets (mean AUC {winner['ranked_auc']:.3f}) have a mean AUC of "
    text += f"**{winner['held_out_auc']:.3f}{bounds}** on the held-out half.\n\n"
    header = ["record", "AUC where it was ranked", "AUC on the held-out half", "q (all targets)"]
    lines = [
        [str(e["record"]), f"{e['ranked_auc']:.3f}", f"{e['auc']:.3f} [{e['low']:.3f}, {e['high']:.3f}]", p_text(e["q"])]
        for e in table["listed"]
        if e["q"] <= 1 - table["level"]
    ]
    return text + (tables.markdown(header, lines, code_first=False) if lines else "")


def more_targets(found: Mapping) -> str:
    """How the caller gets enough targets to look at single records."""
    about = found.get("about", {})
    if about.get("arrays"):
        return (
            " To see single records, bring the shadow models' arrays without the target's: every model is then a target in turn, and 8 independent "
            "ones are enough to measure (complementary pairs count once); to single out one record takes more."
        )
    if about.get("target"):
        return " To see single records, audit a fleet of such models without a target of your own: each of them is then a target in turn."
    return " To see single records, audit more models: raise design.models, and leave design.targets at its default."


def needed(found: Mapping) -> str:
    """What it would take to single out one record."""
    one = (found.get("validity") or {}).get("records")
    if not one:
        return ""
    if one["p_smallest"] <= one["p_needed"]:
        return "One record that is exposed in every model would have been detected. "
    return f"To detect a single exposed record takes {one['targets_needed']:,} target models. " if one["targets_needed"] else ""


def calibration(found: Mapping, ranked: Sequence[str]) -> str:
    """What thresholds that were chosen on shadows for a false-positive rate really do."""
    rows = [r for r in found["results"] if ranked and r["attack"] == ranked[0] and r["target"] is None and r["slice"] == "all"]
    by = {row["metric"]: row for row in rows}
    lines = []
    for fpr in tables.fprs(tables.main_rows(found["results"])):
        tpr, real = by.get(f"tpr_at_shadow@{fpr:g}"), by.get(f"fpr_at_shadow@{fpr:g}")
        if tpr and real and real["value"] is not None:
            verdict = {True: "yes", False: "no", None: "undecided"}[real["calibrated"]]
            lines.append([tables.rate_name(fpr), tables.number(real), tables.number(tpr), verdict])
    if not lines:
        return ""
    text = (
        f"## Thresholds calibrated on shadow models: {tables.code(ranked[0])}\n\nThe threshold that flags a given share of the shadows' non-members, "
        "applied to the targets.\n\n"
    )
    if any(line[-1] == "no" for line in lines):
        text += (
            "Not calibrated: the targets' false-positive rate is significantly different, so an attacker who calibrates on these shadow models errs "
        )
        text += "more or less often than intended, and the shadow models answer otherwise than the target.\n\n"
    return text + tables.markdown(["intended FPR", "realized FPR", "TPR", "calibrated?"], lines, code_first=False)
