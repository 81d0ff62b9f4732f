"""Computes what the metrics need of a run: each attack's scores and thresholds, and the slices."""

from __future__ import annotations

import numpy as np

from mia_jax.configuration.settings import ReportSettings
from mia_jax.metrics import bootstrap, jackknife, record_groups, slices, thresholds
from mia_jax.metrics.record_groups import Grouped
from mia_jax.pipeline import reruns
from mia_jax.pipeline.attack import SignalReader, scores
from mia_jax.pipeline.pieces import Named, Piece, unkept
from mia_jax.threat_model import PlannedAttack
from mia_jax.types import Design, TargetRows

# The signals by which slices are made and accuracies are reported, also over epochs.
SLICE_SIGNALS = ("loss", "correct")


def chosen_thresholds(
    score_MN: np.ndarray, design: Design, settings: ReportSettings
) -> thresholds.Chosen:
    """Returns the thresholds of all models, chosen on their shadows."""
    arrays = (score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM)
    return thresholds.chosen_on_shadows(*arrays, settings.resolved_fprs)


def attack_evidence(
    planned: PlannedAttack, score_MN: np.ndarray, design: Design, chosen: thresholds.Chosen
) -> dict:
    """Returns what the metrics need of one attack: its scores and thresholds on the targets.

    The thresholds of a target are chosen on its shadows where those can be scored. An attack that
    defines the score from which it predicts membership uses that one if it knows no shadows, or if
    none can be scored.

    Args:
      planned: the attack.
      score_MN: its scores.
      design: who trains on what.
      chosen: the result of `chosen_thresholds`.

    Returns:
      {score_TN, knows, threshold_T, threshold_FT}, where F counts the false-positive rates.
    """
    targets = list(design.targets)
    threshold_T = chosen.best_M[targets]
    fixed = planned.attack.threshold
    if fixed is not None:
        knows_nothing = planned.knows == "nothing"
        threshold_T = np.where(knows_nothing | np.isnan(threshold_T), fixed, threshold_T)
    every = targets == list(range(len(score_MN)))  # without a copy
    score_TN = score_MN if every else score_MN[targets]
    evidence = dict(score_TN=score_TN, knows=planned.knows, threshold_T=threshold_T)
    return evidence | dict(threshold_FT=chosen.at_FM[:, targets])


def rerun_evidence(
    planned: PlannedAttack,
    reader: SignalReader,
    settings: ReportSettings,
    *,
    draws: bootstrap.Draws,
    piece: Piece = unkept,
) -> dict:
    """Returns {without: reruns} of an attack without groups of units; {} if it is not rerun.

    `reruns.applies` decides whether it is, and `piece` keeps the result of each group. Of many
    records, `record_groups.sample` decides on how many.
    """
    if not reruns.applies(planned.attack, reader.design, groups=settings.jackknife):
        return {}

    fleet, targets = reader.fleet(planned), reader.design.targets
    record_K: np.ndarray | None = None
    if isinstance(draws.record_NR, Grouped):
        evaluated_N = reader.design.of_targets().evaluated_TN.any(0)
        record_K = record_groups.sample(evaluated_N, len(targets), seed=draws.seed)
    if record_K is not None:
        fleet = fleet.of_records(record_K)

    def measure(design: Design, score_MN: np.ndarray) -> jackknife.Rerun:
        rows = design.of_targets()
        arrays = (score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM)
        threshold_T = thresholds.shadow_thresholds(*arrays)[list(rows.targets)]
        numbers = jackknife.numbers(
            score_MN[list(rows.targets)],
            threshold_T,
            member_TN=rows.member_TN,
            evaluated_TN=rows.evaluated_TN,
            fprs=settings.resolved_fprs,
            counts=jackknife.counts_of(draws, record_K),
        )
        left_out_T = np.isin(targets, rows.targets, invert=True)
        return jackknife.Rerun(left_out_T, numbers, record_K)

    without = reruns.each(
        planned.attack,
        fleet,
        scored=reader.scored_models,
        groups=settings.jackknife,
        scores=scores,
        key=planned.key,
        measure=measure,
        piece=Named(piece, f"rerun.{planned.name}"),
    )
    return dict(without=without)


def layers_of(
    reader: SignalReader,
    settings: ReportSettings,
    *,
    rows: TargetRows,
    epoch: int | None = None,
) -> tuple[list[slices.Layer], list[str]]:
    """Returns the slices of report.slices, and notes about those that cannot be made.

    Args:
      reader: what was measured.
      settings: the settings of the report.
      rows: the rows of the targets.
      epoch: slices by the answers of the models after this epoch; None for the finished models.
    """
    pool, notes = reader.pool, []
    terms = slices.parse(settings.slices)
    if not pool.task.slices and "labels" in slices.needs(terms):
        terms = [pair for pair in terms if "labels" not in slices.needs([pair])]
        notes = ["There are no class labels to slice by."]
    asked = slices.needs(terms)
    measured = {}
    for name in SLICE_SIGNALS:
        there = name in asked and reader.has(name, rows.targets, epoch=epoch)
        measured[f"{name}_TN"] = (
            reader.signal(name, rows.targets, epoch=epoch)[:, 0] if there else None
        )
    layers = slices.make(
        [" & ".join(pair) for pair in terms],
        rows.evaluated_TN,
        labels_N=pool.y if pool.task.slices else None,
        columns=pool.columns,
        groups=settings.groups,
        **measured,
    )
    return layers, notes
