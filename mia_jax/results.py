"""`Results`: what an audit returns, with its numbers, tables, figures and files."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mia_jax import checks
from mia_jax.measures import two_audits, verdict
from mia_jax.metrics import bootstrap
from mia_jax.metrics import rows as result_rows
from mia_jax.report import answer, files, source, tables
from mia_jax.report import figures as drawing
from mia_jax.report import gate as gates
from mia_jax.runtime import files as workdir
from mia_jax.runtime.store import SavedResults, Store

COLUMNS = ("auc", "tpr@0.01", "tpr@0.001", "advantage", "balanced_accuracy")
TOP = 3  # attacks that repr shows


class Table(list):
    """A list of rows {column: value}, shown as a table; `note` says what must be known with it.

    Long columns may be `hidden` from the display; the rows have them. `pandas.DataFrame(table)`
    reads it as it is.

    >>> Table([dict(record=7, exposure=0.875)], note="1 of 40 records is exposed.")
    1 of 40 records is exposed.
    record  exposure
    7         0.8750
    """

    def __init__(self, rows: Iterable[Mapping], *, note: str = "", hidden: Iterable[str] = ()):
        super().__init__(dict(row) for row in rows)
        self.note, self.hidden = note, tuple(hidden)

    def lines(self) -> tuple[list[str], list[list[str]]]:
        """Returns (header, lines) as text; numbers with four digits."""
        header = list(dict.fromkeys(key for row in self for key in row if key not in self.hidden))
        return header, [[written(row.get(key)) for key in header] for row in self]

    def to_frame(self):
        """Returns the rows as a pandas DataFrame; ImportError if pandas is not installed."""
        return frame(list(self), dict.fromkeys(key for row in self for key in row))

    def __repr__(self) -> str:
        table = tables.text_table(*self.lines()) if self else []
        return "\n".join([*([tables.shown(self.note)] if self.note else []), *table])

    def _repr_html_(self) -> str:
        return f"<div><p>{tables.web(self.note)}</p>{tables.web_table(*self.lines())}</div>"


def written(value) -> str:
    """Returns a cell of a `Table`: a dash for None, four digits for a fraction.

    >>> written(None), written(0.25), written(3), written('lira')
    ('–', '0.2500', '3', 'lira')
    """
    if value is None:
        return tables.ABSENT
    return f"{value:.4f}" if isinstance(value, float) else str(value)


class Results:
    """Holds what an audit measured; `mia_jax.audit` returns it, `load` reads it from a folder.

    `print(results)` shows the verdict, the checks and the strongest attacks; `summary()` all of
    them, `row` and `value` one number, `to_frame`, `to_csv` and `to_latex` the whole table,
    `records` the most exposed records, `plot` the figures, `compare` the differences from another
    audit.

    Attributes:
        report: report.json.
        scores: {attack: {score_TN, models}}, higher = more likely a member.
        pictures: {file name: PNG} of the figures that were drawn with the report.
        markdown: report.md.
        evidence: who was a member and what was scored, of each target: {targets, member_TN,
            evaluated_TN, unit_T, draws}.
        records_csv: how exposed every record is, as the text of records.csv.
    """

    def __init__(
        self,
        report: dict,
        scores: Mapping[str, Mapping[str, np.ndarray]],
        pictures: Mapping[str, bytes] = {},
        markdown: str = "",
        evidence: Mapping[str, np.ndarray] = {},
        records_csv: str = "",
    ):
        self.report, self.scores, self.pictures, self.markdown, self.evidence = (
            report,
            dict(scores),
            dict(pictures),
            markdown,
            dict(evidence),
        )
        self.records_csv = records_csv

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

    def __repr__(self) -> str:
        """Returns the verdict, how many checks passed, and the top attacks."""
        header, lines, more = self._top()
        checked = answer.checks_passed(self.report)
        return "\n".join(
            [
                answer.first_line(self.report),
                *([checked] if checked else []),
                *tables.text_table(header, lines),
                *([more] if more else []),
            ]
        )

    def _repr_html_(self) -> str:
        """Returns the same for a notebook: HTML without scripts, every name escaped."""
        header, lines, more = self._top()
        checked = answer.checks_passed(self.report)
        return (
            f"<div><p><b>{tables.web(answer.first_line(self.report))}</b></p>"
            + (f"<p>{tables.web(checked)}</p>" if checked else "")
            + tables.web_table(header, lines)
            + f"<p>{tables.web(more)}</p></div>"
        )

    def _top(self) -> tuple[list[str], list[list[str]], str]:
        """Returns header and lines of the first attacks of the ranking, and where the others
        are.
        """
        rows = result_rows.main_rows(self.table)
        names = [name for part in verdict.order(self.report) for name in part]
        metrics = ("auc", *(f"tpr@{fpr:g}" for fpr in reversed(result_rows.fprs(rows))))
        lines = [
            [name, *(tables.number(result_rows.resolved(rows, name, m)) for m in metrics)]
            for name in names[:TOP]
        ]
        left = len(names) - len(lines)
        more = f"{left} more attack{'s' * (left != 1)}: summary()" if left else ""
        return ["attack", *map(tables.metric_name, metrics)], lines, more

    def to_frame(self):
        """Returns all rows as a pandas DataFrame, with the columns of results.csv.

        Returns:
            A row per attack, target, slice and metric; `target` is None for the mean over targets.

        Raises:
            ImportError: pandas is not installed.
        """
        more = dict.fromkeys(key for row in self.table for key in row)
        return frame(self.table, dict.fromkeys([*result_rows.COLUMNS, *more]))

    def to_csv(self, path: str | pathlib.Path | None = None, *, overwrite: bool = False) -> str:
        """Returns all rows as CSV, and writes them to `path` if there is one.

        Text that a spreadsheet would run as a formula gets an apostrophe; an empty field is null.

        Args:
            path: the file; None writes none.
            overwrite: whether a file of that name may be replaced.

        Raises:
            FileExistsError: there is such a file, and overwrite=False.
        """
        return kept(tables.to_csv(self.table), path, overwrite)

    def to_latex(self, path: str | pathlib.Path | None = None, *, overwrite: bool = False) -> str:
        """Returns the table of attacks for a paper (booktabs), and writes it to `path` if given.

        Args:
            path: the file; None writes none.
            overwrite: whether a file of that name may be replaced.

        Raises:
            FileExistsError: there is such a file, and overwrite=False.
        """
        return kept(files.latex(self.report), path, overwrite)

    def records(self, k: int = 10, *, attack: str | None = None) -> Table:
        """Returns the k most exposed records with their row numbers.

        With several audited models a record's exposure is the AUC of its score over the models that
        were and were not trained on it, and the records with the smallest p-value come first. With
        too few models no single record can be tested: the members of the first target with the
        highest scores are returned, and the note says so.

        Args:
            k: how many records.
            attack: the attack whose scores are read; None takes the first that was measured, or the
                strongest one.

        Returns:
            A `Table` of rows {record, id, label, attack, exposure, low, high, p, q, flag} or
            {record, attack, score}; `note` says how many records are significant.

        Raises:
            ValueError: k is no number >= 1, or the attack is not in the audit.

        >>> import mia_jax
        >>> member = np.arange(60) < 30
        >>> score = np.random.default_rng(0).normal(size=60) + 9 * (np.arange(60) == 7)
        >>> results = mia_jax.audit(score=score, member=member, attacks='threshold_score', draws=40)
        >>> [row['record'] for row in results.records(1)]
        [7]
        """
        checks.at_least(1, k=k)
        if attack is not None:
            checks.one_of(sorted({row["attack"] for row in self.table}), attack=attack)
        measured = {n: t for n, t in self.report.get("records", {}).items() if "why" not in t}
        name = next(iter(measured), None) if attack is None else attack
        lines = [
            line
            for line in csv.DictReader(io.StringIO(self.records_csv))
            if line["attack"] == name and line["p"]
        ]
        if name not in measured or not lines:
            return self._highest(int(k), attack)
        lines.sort(
            key=lambda line: (float(line["p"]), -float(line["exposure"]), int(line["record"]))
        )
        tested, significant = (measured[name][key] for key in ("tested", "significant"))
        level = 1 - measured[name].get("level", 0.95)
        text = f"{significant:,} of {tested:,} records" if significant else "None of the records"
        note = (
            f"{text} {'are' if significant > 1 else 'is'} significantly exposed under {name} (q <= "
            f"{level:.2g}, Benjamini-Hochberg)"
            + (
                "."
                if significant
                else "; these have the smallest p-values, which chance can explain; a larger study "
                "would decide."
            )
        )
        return Table([number_cells(line) for line in lines[: int(k)]], note=note)

    def _highest(self, k: int, attack: str | None) -> Table:
        """Returns the members of the first target that an attack scores highest."""
        name = verdict.of(self.report)["strongest"] if attack is None else attack
        if name not in self.scores:
            return Table([], note="No record can be ranked: the audit has no scores.")
        score_N = self.target_scores(name)[0]
        inside_N = np.asarray(self.evidence["member_TN"])[0] & ~np.isnan(score_N)
        rows = np.flatnonzero(inside_N)
        rows = rows[np.argsort(-score_N[rows], kind="stable")][:k]
        why = next((t["why"] for t in self.report.get("records", {}).values() if "why" in t), "")
        note = (
            "No single record was tested"
            + (f" ({why.rstrip('.')})" if why else "")
            + f". These are the members of model {int(self.evidence['targets'][0])} with the "
            f"highest scores of {name}: what the attack would flag first, which is no proof of "
            "exposure."
        )
        return Table(
            [dict(record=int(n), attack=name, score=float(score_N[n])) for n in rows], note=note
        )

    def compare(self, other: Results) -> Table:
        """Returns the differences from another audit, attack by attack: this one's value - other's.

        Differences are paired where both audits are of the same rows and training sets (a defense,
        another architecture, another recipe with the same design): their intervals are then of the
        difference itself. Otherwise the two are treated as independent, and the note says why.

        Args:
            other: the other audit.

        Returns:
            A `Table` of rows {attack, metric, value, other, difference, low, high, paired, method},
            for the AUC and the TPRs that both have with an interval.

        Raises:
            ValueError: `other` is no Results, they have no attack in common, or their intervals
                have different levels.

        >>> import mia_jax
        >>> member, rng = np.arange(200) < 100, np.random.default_rng(0)
        >>> loss = rng.normal(size=200)
        >>> leaky, tight = (mia_jax.audit(loss=loss - gain * member, member=member, draws=40)
        ...                 for gain in (2, 0.5))
        >>> row = leaky.compare(tight)[0]
        >>> row['metric'], row['low'] > 0, row['paired']
        ('auc', True, True)
        """
        if not isinstance(other, Results):
            raise ValueError(
                f"other is a {type(other).__name__} and must be the Results of another audit "
                "(mia_jax.audit(...) or mia_jax.Results.load(folder))."
            )
        audits = [
            two_audits.Audit(
                audit.report, audit.evidence, {n: audit.target_scores(n) for n in audit.scores}
            )
            for audit in (self, other)
        ]
        names = two_audits.in_both(*audits)
        if not names:
            there = "; ".join(
                ", ".join(sorted({row["attack"] for row in audit.table})) for audit in (self, other)
            )
            raise ValueError(f"the two audits have no attack in common ({there}).")
        why = two_audits.unpaired(*audits)
        note = (
            f"Not paired, because {why}: the intervals are those of two independent studies, wider "
            "than those of a paired comparison."
            if why
            else "Paired: the same training sets and scored rows"
            + (
                "; that the rows are the same, arrays do not show."
                if any(audit.report.get("about", {}).get("arrays") for audit in (self, other))
                else "."
            )
        )
        everywhere = {row["attack"] for audit in (self, other) for row in audit.table}
        alone = sorted(everywhere - set(names))
        note += f" Only in one of them: {', '.join(alone)}." if alone else ""
        return Table(two_audits.differences(*audits), note=note, hidden=("method",))

    def gate(
        self,
        limits: str | Sequence[str],
        *,
        attack: str | Sequence[str] | None = None,
        slice: str | Sequence[str] = "all",
    ) -> gates.Gate:
        """Compares the audit with limits, each number by its interval.

        A limit is kept if the upper end of the interval is within it, exceeded if the lower end is
        above it, and undecided otherwise: then the answer says about how many models or rows would
        decide. It is also undecided where a failed check withholds the verdict.

        Args:
            limits: one limit or several, such as 'tpr@0.01 <= 0.05' (or 'tpr@1% <= 5%'),
                'auc <= 0.6', 'epsilon <= 3'.
            attack: the attacks whose numbers must be within; None: all that a real attacker could
                run.
            slice: the slices of records in which they must be, such as 'class=3'.

        Returns:
            A `Gate`: `exit_code` is 0 (within), 1 (above) or 2 (undecided), as of the command
            `mia-jax gate`; `decisions` has a row per limit, slice and attack; `print` shows it,
            `to_json()` and `junit()` write it.

        Raises:
            ValueError: no limit, or one that the audit cannot answer; the message lists what there
                is.

        >>> import mia_jax
        >>> member = np.arange(400) < 200
        >>> loss = np.random.default_rng(0).normal(size=400) - 2 * member
        >>> results = mia_jax.audit(
        ...     loss=loss, member=member, attacks='threshold_loss', draws=40)
        >>> results.gate('auc <= 0.6').decision, results.gate('auc <= 0.99').exit_code
        ('above', 0)
        """
        return gates.of(self.report, limits, attack=attack, slice=slice)

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
        """Returns the scores of an attack on every target.

        Args:
            attack: the name of the attack.

        Returns:
            score_TN, higher = more likely a member, NaN where an example is not scored. Row t is
            the model whose number is element t of `evidence["targets"]`.

        Raises:
            ValueError: there is no such attack.
        """
        checks.one_of(self.scores, attack=attack)
        models = self.scores[attack]["models"].tolist()
        return self.scores[attack]["score_TN"][[models.index(t) for t in self.evidence["targets"]]]

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes the results to a folder that must not hold another audit.

        The files are report.json, report.html, report.md, records.csv, evidence.npz,
        scores/<attack>.npz and figures/.
        """
        folder = workdir.folder_at(folder, argument="folder")
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
        files.write_html(self.report, self.pictures, saved.report)
        workdir.write_text(saved.report.markdown, self.markdown)
        workdir.write_text(saved.report.records, self.records_csv)
        source.write(saved.report.json, self.report)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> Results:
        """Returns what `save` wrote, or the audit in the workdir of a finished run.

        Args:
            folder: of `save`, or the workdir.

        Raises:
            FileNotFoundError: there is no report.
        """
        folder = pathlib.Path(folder).expanduser()
        place = next(
            (
                there
                for there in (SavedResults(folder).report, Store(folder).report)
                if there.json.exists()
            ),
            None,
        )
        if place is None:
            raise FileNotFoundError(f"{folder} holds no audit (no report.json).")
        report = source.load(place.json)
        evidence, saved = source.saved_scores(place.json, report)
        scores = {name: workdir.read_npz(path) for name, path in saved.paths.items()}
        pictures = {p.name: p.read_bytes() for p in place.figures()}
        text, records = (
            p.read_text(encoding="utf-8") if p.exists() else ""
            for p in (place.markdown, place.records)
        )
        return cls(report, scores, pictures, text, evidence, records)


def frame(rows: Sequence[Mapping], columns: Iterable[str]):
    """Returns rows as a pandas DataFrame.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            "to_frame() needs pandas, which is not installed: pip install pandas. Without it, "
            "`table` has the same rows as a list, and to_csv(path) writes them."
        ) from error
    return pandas.DataFrame(rows, columns=list(columns))


def number_cells(line: Mapping[str, str]) -> dict:
    """Returns a line of records.csv with its numbers as numbers, without empty cells."""
    whole = ("record", "models_with", "models_without")
    real = ("exposure", "low", "high", "p", "q")
    return {
        key: int(text) if key in whole else float(text) if key in real else text
        for key, text in line.items()
        if text != ""
    }


def kept(text: str, path: str | pathlib.Path | None, overwrite: bool) -> str:
    """Returns the text, and writes it to a path where there is one."""
    if path is not None:
        path = pathlib.Path(path).expanduser()
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"path={str(path)!r} exists; nothing is overwritten. Choose another path, or pass "
                "overwrite=True."
            )
        workdir.write_text(path, text)
    return text
