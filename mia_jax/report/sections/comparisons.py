"""The leading attack minus every other attack, with the intervals of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import rendering, tables

ORDER = 80
NEEDS = ("comparisons", "verdict", "results")


def text(*, comparisons: Sequence[Mapping], verdict: Mapping, results: Sequence[Mapping]) -> str:
    """Writes a line per other attack: differences in AUC, the main TPR and balanced accuracy."""
    ranked = verdict["ranked"]
    rows = [row for row in comparisons if ranked and row["attack"] == ranked[0]]
    if not rows:
        return ""
    metrics = list(dict.fromkeys(("auc", result_rows.sort_metric(result_rows.main_rows(results)))))
    if any(row["metric"] == "balanced_accuracy" for row in rows):
        metrics.append("balanced_accuracy")

    def cell(other: str, metric: str) -> str:
        same = {
            row["target"]: row for row in rows if (row["versus"], row["metric"]) == (other, metric)
        }
        return difference(same.get(None, same.get("pooled")))

    others = dict.fromkeys(row["versus"] for row in rows)
    return rendering.render(
        "comparisons",
        first=ranked[0],
        level=f"{100 * verdict['level']:g}%",
        header=["difference", *map(tables.metric_name, metrics)],
        lines=[
            [f"{ranked[0]} − {other}", *(cell(other, metric) for metric in metrics)]
            for other in others
        ],
    )


def difference(row: Mapping | None) -> str:
    """Writes '+0.120 [+0.101, +0.139]', of rates in points; bold where the interval excludes 0."""
    if row is None:
        return tables.ABSENT
    auc = row["metric"] == "auc"
    show, unit = ((lambda value: f"{value:.3f}") if auc else tables.percent), "" if auc else " pp"
    value, low, high = (tables.signed(row[key], show) for key in ("value", "low", "high"))
    text = f"{value}{unit} [{low}, {high}]"
    text = f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text
    return text + ("†" if row["target"] == "pooled" else "")
