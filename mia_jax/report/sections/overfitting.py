"""How much each target overfits, beside how much it leaks."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from mia_jax.measures.overfitting import UNITS
from mia_jax.report import figures, rendering, tables

ORDER = 125
NEEDS = ("overfitting",)
TITLE = "Overfitting and leakage"
MOST = 8  # lines of the table of report.md; those with the largest gap


def text(*, overfitting: Mapping) -> str:
    """Writes the correlations of gap and leakage, and the targets with the largest gap."""
    return _rendered(overfitting, most=MOST)


def html(*, overfitting: Mapping) -> Markup:
    """Writes the place of the scatter, the correlations and the table of all targets."""
    targets = overfitting["targets"]
    written = _rendered(overfitting, most=len(targets))
    return rendering.render_html(
        "overfitting", body=rendering.as_html(written)[1], several=len(targets) > 1
    )


def figure(*, overfitting: Mapping, design: Mapping = {}):
    """Draws the leakage of each target against its gap; None for one target."""
    if len(overfitting["targets"]) < 2:
        return None
    return figures.overfitting(overfitting, over=f"{len(overfitting['targets'])} targets")


def _rendered(overfitting: Mapping, *, most: int) -> str:
    targets, kind = overfitting["targets"], overfitting["quality"]
    listed = sorted(targets, key=lambda point: -point["gap"])[:most]
    numbers = [
        (name, metric) for name in overfitting["attacks"] for metric in overfitting["metrics"]
    ]
    header = ["target", f"{kind} on members", f"{kind} on non-members", "gap"]
    header += [f"{tables.plain(name)} {tables.metric_name(metric)}" for name, metric in numbers]
    lines = [
        [
            str(point["model"]),
            *(quality(point[side], kind) for side in ("train", "validation")),
            quality(point["gap"], kind, gap=True),
            *(cell(point["attacks"][name][metric], metric) for name, metric in numbers),
        ]
        for point in listed
    ]
    return rendering.render(
        "overfitting",
        header=header,
        lines=lines,
        count=len(targets),
        units=overfitting["units"],
        needed=UNITS,
        kind=kind,
        correlations=[
            dict(
                row,
                value=f"{round(row['value'], 2) + 0.0:.2f}",
                interval=None if row["low"] is None else f"[{row['low']:.2f}, {row['high']:.2f}]",
            )
            for row in overfitting["correlations"]
        ],
    )


def quality(value: float, kind: str, *, gap: bool = False) -> str:
    """Writes an accuracy in percent, a gap of two in percentage points, or a loss.

    >>> quality(0.9, "accuracy"), quality(0.1, "accuracy", gap=True), quality(0.25, "loss")
    ('90.0%', '10.0 pp', '0.25')
    """
    if kind != "accuracy":
        return f"{value:.3g}"
    return f"{tables.percent(value)}{' pp' if gap else '%'}"


def cell(number: Mapping, metric: str) -> str:
    """Writes the number of an attack on one target, with its interval if it has one."""
    return tables.number(dict(number, metric=metric, target=None, method=""))
