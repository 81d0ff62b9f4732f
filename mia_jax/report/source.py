"""Reads the report.json that pages, gates and comparisons are made from, and the scores beside it;
loads no drawing library.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mia_jax.measures import comparison, two_audits
from mia_jax.report import trust
from mia_jax.runtime import files
from mia_jax.runtime.store import (
    SavedResults,
    report_json,
    reports_below,
    run_parts,
    workdir_of,
)


def read(path: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Returns the path and the content of a report.json.

    Args:
        path: report.json, the folder of it or of saved Results, or the workdir of a finished run.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: the file is damaged or is no report.
    """
    file = report_json(pathlib.Path(path).expanduser())
    remedy = "Name the report.json of a finished run."
    return file, files.read_json(file, needs=dict(results=list), remedy=remedy)


class Scores(Mapping[str, np.ndarray]):
    """Holds the scores of attacks, read from their files when they are asked for.

    Args:
        paths: {attack: the file of its scores}.
        targets: the models whose scores are read.
    """

    def __init__(self, paths: Mapping[str, pathlib.Path], targets: Sequence[int]):
        self.paths, self.targets = dict(paths), list(targets)

    def __getitem__(self, attack: str) -> np.ndarray:
        """Returns score_TN of an attack."""
        scored = files.read_npz(self.paths[attack])
        models = scored["models"].tolist()
        return scored["score_TN"][[models.index(t) for t in self.targets]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def audit(file: pathlib.Path, report: Mapping) -> two_audits.Audit:
    """Returns an audit with the scores that are saved with its report.json.

    Scores are in the workdir of the report or beside it, as `Results.save` writes them. Those of a
    fleet that has grown since the report was written are not its scores.

    Args:
        file: the path of report.json.
        report: its content.
    """
    saved, store = SavedResults(file.parent), workdir_of(file)
    design = report.get("design") or {}
    attacks = dict.fromkeys(row["attack"] for row in report["results"])
    evidence: dict[str, np.ndarray] = {}
    paths: dict[str, pathlib.Path] = {}
    if store is not None and store.membership.exists() and design.get("targets"):
        membership = files.read_npz(store.membership)
        if len(membership["member_MN"]) == design["models"]:
            evidence = two_audits.evidence_of(
                membership,
                targets=design["targets"],
                draws=files.read_json(store.config)["report"]["draws"],
            )
            paths = {name: store.attack(name).scores for name in attacks}
    elif saved.evidence.exists():
        evidence = files.read_npz(saved.evidence)
        paths = {name: saved.scores(name) for name in attacks}
    paths = {name: path for name, path in paths.items() if path.exists()}
    return two_audits.Audit(report, evidence, Scores(paths, evidence.get("targets", ())))


def runs(paths: Sequence[str | pathlib.Path]) -> tuple[list[comparison.Run], list[str]]:
    """Reads the audits that are compared.

    Args:
        paths: what `read` takes, or the folder of a grid, which stands for its runs.

    Returns:
        The audits, each with the shortest end of its path that no other one has as its name, and
        notes about runs of a grid that have no report.

    Raises:
        FileNotFoundError: a path has no report.
        ValueError: fewer than two reports, the same report twice, one over several seeds, or a
            damaged one.
    """
    listed: dict[pathlib.Path, str] = {}
    notes = []
    for path in paths:
        there, without = reports_below(pathlib.Path(path).expanduser())
        for file in there:
            if file.resolve() in listed:
                raise ValueError(
                    f"{path} and {listed[file.resolve()]} are the same report, {file}; name every "
                    "report once."
                )
            listed[file.resolve()] = str(path)
        notes += [f"{path}: {name} has no report and is left out." for name in without]
    if len(listed) < 2:
        raise ValueError(
            f"{', '.join(map(str, paths)) or 'nothing'} stands for {len(listed)} report"
            f"{'s' * (len(listed) != 1)}; a comparison needs two or more: workdirs, report.json "
            "files, folders of saved Results, or the folder of a grid."
        )
    made = []
    for name, file in zip(names(list(listed)), listed, strict=True):
        _, report = read(file)
        if "seeds" in report:
            raise ValueError(
                f"{file} is a report over several seeds and has no intervals of its own; name the "
                f"folders of single seeds, such as seed-{report['seeds'][0]} in its workdir."
            )
        withheld = "; ".join(check.title for check in trust.failed(report, trust.INVALIDATES))
        made.append(comparison.Run(name, audit(file, report), settings(file), withheld))
    return made, notes


def settings(file: pathlib.Path) -> Mapping[str, Any] | None:
    """Returns the config of the workdir of a report.json; None if it is not in one."""
    store = workdir_of(file)
    return None if store is None else files.read_json(store.config)


def names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns a name for the run of every report.json: the shortest end of its path that no other
    path has.

    >>> ends = ("x/a/report.json", "y/a/report.json", "b/report.json")
    >>> names([pathlib.Path(end) for end in ends])
    ['x/a', 'y/a', 'b']
    """
    parts = [run_parts(path) for path in paths]
    ends = []
    for own in parts:
        for length in range(1, len(own) + 1):
            end = own[-length:]
            if sum(other[-length:] == end for other in parts) == 1:
                break
        ends.append("/".join(end))
    return ends
