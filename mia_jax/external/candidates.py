"""Fits one setting of an estimator on every split, as the arrays that an audit takes.

The models' answers and scores are on disk as soon as they exist, by `mia_jax.external.fleet`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mia_jax import checks
from mia_jax.external import fleet, frameworks, models, rows
from mia_jax.external.answers import reason
from mia_jax.external.fleet import Asking, Recipe
from mia_jax.external.labels import Labels
from mia_jax.external.splits import Splits
from mia_jax.runtime import files
from mia_jax.runtime.store import Store


class Rows(NamedTuple):
    """Holds what all settings are fitted on.

    Attributes:
        x: all rows.
        y: their labels, as the user has them.
        labels: the same, read.
        splits: the training and test rows.
        digest: of x.
    """

    x: object
    y: object
    labels: Labels
    splits: Splits
    digest: str


class Scoring(NamedTuple):
    """Scores model m on its test and on its training rows.

    Attributes:
        scorer: scorer(model, x, y) -> a number, larger is better.
        data: the rows.
    """

    scorer: Callable
    data: Rows

    def __call__(self, model, m: int) -> dict[str, float]:
        """Returns {test, train}: the two scores.

        Raises:
            ValueError: the scorer fails, or returns no finite number.
        """
        scores = {}
        splits = self.data.splits
        for side, rows_N in (("test", splits.test_MN[m]), ("train", splits.member_MN[m])):
            picked = np.flatnonzero(rows_N)
            try:
                x, y = rows.take(self.data.x, picked), rows.take(self.data.y, picked)
                scores[side] = float(self.scorer(model, x, y))
            except Exception as error:
                raise ValueError(
                    f"scoring failed on {len(picked)} {side} rows: {reason(error)}"
                ) from error
            if not math.isfinite(scores[side]):
                raise ValueError(
                    f"scoring={self.scorer!r} gives {scores[side]} on {len(picked)} {side} rows; "
                    "it must be a number on every split."
                )
        return scores


class Fitted(NamedTuple):
    """Holds one setting's models: arrays for an audit, scores, notes."""

    arrays: dict[str, np.ndarray]
    test_M: np.ndarray
    train_M: np.ndarray
    notes: tuple[str, ...]


def check_numbers(*, seed: int, n_jobs: int) -> None:
    """Raises ValueError unless both are whole numbers that can be used."""
    for name, value in dict(seed=seed, n_jobs=n_jobs).items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name}={value!r} must be a whole number.")
    checks.at_least(0, seed=seed)
    if not n_jobs:
        raise ValueError("n_jobs=0 must be a number of models; -1 uses all cores.")


def name_of(estimator) -> str:
    """Returns the digest of a setting, by which its models are found again.

    It is of the name of the estimator's class and of all its parameters.
    """
    return files.digest(fleet.identity(estimator))


def fitted(
    estimator, data: Rows, *, scorer: Callable, store: Store, seed: int, n_jobs: int, kept: bool
) -> Fitted:
    """Returns the models of one setting; fits those that are not on disk.

    Args:
        estimator: the setting, not fitted; clones of it are.
        data: the rows and the splits.
        scorer: scorer(model, x, y).
        store: the workdir of the setting.
        seed: from which the models' seeds are derived, the same for every setting.
        n_jobs: how many models are fitted at a time.
        kept: whether the user chose the folder.

    Raises:
        ValueError: a model fails or cannot be asked; answers of the others are on disk.
    """
    splits, labels = data.splits, data.labels
    fit = frameworks.trainer(estimator)
    recipe = models.claimed(
        Recipe(
            fit,
            data.x,
            data.y,
            labels,
            Asking(),
            store.external_models,
            mark="",
            observe=Scoring(scorer, data),
        ),
        splits.member_MN,
        x=data.digest,
        seed=seed,
        fit=fleet.identity(estimator),
        test=files.digest(np.packbits(splits.test_MN, axis=1)),
        scoring=fleet.identity(scorer) if hasattr(scorer, "__qualname__") else repr(scorer),
    )
    every, notes = fleet.run(
        recipe,
        splits.member_MN,
        seed=seed,
        n_jobs=n_jobs,
        kept=kept,
        split=f"the training rows of {splits.words}",
    )
    models.check_unchanged(data.x, data.digest, "the estimator")
    alike, more = models.in_one_form([], every, labels)
    numbers = [fleet.read(recipe, m)[1]["numbers"] for m in range(len(every))]
    made: dict[str, np.ndarray] = dict(shadow_member=splits.member_MN) | alike
    if splits.population_N.any():
        made["population"] = splits.population_N
    x = rows.as_numbers(data.x)
    if x is not None and x.size * 8 <= models.MOST_BYTES:
        made["x"] = x
    test_M, train_M = (np.array([n[side] for n in numbers]) for side in ("test", "train"))
    return Fitted(made, test_M, train_M, (*every[0].notes, *notes, *more))
