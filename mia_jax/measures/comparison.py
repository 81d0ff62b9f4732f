"""Compares several audits side by side: leakage, utility, their Pareto front, and settings.

Everything is computed from report.json; differences are paired where scores are saved and the
audits are of the same rows and training sets (`measures/two_audits.py`). Nothing is decided again:
attacks are chosen by the verdict of each report.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mia_jax.measures import selection, two_audits, verdict
from mia_jax.metrics import intervals
from mia_jax.metrics import rows as result_rows

ACCURACY, LOSS = "validation_accuracy", "validation_loss"
# of utilities: whether more of it is better
UTILITIES = {ACCURACY: True, LOSS: False}
LEAKAGE, UTILITY = "leakage", "utility"  # the two axes of a front
KEPT = ("metric", "target", "value", "low", "high", "method", "fpr_realized")


class Run(NamedTuple):
    """Holds one audit that is compared.

    Attributes:
        name: what it is called, once among all.
        audit: its report and, where they are saved, its scores.
        settings: its config; None if only its report.json is there.
        withheld: the failed checks that withhold its verdict; ''.
    """

    name: str
    audit: two_audits.Audit
    settings: Mapping[str, Any] | None = None
    withheld: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amount:
    """Holds a number with the ends of its interval, None without one, and how it was computed."""

    value: float
    low: float | None = None
    high: float | None = None
    method: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Holds the headline numbers of a run.

    Attributes:
        run: its name.
        data, examples, level, seed: what was audited, and how.
        targets: the number of audited models.
        leak: what all attacks together show (`verdict.decide`).
        withheld: the failed checks that withhold the verdict; ''.
        strongest: the attack that leads; None without attacks.
        rows: {metric: the fields KEPT of its row}, of the metrics at the head of its page.
        utility: {key of UTILITIES: its mean over the audited models}.
        scores: whether its scores are saved, so that differences can be paired.
    """

    run: str
    data: str
    examples: int | None
    level: float
    seed: Any
    targets: int
    leak: str
    withheld: str
    strongest: str | None
    rows: Mapping[str, Mapping]
    utility: Mapping[str, Amount]
    scores: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """Holds the best attack of one kind of knowledge in one run.

    Attributes:
        run, attack, knows: which one.
        realistic: whether a real attacker could run it.
        shown: the metrics in which it shows a leak (`verdict.decide`).
        inverted: whether its AUC is significantly below 1/2.
        rows: {metric: the fields KEPT of its row}.
    """

    run: str
    knows: str
    attack: str
    realistic: bool
    shown: Sequence[str]
    inverted: bool
    rows: Mapping[str, Mapping]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Holds the difference of a run from the reference in one number: `value` - `other`.

    Attributes:
        run: the run of `value`; `other` is that of the reference.
        attack: the attack; '' for a utility.
        metric: the metric, or a key of UTILITIES.
        low, high: the interval of the difference; None without one.
        paired: whether it is that of the difference itself.
        method: how it was computed.
    """

    run: str
    attack: str
    metric: str
    value: float
    other: float
    difference: float
    low: float | None
    high: float | None
    paired: bool
    method: str

    @property
    def amount(self) -> Amount:
        """Returns the difference with its interval."""
        return Amount(value=self.difference, low=self.low, high=self.high, method=self.method)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """Says how a run is compared with the reference.

    Attributes:
        run: its name.
        paired: whether rows, training sets and scored rows are the same.
        why: why it is not paired; ''.
        none: why there is no difference at all; ''.
        assumed: whether that the examples are the same is assumed, since arrays do not show it.
    """

    run: str
    paired: bool
    why: str
    none: str
    assumed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Holds the place of a run on a front.

    Attributes:
        run: its name.
        utility: how well it predicts.
        leakage: how much it leaks: the number of its strongest attack in this metric.
        attack: that attack.
        pooled: whether the number is pooled over targets instead of their mean.
        front: whether no other run is better by point values.
        dominated_by: a run that is better by point values; None on the front.
        difference: {LEAKAGE, UTILITY: this run's number - that of `dominated_by`}, where there is
            one.
        beyond: the axes on which this run is worse beyond noise: the interval of the difference
            excludes 0.
    """

    run: str
    utility: Amount
    leakage: Amount
    attack: str
    pooled: bool
    front: bool
    dominated_by: str | None
    difference: Mapping[str, Amount]
    beyond: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Front:
    """Holds utility against leakage of the runs of the same examples.

    Attributes:
        data: the name of the data.
        metric: the metric of leakage.
        utility: the key of UTILITIES.
        points: the runs that have both numbers.
        left_out: {run: why it has no place}.
        assumed: whether that the examples are the same is assumed, since arrays do not show it.
    """

    data: str
    metric: str
    utility: str
    points: Sequence[Point]
    left_out: Mapping[str, str]
    assumed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Holds a field in which the configs differ: its value in every run as JSON, None without."""

    field: str
    values: Sequence[str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Holds everything that a comparison shows; the first run is the reference of differences.

    Attributes:
        runs: the headline of every run, in the order that was given.
        metrics: the metrics at the head of the page.
        best: the best attack of each kind of knowledge of every run.
        pairings: how each run but the first is compared with the first.
        differences: the differences from the first run.
        fronts: utility against leakage, one front per metric of leakage and group of runs of the
            same examples.
        settings: the fields in which the configs differ.
        configs: whether these are fields of the configs; False: what report.json records of them.
    """

    runs: Sequence[Summary]
    metrics: Sequence[str]
    best: Sequence[Best]
    pairings: Sequence[Pairing]
    differences: Sequence[Difference]
    fronts: Sequence[Front]
    settings: Sequence[Setting]
    configs: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the object as JSON holds it."""
        return dataclasses.asdict(self)


def compare(runs: Sequence[Run]) -> Comparison:
    """Compares audits; differences are those from the first one.

    Args:
        runs: two or more audits.

    Raises:
        ValueError: fewer than two runs, or two of one name.
    """
    names = [run.name for run in runs]
    if len(names) < 2:
        raise ValueError(f"runs has {len(names)} audits; a comparison needs two or more.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"runs has two audits called {twice!r}; each needs a name of its own.")
    metrics = common_metrics(runs)
    best = [entry for run in runs for entry in best_attacks(run, metrics)]
    pairings = [pairing(run, runs[0]) for run in runs[1:]]
    leading = list(dict.fromkeys(entry.attack for entry in best))
    return Comparison(
        runs=[summary(run, metrics) for run in runs],
        metrics=metrics,
        best=best,
        pairings=pairings,
        differences=[
            row
            for run, how in zip(runs[1:], pairings, strict=True)
            for row in ([] if how.none else differences(run, runs[0], names=leading))
        ],
        fronts=fronts(runs, metrics),
        settings=differing(recorded(runs)),
        configs=all(run.settings is not None for run in runs),
    )


def common_metrics(runs: Sequence[Run]) -> list[str]:
    """Returns the metrics at the head of the reports: TPR at 1% FPR, or those nearest to it, and
    AUC, which comes last.
    """
    every = [verdict.headline_metrics(main(run)) for run in runs]
    metrics = dict.fromkeys(metric for metrics in every for metric in metrics if metric != "auc")
    return [*metrics, "auc"]


def main(run: Run) -> list[Mapping]:
    """Returns the rows of the headline tables of a run."""
    return result_rows.main_rows(run.audit.report["results"])


def kept(row: Mapping | None) -> dict[str, Any] | None:
    """Returns the fields KEPT of a row; None without a row."""
    return None if row is None else {key: row.get(key) for key in KEPT}


def numbers(rows: Sequence[Mapping], attack: str, metrics: Sequence[str]) -> dict[str, Mapping]:
    """Returns {metric: the fields KEPT of the attack's row}, where there is one."""
    every = {metric: kept(result_rows.resolved(rows, attack, metric)) for metric in metrics}
    return {metric: row for metric, row in every.items() if row is not None}


def summary(run: Run, metrics: Sequence[str]) -> Summary:
    """Returns the headline numbers of a run."""
    report, rows = run.audit.report, main(run)
    decided, about = verdict.of(report), report.get("about", {})
    strongest = decided["strongest"]
    utilities = {key: amount for key in UTILITIES if (amount := utility(report, key)) is not None}
    return Summary(
        run=run.name,
        data=str(about.get("data", "")),
        examples=about.get("examples"),
        level=decided["level"],
        seed=about.get("seed"),
        targets=max((row["n_targets"] for row in rows), default=1),
        leak=decided["leak"],
        withheld=run.withheld,
        strongest=strongest,
        rows={} if strongest is None else numbers(rows, strongest, metrics),
        utility=utilities,
        scores=bool(run.audit.evidence) and len(run.audit.score_TN) > 0,
    )


def best_attacks(run: Run, metrics: Sequence[str]) -> list[Best]:
    """Returns the best attack of each kind of knowledge of a run, in the verdict's order."""
    rows, decided = main(run), verdict.of(run.audit.report)
    knows = verdict.known(rows)
    return [
        Best(
            run=run.name,
            knows=knows[name],
            attack=name,
            realistic=name in decided["ranked"],
            shown=list(decided["attacks"][name]["shown"]),
            inverted=decided["attacks"][name]["inverted"],
            rows=numbers(rows, name, metrics),
        )
        for name in verdict.best_of_kinds(decided, knows)
    ]


def models(report: Mapping) -> list[Mapping]:
    """Returns the rows of the audited models."""
    return [row for row in report.get("models", ()) if row.get("target", True)]


def test_rows(report: Mapping) -> int | None:
    """Returns on how many rows a model was scored that it was not trained on; None if unknown."""
    counts = [r.get("n_nonmember") for r in result_rows.main_rows(report["results"])]
    return next((int(count) for count in counts if count), None)


def test_share(report: Mapping) -> float:
    """Returns test rows / training rows of a model."""
    trained = (report.get("design") or {}).get("train_rows")
    tested = test_rows(report)
    return tested / trained if trained and tested else 1.0


def utility(report: Mapping, key: str) -> Amount | None:
    """Returns the mean over the audited models of their accuracy or loss on rows that they were not
    trained on.

    Over several models its interval is the corrected resampled t (`selection.mean`): the models
    share most of their rows. Of one model, the accuracy has a Clopper-Pearson interval over its
    test rows, and a loss has none.

    Args:
        report: report.json.
        key: a key of UTILITIES.

    Returns:
        None if a model lacks the number.
    """
    values = [row.get(key) for row in models(report)]
    if not values or any(value is None for value in values):
        return None
    level = verdict.of(report)["level"]
    if len(values) > 1:
        value, low, high = selection.mean(values, test_share=test_share(report), level=level)
        how = f"corrected resampled t over {len(values)} models"
        most = 1.0 if key == ACCURACY else high
        return Amount(value=value, low=max(low, 0.0), high=min(high, most), method=how)
    value, count = float(values[0]), test_rows(report)
    if key != ACCURACY or not count:
        return Amount(value=value)
    low, high = intervals.clopper_pearson(round(value * count), count, level)
    how = f"Clopper-Pearson over {count} rows of one model"
    return Amount(value=value, low=min(low, value), high=max(high, value), method=how)


def pairing(run: Run, reference: Run) -> Pairing:
    """Says how a run is compared with the reference."""
    first, second = run.audit, reference.audit
    levels = [verdict.of(audit.report)["level"] for audit in (first, second)]
    none = two_audits.other_examples(first.report, second.report)
    if not none and levels[0] != levels[1]:
        none = f"the intervals have levels {levels[0]:g} and {levels[1]:g}"
    if not none and not two_audits.in_both(first, second):
        none = "they have no attack in common"
    why = two_audits.unpaired(first, second)
    return Pairing(
        run=run.name,
        paired=not (why or none),
        why=why,
        none=none,
        assumed=not none and assumed(first.report, second.report),
    )


def assumed(*reports: Mapping) -> bool:
    """Returns whether reports of user-supplied arrays are among them, which do not show of which
    examples they are.
    """
    return any(report.get("about", {}).get("arrays") for report in reports)


def differences(
    run: Run, reference: Run, *, names: Sequence[str] | None = None
) -> list[Difference]:
    """Returns the differences of a run from the reference: utilities, then attack by attack.

    Args:
        run, reference: runs of the same examples and the same level.
        names: the attacks; None takes all that both have.
    """
    utilities = [
        Difference(
            run=run.name,
            attack="",
            metric=key,
            value=pair[0].value,
            other=pair[1].value,
            difference=amount.value,
            low=amount.low,
            high=amount.high,
            method=amount.method,
            paired=amount.method.startswith("paired"),
        )
        for key in UTILITIES
        if all(pair := [utility(x.audit.report, key) for x in (run, reference)])
        and (amount := utility_difference(run, reference, key)) is not None
    ]
    rows = two_audits.differences(run.audit, reference.audit, names=names)
    return utilities + [Difference(run=run.name, **row) for row in rows]


def utility_difference(first: Run, second: Run, key: str) -> Amount | None:
    """Returns the utility of one run less that of another.

    Model by model where the audits are paired and have several models; otherwise the interval is
    that of two independent numbers, if both have one.

    Args:
        first, second: the runs.
        key: a key of UTILITIES.

    Returns:
        None if one of them lacks the number.
    """
    reports = [run.audit.report for run in (first, second)]
    both = [utility(report, key) for report in reports]
    if both[0] is None or both[1] is None:
        return None
    value = both[0].value - both[1].value
    values = [{row["model"]: row[key] for row in models(report)} for report in reports]
    same = not two_audits.unpaired(first.audit, second.audit) and set(values[0]) == set(values[1])
    if same and len(values[0]) > 1:
        level = verdict.of(reports[0])["level"]
        each = [values[0][m] - values[1][m] for m in values[0]]
        mean, low, high = selection.mean(each, test_share=test_share(reports[0]), level=level)
        how = f"paired, corrected resampled t over {len(each)} models"
        return Amount(value=mean, low=low, high=high, method=how)
    ends = [(amount.value, amount.low, amount.high) for amount in both]
    if any(end is None for three in ends for end in three):
        return Amount(value=value)
    low, high = intervals.square_and_add(*ends)
    return Amount(
        value=value, low=low, high=high, method="two independent intervals, square and add"
    )


def leakage_difference(first: Run, second: Run, metric: str) -> Amount | None:
    """Returns the leakage of one run less that of another, each by its strongest attack.

    Paired where the audits are; otherwise as for two independent numbers.

    Returns:
        None if one of them has no interval, or one is pooled over targets and the other is not.
    """
    audits = (first.audit, second.audit)
    leaks = [selection.strongest(audit.report, metric) for audit in audits]
    if any(leak is None or leak.row["low"] is None for leak in leaks):
        return None
    if leaks[0].row["target"] != leaks[1].row["target"]:
        return None
    level = verdict.of(first.audit.report)["level"]
    saved = all(leak.attack in audit.score_TN for leak, audit in zip(leaks, audits, strict=True))
    if saved and not two_audits.unpaired(*audits):
        paired = selection.leakage_difference(*audits, metric, level=level)
        if paired is not None:
            return Amount(value=paired.value, low=paired.low, high=paired.high, method="paired")
    ends = [tuple(leak.row[key] for key in ("value", "low", "high")) for leak in leaks]
    low, high = intervals.square_and_add(*ends)
    return Amount(
        value=ends[0][0] - ends[1][0],
        low=low,
        high=high,
        method="two independent intervals, square and add",
    )


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Returns the runs in groups that are not known to be of different examples."""
    kept_groups: list[list[Run]] = []
    for run in runs:
        for group in kept_groups:
            if not two_audits.other_examples(group[0].audit.report, run.audit.report):
                group.append(run)
                break
        else:
            kept_groups.append([run])
    return kept_groups


def fronts(runs: Sequence[Run], metrics: Sequence[str]) -> list[Front]:
    """Returns the fronts of every group of two or more runs of the same examples, for each metric.

    A front needs two runs that have both numbers.
    """
    every = [
        front(group, metric)
        for group in groups(runs)
        if len(group) > 1
        for metric in reversed(metrics)
    ]
    return [made for made in every if len(made.points) > 1]


def front(group: Sequence[Run], metric: str) -> Front:
    """Returns utility against leakage of runs of the same examples.

    The utility is the accuracy, or the loss if more runs have a loss. Run j dominates i by point
    values (`selection.dominating`); `beyond` says on which axes the difference is more than noise.

    Args:
        group: the runs.
        metric: the metric of leakage.
    """
    amounts = {
        key: {run.name: utility(run.audit.report, key) for run in group} for key in UTILITIES
    }
    key = max(UTILITIES, key=lambda key: sum(a is not None for a in amounts[key].values()))
    leaks = {run.name: selection.strongest(run.audit.report, metric) for run in group}
    left_out: dict[str, str] = {}
    for run in group:
        if run.withheld:
            left_out[run.name] = "withheld"
        elif amounts[key][run.name] is None:
            left_out[run.name] = UTILITY
        elif leaks[run.name] is None:
            left_out[run.name] = LEAKAGE
    placed = [run for run in group if run.name not in left_out]
    sign = 1 if UTILITIES[key] else -1
    by = selection.dominating(
        [sign * amounts[key][run.name].value for run in placed],
        [leaks[run.name].value for run in placed],
    )
    points = []
    for at, run in enumerate(placed):
        leak, better = leaks[run.name], None if by[at] is None else placed[by[at]]
        apart: dict[str, Amount] = {}
        if better is not None:
            both = {
                LEAKAGE: leakage_difference(run, better, metric),
                UTILITY: utility_difference(run, better, key),
            }
            apart = {axis: amount for axis, amount in both.items() if amount is not None}
        points.append(
            Point(
                run=run.name,
                utility=amounts[key][run.name],
                leakage=Amount(
                    value=leak.value,
                    low=leak.row["low"],
                    high=leak.row["high"],
                    method=leak.row["method"],
                ),
                attack=leak.attack,
                pooled=leak.row["target"] == "pooled",
                front=better is None,
                dominated_by=None if better is None else better.name,
                difference=apart,
                beyond=beyond(apart, more_is_better=UTILITIES[key]),
            )
        )
    return Front(
        data=str(group[0].audit.report.get("about", {}).get("data", "")),
        metric=metric,
        utility=key,
        points=points,
        left_out=left_out,
        assumed=assumed(*(run.audit.report for run in group)),
    )


def beyond(apart: Mapping[str, Amount], *, more_is_better: bool) -> list[str]:
    """Returns the axes on which a run is worse beyond noise: the interval excludes 0.

    Args:
        apart: {axis: the run's number less that of the run that dominates it}.
        more_is_better: whether a larger utility is better.

    >>> worse = Amount(value=0.1, low=0.05, high=0.15)
    >>> beyond({"leakage": worse, "utility": worse}, more_is_better=True)
    ['leakage']
    """
    leak, use = apart.get(LEAKAGE), apart.get(UTILITY)
    axes = []
    if leak is not None and leak.low is not None and leak.low > 0:
        axes.append(LEAKAGE)
    if use is not None and use.low is not None and use.high is not None:
        if use.high < 0 if more_is_better else use.low > 0:
            axes.append(UTILITY)
    return axes


def recorded(runs: Sequence[Run]) -> list[Mapping[str, Any]]:
    """Returns the settings of every run in the same terms.

    Those are the configs without `run` (which changes no number) where all runs have one, else what
    report.json records of them.
    """
    if all(run.settings is not None for run in runs):
        return [{k: v for k, v in (run.settings or {}).items() if k != "run"} for run in runs]
    return [of_report(run.audit.report) for run in runs]


def of_report(report: Mapping) -> dict[str, Any]:
    """Returns the settings that report.json records."""
    about, design = report.get("about", {}), report.get("design") or {}
    attacks = {
        name: {k: v for k, v in section.items() if k not in ("needs", "knows", "note")}
        for name, section in report.get("attacks", {}).items()
    }
    return dict(
        data=dict(name=about.get("data")),
        design={key: design[key] for key in ("name", "models") if key in design},
        model=about.get("model"),
        learner=about.get("learner"),
        attacks=attacks,
        report=dict(level=about.get("level", 0.95)),
        seed=about.get("seed"),
    )


def differing(settings: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """Returns the fields in which settings differ, by their dotted names.

    A section that some settings lack is one field; a field is taken apart only where it is a
    section in all of them. A field that is missing in some and null, false or empty in the others
    is no difference.

    >>> a, b = dict(x=dict(y=1, z=2), w=[1]), dict(x=dict(y=3, z=2), w=[1], v=4, u=None)
    >>> [(s.field, s.values) for s in differing([a, b])]
    [('x.y', ['1', '3']), ('v', [None, '4'])]
    """
    lines: list[Setting] = []

    def walk(prefix: str, sections: Sequence[Mapping[str, Any]]) -> None:
        for key in dict.fromkeys(key for section in sections for key in section):
            there = [section[key] for section in sections if key in section]
            if len(there) == len(sections) and all(isinstance(v, Mapping) for v in there):
                walk(f"{prefix}{key}.", there)
                continue
            values = [
                json.dumps(section[key], ensure_ascii=False, sort_keys=True, default=str)
                if key in section
                else None
                for section in sections
            ]
            unset = len(there) < len(sections) and not any(there)
            if len(set(values)) > 1 and not unset:
                lines.append(Setting(field=f"{prefix}{key}", values=values))

    walk("", settings)
    return lines
