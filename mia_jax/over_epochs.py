"""The privacy report over epochs: the attacks of config.report.epochs, repeated on the models as they were after each epoch of learner.snapshots.

Shadows are taken at the target's epoch. TensorFlow Privacy's privacy report runs two attacks in a training callback; here snapshots are queried
afterwards, so that any attack on signals of one forward pass can be repeated, and another one later without training anew.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from mia_jax import answers, findings
from mia_jax.metrics import bootstrap, slice_rows, summary
from mia_jax.report import epochs as section
from mia_jax.stages import epoch_folder, finite_or_raise, scored_models, scores
from mia_jax.training import query as queries

Path = pathlib.Path


def measure(audit, *, folder: Path, shared: Mapping, draws: bootstrap.Draws) -> tuple[dict | None, list[dict]]:
    """(the section `epochs` of report.json, every row with its epoch for epochs.csv); (None, []) unless config.report.epochs names attacks."""
    if not audit.config["report"]["epochs"]:
        return None, []
    accuracy, rows = [], []
    for epoch in audit.config["learner"]["snapshots"]:
        own = epoch_folder(folder, epoch)
        accuracy.append(dict(epoch=epoch) | accuracies(audit, folder=own, **shared))
        rows += [dict(epoch=epoch) | row for row in measure_one(audit, folder=own, epoch=epoch, shared=shared, draws=draws)]
    return section.points(accuracy, rows), rows


def measure_one(audit, *, folder: Path, epoch: int, shared: Mapping, draws: bootstrap.Draws) -> list[dict]:
    """Rows of all records and of every slice, of the repeated attacks after one epoch whose answers are in folder/signal."""
    wanted, design, attacks = audit.config["report"], audit.design, {}
    for name in wanted["epochs"]:
        one, models = audit.attacks[name], scored_models(audit)
        fleet = answers.load_fleet(audit, folder=folder, names=[n for n in one.needs if n in audit.asked], attack=name, epoch=epoch)
        score_TN = scores(one, fleet, models, answers.key_of(audit, name))
        finite_or_raise(score_TN, design.evaluated_MN, models, name)
        score_MN = np.full(design.member_MN.shape, np.nan)
        score_MN[list(models)] = score_TN
        attacks[name] = findings.attack_evidence(audit, name, score_MN)
    common = dict(draws=draws, fprs=findings.resolved_fprs(wanted), level=wanted["level"], ppv_ratio=wanted["ppv_ratio"])
    targets = list(design.targets)
    layers, _ = findings.slices_of(audit, folder=folder, evaluated_TN=shared["evaluated_TN"])
    sliced, _ = slice_rows.rows(attacks, **shared, layers=layers, **common)
    return summary.rows(attacks, **shared, targets=targets, unit_T=design.unit_M[targets], **common) + sliced


def accuracies(audit, *, folder: Path, member_TN, evaluated_TN) -> dict[str, float | None]:
    """{train_accuracy, validation_accuracy}: means over the targets' members and non-members; None for real targets."""
    if not audit.pool.num_classes:
        return dict(train_accuracy=None, validation_accuracy=None)
    correct_TN = queries.load(folder / "signal", "correct", audit.design.targets)[:, 0]
    sides = dict(train_accuracy=member_TN & evaluated_TN, validation_accuracy=~member_TN & evaluated_TN)
    means = {name: [row[own].mean() for row, own in zip(correct_TN, rows, strict=True) if own.any()] for name, rows in sides.items()}
    return {name: float(np.mean(values)) if values else None for name, values in means.items()}
