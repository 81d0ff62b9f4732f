"""Splits the rows into folds: model f trains on all folds except f, as in cross-validation."""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design


@_rows.remade(more="another number of folds is another draw")
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    folds: int = 5,
    population: float = 0.0,
) -> Design:
    """Returns the design of `folds` random folds of equal size.

    Every model is a target on all rows. Up to folds - 1 rows go to the population. A non-member of
    model f is a member of every other model, so "no OUT shadow" would reveal membership. There are
    therefore no shadows, and only attacks on the target's own outputs. Another number of folds is
    another draw, so the design cannot be extended.

    Raises:
        ValueError: if folds < 2 or > rows.
    """
    checks.at_least(2, folds=folds)
    population_N, usable = _rows.kept_aside(
        num_examples, seed, population, given_population_N, multiple=folds
    )
    fold_size = len(usable) // folds
    order = _rows.generator(seed, "folds", folds).permutation(usable)
    member_MN = np.tile(~population_N, (folds, 1))
    for f in range(folds):
        member_MN[f, order[f * fold_size : (f + 1) * fold_size]] = False
    return _rows.checked(
        labels_N,
        name="folds",
        member_MN=member_MN,
        shadow_MM=np.zeros((folds, folds), bool),
        population_N=population_N,
        supports=(),
        note="a non-member of one model is a member of all others",
        num_rows=len(usable) - fold_size,
    )
