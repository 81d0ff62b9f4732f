"""Summarizes K-fold cross-validation: the models of the design `folds` on rows they never saw."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def summary(models: Sequence[Mapping]) -> dict:
    """Returns accuracy and loss on the held-out folds, with a model per fold.

    Args:
        models: the K rows of models.csv, with `validation_accuracy` and `validation_loss`.

    Returns:
        {'folds': K, metric: {'mean', 'sd', 'folds': [K]}}, where sd = sqrt(sum (v_f - mean)^2 / (K
            - 1)) is how much folds differ. It is not a standard error of the mean, since any two
            models share most of their rows (Stone 1974).
    """
    numbers: dict = dict(folds=len(models))
    for metric in ("accuracy", "loss"):
        values = [
            row[f"validation_{metric}"]
            for row in models
            if row.get(f"validation_{metric}") is not None
        ]
        if len(values) == len(models):
            numbers[metric] = dict(
                mean=statistics.fmean(values), sd=statistics.stdev(values), folds=values
            )
    return numbers
