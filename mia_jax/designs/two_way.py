"""Two halves A and B for data too small for four blocks: the target trains on A, its only source on
B, each tested on the other's half.
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
    """Model 0 (target): members A = the first `size` rows, non-members B = the next `size`; model 1
    (source): members B, non-members A.

    `size` None: half of the rows outside the population; `drawn`: in random instead of the pool's
    order. The source *is* the target's twin: its signals on an example tell the answer, so no
    shadow need is supported and `shadow_MM` serves to choose scalar thresholds alone. It has two
    models and cannot be extended. ValueError if two halves do not fit. Source: Choquette-Choo et
    al. 2021 (arXiv:2007.14321), the CIFAR-100 split.
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
        note="the source is the target's twin",
        num_rows=size,
    )
