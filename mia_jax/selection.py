"""`Selection`: settings of a model, by how well they predict and by how much they leak."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.measures import selection as measure
from mia_jax.measures import two_audits, verdict
from mia_jax.report import figures as drawing
from mia_jax.report import tables
from mia_jax.results import Results, Table

# The metric of the Pareto front. It always has a value, while a TPR at a low FPR may be 0 only
# because a model that is sure of everything gives its most certain rows equal scores.
FRONT = "auc"
LOW_FPR = "tpr@0.01"
LEAKS = dict(
    shown="shown", none="not shown", inverted="wrong way", privileged="not shown", untested="–"
)


class Setting(NamedTuple):
    """Holds one setting.

    Attributes:
        params: {parameter: value}.
        results: the audit of its models, every split's model a target.
        test_M, train_M: the scores of the models on their test and on their training rows.
    """

    params: Mapping[str, object]
    results: Results
    test_M: np.ndarray
    train_M: np.ndarray


class Selection:
    """Holds what `mia_jax.sklearn.search` measured: for every setting, scores and leakage.

    `print(selection)` shows the settings, `pareto()` those on the Pareto front, `best(...)` the one
    that predicts best within a limit, `compare(i, j)` two of them, `plot()` a figure. `results[i]`
    is the whole audit of setting i.

    A setting's *leakage* in a metric is the number of its strongest attack, the one that leads in
    this metric (`measures.verdict.rank`) among those that a real attacker could run. As it is
    chosen on the same numbers, it is slightly too high, for all settings alike.

    Attributes:
        settings: the settings, a `Setting` each.
        score_name: what the scores are, such as 'accuracy'; larger is better.
        words: the splits.
        notes: sentences about how the models were fitted and which attacks were run.
        rows: a mapping per setting {setting, params, score, score_low, score_high, gap, gap_low,
            gap_high, leak, strongest, attacks, pareto, dominated_by, separated}. `gap` is the score
            on training rows less that on test rows; `strongest` and `attacks` are {metric: {attack,
            value, low, high}} and {attack: {metric: {value, low, high}}}; `dominated_by` is a
            setting that is better by point values, and `separated` whether the paired interval of
            the difference in scores or in leakage excludes 0.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        *,
        score_name: str,
        words: str,
        test_share: float,
        notes: Sequence[str] = (),
        level: float = 0.95,
        largest: float = math.inf,
    ):
        self.settings, self.score_name, self.words = list(settings), score_name, words
        self.notes, self.test_share, self.level = list(notes), test_share, level
        self.largest = largest
        self.rows = [self._row(s) for s in range(len(self.settings))]
        for row, placed in zip(self.rows, self._placed(FRONT), strict=True):
            row |= placed

    @property
    def results(self) -> list[Results]:
        """Returns the audits of the settings, in order."""
        return [setting.results for setting in self.settings]

    def _interval(self, value_M) -> measure.Interval:
        return measure.mean(value_M, test_share=self.test_share, level=self.level)

    def _row(self, s: int) -> dict:
        """Returns the row of a setting, without its place among the others."""
        setting = self.settings[s]
        report = setting.results.report
        row = dict(setting=s, params=dict(setting.params))
        for name, value_M in (("score", setting.test_M), ("gap", setting.train_M - setting.test_M)):
            value, low, high = self._interval(value_M)
            high = min(high, self.largest) if name == "score" else high
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        metrics = measure.metrics(report)
        ends = lambda row: {key: row[key] for key in ("value", "low", "high")}  # noqa: E731
        strongest = {m: measure.strongest(report, m) for m in metrics}
        return row | dict(
            leak=verdict.of(report)["leak"],
            strongest={
                m: dict(attack=leak.attack) | ends(leak.row)
                for m, leak in strongest.items()
                if leak is not None
            },
            attacks={
                name: {
                    m: ends(there[name])
                    for m in metrics
                    if name in (there := measure.attacks(report, m))
                }
                for name in verdict.of(report)["ranked"]
            },
        )

    def _placed(self, metric: str) -> list[dict]:
        """Returns {pareto, dominated_by, separated} of every setting."""
        leak_S = [row["strongest"].get(metric, {}).get("value") for row in self.rows]
        by = measure.dominating([row["score"] for row in self.rows], leak_S)
        return [
            dict(
                pareto=s in by and by[s] is None,
                dominated_by=by.get(s),
                separated=None if by.get(s) is None else self._separated(by[s], s, metric),
            )
            for s in range(len(self.rows))
        ]

    def _separated(self, better: int, other: int, metric: str) -> bool:
        """Returns whether a setting is significantly better in its scores or in its leakage."""
        a, b = self.settings[better], self.settings[other]
        if self._interval(a.test_M - b.test_M).low > 0:
            return True
        leaks = self._leakage_difference(better, other, metric)
        return leaks is not None and leaks.high < 0

    def _leakage_difference(self, i: int, j: int, metric: str) -> measure.Interval | None:
        first, second = (
            two_audits.Audit(
                results.report,
                results.evidence,
                {name: results.target_scores(name) for name in results.scores},
            )
            for results in (self.settings[i].results, self.settings[j].results)
        )
        return measure.leakage_difference(first, second, metric, level=self.level)

    def _check(self, metric: str) -> None:
        known = list(dict.fromkeys(m for row in self.rows for m in row["strongest"]))
        checks.one_of(known, metric=metric)

    def pareto(self, metric: str = FRONT) -> Table:
        """Returns the settings on the Pareto front: higher scores, less leakage.

        The front is that of point values. A setting that is dominated but not separated may as well
        belong to it; the note lists those.

        Args:
            metric: 'auc', 'tpr@0.01', ...

        Returns:
            A `Table` of rows as in `table(metric)`, the highest score first.

        Raises:
            ValueError: no setting has this metric.
        """
        self._check(metric)
        rows = self.table(metric)
        front = sorted((r for r in rows if r["pareto"] == "yes"), key=lambda r: -r[self.score_name])
        open_ = [str(r["setting"]) for r in rows if r["pareto"] == "not separated"]
        note = (
            f"Pareto front of {self.score_name} and {tables.metric_name(metric)} of the strongest "
            f"attack, by point values: {len(front)} of {len(rows)} settings."
        )
        if open_:
            plural = len(open_) > 1
            note += (
                f" Setting{'s' * plural} {', '.join(open_)} {'are' if plural else 'is'} dominated, "
                "but neither the difference in score nor that in leakage excludes 0."
            )
        return Table(front, note=note)

    def table(self, metric: str = FRONT) -> Table:
        """Returns a row per setting, flat.

        Args:
            metric: 'auc', 'tpr@0.01', ...

        Returns:
            A `Table` of rows {setting, param_<name>, <score>, <score>_low, <score>_high, gap,
            gap_low, gap_high, auc, auc_low, auc_high, auc_attack, (the same of every TPR), leak,
            pareto, dominated_by}; `pareto` is 'yes', 'no', 'not separated' or 'not resolvable'.
        """
        self._check(metric)
        placed = self.rows if metric == FRONT else self._placed(metric)
        return Table(self._flat(row, place) for row, place in zip(self.rows, placed, strict=True))

    def _flat(self, row: Mapping, place: Mapping) -> dict:
        flat = dict(setting=row["setting"])
        flat |= {f"param_{name}": value for name, value in row["params"].items()}
        for key, name in (("score", self.score_name), ("gap", "gap")):
            flat |= {f"{name}{end}": row[f"{key}{end}"] for end in ("", "_low", "_high")}
        for metric, leak in row["strongest"].items():
            flat |= {
                metric: leak["value"],
                f"{metric}_low": leak["low"],
                f"{metric}_high": leak["high"],
                f"{metric}_attack": leak["attack"],
            }
        by, pareto = place["dominated_by"], tables.UNRESOLVED
        if place["pareto"]:
            pareto = "yes"
        elif by is not None:
            pareto = "no" if place["separated"] else "not separated"
        return flat | dict(leak=row["leak"], pareto=pareto, dominated_by=by)

    def attacks(self) -> Table:
        """Returns a row {setting, attack, metric, value, low, high} for every attack that a real
        attacker could run.
        """
        return Table(
            dict(setting=row["setting"], attack=attack, metric=metric) | ends
            for row in self.rows
            for attack, numbers in row["attacks"].items()
            for metric, ends in numbers.items()
        )

    def to_frame(self, metric: str = FRONT):
        """Returns `table(metric)` as a pandas DataFrame; ImportError without pandas."""
        return self.table(metric).to_frame()

    def best(
        self, max_leakage: float | Mapping[str, float] | None = None, metric: str = LOW_FPR
    ) -> dict:
        """Returns the row of the setting with the highest score whose leakage is within a limit.

        It is within if the upper ends of all attacks are, by the rule of `Results.gate`: a setting
        whose interval is too wide to decide is not. With S settings, one beyond the limit passes
        with a probability of at most S (1 - level)/2. `row['params']` are for
        `estimator.set_params(**row['params'])`.

        Args:
            max_leakage: the largest leakage that is allowed, or {metric: the largest} for several
                metrics; None: any.
            metric: of a single limit: 'auc', 'tpr@0.01', ...

        Raises:
            ValueError: no setting is within the limits, or none has this metric.
        """
        rows = self.rows
        if max_leakage is not None:
            several = isinstance(max_leakage, Mapping)
            most: dict = dict(max_leakage) if several else {metric: max_leakage}
            for name, limit in most.items():
                self._check(name)
                checks.fraction(max_leakage=limit)
            limits = [f"{name} <= {limit!r}" for name, limit in most.items()]
            gates = [results.gate(limits) for results in self.results]
            rows = [r for r, gate in zip(rows, gates, strict=True) if gate.decision == "within"]
            if not rows:
                raise ValueError(self._none_within(limits, gates))
        return max(rows, key=lambda row: row["score"])

    def _none_within(self, limits: Sequence[str], gates: Sequence) -> str:
        """Returns why no setting is within the limits."""
        text = f"max_leakage: no setting is within {' and '.join(limits)}"
        withheld = next((d.why for gate in gates for d in gate.decisions if d.why), "")
        if withheld:
            text += f" ({withheld})"
        for limit in limits:
            ends = {
                s: max(d.high for d in made)
                for s, gate in enumerate(gates)
                for made in ([d for d in gate.decisions if d.limit == limit],)
                if made and all(d.high is not None for d in made)
            }
            name = tables.metric_name(limit.split()[0])
            if not ends:
                text += f". {name} is not resolvable with so few rows: use metric='auc'"
                continue
            least = min(ends, key=ends.__getitem__)
            text += (
                f". The lowest upper end of {name} over all attacks is {ends[least]:.3g}, of "
                f"setting {least} ({shown_params(self.rows[least]['params'])})"
            )
        return text + ". More rows or more splits make intervals narrower."

    def compare(self, first: int, second: int) -> Table:
        """Returns the differences first - second of two settings, paired over splits and rows.

        Args:
            first, second: numbers of settings.

        Returns:
            A `Table` of rows {attack, metric, value, other, difference, low, high, paired, method},
            the score first.

        Raises:
            ValueError: there is no such setting.
        """
        checks.one_of(range(len(self.settings)), first=first, second=second)
        a, b = self.settings[first], self.settings[second]
        value, low, high = self._interval(a.test_M - b.test_M)
        score = dict(
            attack="",
            metric=self.score_name,
            value=float(a.test_M.mean()),
            other=float(b.test_M.mean()),
            difference=value,
            low=low,
            high=high,
            paired=True,
            method="corrected resampled t over splits",
        )
        rows = a.results.compare(b.results)
        return Table([score, *rows], note=rows.note)

    def plot(self, metric: str = FRONT):
        """Returns a matplotlib Figure: scores against leakage with error bars, and the front.

        Args:
            metric: 'auc', 'tpr@0.01', ...
        """
        self._check(metric)
        marks = [
            dict(
                name=shown_params(row["params"]) or f"setting {row['setting']}",
                leak=leak.get("value"),
                leak_low=leak.get("low"),
                leak_high=leak.get("high"),
                front=place["pareto"],
            )
            | {key: row[key] for key in ("score", "score_low", "score_high")}
            for row, place in zip(self.rows, self._placed(metric), strict=True)
            for leak in (row["strongest"].get(metric, {}),)
        ]
        return drawing.selection(marks, metric=metric, score=self.score_name, over=self.words)

    def summary(self) -> str:
        """Returns the text of `print(selection)` and, below it, the notes."""
        return "\n".join([repr(self), "", *(f"- {tables.shown(note)}" for note in self.notes)])

    def _lines(self) -> tuple[list[str], list[str], list[list[str]]]:
        """Returns the first lines, then header and lines of the table of settings."""
        leaking = sum(row["leak"] == "shown" for row in self.rows)
        front = [str(row["setting"]) for row in self.rows if row["pareto"]]
        count = len(self.rows)
        heading = [
            f"LEAK SHOWN for {leaking} of {count} setting{'s' * (count > 1)}"
            if leaking
            else f"NO LEAK SHOWN for any of {count} setting{'s' * (count > 1)}"
        ]
        heading[0] += f" ({self.words}; {100 * self.level:g}% intervals)"
        if count > 1:
            heading.append(
                f"Pareto front of {self.score_name} and {tables.metric_name(FRONT)}: "
                f"setting{'s' * (len(front) > 1)} {', '.join(front) or 'none'}"
            )
        names = list(dict.fromkeys(name for row in self.rows for name in row["params"]))
        metrics = [m for m in (FRONT, LOW_FPR) if any(m in row["strongest"] for row in self.rows)]
        header = ["setting", *names, self.score_name, "gap"]
        strongest_by = f"strongest by {tables.metric_name(FRONT)}"
        header += [*map(tables.metric_name, metrics), strongest_by, "leak", "pareto"]
        lines = []
        for row in self.rows:
            flat = self._flat(row, row)
            strongest = row["strongest"]
            cells = [str(row["setting"])]
            cells += [short(row["params"][n]) if n in row["params"] else "" for n in names]
            cells.append(f"{row['score']:.3f} [{row['score_low']:.3f}, {row['score_high']:.3f}]")
            cells.append(f"{row['gap']:.3f}")
            cells += [
                tables.number(dict(strongest[m], metric=m, target=None, method=""))
                if m in strongest
                else tables.UNRESOLVED
                for m in metrics
            ]
            cells.append(strongest.get(FRONT, {}).get("attack", tables.ABSENT))
            cells += [LEAKS[row["leak"]], flat["pareto"]]
            lines.append(cells)
        return heading, header, lines

    def __repr__(self) -> str:
        """Returns the verdict, the Pareto front and a line per setting."""
        heading, header, lines = self._lines()
        return "\n".join([*map(tables.shown, heading), *tables.text_table(header, lines)])

    def _repr_html_(self) -> str:
        """Returns the same for a notebook: HTML without scripts, every name escaped."""
        heading, header, lines = self._lines()
        return (
            f"<div><p><b>{tables.web(heading[0])}</b></p>"
            + "".join(f"<p>{tables.web(line)}</p>" for line in heading[1:])
            + tables.web_table(header, lines)
            + "</div>"
        )


def short(value, most: int = 24) -> str:
    """Returns a parameter's value in a few letters.

    >>> short(0.1), short('l2'), short(None), short([1] * 30)
    ('0.1', 'l2', 'None', '[1, 1, 1, 1, 1, 1, 1,..')
    """
    text = f"{value:g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 2].rstrip() + ".."


def shown_params(params: Mapping[str, object]) -> str:
    """Returns parameters for a message.

    >>> shown_params({'C': 0.1, 'clf__penalty': 'l2'})
    'C=0.1, clf__penalty=l2'
    """
    return ", ".join(f"{name}={short(value)}" for name, value in params.items())
