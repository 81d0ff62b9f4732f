"""The variants of a grid side by side: table.csv, table.md and a figure of chosen metrics of chosen
attacks.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from mia_jax.measures import epochs
from mia_jax.metrics import rows as result_rows
from mia_jax.report import figures, rendering, tables
from mia_jax.report.sections.epochs import title
from mia_jax.runtime import files
from mia_jax.runtime.store import GridFiles

SIDES = ("train_accuracy", "validation_accuracy")
KEPT = ("value", "low", "high", "interval", "method", "convention", "n_targets", "knows")


def accuracy(report: Mapping, side: str) -> list[float]:
    """Returns a report's accuracies of its targets on one side.

    [] where it has none (a regression, several seeds together).
    """
    return [
        row[side]
        for row in report.get("models", ())
        if row.get("target", True) and row.get(side) is not None
    ]


def rows(
    reports: Mapping[str, Mapping], *, attacks: Sequence[str], metrics: Sequence[str]
) -> list[dict]:
    """Returns one row per run, attack and metric, with accuracies (means over targets).

    `value` and its interval are null where a run has no such number.
    """
    found = []
    for member, report in reports.items():
        sides = {
            side: (sum(a) / len(a) if (a := accuracy(report, side)) else None) for side in SIDES
        }
        for attack in attacks:
            for metric in metrics:
                row = result_rows.resolved(report["results"], attack, metric) or {}
                target = "pooled" if row.get("target") == "pooled" else ""
                found.append(
                    dict(member=member, **sides, attack=attack, metric=metric, target=target)
                    | {k: row.get(k) for k in KEPT}
                )
    return found


def markdown(
    reports: Mapping[str, Mapping],
    *,
    failed: Mapping[str, str],
    attacks: Sequence[str],
    metrics: Sequence[str],
) -> str:
    """Writes the table for people: a line per variant; what failed is named below it."""
    columns = [f"{tables.plain(a)} {tables.metric_name(m)}" for a in attacks for m in metrics]
    header = ["variant", "train accuracy", "validation accuracy", *columns]
    lines = []
    for member, report in reports.items():
        cells = [
            tables.number(result_rows.resolved(report["results"], a, m))
            for a in attacks
            for m in metrics
        ]
        lines.append(
            [member, *(tables.statistic(accuracy(report, side)) for side in SIDES), *cells]
        )
    lines += [[member, "failed", *[tables.ABSENT] * (len(header) - 2)] for member in failed]
    reasons = {name: " ".join(why.split()) for name, why in failed.items()}
    return rendering.render("variants", header=header, lines=lines, failed=reasons)


def write(
    reports: Mapping[str, Mapping],
    *,
    failed: Mapping[str, str],
    attacks: Sequence[str],
    metrics: Sequence[str],
    folder: pathlib.Path,
) -> None:
    """Writes table.csv, table.md and table.png to `folder`.

    table.csv is long: a line per run, attack and metric; table.md is wide; table.png shows value
    and interval of every run.

    Runs with attacks over epochs are drawn together in epochs.png.
    """
    reports = {name: report for name, report in reports.items() if report}
    found = rows(reports, attacks=attacks, metrics=metrics)
    files.write_text(GridFiles(folder).table("csv"), tables.lines_csv(found))
    files.write_text(
        GridFiles(folder).table("md"),
        markdown(reports, failed=failed, attacks=attacks, metrics=metrics),
    )
    if any(row["value"] is not None for row in found):
        figures.save(figures.members(found), GridFiles(folder).table("png"))
    over = {name: report["epochs"] for name, report in reports.items() if report.get("epochs")}
    if over:
        curves = {
            k: v
            for name, one in over.items()
            for k, v in epochs.curves(one, prefix=f"{name} ").items()
        }
        common = [
            m
            for m in next(iter(over.values()))["metrics"]
            if all(m in one["metrics"] for one in over.values())
        ]
        figures.save(
            figures.epochs(curves, titles={m: title(m) for m in common}), GridFiles(folder).epochs
        )
