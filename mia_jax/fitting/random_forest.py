"""random_forest: the share of the votes of many trees."""

from __future__ import annotations

from collections.abc import Mapping

from mia_jax import checks
from mia_jax.fitting import _search
from mia_jax.fitting.rows import Classifier

NEUTRAL = 0.5  # the score of an undecided classifier
FOREST = dict(max_depth=(5, 10, 20, None), min_samples_split=(2, 5, 10), min_samples_leaf=(1, 2, 4))


def make(*, trees: int = 100, grid: Mapping = FOREST, inner_folds: int = 3) -> Classifier:
    """Scores the share of the votes for 'member' of trees with sqrt(F) columns per split.

    Args:
        trees: how many trees.
        grid: RandomForestClassifier's arguments to choose from, {argument: values}.
        inner_folds: how many folds choose.
    """
    checks.at_least(1, trees=trees)

    def build(seed):
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=trees, max_features="sqrt", random_state=seed)

    return _search.searched(build, lambda job: grid, inner_folds)
