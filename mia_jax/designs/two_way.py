"""Splits data that is too small for four blocks into two halves A and B.

The target trains on A and its only source trains on B; each is tested on the other half.
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design


@_rows.remade(more="use the design halves or blocks for more")
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    size: int | None = None,
    drawn: bool = False,
) -> Design:
    """Returns the design of a target with members A and a source with members B.

    A are the first `size` rows and B the next `size` rows. The non-members of the target are B, and
    those of the source are A. The source *is* the target's twin: its signals on an example reveal
    the answer. Therefore no shadow need is supported, and `shadow_MM` is only used to choose scalar
    thresholds. The design has two models and cannot be extended. Source: Choquette-Choo et al. 2021
    (arXiv:2007.14321), the CIFAR-100 split.

    Args:
        num_examples: N.
        seed: the seed of the draw.
        given_population_N: the population rows of the data.
        labels_N: the labels, for checks.
        size: None for half of the rows outside the population.
        drawn: whether rows are in a random order instead of the order of the pool.

    Raises:
        ValueError: if two halves do not fit.
    """
    population_N, usable = _rows.kept_aside(num_examples, seed, 0.0, given_population_N)
    size = len(usable) // 2 if size is None else size
    checks.at_least(1, size=size)
    if 2 * size > len(usable):
        raise ValueError(
            f"2 halves of size={size} need {2 * size} rows but the pool has {len(usable)} outside "
            "the population."
        )
    order = _rows.generator(seed, "two_way").permutation(usable) if drawn else usable
    member_MN = np.zeros((2, num_examples), bool)
    member_MN[0, order[:size]] = True
    member_MN[1, order[size : 2 * size]] = True
    return _rows.checked(
        labels_N,
        name="two_way",
        member_MN=member_MN,
        evaluated_MN=np.tile(member_MN.any(0), (2, 1)),
        shadow_MM=~np.eye(2, dtype=bool),
        population_N=population_N,
        unit_M=np.zeros(2, int),
        targets=(0,),
        supports=(),
        note="the source was trained on the rows that the target was not trained on",
        num_rows=size,
    )
