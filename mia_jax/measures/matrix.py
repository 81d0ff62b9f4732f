"""Crosses defenses with attacks: what each defense leaves to each attack, and what it costs.

Every defense is an audit of the same examples and training sets, so that differences to the
undefended models are paired. Everything is computed from report.json and saved scores.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mia_jax.measures import comparison, selection, two_audits, verdict
from mia_jax.measures.comparison import LEAKAGE, UTILITY, Amount, Run
from mia_jax.metrics import comparisons, intervals

LABELS, OUTPUTS = "labels", "outputs"  # what an attack sees: predicted labels, or whole answers
TRAINING, OUTPUT = "training", "output"  # when a defense acts
ONE_KIND, UNAWARE = "one_kind", "unaware"  # flags
HALF = 0.5


class Cost(NamedTuple):
    """Holds what training a defense's models took.

    Attributes:
        steps: the mean number of steps of a model; None if unknown.
        cpu_seconds: CPU seconds of the whole fleet, with compilation; None if unknown.
        shared: the defense whose trained models are used instead of own ones; ''.
    """

    steps: float | None
    cpu_seconds: float | None
    shared: str = ""


def steps_of(report: Mapping) -> float | None:
    """Returns the mean number of steps of an audited model: its epochs times batches per epoch."""
    epochs = [row.get("epochs") for row in comparison.models(report)]
    rows = (report.get("design") or {}).get("train_rows")
    batch = (report.get("about", {}).get("learner") or {}).get("batch_size")
    if not epochs or any(count is None for count in epochs) or not (rows and batch):
        return None
    return float(np.mean(epochs)) * math.ceil(rows / batch)


class Defended(NamedTuple):
    """Holds the audit of one defense.

    Attributes:
        run: the audit; its name is the defense's.
        about: a sentence about the defense.
        cost: what its training took.
    """

    run: Run
    about: str
    cost: Cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """Holds an attack: its name, and what it sees (LABELS or OUTPUTS)."""

    attack: str
    sees: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """Holds what one attack reaches behind one defense.

    Attributes:
        attack: the column.
        name: the attack in the report of the defense.
        adaptive: whether the attacker knows the defense.
        rows: {metric: the fields KEPT of its row}.
        difference: {metric: its number less that of the undefended models}.
    """

    attack: str
    name: str
    adaptive: bool
    rows: Mapping[str, Mapping]
    difference: Mapping[str, Amount]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Holds one defense.

    Attributes:
        defense: its name.
        about: a sentence about it.
        acts: TRAINING or OUTPUT.
        accuracy: of released labels on rows that a model was not trained on.
        accuracy_difference: to the undefended models; None for these.
        cost: what its training took.
        cells: one per attack, and a second one where an attacker who knows the defense differs.
        best: {metric: the cell of the strongest attack}, adaptive attackers included.
        best_difference: {metric: its number less that of the strongest attack without a defense}.
        flags: of ONE_KIND and UNAWARE.
        kinds: {what an attack sees: (its best AUC without the defense, behind it)}.
        withheld: the failed checks that withhold the verdict; ''.
    """

    defense: str
    about: str
    acts: str
    accuracy: Amount
    accuracy_difference: Amount | None
    cost: Cost
    cells: Sequence[Cell]
    best: Mapping[str, Cell]
    best_difference: Mapping[str, Amount]
    flags: Sequence[str]
    kinds: Mapping[str, tuple[float, float]]
    withheld: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Holds the place of a defense on the front of accuracy against its strongest attack.

    Attributes:
        defense: its name.
        accuracy: its accuracy.
        leakage: the number of its strongest attack.
        attack: that attack.
        front: whether no other defense is better by point values.
        dominated_by: a defense that is; None on the front.
        beyond: the axes on which it is worse than that one beyond noise.
        difference: {LEAKAGE, UTILITY: its number less that of `dominated_by`}.
    """

    defense: str
    accuracy: Amount
    leakage: Amount
    attack: str
    front: bool
    dominated_by: str | None
    beyond: Sequence[str]
    difference: Mapping[str, Amount]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """Holds everything that the page of a matrix shows.

    Attributes:
        data, examples, targets, level: what was audited.
        train_rows: the members of a model.
        reference: the name of the undefended models.
        metrics: the metrics of the cells: the AUC, then the TPR at a low FPR.
        columns: the attacks.
        lines: the defenses, the reference first.
        fronts: {metric: the places of all defenses}.
        failed: {defense: why it has no numbers}.
        paired: whether all differences are paired.
    """

    data: str
    examples: int | None
    train_rows: int | None
    targets: int
    level: float
    reference: str
    metrics: Sequence[str]
    columns: Sequence[Column]
    lines: Sequence[Line]
    fronts: Mapping[str, Sequence[Place]]
    failed: Mapping[str, str]
    paired: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the object as JSON holds it."""
        made = dataclasses.asdict(self)
        for line, own in zip(made["lines"], self.lines, strict=True):
            line["cost"] = own.cost._asdict()
        return made


