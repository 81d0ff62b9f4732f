"""knn: the share of members among the nearest training rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.fitting import _search, rows
from mia_jax.fitting.rows import Classifier, Job

NEUTRAL = 0.5  # the score of an undecided classifier


def make(*, neighbors: Sequence[int] = (3, 5, 7), inner_folds: int = 3) -> Classifier:
    """Scores the share of members among the nearest training rows (Euclidean).

    Args:
        neighbors: how many nearest rows, chosen by the inner folds; all rows if there are fewer.
        inner_folds: how many folds choose.
    """
    checks.at_least(1, fewest_neighbors=min(neighbors))

    def build(seed):
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier()

    def grid(job: Job) -> dict:
        most = len(job.member_K) - int(np.bincount(rows.folds(job.member_K, inner_folds)).max())
        return dict(n_neighbors=sorted({min(k, most) for k in neighbors}))

    return _search.searched(build, grid, inner_folds)
