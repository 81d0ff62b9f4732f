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
    first, known = rows[0], [row for row in rows if row["share"] is not None and row["low"] <= row["share"] <= row["high"]]
    interval = f"[{tables.percent(first['low'])}, {tables.percent(first['high'])}]"
    text += f"Estimated share of the {first['rows']:,} scored rows that were used to train model {first['target']}, from the rates of "
    text += f"{tables.code(one['attack'])} at its threshold: "
    text += f"{tables.percent(first['share'])}% {interval}" if first in known else f"no estimate; the {100 * one['level']:g}% interval is {interval}"
    text += f" (true: {tables.percent(first['true_share'])}%)."
    if len(rows) > 1:
        held = sum(row["low"] <= row["true_share"] <= row["high"] for row in rows)
        text += f" Over {len(rows)} targets: {held} intervals ({100 * one['level']:g}%) include the true share"
        if known:
            error = statistics.fmean(abs(row["share"] - row["true_share"]) for row in known)
            text += f"; {len(known)} estimates are off by {tables.percent(error)} points on average"
        text += "."
    kind = "the spread between shadows" if first["method"] == "shadows" else "independent rows (too short if rows depend on each other)"
    return text + f" Intervals: {kind}.\n"
