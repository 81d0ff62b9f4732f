"""The estimated share of the rows that was trained on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from mia_jax.report import rendering

ORDER = 170
NEEDS = ("usage",)


def text(*, usage: Mapping, design: Mapping = {}) -> str:
    """Writes the estimate of the first target, and how close the estimates of all targets are."""
    if "why" in usage:
        return rendering.render("usage_missing", attack=usage["attack"], why=usage["why"])
    rows = usage["rows"]
    audited = design.get("targets", len(rows))
    known = [row for row in rows if row["share"] is not None]
    errors = [abs(row["share"] - row["true_share"]) for row in known]
    return rendering.render(
        "usage",
        attack=usage["attack"],
        first=rows[0],
        targets=len(rows),
        audited=audited if isinstance(audited, int) else len(audited),
        known=len(known),
        error=statistics.fmean(errors) if errors else None,
        level=f"{100 * usage['level']:g}%",
        covering=sum(row["low"] <= row["true_share"] <= row["high"] for row in known),
    )
