"""Compares two audits, attack by attack: what a change of the model, the training or a defense did.

Differences are paired where both audits have the same rows and the same training sets: what is hard
about a record then counts in both numbers and cancels. The comparison reads the scores, no workdir.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mia_jax.metrics import bootstrap, comparisons, intervals, summary
from mia_jax.metrics import rows as result_rows

# the evidence that two audits of the same rows and training sets have in common, and what it means
# if it differs
SAME = {
    "targets": "the audited models have other numbers",
    "member_TN": "the models have other training sets",
    "evaluated_TN": "other rows are scored",
    "unit_T": "other models belong together",
}


# a number that no draw changes has the two intervals' worst corners instead, which are not paired
PAIRED = (
    "paired",
    "paired, normal",
    "paired, Student's t",
    "paired, Student's t, angular scale",
)


class Audit(NamedTuple):
    """Holds one of two audits.

    Attributes:
        report: report.json.
        evidence: {targets, member_TN, evaluated_TN, unit_T, draws}; {} without saved scores.
        score_TN: {attack: its scores of the targets}.
    """

    report: Mapping
    evidence: Mapping[str, np.ndarray]
    score_TN: Mapping[str, np.ndarray]


def unpaired(first: Audit, second: Audit) -> str:
    """Returns why the two audits cannot be paired, '' if they can.

    User-supplied arrays do not show of which rows they are (`about.pool` is the digest of the
    answers). For them, equal training sets and scored rows are taken as equal rows.
    """
    for key, why in SAME.items():
        if not (key in first.evidence and key in second.evidence):
            return "the scores of one of them are missing"
        if not np.array_equal(first.evidence[key], second.evidence[key]):
            return why
    return other_examples(first.report, second.report)


def other_examples(first: Mapping, second: Mapping) -> str:
    """Returns why two reports are known to be of different examples, '' if they are not.

    Of user-supplied arrays only the numbers of examples and of classes, where both have classes,
    can be compared.

    Args:
        first, second: report.json of the two.
    """
    about = [report.get("about", {}) for report in (first, second)]
    arrays = any(entry.get("arrays") for entry in about)
    if not arrays:
        return "the examples differ" if about[0].get("pool") != about[1].get("pool") else ""
    both = [[entry.get(key) for entry in about] for key in ("examples", "classes")]
    known = any(all(pair) and pair[0] != pair[1] for pair in both)
    return "the examples differ" if known else ""


def evidence_of(membership: Mapping[str, np.ndarray], *, targets, draws: int) -> dict:
    """Returns the evidence of an audit, from the arrays of design/membership.npz.

    Args:
        membership: {member_MN, evaluated_MN, unit_M}.
        targets: the numbers of the audited models.
        draws: the number of bootstrap draws.

    Returns:
        {targets, member_TN, evaluated_TN, unit_T, draws}.
    """
    return dict(
        targets=np.asarray(targets),
        member_TN=membership["member_MN"][targets],
        evaluated_TN=membership["evaluated_MN"][targets],
        unit_T=membership["unit_M"][targets],
        draws=np.asarray(draws),
    )


def differences(first: Audit, second: Audit, *, names: Sequence[str] | None = None) -> list[dict]:
    """Returns a row per attack and metric (auc and tpr@FPR) that both audits have.

    If the audits are paired, an interval comes from the draws that both share
    (`comparisons.difference`), with the standard error of variance components where several units
    of models can be resampled. For attacks that know shadows it is often too wide, because the
    audits' reruns are not saved. Otherwise an interval comes from the two intervals, as for
    independent studies (`intervals.square_and_add`).

    Args:
        first, second: the audits.
        names: the attacks; None takes all that both have.

    Returns:
        Rows {attack, metric, value, other, difference, low, high, paired, method}, where
            `difference` is value - other and [low, high] its interval.

    Raises:
        ValueError: the intervals of the two have different levels.
    """
    levels = [audit.report.get("about", {}).get("level", 0.95) for audit in (first, second)]
    if levels[0] != levels[1]:
        raise ValueError(
            f"the intervals have levels {levels[0]:g} and {levels[1]:g}; audit both with the same "
            "level."
        )
    pairs = [
        (name, metric, rows)
        for name in in_both(first, second)
        if names is None or name in names
        for metric in metrics(first)
        if (
            rows := [
                result_rows.resolved(result_rows.main_rows(audit.report["results"]), name, metric)
                for audit in (first, second)
            ]
        )
        and all(row is not None and row["low"] is not None for row in rows)
        and rows[0]["target"] == rows[1]["target"]
    ]
    kept = ()
    if pairs and not unpaired(first, second):
        compared = {name for name, *_ in pairs}
        kept = [drawn(restricted(audit, compared), first) for audit in (first, second)]
    lines = []
    for name, metric, rows in pairs:
        both = [tuple(row[key] for key in ("value", "low", "high")) for row in rows]
        key = (rows[0]["target"], metric)
        paired = bool(kept) and all(key in drawn_of.get(name, ()) for drawn_of in kept)
        if paired:
            row = comparisons.difference(
                *(drawn_of[name][key] for drawn_of in kept), level=levels[0]
            )
            low, high, how = row["low"], row["high"], row["method"]
            paired = how.endswith(PAIRED)
        else:
            low, high = intervals.square_and_add(*both)
            how = "two independent intervals, square and add"
        lines.append(
            dict(
                attack=name,
                metric=metric,
                value=both[0][0],
                other=both[1][0],
                difference=both[0][0] - both[1][0],
                low=max(low, -1.0),
                high=min(high, 1.0),
                paired=paired,
                method=how,
            )
        )
    return lines


def in_both(first: Audit, second: Audit) -> list[str]:
    """Returns the attacks that both audits have, in the order of the first one's rows."""
    there = {row["attack"] for row in second.report["results"]}
    return [n for n in dict.fromkeys(r["attack"] for r in first.report["results"]) if n in there]


def metrics(measured: Audit) -> list[str]:
    """Returns the metrics that scores alone decide; thresholds of an attack are not saved."""
    rows = result_rows.main_rows(measured.report["results"])
    return ["auc", *(f"tpr@{fpr:g}" for fpr in result_rows.fprs(rows))]


def restricted(measured: Audit, names) -> Audit:
    """Returns an audit with the scores of some of its attacks."""
    scores = {name: measured.score_TN[name] for name in measured.score_TN if name in names}
    return measured._replace(score_TN=scores)


def drawn(measured: Audit, shared: Audit) -> dict[str, dict]:
    """Returns {attack: {(target, metric): Drawn}} of an audit, with the draws of another one.

    Args:
        measured: the audit, whose scores are drawn.
        shared: the audit of the same rows and training sets that says how often and with which
            seed is drawn, so that several audits share their draws.
    """
    evidence, about = shared.evidence, shared.report["about"]
    rows = result_rows.main_rows(measured.report["results"])
    knows = {row["attack"]: row["knows"] for row in rows if row["metric"] == "auc"}
    member_TN = np.asarray(evidence["member_TN"], bool)
    kept: dict[str, dict] = {}
    summary.rows(
        {
            name: dict(score_TN=score_TN, knows=knows[name])
            for name, score_TN in measured.score_TN.items()
            if name in knows
        },
        member_TN,
        evidence["evaluated_TN"],
        unit_T=evidence["unit_T"],
        draws=bootstrap.make(
            member_TN.shape[1],
            evidence["unit_T"],
            draws=int(evidence["draws"]),
            seed=int(about["seed"]),
        ),
        fprs=result_rows.fprs(rows),
        level=about.get("level", 0.95),
        detail=1,
        keep=kept,
    )
    return kept
