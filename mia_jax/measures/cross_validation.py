"""K-fold cross-validation: what the models of the design `folds` say about the learner on rows that
they never saw.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def summary(models: Sequence[Mapping]) -> dict:
    """Returns accuracy and loss on the held-out folds, one model per fold.

    {'folds': K, metric: {'mean', 'sd', 'folds': [K]}}.

    sd = sqrt(sum (v_f - mean)^2 / (K - 1)): how much folds differ. It is no standard error of the
    mean, since any two models share most of their rows. (Stone 1974.)
    """
    found: dict = dict(folds=len(models))
    for metric in ("accuracy", "loss"):
        values = [
            row[f"validation_{metric}"]
            for row in models
            if row.get(f"validation_{metric}") is not None
        ]
        if len(values) == len(models):
            found[metric] = dict(
                mean=statistics.fmean(values), sd=statistics.stdev(values), folds=values
            )
    return found
