"""Splits the rows into complementary halves for models 2p and 2p+1.

Every row is a member of exactly one model of each pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mia_jax.designs import _rows
from mia_jax.threat_model import SHADOW_NEEDS
from mia_jax.types import Design


@_rows.remade(lambda models, _: dict(models=models))
def make(
    *,
    num_examples: int,
    seed: int,
    given_population_N: np.ndarray | None = None,
    labels_N: np.ndarray | None = None,
    models: int = 64,
    population: float = 0.1,
    targets: int | Sequence[int] | None = None,
    extra: float = 0.0,
    apart: bool = False,
) -> Design:
    """Returns the design of `models` / 2 independent random halvings of the rows.

    Population rows are excluded, and an odd row goes to the population. Pair p is drawn from (seed,
    p) only. An attacker of t uses every model outside the pair of t: if only t were left out, the
    number of IN shadows would reveal the answer. Source: Carlini et al. 2022 (arXiv:2112.03570).

    Args:
        num_examples: N.
        seed: the seed of the draws.
        given_population_N: the population rows of the data.
        labels_N: the labels, for checks.
        models: the number of models, which is even.
        population: the share of rows kept aside.
        targets: the audited models (None = all, n = the first n).
        extra: the share of rows that no model has as a member and on which none is evaluated, all
            given to every learner that uses such rows (`extra_MN`).
        apart: whether audited models and their twins are nobody's shadows, so that an owner can
            defend the audited models alone.

    Raises:
        ValueError: if `models` is odd or < 2, or if all models are targets and none may be a
            shadow.
    """
    if models < 2 or models % 2:
        even = max(2, models + models % 2)
        raise ValueError(
            f"models={models}: halves trains complementary pairs, so it must be even and at least "
            f"2; use models={even}."
        )
    population_N, usable = _rows.kept_aside(
        num_examples, seed, population, given_population_N, multiple=2
    )
    extra_N, usable = _rows.drawn_aside(usable, num_examples, seed, extra, multiple=2)
    member_MN = np.zeros((models, num_examples), bool)
    for pair in range(models // 2):
        order = _rows.generator(seed, "halves", pair).permutation(usable)
        member_MN[2 * pair, order[: len(usable) // 2]] = True
        member_MN[2 * pair + 1, order[len(usable) // 2 :]] = True
    alone = models == 2
    unit_M = np.arange(models) // 2
    shadow_MM = unit_M[:, None] != unit_M[None]
    if apart:
        # A twin's answers would tell another target's shadows what its own target was trained on:
        # scores of one model would depend on the membership of another.
        audited = unit_M[list(_rows.chosen(targets, models))]
        shadow_MM[:, np.isin(unit_M, audited)] = False
        if not alone and not shadow_MM.any(1).all():
            raise ValueError(
                f"apart=True with targets={targets} leaves a model without shadows: audit fewer of "
                f"the {models} models, or train more."
            )
    return _rows.checked(
        labels_N,
        name="halves",
        member_MN=member_MN,
        evaluated_MN=np.tile(~population_N & ~extra_N, (models, 1)),
        shadow_MM=shadow_MM,
        population_N=population_N,
        unit_M=unit_M,
        targets=targets,
        extra_MN=np.tile(extra_N, (models, 1)) if extra_N.any() else None,
        supports=() if alone else SHADOW_NEEDS,
        note="the only other model was trained on the complementary rows; use more models"
        if alone
        else "the model trained on the complementary rows is never used as a shadow model",
        num_rows=len(usable) // 2,
    )
