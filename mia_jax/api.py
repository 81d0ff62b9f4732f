"""mia_jax.audit(...): arrays in, a Results object out.

The same attacks, metrics and report as a run of launch.py.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax import checks, configuration
from mia_jax.external import arrays as supplied_arrays
from mia_jax.measures import verdict
from mia_jax.metrics import bootstrap
from mia_jax.metrics import slices as slices_of_rows
from mia_jax.pipeline import run
from mia_jax.report import answer, files, tables
from mia_jax.report import figures as drawing
from mia_jax.runtime import files as workdir
from mia_jax.runtime.store import SavedResults, Store

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
    """Audits arrays: the keys of mia_jax.external.arrays as keywords (loss=..., labels=...,
    member=..., shadow_loss=...), a mapping, or an npz file's path.

    `attacks`: names ('lira', 'rmia', any file of mia_jax/attacks), or {name: {'name': ..., field:
    value}}; None: all quick ones that the arrays allow. `slices`: 'class', 'loss', 'correct',
    'column:<name>', 'a & b'; `groups` {name: row numbers}, sliced as well. `report`: further fields
    of config.report (fprs, level, ppv_ratio, ...). `figures`: also in report.md; `Results.plot`
    draws them anyway. `folder` keeps the workdir.

    >>> rng = np.random.default_rng(0)
    >>> member = np.arange(200) < 100
    >>> found = audit(loss=rng.normal(size=200) - 3 * member, member=member, draws=40)
    >>> found.value('threshold_loss', 'auc') > .9
    True
    """
    if not isinstance(report, Mapping):
        raise ValueError(
            f"report={report!r} must be a mapping of further settings, such as dict(level=0.9)."
        )
    if slices is not None and (
        not isinstance(slices, str | Sequence) or not all(isinstance(text, str) for text in slices)
    ):
        raise ValueError(
            f"slices={slices!r} must be texts, such as 'class' or ['class', 'column:age']."
        )
    fields = dict(report, draws=draws, figures=figures, groups=named_groups(groups))
    fields |= (
        {}
        if slices is None
        else dict(slices=(slices,) if isinstance(slices, str) else tuple(slices))
    )
    name = str(arrays) if isinstance(arrays, str | pathlib.Path) else ""
    given = supplied_arrays.load(name) if name else mapping(arrays)
    twice = sorted(map(str, set(given) & set(more)))
    if twice:
        raise ValueError(
            f"{twice[0]} is given twice, in the first argument and as a keyword; pass it once."
        )
    try:
        config = configuration.scores(
            path=name, seed=seed, attacks=named_attacks(attacks), report=fields
        )
        with tempfile.TemporaryDirectory() as temporary:
            place = pathlib.Path(folder).expanduser() if folder else pathlib.Path(temporary)
            found = run.run(config, workdir_path=place, arrays=given | more)
            store = Store(place)
            scores = {
                name: workdir.read_npz(store.attack(name).scores) for name in found["attacks"]
            }
            pictures = {p.name: p.read_bytes() for p in store.report.figures()}
            text, records = (
                path.read_text(encoding="utf-8")
                for path in (store.report.markdown, store.report.records)
            )
            design = workdir.read_npz(store.membership)
    except (ValueError, FileNotFoundError) as error:
        told = in_arguments(str(error))
        if told == str(error):
            raise
        raise type(error)(told) from error
    targets = design["targets"]
    evidence = dict(
        targets=targets,
        member_TN=design["member_MN"][targets],
        evaluated_TN=design["evaluated_MN"][targets],
    )
    evidence |= dict(unit_T=design["unit_M"][targets], draws=np.asarray(draws))
    return Results(found, scores, pictures, text, evidence, records)


def mapping(arrays) -> dict:
    """Returns the first argument of audit() as a dict; ValueError for an array, which needs a
    name.
    """
    if arrays is None:
        return {}
    if isinstance(arrays, Mapping) or (hasattr(arrays, "keys") and hasattr(arrays, "__getitem__")):
        return {key: arrays[key] for key in arrays.keys()}
    keys = ", ".join(f"{form}=..." for form in supplied_arrays.FORMS)
    raise ValueError(
        f"the first argument is a {type(arrays).__name__} and must be a mapping of arrays or a "
        f"path; name an array by what it holds: {keys}, with "
        "labels=... and member=... ."
    )


def named_attacks(attacks):
    """Returns the argument `attacks`, checked: names in a text or a list, or {name: {field:
    value}}.
    """
    if attacks is None or isinstance(attacks, str):
        return attacks
    if isinstance(attacks, Mapping):
        wrong = next(
            (
                name
                for name, one in attacks.items()
                if not isinstance(name, str) or not isinstance(one, Mapping)
            ),
            None,
        )
        if wrong is not None:
            example = "'mine': dict(name='lira', mode='offline')"
            raise ValueError(
                f"attacks: {wrong!r}: {attacks[wrong]!r} must be a name and its fields, such as "
                f"{example}."
            )
        return {str(name): one for name, one in attacks.items()}
    if isinstance(attacks, np.ndarray):
        attacks = attacks.tolist()
    if (
        not isinstance(attacks, Sequence)
        or not attacks
        or not all(isinstance(name, str) for name in attacks)
    ):
        raise ValueError(
            f"attacks={attacks!r} must be names, such as 'lira, rmia' or ['lira', 'rmia'], or "
            "{name: {field: value}}."
        )
    return [str(name) for name in attacks]


def named_groups(groups) -> dict[str, list]:
    """Returns the argument `groups` with text as names; ValueError for two of one name, and for a
    name that no slice can have.
    """
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups must be {{name: row numbers}} and is a {type(groups).__name__}.")
    found: dict[str, list] = {}
    for name, rows in groups.items():
        if str(name) in found:
            raise ValueError(f"groups: two groups are called {str(name)!r}.")
        if "." in str(name):
            raise ValueError(f"groups: {str(name)!r} holds a dot; choose a name without one.")
        found[str(name)] = np.asarray(rows).tolist()
    slices_of_rows.check((), groups=found)
    return found


def in_arguments(text: str) -> str:
    """Returns a message of a run in the words of audit()'s arguments.

    >>> in_arguments("report.draws=3 must be at least 40. Use another --workdir for the rest.")
    'draws=3 must be at least 40. choose another folder= for the rest.'
    """
    for said, meant in WORDS.items():
        text = re.sub(said, meant, text)
    return text


WORDS = {  # what a run says, and what a caller of audit() can do
    r"Use another (--)?workdir for another config, or [^.]*\.": (
        "Choose another folder= for other arrays or settings, or give the same ones."
    ),
    r"[Uu]se another (--)?workdir": "choose another folder=",
    r"another (--)?workdir": "another folder=",
    r"Give the attack another name in the config, or delete (\S+) to run it again\.": (
        "Give the attack another name, or choose another folder=."
    ),
    r"Raise design\.population, or pass": "Pass",
    r"set design\.population, or pass": "pass",
    r"report\.(draws|figures|slices|groups)\b": r"\1",
    r"(?<![\w/])report\.(level|fprs|ppv_ratio|records|shadow_curve|audit|epochs|sections)\b": (
        r"report \1"
    ),
}


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
