"""Classifiers of scikit-learn, with a grid of their arguments and an inner cross-validation.

scikit-learn is imported when a classifier is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import numpy as np

from mia_jax import checks
from mia_jax.fitting import rows
from mia_jax.fitting.rows import Classifier, Job


def searched(build: Callable, grid_of: Callable[[Job], Mapping], inner_folds: int) -> Classifier:
    """Returns the classifier whose arguments are chosen from `grid_of(job)` by inner folds."""
    checks.at_least(2, inner_folds=inner_folds)

    def classify(jobs, key):
        seeds = np.asarray(
            jax.random.randint(key, (len(jobs),), 0, np.iinfo(np.int32).max, np.int32)
        )
        return [
            _score(build(int(seed)), grid_of(job), inner_folds, job)
            for seed, job in zip(seeds, jobs, strict=True)
        ]

    return classify


def _score(model, grid: Mapping, inner_folds: int, job: Job) -> np.ndarray:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if grid:
        model = GridSearchCV(
            model,
            {name: list(values) for name, values in grid.items()},
            cv=StratifiedKFold(inner_folds),
            error_score="raise",
        )
    with rows.one_thread(job.x_KF.size * 256):
        model.fit(job.x_KF, job.member_K)
        log_odds = hasattr(model, "decision_function")
        return np.asarray(
            model.decision_function(job.ask_NF)
            if log_odds
            else model.predict_proba(job.ask_NF)[:, 1],
            np.float64,
        )
