"""Writes the variants of a grid side by side: table.csv, table.md and figures.

measures/variants.py collects the numbers.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from mia_jax.measures import epochs, variants
from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, rendering, tables
from mia_jax.report.sections.epochs import title
from mia_jax.runtime import files
from mia_jax.runtime.store import GridFiles


def markdown(
    reports: Mapping[str, Mapping],
    *,
    failed: Mapping[str, str],
    attacks: Sequence[str],
    metrics: Sequence[str],
) -> str:
    """Writes the table for people: a line per variant, and below it why variants failed.

    Args:
        reports: {variant: report.json}.
        failed: {variant: reason}.
        attacks, metrics: the columns, one per pair.
    """
    columns = [f"{tables.plain(a)} {tables.metric_name(m)}" for a in attacks for m in metrics]
    header = ["variant", "train accuracy", "validation accuracy", *columns]
    lines = []
    for variant, report in reports.items():
        cells = [
            tables.number(result_rows.resolved(report["results"], attack, metric))
            for attack in attacks
            for metric in metrics
        ]
        accuracies = [tables.statistic(variants.accuracy(report, side)) for side in variants.SIDES]
        lines.append([variant, *accuracies, *cells])
    lines += [[variant, "failed", *[tables.ABSENT] * (len(header) - 2)] for variant in failed]
    reasons = {variant: " ".join(why.split()) for variant, why in failed.items()}
    return rendering.render("variants", header=header, lines=lines, failed=reasons)


def write(
    reports: Mapping[str, Mapping],
    *,
    failed: Mapping[str, str],
    attacks: Sequence[str],
    metrics: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Writes table.csv, table.md and table.png to `folder`, and epochs.png where there are epochs.

    table.csv is long: a line per variant, attack and metric; table.md is wide; table.png shows
    value and interval of every variant. Variants with attacks over epochs share epochs.png.
    """
    reports = {name: report for name, report in reports.items() if report}
    rows = variants.rows(reports, attacks=attacks, metrics=metrics)
    files.write_text(GridFiles(folder).table("csv"), tables.lines_csv(rows))
    files.write_text(
        GridFiles(folder).table("md"),
        markdown(reports, failed=failed, attacks=attacks, metrics=metrics),
    )
    if any(row["value"] is not None for row in rows):
        figures.save(figures.variants(rows), GridFiles(folder).table("png"))
    over_epochs = {
        name: report["epochs"] for name, report in reports.items() if report.get("epochs")
    }
    if over_epochs:
        figures.save(epochs_figure(over_epochs), GridFiles(folder).epochs)


def epochs_figure(over_epochs: Mapping[str, Mapping]):
    """Draws the metrics that all variants have over their epochs, a line per variant and attack."""
    curves: dict[str, list[dict]] = {}
    for name, section in over_epochs.items():
        curves |= epochs.curves(section, prefix=f"{name} ")
    first = next(iter(over_epochs.values()))
    common = [
        metric
        for metric in first["metrics"]
        if all(metric in section["metrics"] for section in over_epochs.values())
    ]
    return figures.epochs(curves, titles={metric: title(metric) for metric in common})