def cross(
    defended: Sequence[Defended],
    *,
    sees: Mapping[str, str],
    accuracy_of: str,
    failed: Mapping[str, str] = {},
) -> Matrix:
    """Crosses defenses with attacks.

    Args:
        defended: the audits; the first one has no defense and is the reference.
        sees: {attack of the reference: LABELS or OUTPUTS}, the columns.
        accuracy_of: the attack whose scores are 1 where the released label is right, else 0.
        failed: {defense: why it has no audit}.

    Raises:
        ValueError: the reference has a defense, or lacks an attack of `sees`.
    """
    runs = [entry.run for entry in defended]
    reference = runs[0]
    here = {row["attack"] for row in reference.audit.report["results"]}
    if missing := [name for name in sees if name not in here]:
        raise ValueError(
            f"sees: the undefended audit {reference.name!r} has no attack {missing[0]!r}; it has "
            f"{', '.join(sorted(here))}."
        )
    if any(section.get("defense") for section in sections(reference).values()):
        raise ValueError(f"the reference {reference.name!r} is behind a defense itself.")
    rates = [m for m in comparison.common_metrics(runs) if m != "auc"]
    metrics = ["auc", *rates]
    accuracies = {run.name: correct_TU(run, accuracy_of) for run in runs}
    drawn = {run.name: draws_of(run, reference) for run in runs}
    lines = [
        line(
            entry,
            reference=reference,
            sees=sees,
            metrics=metrics,
            accuracies=accuracies,
            drawn=drawn,
        )
        for entry in defended
    ]
    about, design = reference.audit.report["about"], reference.audit.report.get("design") or {}
    return Matrix(
        data=str(about.get("data", "")),
        examples=about.get("examples"),
        train_rows=design.get("train_rows"),
        targets=max((row["n_targets"] for row in comparison.main(reference)), default=1),
        level=verdict.of(reference.audit.report)["level"],
        reference=reference.name,
        metrics=metrics,
        columns=[Column(attack=name, sees=kind) for name, kind in sees.items()],
        lines=lines,
        fronts={
            metric: front(runs, lines, metric=metric, accuracies=accuracies, drawn=drawn)
            for metric in metrics
        },
        failed=dict(failed),
        paired=all(not two_audits.unpaired(run.audit, reference.audit) for run in runs[1:]),
    )


