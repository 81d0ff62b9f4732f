"""One model on the first rows, as a data set's own split has it: the rows after them were never
seen.
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
    """The only model trains on the first `members` rows outside the population (None: half of
    them); all others are its non-members.

    `drawn`: in random instead of the pool's order. No shadow at all: attacks on the target's own
    outputs. It has one model and cannot be extended. ValueError if no row is left for the
    non-members.
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
