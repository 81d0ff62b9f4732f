"""How much more shadow models help an attack."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.measures.shadow_curve import DRAWS
from mia_jax.report import figures, rendering, tables

ORDER = 100
NEEDS = ("shadow_curves",)


def text(*, shadow_curves: Mapping, attacks: Mapping[str, Mapping] = {}) -> str:
    """Writes a line per attack and number of shadow models; '' without such a curve."""
    lines = [
        [name, str(shadows), *(cell(point, metric) for metric in ("auc", "tpr"))]
        for name, points in shadow_curves.items()
        for shadows, point in sorted(points.items(), key=lambda item: int(item[0]))
    ]
    if not lines:
        return ""
    own_variance = [
        name for name in shadow_curves if attacks.get(name, {}).get("variance") == "per_example"
    ]
    every = [point for points in shadow_curves.values() for point in points.values()]
    return rendering.render(
        "shadows",
        lines=lines,
        draws=DRAWS,
        own_variance=own_variance,
        records=max(point.get("records", 0) for point in every),
    )


def cell(point: Mapping, metric: str) -> str:
    """Writes a value of a point of the curve with its interval."""
    name = "auc" if metric == "auc" else "tpr@0.01"
    ends = {end: point[f"{metric}_{end}"] for end in ("low", "high")}
    return tables.number(dict(metric=name, value=point[metric], target=None, method="") | ends)


def figure(*, shadow_curves: Mapping):
    """Draws AUC and TPR at 1% FPR against the number of shadow models; None without a curve."""
    return (
        figures.shadows(shadow_curves, over="mean over targets")
        if any(shadow_curves.values())
        else None
    )
