"""Splits the rows into disjoint blocks: one block trains each model and another one tests it.

This is the design of the label-only attacks of Choquette-Choo et al. (arXiv:2007.14321).
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design


@_rows.remade(lambda models, given: dict(sources=models - given.get("targets", 1)))
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    size: int = 2500,
    sources: int = 1,
    targets: int = 1,
    drawn: bool = False,
    extra: bool = False,
    population: float = 0.0,
    scored: int = 0,
    scored_sources: int = 0,
) -> Design:
    """Returns the design of disjoint blocks of `size` rows.

    The first `targets` models are the targets and the next `sources` ones the source models of the
    attacker. Model m has training block 2m and test block 2m+1. Block k holds rows
    [k size, (k+1) size) of the pool without its population. The attacker of a target uses all
    sources, and that of a source the other ones.

    Args:
        num_examples: N.
        seed: the seed of the draws.
        given_population_N: the population rows of the data.
        labels_N: the labels, for checks.
        size: the number of rows of a block.
        sources: the number of source models.
        targets: the number of targets.
        drawn: whether rows are in a random order instead of the order of the pool.
        extra: whether every model gets another block of non-members that its learner may use
            (`extra_MN`). Model m then has blocks 3m, 3m+1, 3m+2, except that the first two models
            of a design with one target keep blocks 0 to 3 and have 4 and 5 in addition. Further
            sources do not change the first models.
        population: the share of rows kept aside: the last ones of the pool (random ones if
            `drawn`).
        scored: the number of members and of non-members of each model that are evaluated, the first
            of its blocks (0: all); for queries that are too expensive for all examples.
        scored_sources: the same for the sources (0: as the targets).

    Raises:
        ValueError: if the blocks do not fit; the message has both numbers.
    """
    checks.at_least(1, size=size, sources=sources, targets=targets)
    checks.at_least(0, scored=scored, scored_sources=scored_sources)
    checks.fraction(closed="left", population=population)
    population_N, order = _order(num_examples, seed, given_population_N, population, drawn)
    models = targets + sources
    per_model = 3 if extra else 2
    number_MB = per_model * np.arange(models)[:, None] + np.arange(per_model)
    if extra and targets == 1:
        number_MB[:2] = [[0, 1, 4], [2, 3, 5]]
    needed = int(number_MB.max() + 1) * size
    if needed > len(order):
        raise ValueError(
            f"{number_MB.max() + 1} blocks of size={size} need {needed} rows but the pool has "
            f"{len(order)} of {num_examples} outside the population; "
            f"use size <= {len(order) // (number_MB.max() + 1)} or fewer sources or targets."
        )
    block_MBN, evaluated_MN = (
        np.zeros((*number_MB.shape, num_examples), bool),
        np.zeros((models, num_examples), bool),
    )
    for (m, b), number in np.ndenumerate(number_MB):
        block_MBN[m, b, order[number * size : (number + 1) * size]] = True
        if b < 2:
            count = scored if m < targets else scored_sources or scored
            evaluated_MN[m, order[number * size : number * size + (min(count, size) or size)]] = (
                True
            )
    return _rows.checked(
        labels_N,
        name="blocks",
        member_MN=block_MBN[:, 0],
        evaluated_MN=evaluated_MN,
        shadow_MM=~np.eye(models, dtype=bool) & (np.arange(models) >= targets),
        population_N=population_N,
        targets=tuple(range(targets)),
        supports=("shadow_out", "shadow_own"),
        note="no source trains on a target's rows, so none is IN",
        extra_MN=block_MBN[:, 2] if extra else None,
        num_rows=size,
    )


def _order(
    num_examples, seed, given_population_N, population, drawn
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (population_N, the usable rows in the order of the blocks)."""
    population_N, usable = _rows.kept_aside(num_examples, seed, 0.0, given_population_N)
    order = _rows.generator(seed, "blocks").permutation(usable) if drawn else usable
    aside = min(max(0, round(population * num_examples) - int(population_N.sum())), len(order))
    population_N[order[len(order) - aside :]] = True
    return population_N, order[: len(order) - aside]
