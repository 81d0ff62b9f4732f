"""Measures how vulnerable single records are to an attack, and makes the lines of records.csv.

The attack is scored again with the shadows of the other fold (`metrics.records`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from mia_jax.metrics import records
from mia_jax.threat_model import FleetSignals
from mia_jax.types import Attack

LISTED = 10


def measure(
    *,
    attack: Attack,
    fleet: FleetSignals,
    scores: Callable,
    key,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict, dict[str, np.ndarray]]:
    """Scores an attack again with the shadows of the other fold, and measures every record.

    Attackers of one fold of targets use only the shadows of the other fold, all of them the same
    ones, so that the number of shadows reveals nothing within a fold.

    Args:
        attack: the attack.
        fleet: the models with their signals and their design.
        scores: maps (attack, fleet, targets, key) to score_TN.
        key: the key of the attack's random numbers.
        level: the confidence level.
        seed: the seed of the bootstrap.

    Returns:
        (table, arrays), where `table` is what the report shows and `arrays` are the fields of
            `records.Vulnerability` with `fold_T`, `half_T` and `targets`. ({why}, {}) if the
            records cannot be measured, or if the attack refuses so few shadows.
    """
    design, rows = fleet.design, fleet.design.of_targets()
    targets, unit_T = list(rows.targets), rows.unit_T
    why = records.refused(unit_T)
    if why:
        return dict(why=why, few=True), {}
    fold_T = records.folds(unit_T)
    halved = dataclasses.replace(
        design, shadow_MM=records.other_fold(design.shadow_MM, targets, fold_T), balance=False
    )
    try:
        score_TN = scores(attack, dataclasses.replace(fleet, design=halved), design.targets, key)
    except ValueError as refusal:
        return dict(why=f"with half of the shadows: {refusal}"), {}
    shared = (rows.member_TN, rows.evaluated_TN, fold_T)
    vulnerability = records.vulnerability(score_TN, *shared, level=level)
    tested = int((~np.isnan(vulnerability.auc_N)).sum())
    if not tested:
        return dict(why="no record is in some targets of a fold and not in others"), {}
    table = dict(
        targets=len(targets),
        tested=tested,
        mean_auc=float(np.nanmean(vulnerability.auc_N)),
        significant=int((vulnerability.q_N <= 1 - level).sum()),
    )
    winner = records.most_exposed(score_TN, *shared[:2], unit_T, level=level, seed=seed)
    listed = [
        entry | dict(q=float(vulnerability.q_N[entry["record"]]))
        for entry in winner.pop("listed")[:LISTED]
    ]
    table |= dict(most_exposed=winner, listed=listed, level=level)
    return table, vulnerability._asdict() | dict(
        fold_T=fold_T, half_T=records.halves(unit_T), targets=np.asarray(targets)
    )


CSV = (
    "record",
    "id",
    "label",
    "attack",
    "models_with",
    "models_without",
    "exposure",
    "low",
    "high",
    "p",
    "q",
    "flag",
)
FLAGS = {True: "exposed", False: "not significant", None: "not tested"}


def lines(
    arrays: Mapping[str, np.ndarray],
    tables: Mapping[str, Mapping],
    *,
    evaluated_N,
    labels_N=None,
    id_N=None,
    level: float = 0.95,
) -> list[dict]:
    """Returns the lines of records.csv, with the columns CSV.

    Every scored record occurs once per attack that was measured, or once with the flag 'not
    tested'. `record` is its row number. `exposure` is the AUC of the record over models that were
    and were not trained on it (0.5: guessing), with its interval, p- and q-value.

    Args:
        arrays, tables: what `measure` returned, with the keys '<attack>/<field>' and '<attack>'.
        evaluated_N: the scored records.
        labels_N, id_N: the labels and the ids of the records; None if unknown.
        level: the level at which a record is flagged.
    """
    rows, csv_lines = np.flatnonzero(evaluated_N), []
    measured = [name for name, table in tables.items() if "why" not in table]
    for name in measured or [""]:
        columns = {k: arrays[f"{name}/{field}"] for k, field in FIELDS.items()} if name else {}
        for n in rows.tolist():
            value = {k: of_N[n].item() for k, of_N in columns.items()}
            value = {
                k: None if isinstance(v, float) and np.isnan(v) else v for k, v in value.items()
            }
            flag = None if value.get("q") is None else value["q"] <= 1 - level
            common = dict(
                record=n,
                id=None if id_N is None else str(id_N[n]),
                label=None if labels_N is None else labels_N[n].item(),
                attack=name,
            )
            csv_lines.append({k: (common | value | dict(flag=FLAGS[flag])).get(k) for k in CSV})
    return csv_lines


FIELDS = dict(
    models_with="inside_N",
    models_without="outside_N",
    exposure="auc_N",
    low="low_N",
    high="high_N",
    p="p_N",
    q="q_N",
)
