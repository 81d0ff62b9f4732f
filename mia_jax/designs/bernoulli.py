"""Draws independent coins: each example is in each model with the same probability.

The coin of an example does not depend on other examples or models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design


@_rows.remade(lambda models, _: dict(models=models))
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    models: int = 64,
    probability: float = 0.5,
    population: float = 0.1,
    targets: int | Sequence[int] | None = None,
) -> Design:
    """Returns the design in which each model trains on each row with `probability`.

    Rows of the population are excluded. The draw of model m depends on (seed, m) only. The number
    of rows differs between models. num_rows = K bounds it, given the number of rows outside the
    population and the probability only, so that the padded row lists do not depend on the draw. An
    attacker of t uses every model except t: the coins are independent, so the number of IN shadows
    reveals nothing.

    Source: Shokri et al. 2017 (arXiv:1610.05820), in the independent form of Steinke et al. 2023
    (arXiv:2305.08846).

    Raises:
        ValueError: for fewer than 2 models, or if a model draws no row or every row.
    """
    checks.at_least(2, models=models)
    checks.fraction(closed="neither", probability=probability)
    population_N, usable = _rows.kept_aside(num_examples, seed, population, given_population_N)
    member_MN = (
        np.stack(
            [
                _rows.generator(seed, "bernoulli", m).random(num_examples) < probability
                for m in range(models)
            ]
        )
        & ~population_N
    )
    for m, size in enumerate(member_MN.sum(1)):
        if not 0 < size < len(usable):
            raise ValueError(
                f"model {m} drew {size} of {len(usable)} rows with probability={probability}; use "
                "more data or one nearer to 1/2."
            )
    return _rows.checked(
        labels_N,
        name="bernoulli",
        member_MN=member_MN,
        population_N=population_N,
        targets=targets,
        note=f"each example is in each model with probability {probability:g}, independently",
        num_rows=_rows.k_max(len(usable), probability),
        coin_N=np.where(population_N, -1, np.cumsum(~population_N) - 1)
        if probability == 0.5
        else None,
    )
