"""gradient_boosting: the log-odds of boosted trees."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.fitting import _search
from mia_jax.fitting.rows import Classifier


def make(*, grid: Mapping = {}, inner_folds: int = 3) -> Classifier:
    """score = log-odds of HistGradientBoostingClassifier (100 rounds, no early stopping); `grid`:
    its arguments.
    """

    def build(seed):
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(early_stopping=False, random_state=seed)

    return _search.searched(build, lambda job: grid, inner_folds)