def line(
    entry: Defended,
    *,
    reference: Run,
    sees: Mapping[str, str],
    metrics: Sequence[str],
    accuracies: Mapping[str, Mapping[int, float]],
    drawn: Mapping[str, Mapping],
) -> Line:
    """Returns the line of one defense; see `cross` for the other arguments.

    Args:
        entry: the audit.
        reference, sees, metrics: the columns.
        accuracies: {defense: `correct_TU` of its audit}.
        drawn: {defense: `draws_of` its audit}.
    """
    run = entry.run
    common = dict(reference=reference, sees=sees, metrics=metrics, drawn=drawn)
    cells = cells_of(run, **common)
    best = {}
    for metric in metrics:
        if (leak := selection.strongest(run.audit.report, metric)) is not None:
            best[metric] = next((cell for cell in cells if cell.name == leak.attack), None)
    best = {metric: cell for metric, cell in best.items() if cell is not None}
    other = run.name != reference.name
    share = comparison.test_share(run.audit.report)
    level = verdict.of(reference.audit.report)["level"]
    accuracy = mean_of(list(accuracies[run.name].values()), share=share, level=level)
    difference = None
    if other:
        own, plain = accuracies[run.name], accuracies[reference.name]
        both = [own[t] - plain[t] for t in own if t in plain]
        difference = mean_of(both, share=share, level=level, least=-1.0)
    plain = cells_of(reference, **common) if other else cells
    kinds = {
        kind: (best_auc(plain, sees, kind), best_auc(cells, sees, kind))
        for kind in (OUTPUTS, LABELS)
        if kind in sees.values()
    }
    return Line(
        defense=run.name,
        about=entry.about,
        acts=OUTPUT if any(s.get("defense") for s in sections(run).values()) else TRAINING,
        accuracy=accuracy,
        accuracy_difference=difference,
        cost=entry.cost,
        cells=cells,
        best=best,
        best_difference={
            metric: amount
            for metric in metrics
            if other and (amount := leakage_difference(run, reference, metric, drawn)) is not None
        },
        flags=flags(plain, cells, sees) if other else [],
        kinds=kinds,
        withheld=run.withheld,
    )


def sections(run: Run) -> Mapping[str, Mapping]:
    """Returns {attack: its fields} of an audit, from its config or its report."""
    if run.settings is not None:
        return run.settings["attacks"]
    return run.audit.report.get("attacks", {})


def own_fields(section: Mapping) -> dict[str, Any]:
    """Returns the fields of an attack without what it is asked behind.

    >>> own_fields(dict(name='lira', mode='online', defense='memguard', adaptive=True))
    {'name': 'lira', 'mode': 'online'}
    """
    return {
        k: v
        for k, v in section.items()
        if k not in ("defense", "adaptive", "needs", "knows", "note")
    }


def draws_of(run: Run, reference: Run) -> Mapping[str, Mapping]:
    """Returns {attack: {(target, metric): Drawn}} of an audit under the draws of the reference; {}
    where the two cannot be paired.
    """
    if two_audits.unpaired(run.audit, reference.audit):
        return {}
    return two_audits.drawn(run.audit, reference.audit)


def difference(
    first: Mapping | None,
    second: Mapping | None,
    drawn: tuple[Mapping, Mapping],
    *,
    level: float,
) -> Amount | None:
    """Returns one number less another, paired where both have draws.

    Args:
        first, second: rows of results.
        drawn: {(target, metric): Drawn} of the attack of either.
        level: the level of the interval.

    Returns:
        None if one lacks the number or its interval, or if one is pooled over targets alone.
    """
    if first is None or second is None or first["target"] != second["target"]:
        return None
    if any(row["value"] is None or row["low"] is None for row in (first, second)):
        return None
    value = first["value"] - second["value"]
    both = [drawn_of.get((first["target"], first["metric"])) for drawn_of in drawn]
    if all(one is not None and one.outcome.low is not None for one in both):
        row = comparisons.difference(*both, level=level)
        low, high, method = row["low"], row["high"], row["method"]
    else:
        ends = [tuple(row[key] for key in ("value", "low", "high")) for row in (first, second)]
        low, high = intervals.square_and_add(*ends)
        method = "two independent intervals, square and add"
    return Amount(value=value, low=max(low, -1.0), high=min(high, 1.0), method=method)


