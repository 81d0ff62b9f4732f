"""Trains one model on the first rows, as in the usual split of a data set.

The model never sees the rows after them.
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design


@_rows.remade(more="use the design halves or bernoulli for more")
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    members: int | None = None,
    drawn: bool = False,
) -> Design:
    """Returns the design of one model that trains on the first `members` rows.

    Population rows are excluded. All other rows are non-members. None uses half of the rows.
    `drawn` takes the rows in a random order instead of the order of the pool. There are no shadows,
    only attacks on the target's own outputs. The design has one model and cannot be extended.

    Raises:
        ValueError: if no row is left for the non-members.
    """
    population_N, usable = _rows.kept_aside(num_examples, seed, 0.0, given_population_N)
    members = len(usable) // 2 if members is None else members
    checks.at_least(1, members=members)
    if members >= len(usable):
        raise ValueError(
            f"members={members} leaves no non-member of the {len(usable)} rows outside the "
            "population; use fewer, or more examples."
        )
    order = _rows.generator(seed, "holdout").permutation(usable) if drawn else usable
    member_MN = np.zeros((1, num_examples), bool)
    member_MN[0, order[:members]] = True
    return _rows.checked(
        labels_N,
        name="holdout",
        member_MN=member_MN,
        population_N=population_N,
        supports=(),
        note="one model, no shadows",
        num_rows=members,
    )
