"""The query cost of label-only attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, rendering, tables

ORDER = 110
NEEDS = ("queries", "results")


def text(*, queries: Mapping[str, Sequence[Mapping]], results: Sequence[Mapping]) -> str:
    """Writes the first, a middle and the last point of every curve, the cheapest attack first."""
    lines = []
    for name in sorted(queries, key=lambda name: queries[name][-1]["queries"]):
        points = queries[name]
        for i in sorted({0, len(points) // 2, len(points) - 1}):
            lines.append(
                [
                    name,
                    f"{points[i]['queries']:,.1f}",
                    cell(points[i], "accuracy"),
                    cell(points[i], "tpr"),
                ]
            )
    metric = result_rows.sort_metric(result_rows.main_rows(results))
    name = tables.metric_name(metric) if "@" in metric else "TPR"
    return rendering.render(
        "queries",
        header=["attack", "queries per example", "balanced accuracy", name],
        lines=lines,
        parts=any(len(points) > 1 for points in queries.values()),
    )


def cell(point: Mapping, key: str) -> str:
    """Writes a rate of a point with its interval."""
    if point[key] is None:
        return tables.ABSENT
    low, high = point[f"{key}_low"], point[f"{key}_high"]
    return f"{tables.percent(point[key])}%" + (
        "" if low is None else f" [{tables.percent(low)}, {tables.percent(high)}]"
    )


def figure(*, queries: Mapping[str, Sequence[Mapping]], design: Mapping = {}):
    """Draws accuracy and TPR against queries; None where no attack has more than one point."""
    if not any(len(points) > 1 for points in queries.values()):
        return None
    return figures.queries(queries, over=figures.targets_text(len(design.get("targets", ()))))
