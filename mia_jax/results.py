"""mia_jax.audit(...): arrays in, a Results object out. The same attacks, metrics and report as a run of launch.py."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import configuration, experiment, workdir

COLUMNS = ("auc", "tpr@0.01", "tpr@0.001", "advantage", "balanced_accuracy")


def audit(
    arrays: Mapping[str, np.ndarray] | None = None,
    *,
    attacks: Mapping | None = None,
    slices: Sequence[str] | None = None,
    draws: int = 200,
    figures: bool = False,
    seed: int = 0,
    folder: str | pathlib.Path | None = None,
    **more: np.ndarray,
) -> Results:
    """Audits arrays: the keys of mia_jax.brought as a mapping or as keywords (loss=..., labels=..., member=..., shadow_loss=...).

    `attacks` {name: {'name': ..., field: value}}, None = all that the arrays allow; `folder` keeps the workdir (default: a temporary one).

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(200) < 100
    >>> found = audit(loss=rng.normal(size=200) - 3 * member, member=member)
    >>> found.value('threshold_loss', 'auc') > .9
    True
    """
    report = dict(draws=draws, figures=figures) | ({} if slices is None else dict(slices=tuple(slices)))
    config = configuration.scores(path="", seed=seed, attacks=attacks, report=report)
    with tempfile.TemporaryDirectory() as temporary:
        place = pathlib.Path(folder or temporary)
        found = experiment.run(config, workdir_path=place, arrays=dict(arrays or {}) | more)
        scores = {name: workdir.read_npz(place / "attack" / name / "scores.npz") for name in found["attacks"]}
        pictures = {p.name: p.read_bytes() for p in sorted((place / "report" / "figures").glob("*.png"))}
        text = (place / "report" / "report.md").read_text()
    return Results(found, scores, pictures, text)


class Results:
    """What an audit found: `table` (rows as in report.json), `scores[attack]` {score_TN, models}, `report`, `markdown`."""

    def __init__(self, report: dict, scores: Mapping[str, Mapping[str, np.ndarray]], pictures: Mapping[str, bytes] = {}, markdown: str = ""):
        self.report, self.scores, self.pictures, self.markdown = report, dict(scores), dict(pictures), markdown

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
        """A table of the attacks, best AUC first; by_slice=True has a line a slice."""
        rows = [r for r in self.table if r["target"] is None and r["metric"] in COLUMNS and (by_slice or r["slice"] == "all")]
        lines = {}
        for row in rows:
            lines.setdefault((row["attack"], row["slice"]), {})[row["metric"]] = row["value"]
        ordered = sorted(lines.items(), key=lambda item: (item[0][1] != "all", item[0][1], -(item[1].get("auc") or 0)))
        cell = lambda value: f"{'–' if value is None else format(value, '.4f'):>18}"  # noqa: E731
        width = max(len(f"{attack} [{where}]") for attack, where in lines)
        head = f"{'attack [slice]':<{width}}" + "".join(f"{c:>18}" for c in COLUMNS)
        return "\n".join([head, *(f"{f'{a} [{s}]':<{width}}" + "".join(cell(v.get(c)) for c in COLUMNS) for (a, s), v in ordered)])

    def plot(self, folder: str | pathlib.Path) -> list[pathlib.Path]:
        """Writes the figures (audit(..., figures=True)) to a folder; returns their paths."""
        if not self.pictures:
            raise ValueError("this audit drew no figures; call audit(..., figures=True).")
        paths = []
        for name, content in self.pictures.items():
            workdir.write(pathlib.Path(folder) / name, lambda file, content=content: file.write(content))
            paths.append(pathlib.Path(folder) / name)
        return paths

    def save(self, folder: str | pathlib.Path) -> None:
        """report.json, report.md, figures/ and scores/<attack>.npz in a folder that must not hold another audit."""
        folder = pathlib.Path(folder)
        if (folder / "report.json").exists():
            raise ValueError(f"{folder} holds an audit already; nothing is overwritten. Choose another folder.")
        for name, arrays in self.scores.items():
            workdir.write_npz(folder / "scores" / f"{name}.npz", **arrays)
        if self.pictures:
            self.plot(folder / "figures")
        workdir.write_text(folder / "report.md", self.markdown)
        workdir.write_json(folder / "report.json", self.report)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Results:
        """What `save` wrote."""
        folder = pathlib.Path(folder)
        if not (folder / "report.json").exists():
            raise FileNotFoundError(f"{folder} holds no audit (no report.json).")
        scores = {p.stem: workdir.read_npz(p) for p in sorted((folder / "scores").glob("*.npz"))}
        pictures = {p.name: p.read_bytes() for p in sorted((folder / "figures").glob("*.png"))}
        return cls(workdir.read_json(folder / "report.json"), scores, pictures, (folder / "report.md").read_text())
