"""Measures an attack's AUC and TPR against the number of shadow models that it may use.

All points come from the fleet that was trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mia_jax.metrics import bootstrap, record_groups, summary
from mia_jax.threat_model import FleetSignals

if TYPE_CHECKING:  # a report reads this module's constants without jax
    from mia_jax.types import Attack

FPR = 0.01
DRAWS = 100  # of the bootstrap, for every point


def curve(
    *, attack: Attack, fleet: FleetSignals, scores: Callable, key, draws: int = DRAWS, seed: int = 0
) -> dict[int, dict]:
    """Returns AUC and TPR of an attack with 1, 2, 4, ... and all shadows.

    Where an attacker may use every other unit of models, the fleet is cut into smaller fleets whose
    models are targets in turn, so that nearly every model stays a target. Otherwise each target
    uses the first of its own shadows.

    Args:
        attack: the attack.
        fleet: the models with their signals and their design.
        scores: maps (attack, fleet, targets, key) to score_TN.
        key: the key of the attack's random numbers.
        draws: the number of bootstrap draws.
        seed: the seed of the bootstrap.

    Returns:
        {shadows: {auc, auc_low, auc_high, tpr, tpr_low, tpr_high, n_targets}}. Of many records a
            part drawn at random is used, and the points have their number in `records`
            (`record_groups.sample`).
    """
    rows = fleet.design.of_targets()
    evaluated_N = rows.evaluated_TN.any(0)
    record_K = record_groups.sample(evaluated_N, len(rows.targets), seed=seed)
    if record_K is not None:
        fleet = fleet.of_records(record_K)
    most = int(fleet.design.shadow_MM[list(fleet.design.targets)].sum(1).min())
    counts = sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most} - {0})
    points = {}
    for count in counts:
        try:
            parts = [(f, scores(attack, f, f.design.targets, key)) for f in cut(fleet, count)]
        except ValueError:  # so few shadows lack a side that the attack needs
            continue
        if not all(two_sided(f) for f, _ in parts):
            continue
        if not parts or any(
            np.isnan(score[f.design.of_targets().evaluated_TN]).any() for f, score in parts
        ):
            continue
        points[count] = measured(parts, draws=draws, seed=seed)
        if record_K is not None:
            points[count]["records"] = int(evaluated_N[record_K].sum())
    return points


def two_sided(fleet: FleetSignals) -> bool:
    """Checks whether every target has members and non-members.

    Reference models that were trained on no scored row are targets of a smaller fleet, too.
    """
    rows = fleet.design.of_targets()
    return all(
        (rows.evaluated_TN & side_TN).any(1).all() for side_TN in (rows.member_TN, ~rows.member_TN)
    )


def cut(fleet: FleetSignals, count: int) -> list[FleetSignals]:
    """Returns fleets in which every target has `count` shadows.

    A target has fewer only if the units of models do not divide evenly.
    """
    d = fleet.design
    usable_M = d.shadow_MM.any(0)  # without models that failed and their twins
    if not np.array_equal(
        d.shadow_MM[usable_M], (d.unit_M[usable_M, None] != d.unit_M[None]) & usable_M
    ):
        shadow_MM = d.shadow_MM & (np.cumsum(d.shadow_MM, axis=1) <= count)
        return [dataclasses.replace(fleet, design=dataclasses.replace(d, shadow_MM=shadow_MM))]
    units, sizes = np.unique(d.unit_M[usable_M], return_counts=True)
    size = int(sizes.max())
    needed = -(-count // size) + 1
    fleets = []
    for start in range(0, len(units) - needed + 1, needed):
        models = np.flatnonzero(np.isin(d.unit_M, units[start : start + needed]) & usable_M)
        unit_M = d.unit_M[models]
        shadow_MM = unit_M[:, None] != unit_M[None]
        if count % size:
            shadow_MM &= np.cumsum(shadow_MM, axis=1) <= count
        part = dict(
            member_MN=d.member_MN[models],
            evaluated_MN=d.evaluated_MN[models],
            shadow_MM=shadow_MM,
            unit_M=unit_M,
        )
        design = dataclasses.replace(d, targets=tuple(range(len(models))), remake=None, **part)
        fleets.append(
            dataclasses.replace(
                fleet,
                design=design,
                signal={name: value[models] for name, value in fleet.signal.items()},
            )
        )
    return fleets


def measured(parts: list[tuple[FleetSignals, np.ndarray]], *, draws: int, seed: int) -> dict:
    """Returns AUC and TPR at 1% FPR over the targets of all parts, with crossed intervals."""
    rows = [f.design.of_targets() for f, _ in parts]
    member_TN, evaluated_TN, unit_T = (
        np.concatenate([getattr(part, name) for part in rows])
        for name in ("member_TN", "evaluated_TN", "unit_T")
    )
    drawn = bootstrap.make(member_TN.shape[1], unit_T, seed=seed, draws=draws)
    attack = dict(score_TN=np.concatenate([score for _, score in parts]))
    rows = summary.rows(
        {"attack": attack}, member_TN, evaluated_TN, unit_T=unit_T, draws=drawn, fprs=(FPR,)
    )
    mean_of = {row["metric"]: row for row in rows if row["target"] is None}
    auc, tpr = mean_of["auc"], mean_of[f"tpr@{FPR:g}"]
    return dict(
        auc=auc["value"],
        auc_low=auc["low"],
        auc_high=auc["high"],
        tpr=tpr["value"],
        tpr_low=tpr["low"],
        tpr_high=tpr["high"],
        n_targets=len(unit_T),
    )
