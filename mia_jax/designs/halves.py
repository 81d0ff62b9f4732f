"""Complementary halves: models 2p and 2p+1 split the rows between them, so every row is a member of exactly one model of each pair."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax.designs import _rows
from mia_jax.types import Design
from mia_jax.views import SHADOW_NEEDS


def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    models: int = 64,
    population: float = 0.1,
    targets: int | Sequence[int] | None = None,
) -> Design:
    """`models` / 2 independent random halvings of the rows outside the population; an odd row goes to the population.

    An attacker of t uses every model outside t's pair: with only t left out, the number of IN shadows would give the answer away. Pair p is
    drawn from (seed, p) alone. `population` is the share of rows kept aside, `targets` the audited models (None = all, n = the first n).
    ValueError if `models` is odd or < 2. Source: Carlini et al. 2022 (arXiv:2112.03570).
    """
    if models < 2 or models % 2:
        even = max(2, models + models % 2)
        raise ValueError(f"models={models}: halves trains complementary pairs, so it must be even and at least 2; use models={even}.")
    population_N, usable = _rows.kept_aside(num_examples, seed, population, given_population_N, multiple=2)
    member_MN = np.zeros((models, num_examples), bool)
    for pair in range(models // 2):
        order = _rows.generator(seed, "halves", pair).permutation(usable)
        member_MN[2 * pair, order[: len(usable) // 2]] = True
        member_MN[2 * pair + 1, order[len(usable) // 2 :]] = True
    same = dict(num_examples=num_examples, seed=seed, given_population_N=given_population_N, labels_N=labels_N)
    same |= dict(population=population, targets=targets)
    unit_M = np.arange(models) // 2
    alone = models == 2
    return _rows.checked(
        labels_N,
        name="halves",
        member_MN=member_MN,
        evaluated_MN=np.tile(~population_N, (models, 1)),
        shadow_MM=_rows.all_but_unit(unit_M),
        population_N=population_N,
        unit_M=unit_M,
        targets=_rows.chosen(targets, models),
        supports=frozenset() if alone else frozenset(SHADOW_NEEDS),
        note="the only other model is the target's twin; use more models" if alone else "the target's twin is never a shadow",
        num_rows=len(usable) // 2,
        remake=lambda models: make(models=models, **same),
    )
