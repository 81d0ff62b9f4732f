"""Classifiers of scikit-learn, which is imported when one is fitted, each with a grid of its arguments and an inner cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from mia_jax import checks
from mia_jax.fitting import rows
from mia_jax.fitting.rows import Classifier, Job

FOREST = dict(max_depth=(5, 10, 20, None), min_samples_split=(2, 5, 10), min_samples_leaf=(1, 2, 4))


def random_forest(*, trees: int = 100, grid: Mapping = FOREST, inner_folds: int = 3) -> Classifier:
    """score = share of the votes for 'member' of `trees` trees with sqrt(F) columns a split; `grid`: RandomForestClassifier's arguments."""
    checks.at_least(1, trees=trees)

    def build(seed):
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=trees, max_features="sqrt", random_state=seed)

    return _searched(build, lambda job: grid, inner_folds)


def knn(*, neighbors: Sequence[int] = (3, 5, 7), inner_folds: int = 3) -> Classifier:
    """score = share of members among the nearest rows (Euclidean), one number of `neighbors` by the inner folds; all rows if there are fewer."""
    checks.at_least(1, fewest_neighbors=min(neighbors))

    def build(seed):
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier()

    def grid(job: Job) -> dict:
        most = len(job.member_K) - int(np.bincount(rows.folds(job.member_K, inner_folds)).max())
        return dict(n_neighbors=sorted({min(k, most) for k in neighbors}))

    return _searched(build, grid, inner_folds)


def gradient_boosting(*, grid: Mapping = {}, inner_folds: int = 3) -> Classifier:
    """score = log-odds of HistGradientBoostingClassifier (100 rounds, no early stopping); `grid`: its arguments."""

    def build(seed):
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(early_stopping=False, random_state=seed)

    return _searched(build, lambda job: grid, inner_folds)


def _searched(build: Callable, grid_of: Callable[[Job], Mapping], inner_folds: int) -> Classifier:
    checks.at_least(2, inner_folds=inner_folds)

    def classify(jobs, key):
        seeds = np.asarray(jax.random.randint(key, (len(jobs),), 0, np.iinfo(np.int32).max, np.int32))
        return [_score(build(int(seed)), grid_of(job), inner_folds, job) for seed, job in zip(seeds, jobs, strict=True)]

    return classify


def _score(model, grid: Mapping, inner_folds: int, job: Job) -> np.ndarray:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    if grid:
        model = GridSearchCV(model, {name: list(values) for name, values in grid.items()}, cv=StratifiedKFold(inner_folds), error_score="raise")
    with rows.one_thread(job.x_KF.size * 256):
        model.fit(job.x_KF, job.member_K)
        log_odds = hasattr(model, "decision_function")
        return np.asarray(model.decision_function(job.ask_NF) if log_odds else model.predict_proba(job.ask_NF)[:, 1], np.float64)
