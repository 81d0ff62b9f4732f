"""How much of the data was trained on, estimated from an attack's answers, and a section of report.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import dataset_usage
from mia_jax.report import tables
from mia_jax.types import Design

TARGETS = 16  # estimates are looked at for the first targets


def measure(score_MN: np.ndarray, *, attack: str, design: Design, threshold_T: np.ndarray, level: float) -> dict | None:
    """{attack, level, rows: [dataset_usage.table]} for the first targets; {attack, why} where rates cannot be had; None without thresholds."""
    if threshold_T is None or np.isnan(threshold_T).any() or not design.shadow_MM[list(design.targets)].any():
        return None
    targets = list(design.targets)[:TARGETS]
    fields = dict(targets=targets, threshold_M=dict(zip(design.targets, map(float, threshold_T), strict=True)), unit_M=design.unit_M, level=level)
    try:
        rows = dataset_usage.table(score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM, **fields)
    except ValueError as error:
        return dict(attack=attack, why=str(error))
    return dict(attack=attack, level=level, rows=rows)


def section(found: Mapping) -> str:
    """The estimate of the first target, and how often and how closely the targets' true shares were met."""
    one = found.get("usage")
    if not one:
        return ""
    text = "## How much of the data was used?\n\n"
    if "why" in one:
        return text + f"Not estimated from {tables.code(one['attack'])}: {one['why']}\n"
    rows: Sequence[Mapping] = one["rows"]
    first = rows[0]
    text += _estimate(first, attack=tables.code(one["attack"]))
    known = [row for row in rows if row["share"] is not None]
    if len(rows) > 1 and known:
        error = statistics.fmean(abs(row["share"] - row["true_share"]) for row in known)
        held = sum(row["low"] <= row["true_share"] <= row["high"] for row in known)
        text += f" Over {len(known)} of {len(rows)} targets with an estimate: mean absolute error {tables.percent(error)} points; {held} "
        text += f"intervals ({100 * one['level']:g}%) contain the true share."
    kind = "the spread between shadows" if first["method"] == "shadows" else "independent rows (too short if rows depend on each other)"
    return text + f" Intervals: {kind}.\n"


def _estimate(row: Mapping, *, attack: str) -> str:
    """The estimate of one target as a sentence; says so where there is none or where it may be any share."""
    which = f"rows used to train model {row['target']} (true: {tables.percent(row['true_share'])}% of {row['rows']:,} rows)"
    if row["share"] is None:
        return (
            f"No share of the {which}: what {attack} flags at its threshold fits no share between 0% and 100%, so the target does not behave like "
            "its shadow models."
        )
    low, high = (tables.percent(row[k]) for k in ("low", "high"))
    if row["low"] == 0 and row["high"] == 1:
        return f"{attack} reveals too little to estimate the share of the {which}: the interval is 0% to 100%."
    return f"Estimated share of the {which}, from how many rows {attack} flags at its threshold: {tables.percent(row['share'])}% [{low}, {high}]."
