"""The vulnerability of single records to an attack, scored again with the shadows of the other
fold, and what the report shows of it.
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

    Returns (table, arrays): `arrays` are the fields of `records.Vulnerability`, `table` is what a
    person reads; ({why}, {}) if the records cannot be measured.

    `scores(attack, fleet, targets, key) -> score_TN`. Attackers of one fold of targets use the
    shadows of the other alone, all the same ones, so that their number tells nothing within a fold.
    An attack that refuses so few shadows is a {why}, too.
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
    found = records.vulnerability(score_TN, *shared, level=level)
    tested = int((~np.isnan(found.auc_N)).sum())
    if not tested:
        return dict(why="no record is in some targets of a fold and not in others"), {}
    table = dict(
        targets=len(targets),
        tested=tested,
        mean_auc=float(np.nanmean(found.auc_N)),
        significant=int((found.q_N <= 1 - level).sum()),
    )
    winner = records.most_exposed(score_TN, *shared[:2], unit_T, level=level, seed=seed)
    listed = [
        entry | dict(q=float(found.q_N[entry["record"]])) for entry in winner.pop("listed")[:LISTED]
    ]
    table |= dict(most_exposed=winner, listed=listed, level=level)
    return table, found._asdict() | dict(
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
    tested'.

    `exposure` is the AUC of the record over models that were and were not trained on it (0.5:
    guessing), with its interval, p- and q-value; `record` is its row number. `arrays`, `tables` are
    what `measure` returned, keyed '<attack>/<field>' and '<attack>'.
    """
    rows, found = np.flatnonzero(evaluated_N), []
    measured = [name for name, table in tables.items() if "why" not in table]
    for name in measured or [""]:
        own = {k: arrays[f"{name}/{field}"] for k, field in FIELDS.items()} if name else {}
        for n in rows.tolist():
            value = {k: of_N[n].item() for k, of_N in own.items()}
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
            found.append({k: (common | value | dict(flag=FLAGS[flag])).get(k) for k in CSV})
    return found


FIELDS = dict(
    models_with="inside_N",
    models_without="outside_N",
    exposure="auc_N",
    low="low_N",
    high="high_N",
    p="p_N",
    q="q_N",
)
