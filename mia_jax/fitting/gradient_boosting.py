"""gradient_boosting: the log-odds of boosted trees."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax.fitting import _search
from mia_jax.fitting.rows import Classifier


def make(*, grid: Mapping = {}, inner_folds: int = 3) -> Classifier:
    """Scores log-odds of HistGradientBoostingClassifier (100 rounds, no early stopping).

    Args:
        grid: its arguments to choose from, {argument: values}.
        inner_folds: how many folds choose.
    """

    def build(seed):
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(early_stopping=False, random_state=seed)

    return _search.searched(build, lambda job: grid, inner_folds)
