"""Several seeds of one config: the mean and standard deviation of every number over the seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from mia_jax.report import answer, page, tables
from mia_jax.runtime import files
from mia_jax.runtime.store import ReportFiles

KEY = ("attack", "target", "slice", "metric")
KEPT = (
    "attack",
    "target",
    "slice",
    "metric",
    "convention",
    "n_member",
    "n_nonmember",
    "n_targets",
    "knows",
)


def summary(reports: Mapping[int, Mapping]) -> dict:
    """Returns the report of several seeds: {about, seeds, answers, results, versions}.

    `answers` is {seed: its answer in one line}. `results` has a row of every attack and metric over
    all targets (null and 'pooled') with value = mean over seeds, sd_over_seeds and n_seeds. A
    number that one seed could not resolve is null. The sd describes the spread between runs; it is
    not an interval.
    """
    first = next(iter(reports.values()))
    known = [
        {tuple(row[k] for k in KEY): row for row in one["results"]} for one in reports.values()
    ]
    found = []
    for row in (r for r in first["results"] if r["target"] in (None, "pooled")):
        same = [one.get(tuple(row[k] for k in KEY)) for one in known]
        values = [None if o is None else o["value"] for o in same]
        mean, sd = (
            (None, None)
            if None in values
            else (float(np.mean(values)), float(np.std(values, ddof=1)))
        )
        own = dict(
            value=mean,
            low=None,
            high=None,
            interval=None,
            method=f"mean over {len(values)} seeds",
            fpr_realized=None,
        )
        found.append({k: row[k] for k in KEPT} | own | dict(sd_over_seeds=sd, n_seeds=len(values)))
    answers = {str(seed): answer.line(one) for seed, one in reports.items()}
    return dict(
        about=dict(first["about"], seed=list(reports)),
        seeds=list(reports),
        answers=answers,
        results=found,
        versions=first["versions"],
    )


def write(found: Mapping, *, folder: pathlib.Path) -> None:
    """Writes report.json, results.csv and report.md."""
    files.write_json(ReportFiles(folder).json, found)
    files.write_text(ReportFiles(folder).results, tables.to_csv(found["results"]))
    files.write_text(ReportFiles(folder).markdown, page.seeds(found))
