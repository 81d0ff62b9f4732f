"""Writes the report of several seeds of one config: each answer, and mean and sd of every number.

measures/seeds.py computes the numbers.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from mia_jax.measures import seeds
from mia_jax.report import answer, html, page, source, tables
from mia_jax.runtime import files
from mia_jax.runtime.store import ReportFiles


def summary(reports: Mapping[int, Mapping]) -> dict:
    """Returns the report of several seeds: {about, seeds, answers, verdict, results,
    versions}.

    `answers` is {seed: its answer in one line}; `results` are the rows of `measures.seeds.rows`,
    and `verdict` is the ranking of `measures.seeds.decided`.

    Args:
        reports: report.json of every seed.
    """
    first = next(iter(reports.values()))
    return dict(
        about=dict(first["about"], seed=list(reports)),
        seeds=list(reports),
        answers={str(seed): answer.line(report) for seed, report in reports.items()},
        verdict=seeds.decided(list(reports.values())),
        results=seeds.rows([report["results"] for report in reports.values()]),
        versions=first["versions"],
    )


def write(report: Mapping, *, folder: pathlib.Path) -> None:
    """Writes report.json, results.csv, report.html and report.md of several seeds."""
    source.write(ReportFiles(folder).json, report)
    files.write_text(ReportFiles(folder).results, tables.to_csv(report["results"]))
    files.write_text(ReportFiles(folder).html, html.seeds(report))
    files.write_text(ReportFiles(folder).markdown, page.seeds(report))
