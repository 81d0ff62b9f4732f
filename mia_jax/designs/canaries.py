"""Draws canaries, for audits of epsilon: fair coins decide which of them a model trains on.

Each canary has an independent fair coin in every model. All other rows are in every model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax import checks
from mia_jax.designs import _rows
from mia_jax.types import Design

MOST = 1000  # The default number of canaries, if half of the rows are at least as many.


@_rows.remade(lambda models, _: dict(models=models))
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    given_canary_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    models: int = 8,
    canaries: int = 0,
    pairs: bool = False,
    population: float = 0.1,
    targets: int | Sequence[int] | None = None,
) -> Design:
    """Returns the design in which each model trains on its canaries and on all other rows.

    Population rows are excluded. The coins of model m are drawn from (seed, m). The canaries are
    the rows that the data marks (data.canaries), or else `canaries` random rows (0: half of the
    rows, at most 1,000). With `pairs`, two canaries share a coin that picks one of them, so that
    all models have the same number of rows (replace-one adjacency). Only canaries are evaluated;
    `coin_N` says which coin decides about a row. An attacker of t uses every model except t,
    because coins are independent over models. num_rows = K bounds the rows, given the number of
    canaries only.

    Sources: Steinke et al. 2023 (arXiv:2305.08846), Algorithm 1; for pairs section 6 of the same
    paper and Mahloujifar et al. 2024 (arXiv:2410.22235).

    Raises:
        ValueError: for fewer than 2 models or 2 coins, or a model without a canary.
    """
    checks.at_least(2, models=models)
    chosen_N = _canaries(num_examples, seed, given_population_N, given_canary_N, canaries)
    population_N, usable = _aside(num_examples, seed, given_population_N, chosen_N, population)
    order = _rows.generator(seed, "canary pairs").permutation(np.flatnonzero(chosen_N))
    if pairs and len(order) % 2:
        raise ValueError(f"pairs=True needs an even number of canaries and there are {len(order)}.")
    coins = len(order) // 2 if pairs else len(order)
    checks.at_least(2, coins=coins)
    coin_N = np.full(num_examples, -1)
    coin_N[order] = np.arange(len(order)) % coins
    member_MN = np.tile(~population_N & ~chosen_N, (models, 1))
    for m in range(models):
        heads = _rows.generator(seed, "canaries", m).random(coins) < 0.5
        member_MN[m, order] = np.append(heads, ~heads) if pairs else heads
    others = len(usable) - len(order)
    return _rows.checked(
        labels_N,
        name="canaries",
        member_MN=member_MN,
        evaluated_MN=np.tile(chosen_N, (models, 1)),
        population_N=population_N,
        targets=targets,
        note=f"{len(order):,} canaries, {coins:,} fair coins a model; the other {others:,} rows "
        "are in every model",
        num_rows=others + (coins if pairs else _rows.k_max(coins, 0.5)),
        coin_N=coin_N,
    )


def _canaries(
    num_examples: int, seed: int, given_population_N, given_canary_N, canaries: int
) -> np.ndarray:
    """Returns which rows are canaries, boolean [N]: those that the data marks, or random ones."""
    free_N = (
        np.ones(num_examples, bool)
        if given_population_N is None
        else ~np.asarray(given_population_N, bool)
    )
    checks.shape("N", num_examples=np.zeros(num_examples), given_population=free_N)
    if given_canary_N is not None:
        chosen_N = np.asarray(given_canary_N, bool)
        checks.shape("N", num_examples=free_N, given_canary=chosen_N)
        if (chosen_N & ~free_N).any():
            raise ValueError(
                f"{int((chosen_N & ~free_N).sum())} of the rows that the data marks as canaries "
                "are population rows."
            )
        if canaries not in (0, int(chosen_N.sum())):
            raise ValueError(
                f"canaries={canaries} but the data marks {int(chosen_N.sum())} rows as canaries; "
                "leave design.canaries at 0."
            )
        return chosen_N
    checks.at_least(0, canaries=canaries)
    free = np.flatnonzero(free_N)
    count = canaries or min(MOST, len(free) // 4 * 2)
    if count > len(free):
        raise ValueError(
            f"canaries={count} but only {len(free)} of {num_examples} rows lie outside the "
            "population."
        )
    chosen_N = np.zeros(num_examples, bool)
    chosen_N[_rows.generator(seed, "canary rows").permutation(free)[:count]] = True
    return chosen_N


def _aside(
    num_examples: int, seed: int, given_population_N, chosen_N, population: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (population_N, usable rows).

    The population is a share of *all* rows, drawn from those that are not canaries.
    """
    others = np.flatnonzero(~chosen_N)
    share = (
        min(population * num_examples / max(1, len(others)), 0.999)
        if 0 <= population < 1
        else population
    )
    given = None if given_population_N is None else np.asarray(given_population_N, bool)[others]
    inside_N, _ = _rows.kept_aside(len(others), seed, share, given)
    population_N = np.zeros(num_examples, bool)
    population_N[others] = inside_N
    return population_N, np.flatnonzero(~population_N)
