"""`Results`: what an audit returns, with its numbers, tables, figures and files."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from mia_jax import checks
from mia_jax.measures import verdict
from mia_jax.metrics import bootstrap
from mia_jax.report import answer, files, tables
from mia_jax.report import figures as drawing
from mia_jax.runtime import files as workdir
from mia_jax.runtime.store import SavedResults

COLUMNS = ("auc", "tpr@0.01", "tpr@0.001", "advantage", "balanced_accuracy")


class Results:
    """What an audit found: `table` (rows as in report.json), `scores[attack]` {score_TN, models},
    `evidence` (who was a member, what was scored, of each target), `report`, `markdown`, `records`
    (records.csv: how exposed every record is, as text).
    """

    def __init__(
        self,
        report: dict,
        scores: Mapping[str, Mapping[str, np.ndarray]],
        pictures: Mapping[str, bytes] = {},
        markdown: str = "",
        evidence: Mapping[str, np.ndarray] = {},
        records: str = "",
    ):
        self.report, self.scores, self.pictures, self.markdown, self.evidence = (
            report,
            dict(scores),
            dict(pictures),
            markdown,
            dict(evidence),
        )
        self.records = records

    @property
    def table(self) -> list[dict]:
        """Returns all rows."""
        return self.report["results"]

    def row(self, attack: str, metric: str, target=None, slice: str = "all") -> dict:
        """Returns one row; KeyError that lists the attacks if there is none."""
        for row in self.table:
            if (row["attack"], row["metric"], row["target"], row["slice"]) == (
                attack,
                metric,
                target,
                slice,
            ):
                return row
        attacks = sorted({r["attack"] for r in self.table})
        raise KeyError(
            f"no row of attack {attack!r}, metric {metric!r}, target {target!r}, slice {slice!r}; "
            f"attacks: {', '.join(attacks)}"
        )

    def value(self, attack: str, metric: str, target=None, slice: str = "all"):
        """Returns the value of one row."""
        return self.row(attack, metric, target, slice)["value"]

    def summary(self, by_slice: bool = False) -> str:
        """Returns the verdict in the first line (or the failed check that takes its place), then
        how many checks passed, then a table of the attacks in the report's order, those that know
        more than a real attacker last; by_slice=True has a line per slice. The columns are keys of
        `value`.
        """
        rows = [
            r
            for r in self.table
            if r["target"] is None and r["metric"] in COLUMNS and (by_slice or r["slice"] == "all")
        ]
        knows = {r["attack"]: r["knows"] for r in rows}
        cells: dict[tuple[str, str], dict[str, float | None]] = {}
        for row in rows:
            cells.setdefault((row["attack"], row["slice"]), {})[row["metric"]] = row["value"]
        order = {
            name: i
            for i, name in enumerate(name for part in verdict.order(self.report) for name in part)
        }
        place = lambda key: (key[1] != "all", key[1], order.get(key[0], len(order)))  # noqa: E731
        number = lambda value: f"{'–' if value is None else format(value, '.4f'):>18}"  # noqa: E731
        label = {key: tables.shown(f"{key[0]} [{key[1]}]") for key in cells}
        width = max(map(len, (*label.values(), "attack [slice]")))
        head = f"{'attack [slice]':<{width}}" + "".join(f"{c:>18}" for c in COLUMNS) + "  knows"
        body = (
            f"{label[key]:<{width}}"
            + "".join(number(cells[key].get(c)) for c in COLUMNS)
            + f"  {knows[key[0]]}"
            for key in sorted(cells, key=place)
        )
        return "\n".join([*answer.lines(self.report), "", head, *body])

    __repr__ = summary

    def plot(self, name: str = "roc", *, folder: str | pathlib.Path | None = None):
        """Returns the matplotlib Figure 'roc' (log-log, with bands) or 'scores' (histograms), shown
        by a notebook as it is.

        With a `folder`: writes every figure there as PNG and returns their paths.
        """
        scored = {attack: dict(score_TN=self.target_scores(attack)) for attack in self.scores}
        member_TN, evaluated_TN = self.evidence["member_TN"], self.evidence["evaluated_TN"]
        count, seed = int(self.evidence["draws"]), self.report["about"]["seed"]
        draws = bootstrap.make(member_TN.shape[1], self.evidence["unit_T"], draws=count, seed=seed)
        made = files.drawn(
            self.report,
            attacks=scored,
            draws=draws,
            member_TN=member_TN,
            evaluated_TN=evaluated_TN,
        )
        if folder is None:
            checks.one_of(made, name=name)
            return made[name]
        paths = {n: pathlib.Path(folder).expanduser() / f"{n}.png" for n in made}
        for n, path in paths.items():
            drawing.save(made[n], path)
        return list(paths.values())

    def target_scores(self, attack: str) -> np.ndarray:
        """Returns score_TN of an attack, higher = more likely a member, NaN where an example is not
        scored; row t is model evidence['targets'][t].
        """
        checks.one_of(self.scores, attack=attack)
        models = self.scores[attack]["models"].tolist()
        return self.scores[attack]["score_TN"][[models.index(t) for t in self.evidence["targets"]]]

    def save(self, folder: str | pathlib.Path) -> None:
        """report.json, report.md, records.csv, evidence.npz, scores/<attack>.npz and figures/ in a
        folder that must not hold another audit.
        """
        folder = pathlib.Path(folder).expanduser()
        saved = SavedResults(folder)
        if saved.report.json.exists():
            raise ValueError(
                f"{folder} holds an audit already; nothing is overwritten. Choose another folder."
            )
        for name, arrays in self.scores.items():
            workdir.write_npz(saved.scores(name), None, **arrays)
        workdir.write_npz(saved.evidence, None, **self.evidence)
        for name, content in self.pictures.items():
            workdir.write(
                saved.report.figure(pathlib.Path(name).stem),
                lambda file, content=content: file.write(content),
            )
        workdir.write_text(saved.report.markdown, self.markdown)
        workdir.write_text(saved.report.records, self.records)
        workdir.write_json(saved.report.json, self.report)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Results:
        """Returns what `save` wrote."""
        folder = pathlib.Path(folder).expanduser()
        saved = SavedResults(folder)
        if not saved.report.json.exists():
            raise FileNotFoundError(f"{folder} holds no audit (no report.json).")
        scores = {p.stem: workdir.read_npz(p) for p in saved.all_scores()}
        pictures = {p.name: p.read_bytes() for p in saved.report.figures()}
        evidence = workdir.read_npz(saved.evidence)
        text, records = (
            p.read_text(encoding="utf-8") if p.exists() else ""
            for p in (saved.report.markdown, saved.report.records)
        )
        return cls(workdir.read_json(saved.report.json), scores, pictures, text, evidence, records)