def leakage_difference(
    first: Run, second: Run, metric: str, drawn: Mapping[str, Mapping]
) -> Amount | None:
    """Returns the number of the strongest attack of one audit less that of another."""
    leaks = [selection.strongest(run.audit.report, metric) for run in (first, second)]
    if any(leak is None for leak in leaks):
        return None
    each = [
        drawn[run.name].get(leak.attack, {})
        for run, leak in zip((first, second), leaks, strict=True)
    ]
    level = verdict.of(first.audit.report)["level"]
    return difference(leaks[0].row, leaks[1].row, tuple(each), level=level)


def cells_of(
    run: Run,
    *,
    reference: Run,
    sees: Mapping[str, str],
    metrics: Sequence[str],
    drawn: Mapping[str, Mapping],
) -> list[Cell]:
    """Returns the cells of a defense in the order of the columns, unaware attackers first.

    An attack of the defense is that of a column if both have the same fields apart from the
    defense. Behind a defense of training, every attacker trains shadow models with it.
    """
    plain, own = sections(reference), sections(run)
    rows = comparison.main(run)
    found: list[tuple[str, str, bool]] = []
    for column in sees:
        same = [name for name in own if own_fields(own[name]) == own_fields(plain[column])]
        found += [
            (column, name, bool(own[name].get("adaptive")))
            for name in sorted(same, key=lambda name: bool(own[name].get("adaptive")))
        ]
    level = verdict.of(reference.audit.report)["level"]
    made = []
    for column, name, adaptive in found:
        here = comparison.numbers(rows, name, metrics)
        there = comparison.numbers(comparison.main(reference), column, metrics)
        draws = drawn[run.name].get(name, {}), drawn[reference.name].get(column, {})
        changed = {
            metric: difference(here.get(metric), there.get(metric), draws, level=level)
            for metric in metrics
            if run.name != reference.name
        }
        made.append(
            Cell(
                attack=column,
                name=name,
                adaptive=adaptive,
                rows=here,
                difference={m: amount for m, amount in changed.items() if amount is not None},
            )
        )
    return made


def correct_TU(run: Run, attack: str) -> dict[int, float]:
    """Returns {target: the share of right labels among rows that it was not trained on}.

    They are the labels that the defense releases, of all scored rows: the scores of `attack`, those
    of an attacker who knows the defense if there are any.
    """
    own = sections(run)
    names = [
        n for n in own if own_fields(own[n]).get("name", n) == attack and n in run.audit.score_TN
    ]
    score_TN, evidence = run.audit.score_TN[names[-1]], run.audit.evidence
    outside_TN = evidence["evaluated_TN"].astype(bool) & ~evidence["member_TN"].astype(bool)
    return {
        int(t): float(np.mean(score_N[outside_N] > HALF))
        for t, score_N, outside_N in zip(evidence["targets"], score_TN, outside_TN, strict=True)
    }


def mean_of(values: Sequence[float], *, share: float, level: float, least: float = 0.0) -> Amount:
    """Returns the mean over models with the corrected resampled t (`selection.mean`).

    Args:
        values: an accuracy per model, or a difference of two.
        share: the share of rows that a model was not trained on.
        level: the level of the interval.
        least: the least value that is possible; the largest one is 1.
    """
    if len(values) < 2:
        return Amount(value=float(values[0]))
    value, low, high = selection.mean(values, test_share=share, level=level)
    return Amount(
        value=value,
        low=max(low, least),
        high=min(high, 1.0),
        method=f"corrected resampled t over {len(values)} models",
    )


def best_auc(cells: Sequence[Cell], sees: Mapping[str, str], kind: str) -> float:
    """Returns the largest AUC of the attacks that see `kind`, 1/2 without any."""
    every = [
        cell.rows["auc"]["value"]
        for cell in cells
        if sees[cell.attack] == kind and "auc" in cell.rows
    ]
    return max(every, default=HALF)


