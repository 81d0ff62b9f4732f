"""mia_jax.audit(...): arrays in, a Results object out. The same attacks, metrics and report as a run of launch.py."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import brought, checks, configuration, experiment, reporting, workdir
from mia_jax.metrics import bootstrap
from mia_jax.report import answer, files, standing, tables
from mia_jax.report import figures as drawing

COLUMNS = ("auc", "tpr@0.01", "tpr@0.001", "advantage", "balanced_accuracy")


def audit(
    arrays: Mapping[str, np.ndarray] | str | pathlib.Path | None = None,
    *,
    attacks: Mapping | Sequence[str] | str | None = None,
    slices: Sequence[str] | str | None = None,
    groups: Mapping[str, Sequence[int]] = {},
    draws: int = 200,
    figures: bool = False,
    report: Mapping = {},
    seed: int = 0,
    folder: str | pathlib.Path | None = None,
    **more: np.ndarray,
) -> Results:
    """Audits arrays: the keys of mia_jax.brought as keywords (loss=..., labels=..., member=..., shadow_loss=...), a mapping, or an npz file's path.

    `attacks`: names ('lira', 'rmia', any file of mia_jax/attacks), or {name: {'name': ..., field: value}}; None: all quick ones that the arrays
    allow. `slices`: 'class', 'loss', 'correct', 'column:<name>', 'a & b'; `groups` {name: row numbers}, sliced as well. `report`: further fields
    of config.report (fprs, level, ppv_ratio, ...). `figures`: also in report.md; `Results.plot` draws them anyway. `folder` keeps the workdir.

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(200) < 100
    >>> found = audit(loss=rng.normal(size=200) - 3 * member, member=member, draws=40)
    >>> found.value('threshold_loss', 'auc') > .9
    True
    """
    fields = dict(report, draws=draws, figures=figures, groups={name: np.asarray(rows).tolist() for name, rows in groups.items()})
    fields |= {} if slices is None else dict(slices=(slices,) if isinstance(slices, str) else tuple(slices))
    name = str(arrays) if isinstance(arrays, str | pathlib.Path) else ""
    given = brought.load(name) if name else dict(arrays or {})
    config = configuration.scores(path=name, seed=seed, attacks=attacks, report=fields)
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(folder or temporary)
        found = experiment.run(config, workdir_path=place, arrays=given | more)
        scores = {name: workdir.read_npz(place / "attack" / name / "scores.npz") for name in found["attacks"]}
        pictures = {p.name: p.read_bytes() for p in sorted((place / "report" / "figures").glob("*.png"))}
        text, records = ((place / "report" / name).read_text(encoding="utf-8") for name in ("report.md", reporting.RECORDS))
        design = workdir.read_npz(place / "design" / "membership.npz")
    targets = design["targets"]
    evidence = dict(targets=targets, member_TN=design["member_MN"][targets], evaluated_TN=design["evaluated_MN"][targets])
    evidence |= dict(unit_T=design["unit_M"][targets], draws=np.asarray(draws))
    return Results(found, scores, pictures, text, evidence, records)


class Results:
    """What an audit found: `table` (rows as in report.json), `scores[attack]` {score_TN, models}, `evidence` (who was a member, what was scored,
    of each target), `report`, `markdown`, `records` (records.csv: how exposed every record is, as text).
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
        self.report, self.scores, self.pictures, self.markdown, self.evidence = report, dict(scores), dict(pictures), markdown, dict(evidence)
        self.records = records

    @property
    def table(self) -> list[dict]:
        """All rows."""
        return self.report["results"]

    def row(self, attack: str, metric: str, target=None, slice: str = "all") -> dict:
        """One row; KeyError that lists the attacks if there is none."""
        for row in self.table:
            if (row["attack"], row["metric"], row["target"], row["slice"]) == (attack, metric, target, slice):
                return row
        attacks = sorted({r["attack"] for r in self.table})
        raise KeyError(f"no row of attack {attack!r}, metric {metric!r}, target {target!r}, slice {slice!r}; attacks: {', '.join(attacks)}")

    def value(self, attack: str, metric: str, target=None, slice: str = "all"):
        """The value of one row."""
        return self.row(attack, metric, target, slice)["value"]

    def summary(self, by_slice: bool = False) -> str:
        """The verdict in the first line (or the failed check that takes its place), then how many checks passed, then a table of the attacks in the
        report's order, those that know more than a real attacker last; by_slice=True has a line per slice. The columns are keys of `value`."""
        rows = [r for r in self.table if r["target"] is None and r["metric"] in COLUMNS and (by_slice or r["slice"] == "all")]
        cells, knows = {}, {r["attack"]: r["knows"] for r in rows}
        for row in rows:
            cells.setdefault((row["attack"], row["slice"]), {})[row["metric"]] = row["value"]
        order = {name: i for i, name in enumerate(name for part in standing.order(self.report) for name in part)}
        place = lambda key: (key[1] != "all", key[1], order.get(key[0], len(order)))  # noqa: E731
        number = lambda value: f"{'–' if value is None else format(value, '.4f'):>18}"  # noqa: E731
        label = {key: tables.shown(f"{key[0]} [{key[1]}]") for key in cells}
        width = max(map(len, (*label.values(), "attack [slice]")))
        head = f"{'attack [slice]':<{width}}" + "".join(f"{c:>18}" for c in COLUMNS) + "  knows"
        body = (
            f"{label[key]:<{width}}" + "".join(number(cells[key].get(c)) for c in COLUMNS) + f"  {knows[key[0]]}" for key in sorted(cells, key=place)
        )
        return "\n".join([*answer.lines(self.report), "", head, *body])

    __repr__ = summary

    def plot(self, name: str = "roc", *, folder: str | pathlib.Path | None = None):
        """The matplotlib Figure 'roc' (log-log, with bands) or 'scores' (histograms), shown by a notebook as it is.

        With a `folder`: writes every figure there as PNG and returns their paths.
        """
        scored = {attack: dict(score_TN=self.target_scores(attack)) for attack in self.scores}
        shared = {k: self.evidence[k] for k in ("member_TN", "evaluated_TN")}
        count, seed = int(self.evidence["draws"]), self.report["about"]["seed"]
        draws = bootstrap.make(shared["member_TN"].shape[1], self.evidence["unit_T"], draws=count, seed=seed)
        made = files.drawn(self.report, attacks=scored, draws=draws, **shared)
        if folder is None:
            checks.one_of(made, name=name)
            return made[name]
        paths = {n: pathlib.Path(folder) / f"{n}.png" for n in made}
        for n, path in paths.items():
            drawing.save(made[n], path)
        return list(paths.values())

    def target_scores(self, attack: str) -> np.ndarray:
        """score_TN of an attack, higher = more likely a member, NaN where an example is not scored; row t is model evidence['targets'][t]."""
        checks.one_of(self.scores, attack=attack)
        models = self.scores[attack]["models"].tolist()
        return self.scores[attack]["score_TN"][[models.index(t) for t in self.evidence["targets"]]]

    def save(self, folder: str | pathlib.Path) -> None:
        """report.json, report.md, records.csv, evidence.npz, scores/<attack>.npz and figures/ in a folder that must not hold another audit."""
        folder = pathlib.Path(folder)
        if (folder / "report.json").exists():
            raise ValueError(f"{folder} holds an audit already; nothing is overwritten. Choose another folder.")
        for name, arrays in self.scores.items():
            workdir.write_npz(folder / "scores" / f"{name}.npz", **arrays)
        workdir.write_npz(folder / "evidence.npz", **self.evidence)
        for name, content in self.pictures.items():
            workdir.write(folder / "figures" / name, lambda file, content=content: file.write(content))
        workdir.write_text(folder / "report.md", self.markdown)
        workdir.write_text(folder / reporting.RECORDS, self.records)
        workdir.write_json(folder / "report.json", self.report)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Results:
        """What `save` wrote."""
        folder = pathlib.Path(folder)
        if not (folder / "report.json").exists():
            raise FileNotFoundError(f"{folder} holds no audit (no report.json).")
        scores = {p.stem: workdir.read_npz(p) for p in sorted((folder / "scores").glob("*.npz"))}
        pictures = {p.name: p.read_bytes() for p in sorted((folder / "figures").glob("*.png"))}
        evidence = workdir.read_npz(folder / "evidence.npz")
        text, records = (p.read_text(encoding="utf-8") if p.exists() else "" for p in (folder / "report.md", folder / reporting.RECORDS))
        return cls(workdir.read_json(folder / "report.json"), scores, pictures, text, evidence, records)
