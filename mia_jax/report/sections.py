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
    names = {"auc": "AUC"} | {m: f"TPR@{tables.rate_name(float(m[4:]))}FPR" for m in metrics[1:]}
    if any(row["metric"] == "balanced_accuracy" for row in rows):
        metrics.append("balanced_accuracy")
        names["balanced_accuracy"] = "balanced accuracy"

    def cell(other: str, metric: str) -> str:
        same = {row["target"]: row for row in rows if (row["versus"], row["metric"]) == (other, metric)}
        return difference_cell(same.get(None, same.get("pooled")))

    lines = [[f"{ranked[0]} − {other}", *(cell(other, m) for m in metrics)] for other in dict.fromkeys(row["versus"] for row in rows)]
    text = "## Is it really better?\n\nDifferences and their own intervals, from draws that the attacks share; bold where 0 is excluded.\n\n"
    return text + tables.markdown(["", *names.values()], lines)


def slices(found: Mapping, ranked: Sequence[str]) -> str:
    """The most exposed slices under the best attack."""
    section = found.get("slices") or {}
    best = next((name for name in ranked if section.get("ranking", {}).get(name)), None)
    if best is None:
        return "".join(f"\n{text}\n" for text in section.get("said", ()))
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
    text = f"## Which slices are most exposed\n\nUnder `{best}`, by the lower end of the interval; {leaking} of {len(entries)} slices leak "
    text += f"(AUC above 0.5 at {100 * (1 - level):.3g}% after Holm's correction over these slices)."
    small = section.get("too_small", 0)
    text += f" {small} more {'is' if small == 1 else 'are'} too small to rank." if small else ""
    text += " `*`: made from the target's own answers, after the fact." if any(entry["post_hoc"] for entry in entries[:MOST_SLICES]) else ""
    text += "".join(f" {said}" for said in section.get("said", ()))
    return text + "\n\n" + tables.markdown(["slice", "AUC", "minus all records", "p (Holm)", "records"], lines)


def p_text(p: float) -> str:
    """'0.031', '< 0.001'."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def records(found: Mapping) -> str:
    """Per-record vulnerability: how many records stand out, and what becomes of the most exposed ones among the targets that did not rank them."""
    parts = [of_attack(name, table) for name, table in (found.get("records") or {}).items()]
    return "## Which records are most exposed\n\n" + "\n".join(parts) if parts else ""


def of_attack(name: str, table: Mapping) -> str:
    """The records under one attack."""
    if "why" in table:
        return f"Not measured for `{name}`: {table['why']}.\n"
    text = f"Under `{name}`, from {table['targets']} targets in two folds whose attackers used the shadows of the other fold (all in records.npz): "
    text += f"{table['significant']:,} of {table['tested']:,} records are exposed at a false discovery rate of {100 * (1 - table['level']):.3g}%; "
    text += f"mean AUC of a record {table['mean_auc']:.3f}."
    winner = table["most_exposed"]
    if not winner["records"]:
        return text + "\n"
    bounds = "" if winner["low"] is None else f" [{winner['low']:.3f}, {winner['high']:.3f}]"
    text += f" The {winner['records']} that half of a fold's targets rank highest have a mean AUC of {winner['ranked_auc']:.3f} there and "
    text += f"**{winner['held_out_auc']:.3f}{bounds}** in the other half, which did not choose them.\n\n"
    header = ["record", "AUC where it was ranked", "AUC in the other half", "q (all targets)"]
    lines = [
        [str(e["record"]), f"{e['ranked_auc']:.3f}", f"{e['auc']:.3f} [{e['low']:.3f}, {e['high']:.3f}]", p_text(e["q"])] for e in table["listed"]
    ]
    return text + tables.markdown(header, lines, code_first=False)


def calibration(found: Mapping, ranked: Sequence[str]) -> str:
    """What thresholds that were chosen on shadows for a false-positive rate really do."""
    rows = [r for r in found["results"] if ranked and r["attack"] == ranked[0] and r["target"] is None and r["slice"] == "all"]
    by = {row["metric"]: row for row in rows}
    lines = []
    for fpr in tables.fprs(tables.main_rows(found["results"])):
        tpr, real = by.get(f"tpr_at_shadow@{fpr:g}"), by.get(f"fpr_at_shadow@{fpr:g}")
        if tpr and real and real["value"] is not None:
            verdict = {True: "yes", False: "no", None: "cannot be told"}[real["calibrated"]]
            lines.append([tables.rate_name(fpr), tables.number(real), tables.number(tpr), verdict])
    if not lines:
        return ""
    text = (
        f"## Thresholds chosen on shadows: `{ranked[0]}`\n\nThe threshold that names a share of the shadows' non-members, applied to the targets.\n\n"
    )
    return text + tables.markdown(["wanted FPR", "realized FPR", "TPR", "calibrated?"], lines, code_first=False)
