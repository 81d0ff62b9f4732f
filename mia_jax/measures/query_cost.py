"""Measures what an attack costs in queries per example, and what parts of the budget achieve.

Queries are counted where signals count them, else declared.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.query import interactive
from mia_jax.runtime import files
from mia_jax.types import Signal

Path = pathlib.Path


def labels_only(names: Sequence[str], signals: Mapping[str, Signal | None]) -> bool:
    """Checks whether an attack with these signals sees predicted labels and nothing else."""
    asked = [signals.get(name) for name in names]
    return bool(asked) and all(signal is not None and signal.access == "labels" for signal in asked)


def spent(
    folder: Path,
    names: Sequence[str],
    signals: Mapping[str, Signal],
    *,
    models: Sequence[int],
    evaluated_MN,
    views: int,
) -> dict:
    """Returns the queries per example of all signals of an attack together.

    A forward pass per view answers every signal that needs no more. The queries of the others are
    counted (signal/<name>/<model>.queries.npy) or declared.

    Args:
        folder: the workdir.
        names: the signals of the attack.
        signals: all signals of the run.
        models: the numbers of the models.
        evaluated_MN: the scored rows of all models of the run.
        views: the number of query views.

    Returns:
        {queries, queries_max}: the mean over the models' evaluated examples, and the most that any
            of them needed.
    """
    total_MN = np.zeros((len(models), np.shape(evaluated_MN)[1]))
    if any(signals[name].ask is None for name in names):
        total_MN += views
    for name in (name for name in names if signals[name].ask is not None):
        total_MN += np.stack(
            [
                counts(folder, name, signals[name], m, total_MN.shape[1], views)[:, -1]
                for m in models
            ]
        )
    rows_MN = np.asarray(evaluated_MN, bool)[list(models)]
    return dict(queries=float(total_MN[rows_MN].mean()), queries_max=int(total_MN[rows_MN].max()))


def counts(
    folder: Path, name: str, signal: Signal, m: int, num_examples: int, views: int
) -> np.ndarray:
    """Returns the queries [N,P] of one model's examples after each part of the budget.

    P=1 for a signal without parts; the counts are summed over query views.

    Args:
        folder: the workdir.
        name, signal: the signal.
        m: the number of the model.
        num_examples: the number N of examples.
        views: the number of query views.

    Raises:
        FileNotFoundError: the signal counts its queries, and the query stage did not run.
    """
    path = interactive.count_file(folder, name, m)
    if not path.exists():
        if callable(signal.queries):
            raise FileNotFoundError(
                f"{path} does not exist; run the query stage first "
                "(stages_wanted=query,attack,report)."
            )
        return np.full((num_examples, 1), signal.queries * views)
    count_AN = files.read_npy(path)
    return count_AN.sum(0).reshape(num_examples, -1)


def counted(folder: Path, needs: Sequence[str], models: Sequence[int]) -> list[np.ndarray] | None:
    """Returns the queries [N,P] of every model after each part of the budget.

    The result is None unless the first of the signals `needs` of the attack counts the queries of
    several parts.
    """
    paths = [interactive.count_file(folder, needs[0], m) for m in models]
    if not all(path.exists() for path in paths):
        return None
    counts = [files.read_npy(path) for path in paths]
    return (
        [count_ANP.sum(0) for count_ANP in counts]
        if counts[0].ndim == 3 and counts[0].shape[2] > 1
        else None
    )


def point(rows: Sequence[Mapping], attack: str, queries: float, tpr: str) -> dict:
    """Returns a point of an attack's curve over its budget.

    Args:
        rows: the rows of `metrics.summary`.
        attack: the name of the attack.
        queries: the queries per example.
        tpr: the metric of the TPR, such as 'tpr@0.01'.

    Returns:
        {queries, accuracy, accuracy_low, accuracy_high, tpr, tpr_low, tpr_high}, as means over
            targets; None where a rate is not resolvable.
    """
    numbers: dict = dict(queries=queries)
    for name, metric in (("accuracy", "balanced_accuracy"), ("tpr", tpr)):
        row = (
            next(
                (
                    r
                    for r in rows
                    if (r["attack"], r["metric"], r["target"], r["slice"])
                    == (attack, metric, None, "all")
                ),
                None,
            )
            or {}
        )
        numbers |= {
            name: row.get("value"),
            f"{name}_low": row.get("low"),
            f"{name}_high": row.get("high"),
        }
    return numbers
