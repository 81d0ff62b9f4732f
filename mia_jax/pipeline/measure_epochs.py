"""Repeats attacks on the models as they were after each snapshot, for the report over epochs.

Shadows are taken at the epoch of the target. TensorFlow Privacy runs two attacks in a training
callback. Here snapshots are queried after the training, so that any attack on signals of a forward
pass can be repeated, also later and without training again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from mia_jax.configuration.settings import ReportSettings
from mia_jax.measures import epochs
from mia_jax.metrics import bootstrap, slice_rows, summary
from mia_jax.pipeline.attack import SignalReader, finite_or_raise, scores
from mia_jax.pipeline.evidence import attack_evidence, chosen_thresholds, layers_of
from mia_jax.pipeline.pieces import Piece, unkept
from mia_jax.pipeline.plan import Questions
from mia_jax.threat_model import PlannedAttack, by_name
from mia_jax.types import TargetRows


def measure_epochs(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    *,
    settings: ReportSettings,
    questions: Questions | None,
    rows: TargetRows,
    draws: bootstrap.Draws,
    piece: Piece = unkept,
) -> tuple[dict | None, list[dict]]:
    """Repeats the attacks of report.epochs on every snapshot; `piece` keeps the rows of each.

    Returns:
      The section `epochs` of report.json (None unless report.epochs names attacks), and all rows
      with
        their epoch, for epochs.csv.
    """
    if questions is None or not settings.epochs:
        return None, []
    planned = by_name(attacks)
    repeated = [planned[name] for name in settings.epochs]
    accuracy, table = [], []
    for epoch in questions.snapshots:
        accuracy.append(dict(epoch=epoch) | accuracies(reader, rows, epoch=epoch))
        common = dict(settings=settings, rows=rows, draws=draws, epoch=epoch)
        compute = functools.partial(rows_after, repeated, reader, **common)
        table += [dict(epoch=epoch) | row for row in piece(f"epoch.{epoch}", compute)]
    return epochs.points(accuracy, table), table


def rows_after(
    attacks: Sequence[PlannedAttack],
    reader: SignalReader,
    *,
    settings: ReportSettings,
    rows: TargetRows,
    draws: bootstrap.Draws,
    epoch: int,
) -> list[dict]:
    """Returns the rows of the repeated attacks after one epoch, for all records and every slice."""
    design, models, evidence = reader.design, reader.scored_models, {}
    for planned in attacks:
        score_SN = scores(planned.attack, reader.fleet(planned, epoch=epoch), models, planned.key)
        finite_or_raise(score_SN, design.evaluated_MN, models, planned.name)
        score_MN = np.full(design.member_MN.shape, np.nan)
        score_MN[list(models)] = score_SN
        evidence[planned.name] = attack_evidence(
            planned, score_MN, design, chosen_thresholds(score_MN, design, settings)
        )
    shared = dict(member_TN=rows.member_TN, evaluated_TN=rows.evaluated_TN, draws=draws)
    shared |= dict(fprs=settings.resolved_fprs, level=settings.level, ppv_ratio=settings.ppv_ratio)
    layers, _ = layers_of(reader, settings, rows=rows, epoch=epoch)
    sliced, _ = slice_rows.rows(evidence, **shared, layers=layers)
    return summary.rows(evidence, **shared, targets=rows.targets, unit_T=rows.unit_T) + sliced


def accuracies(reader: SignalReader, rows: TargetRows, *, epoch: int) -> dict[str, float | None]:
    """Returns {train_accuracy, validation_accuracy} after one epoch.

    They are means over the targets' members and over their evaluated non-members.

    Both are None where labels are not classes.
    """
    if "correct" not in reader.pool.task.signals:
        return dict(train_accuracy=None, validation_accuracy=None)
    correct_TN = reader.signal("correct", rows.targets, epoch=epoch)[:, 0]
    sides = dict(
        train_accuracy=rows.member_TN & rows.evaluated_TN,
        validation_accuracy=~rows.member_TN & rows.evaluated_TN,
    )
    means = {}
    for name, side_TN in sides.items():
        of_targets = zip(correct_TN, side_TN, strict=True)
        values = [row[side_N].mean() for row, side_N in of_targets if side_N.any()]
        means[name] = float(np.mean(values)) if values else None
    return means
