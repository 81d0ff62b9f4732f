"""Reads and writes the report.json that pages, gates and comparisons are made from, and reads the
scores beside it; loads no drawing library.

In the file, the rows of TABLES are packed (`packed`), and `schema` is the number of its form; in
memory a report has neither: its tables are lists of rows. So whoever reads the file by `read` or
`load` sees the same whatever version wrote it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mia_jax.measures import comparison, two_audits
from mia_jax.report import packed, trust
from mia_jax.runtime import files, sealed
from mia_jax.runtime.store import (
    SavedResults,
    report_json,
    reports_below,
    run_parts,
    workdir_of,
)

SCHEMA = 2  # of the file; the first form had no number and kept its rows as objects
TABLES = ("results", "comparisons")  # sections of many rows


def read(path: str | pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Returns the path and the content of a report.json.

    Args:
        path: report.json, the folder of it or of saved Results, or the workdir of a finished run.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: the file is damaged, is no report, or is one of a newer version.
    """
    file = report_json(pathlib.Path(path).expanduser())
    return file, load(file, remedy="Name the report.json of a finished run.")


def load(file: pathlib.Path, *, remedy: str = files.RECOMPUTE) -> dict[str, Any]:
    """Returns the content of a report.json of this version or an older one.

    Args:
        file: the file.
        remedy: what the message of an error tells the user to do.

    Raises:
        ValueError: the file is damaged, is no report, or is one of a newer version.
    """
    report = files.read_json(file, needs=dict(results=(list, dict)), remedy=remedy)
    schema = report.pop("schema", 1)
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise ValueError(
            f"{file} has schema={schema!r}; this version of mia_jax reads 1 to {SCHEMA}. Read it "
            "with the version that wrote it (versions in the file), or open the report.html or "
            "report.md next to it."
        )
    for name in TABLES:
        if isinstance(report.get(name), dict):
            try:
                report[name] = packed.unpack(report[name])
            except ValueError as error:
                raise ValueError(files.damaged(file, error, remedy=remedy)) from error
    return report


def write(file: pathlib.Path, report: Mapping[str, Any]) -> None:
    """Writes a report.json atomically; `load` returns the same content."""
    files.write_text(file, text(report))


def text(report: Mapping[str, Any]) -> str:
    """Returns the text of a report.json: a section on each line, and a packed row on each line."""
    tables = {name: packed.pack(report[name]) for name in TABLES if report.get(name)}
    sections = {"schema": SCHEMA, **report, **tables}
    lines = [
        f"{_json(name)}: {_table(part) if name in tables else _json(part)}"
        for name, part in sections.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _table(table: Mapping[str, Any]) -> str:
    rows = ",\n".join(map(_json, table["rows"]))
    kinds, texts = _json(table["kinds"]), _json(table["texts"])
    return f'{{"kinds": {kinds},\n"texts": {texts},\n"rows": [\n{rows}\n]}}'


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, default=sealed.plain, separators=(",", ":"))


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


def saved_scores(file: pathlib.Path, report: Mapping) -> tuple[dict[str, np.ndarray], Scores]:
    """Returns the evidence of an audit (`two_audits.Audit`) and its scores, as far as they are
    saved with its report.json.

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
    return evidence, Scores(paths, [int(t) for t in evidence.get("targets", ())])


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
    every = zip(names(list(listed)), listed, strict=True)
    return [run(file, name=name) for name, file in every], notes


def run(path: str | pathlib.Path, *, name: str) -> comparison.Run:
    """Reads one audit.

    Args:
        path: what `read` takes.
        name: what it is called.

    Raises:
        FileNotFoundError: there is no report.
        ValueError: it is one over several seeds, or damaged.
    """
    file, report = read(path)
    if "seeds" in report:
        raise ValueError(
            f"{file} is a report over several seeds and has no intervals of its own; name the "
            f"folders of single seeds, such as seed-{report['seeds'][0]} in its workdir."
        )
    withheld = "; ".join(check.title for check in trust.failed(report, trust.INVALIDATES))
    audit = two_audits.Audit(report, *saved_scores(file, report))
    return comparison.Run(name, audit, settings(file), withheld)


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
