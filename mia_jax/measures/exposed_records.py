"""Measures how vulnerable single records are to an attack, and makes the lines of records.csv.

The attack is scored again with the shadows of the other fold (`metrics.records`). The same scores
give the TPR at an FPR that holds for every record (`metrics.record_rates`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mia_jax.metrics import multiple, power, record_rates, records
from mia_jax.threat_model import FleetSignals
from mia_jax.types import Attack, Design

LISTED = 10
CHUNK = 1 << 14  # lines of records.csv that are made at a time


def measure(
    *,
    attack: Attack,
    fleet: FleetSignals,
    scores: Callable,
    key,
    fprs: Sequence[float] = (),
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
        fprs: the false-positive rates of `record_rates.measure`.
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
    winner, halves = records.most_exposed(score_TN, *shared[:2], unit_T, level=level, seed=seed)
    table = dict(
        targets=len(targets),
        tested=tested,
        mean_auc=float(np.nanmean(vulnerability.auc_N)),
        most_exposed=winner,
        level=level,
        at_fpr=record_rates.measure(
            score_TN,
            *shared[:2],
            unit_T=unit_T,
            fold_T=fold_T,
            fprs=fprs,
            level=level,
            seed=seed,
        ),
        pool=_among_new_records(vulnerability, winner, design),
    )
    arrays = vulnerability._asdict() | halves._asdict()
    arrays |= dict(fold_T=fold_T, half_T=records.halves(unit_T), targets=np.asarray(targets))
    return table | significance(arrays, level=level), arrays


def _among_new_records(
    exposed: records.Vulnerability, winner: Mapping, design: Design
) -> dict | None:
    """Returns the mean AUCs if models were trained on new records, at their closest to 1/2.

    Returns:
        {fraction, mean_auc, held_out_auc}, see `record_rates.outside_pool`; `fraction` is the share
            of the records on which a model is trained. None where a model is trained on all.
    """
    used_N = design.member_MN.any(0)
    fraction = float(design.of_targets().member_TN[:, used_N].mean())
    if not fraction < 1:
        return None
    held = winner["held_out_auc"]
    return dict(
        fraction=fraction,
        mean_auc=record_rates.outside_pool(float(np.nanmean(exposed.auc_N)), fraction),
        held_out_auc=None if held is None else record_rates.outside_pool(held, fraction),
    )


def significance(arrays: Mapping[str, np.ndarray], *, level: float, attacks: int = 1) -> dict:
    """Returns how many records are significant under an attack, which ones, and what could be.

    Args:
        arrays: what `measure` returned.
        level: 1 minus the false-discovery rate.
        attacks: the number of attacks under which records are tested together.

    Returns:
        {significant, attacks, unranked, listed, alone}. `listed` has up to LISTED significant
            records, those with the highest AUC on the half that ranks, {record, ranked_auc, auc,
            low, high, q}: AUC and interval are those of the half that does not rank. `unranked`
            significant records cannot be listed, because all or none of the models of one half were
            trained on them. `alone` is the smallest AUC at which a single exposed record would have
            been detected, see `power.record_auc`.
    """
    exposed_N = arrays["q_N"] <= 1 - level
    known = np.flatnonzero(exposed_N & ~np.isnan(arrays["ranked_N"] + arrays["held_N"]))
    first = known[np.argsort(-arrays["ranked_N"][known], kind="stable")][:LISTED]
    names = dict(ranked_auc="ranked_N", auc="held_N", low="held_low_N", high="held_high_N", q="q_N")
    tested_N = ~np.isnan(arrays["auc_N"])
    fold_models = [int((arrays["fold_T"] == fold).sum()) for fold in (0, 1)]
    share = float(np.median(arrays["inside_N"][tested_N])) / len(arrays["fold_T"])
    inside = max(1, round(share * min(fold_models)))
    return dict(
        significant=int(exposed_N.sum()),
        attacks=attacks,
        unranked=int(exposed_N.sum()) - len(known),
        listed=[
            dict(record=int(n)) | {key: float(arrays[name][n]) for key, name in names.items()}
            for n in first
        ],
        alone=power.record_auc(
            inside,
            max(1, min(fold_models) - inside),
            p_needed=(1 - level) / (attacks * int(tested_N.sum())),
        ),
    )


def one_family(
    tables: Mapping[str, dict], arrays: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, dict], dict[str, dict[str, np.ndarray]]]:
    """Returns tables and arrays of several attacks whose records are tested together.

    The q-values are those of all records x attacks. With those of each attack alone, the chance of
    a false discovery under any of them would grow with their number.

    Args:
        tables: {attack: table}, as `measure` returned it for each attack alone.
        arrays: {attack: arrays}; empty for attacks that were not measured.
    """
    names = [name for name in tables if arrays.get(name)]
    if len(names) < 2:
        return dict(tables), {name: dict(of) for name, of in arrays.items()}
    q_KN = multiple.benjamini_hochberg(np.concatenate([arrays[name]["p_N"] for name in names]))
    joint = {name: dict(of) for name, of in arrays.items()}
    decided = dict(tables)
    for name, q_N in zip(names, np.split(q_KN, len(names)), strict=True):
        joint[name]["q_N"] = q_N
        level = tables[name]["level"]
        more = significance(joint[name], level=level, attacks=len(names))
        decided[name] = tables[name] | more
    return decided, joint


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
) -> Iterator[dict[str, Sequence]]:
    """Yields the lines of records.csv, many at a time, by their columns CSV.

    Every scored record occurs once per attack that was measured, or once with the flag 'not
    tested'. `record` is its row number. `exposure` is the AUC of the record over models that were
    and were not trained on it (0.5: guessing), with its interval, p- and q-value.

    Args:
        arrays, tables: what `measure` returned, with the keys '<attack>/<field>' and '<attack>'.
        evaluated_N: the scored records.
        labels_N, id_N: the labels and the ids of the records; None if unknown.
        level: the level at which a record is flagged.
    """
    measured = [name for name, table in tables.items() if "why" not in table]
    every_K = np.flatnonzero(evaluated_N)
    for name in measured or [""]:
        for start in range(0, len(every_K), CHUNK):
            row_K = every_K[start : start + CHUNK]
            columns: dict[str, Sequence] = dict.fromkeys(CSV, [None] * len(row_K))
            columns |= dict(record=row_K.tolist(), attack=[name] * len(row_K))
            if id_N is not None:
                columns["id"] = [str(value) for value in np.asarray(id_N)[row_K]]
            if labels_N is not None:
                columns["label"] = np.asarray(labels_N)[row_K].tolist()
            for key, field in FIELDS.items() if name else ():
                columns[key] = _known(np.asarray(arrays[f"{name}/{field}"])[row_K])
            columns["flag"] = [FLAGS[None if q is None else q <= 1 - level] for q in columns["q"]]
            yield columns


def _known(value_K: np.ndarray) -> list:
    """Returns values as Python's numbers, None for NaN."""
    if value_K.dtype.kind != "f":
        return value_K.tolist()
    return [None if value != value else value for value in value_K.tolist()]


FIELDS = dict(
    models_with="inside_N",
    models_without="outside_N",
    exposure="auc_N",
    low="low_N",
    high="high_N",
    p="p_N",
    q="q_N",
)
