"""Computes the points of attacks over the epochs of training, for a table and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mia_jax.metrics import rows as result_rows

OPTIMISTIC = "advantage_optimistic"
KEPT = ("value", "low", "high", "target", "method")  # fields of a row in a point


def points(accuracy: Sequence[Mapping], rows: Sequence[Mapping]) -> dict:
    """Returns the points of the attacks over the epochs.

    Args:
        accuracy: {epoch, train_accuracy, validation_accuracy} of each epoch.
        rows: the rows of `metrics.summary` with the column `epoch`.

    Returns:
        {accuracy, metrics, attacks: {name: [{epoch, <metric>: {fields KEPT of the row}}]}}. The
            metrics are the AUC, the TPR that attacks are sorted by, and the advantage at the best
            threshold (optimistic: chosen with the true membership).
    """
    metrics = list(
        dict.fromkeys(["auc", result_rows.sort_metric(result_rows.main_rows(rows)), OPTIMISTIC])
    )
    attacks: dict[str, list[dict]] = {}
    for name in dict.fromkeys(row["attack"] for row in rows):
        for accuracies in accuracy:
            epoch = accuracies["epoch"]
            of_epoch = [row for row in rows if row["epoch"] == epoch]
            point: dict = dict(epoch=epoch)
            for metric in metrics:
                row = result_rows.resolved(of_epoch, name, metric) or {}
                point[metric] = {key: row.get(key) for key in KEPT}
            attacks.setdefault(name, []).append(point)
    return dict(accuracy=list(accuracy), metrics=metrics, attacks=attacks)


def curves(over: Mapping, *, prefix: str = "") -> dict[str, list[dict]]:
    """Returns the lines of figures.epochs.

    Args:
        over: what `points` returned.
        prefix: a text before the name of each attack.

    Returns:
        {prefix + attack: [{epoch, validation_accuracy, <metric>: {fields KEPT of the row}}]}.
    """
    accuracy = [dict(validation_accuracy=row["validation_accuracy"]) for row in over["accuracy"]]
    return {
        prefix + name: [a | p for a, p in zip(accuracy, points, strict=True)]
        for name, points in over["attacks"].items()
    }