def flags(plain: Sequence[Cell], cells: Sequence[Cell], sees: Mapping[str, str]) -> list[str]:
    """Returns what a reader must know about a defense: ONE_KIND, UNAWARE.

    The excess of an attack is its AUC - 1/2; a kind of attack is what it sees. For each kind the
    strongest attack without the defense and the strongest one behind it are compared, over all
    attackers, also those that know the defense.

    - ONE_KIND: of one kind at least half of the excess is gone, and of another one, whose excess
      was significant without the defense, less than a quarter is.
    - UNAWARE: attackers who do not know the defense lose at least half of their excess, and those
      who know it keep more than half, in the strongest attack of either.

    A kind without a significant excess has nothing to lose and raises no flag.
    """
    raised = []
    lost = {}
    for kind in dict.fromkeys(sees.values()):
        leading = [c for c in plain if sees[c.attack] == kind and significant(c)]
        if leading:
            before = best_auc(plain, sees, kind) - HALF
            lost[kind] = 1 - max(best_auc(cells, sees, kind) - HALF, 0.0) / before
    if any(x >= HALF for x in lost.values()) and any(x < HALF / 2 for x in lost.values()):
        raised.append(ONE_KIND)
    aware = [cell for cell in cells if cell.adaptive]
    unaware = [cell for cell in cells if not cell.adaptive]
    if aware and unaware and any(map(significant, plain)):
        before = max(best_auc(plain, sees, kind) for kind in sees.values()) - HALF
        kept = [
            max(best_auc(some, sees, kind) for kind in sees.values()) - HALF
            for some in (unaware, aware)
        ]
        if before > 0 and kept[0] <= HALF * before < kept[1]:
            raised.append(UNAWARE)
    return raised


def significant(cell: Cell) -> bool:
    """Returns whether the interval of an AUC is above 1/2."""
    row = cell.rows.get("auc")
    return row is not None and row["low"] is not None and row["low"] > HALF


def front(
    runs: Sequence[Run],
    lines: Sequence[Line],
    *,
    metric: str,
    accuracies: Mapping[str, Mapping[int, float]],
    drawn: Mapping[str, Mapping],
) -> list[Place]:
    """Returns where every defense is, of accuracy against its strongest attack.

    Args:
        runs: the audits.
        lines: their lines.
        metric: the metric of leakage.
        accuracies, drawn: see `line`.
    """
    run_of = {run.name: run for run in runs}
    placed = [line for line in lines if metric in line.best and not line.withheld]
    value_of = {line.defense: line.best[metric].rows[metric] for line in placed}
    by = selection.dominating(
        [line.accuracy.value for line in placed],
        [value_of[line.defense]["value"] for line in placed],
    )
    places = []
    for at, own in enumerate(placed):
        better = None if by[at] is None else placed[by[at]]
        apart: dict[str, Amount] = {}
        if better is not None:
            first, second = run_of[own.defense], run_of[better.defense]
            leak = leakage_difference(first, second, metric, drawn)
            each = [accuracies[run.name] for run in (first, second)]
            level = verdict.of(first.audit.report)["level"]
            both = [each[0][t] - each[1][t] for t in each[0] if t in each[1]]
            share = comparison.test_share(first.audit.report)
            apart[UTILITY] = mean_of(both, share=share, level=level, least=-1.0)
            if leak is not None:
                apart[LEAKAGE] = leak
        row = value_of[own.defense]
        places.append(
            Place(
                defense=own.defense,
                accuracy=own.accuracy,
                leakage=Amount(
                    value=row["value"], low=row["low"], high=row["high"], method=row["method"] or ""
                ),
                attack=own.best[metric].name,
                front=better is None,
                dominated_by=None if better is None else better.defense,
                beyond=comparison.beyond(apart, more_is_better=True),
                difference=apart,
            )
        )
    return places
