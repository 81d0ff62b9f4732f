"""Models a realistic offline attacker: shadows train on rows that no target uses."""

from __future__ import annotations

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
    models: int = 24,
    targets: int = 8,
    population: float = 0.1,
) -> Design:
    """Returns the design of two random parts of equal size, one for targets and one for shadows.

    The first `targets` models are complementary pairs on one part; the others are shadows on halves
    of the other part. Every model has a quarter of the rows outside the population (up to 3 rows go
    to the population). Every shadow is OUT on the evaluated rows of a target, so attacks that need
    IN shadows are refused. Models are audited in pairs 2p, 2p+1. Additional `models` are additional
    shadows, drawn from (seed, number) only.

    Raises:
        ValueError: if `targets` is odd or < 2, or if no shadow remains.
    """
    checks.at_least(2, targets=targets)
    if targets % 2:
        raise ValueError(
            f"targets={targets}: targets are trained in complementary pairs, so it must be even; "
            f"use targets={targets + 1}."
        )
    if models <= targets:
        raise ValueError(
            f"models={models} leaves no shadow in addition to targets={targets}; use more models."
        )
    population_N, usable = _rows.kept_aside(
        num_examples, seed, population, given_population_N, multiple=4
    )
    quarter = len(usable) // 4
    order = _rows.generator(seed, "disjoint parts").permutation(usable)
    parts = order[: 2 * quarter], order[2 * quarter :]
    member_MN, evaluated_MN = np.zeros((2, models, num_examples), bool)
    for m in range(models):
        is_shadow = m >= targets
        part = parts[is_shadow]
        half = _rows.generator(seed, "disjoint", m if is_shadow else m // 2).permutation(part)
        member_MN[m, half[quarter:] if m % 2 and not is_shadow else half[:quarter]] = True
        evaluated_MN[m, part] = True
    unit_M = np.where(np.arange(models) < targets, np.arange(models) // 2, np.arange(models))
    return _rows.checked(
        labels_N,
        name="disjoint",
        member_MN=member_MN,
        evaluated_MN=evaluated_MN,
        shadow_MM=(unit_M[:, None] != unit_M[None]) & (np.arange(models) >= targets),
        population_N=population_N,
        unit_M=unit_M,
        targets=targets,
        supports=("shadow_out", "shadow_own"),
        note="shadows train on another part of the pool than the targets, so none is IN",
        num_rows=quarter,
    )
