"""Collects the checks of every report that say whether its numbers can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mia_jax.metrics import blind, bootstrap, cross_target, membership, power
from mia_jax.types import Design, Pool

# designs that draw members at random, independently of the examples
RANDOM = ("halves", "bernoulli", "disjoint", "folds", "canaries")


def collect(
    *,
    design: Design,
    pool: Pool,
    attacks: Mapping[str, Mapping],
    draws: bootstrap.Draws,
    duplicates: Mapping[str, int],
    files: Mapping,
    drawn: bool,
    fprs: Sequence[float],
    level: float,
    meaning: Mapping[str, Mapping],
    seed: int = 0,
) -> dict:
    """Returns the section `validity` of report.json.

    Args:
        design: the design of the run.
        pool: the data of the run.
        attacks, draws, fprs, level: as in `summary.rows`.
        duplicates: the counts of data._pool.duplicates.
        files: the result of `inputs.check` (pipeline).
        drawn: whether the design drew the members at random.
        meaning: the checks of measures/meaning.py, each {status: 'ok' | 'failed' | 'not checked',
            text, ..}.
        seed: the seed of the blind baseline.

    Returns:
        {blind, cross_target, duplicates, membership, files, label_agreement, shadow_fit, power,
            records}.
    """
    targets = list(design.targets)
    rows = design.of_targets()
    member_TN, evaluated_TN, unit_T = rows.member_TN, rows.evaluated_TN, rows.unit_T
    matrix = membership.check(
        member_MN=design.member_MN,
        evaluated_MN=design.evaluated_MN,
        shadow_MM=design.shadow_MM,
        population_N=design.population_N,
        unit_M=design.unit_M,
        targets=targets,
        counts_matter=bool(design.supports & {"shadow_in", "shadow_out"}) and not design.balance,
    )
    units = len(np.unique(unit_T))
    sides = (int((evaluated_TN & side_TN).sum(1).min()) for side_TN in (member_TN, ~member_TN))
    return dict(
        blind=of_examples(design, pool, drawn=drawn, seed=seed),
        cross_target=of_other_targets(
            matrix, attacks, member_TN, evaluated_TN, unit_T=unit_T, draws=draws, level=level
        ),
        duplicates=dict(duplicates) if np.size(pool.x) else dict(why="the examples were not given"),
        membership=matrix,
        files=dict(files),
        **meaning,
        power=power.table(*sides, units=units, resampling=draws.resampling, fprs=fprs, level=level),
        records=power.records(int(evaluated_TN.any(0).sum()), len(targets), level=level),
    )


def of_examples(design: Design, pool: Pool, *, drawn: bool, seed: int) -> dict:
    """Returns the blind baseline of the first target, where membership was not drawn at random."""
    if drawn:
        return dict(
            why=f"members were drawn at random ({design.name}), so membership cannot be "
            "guessed from the examples alone",
            drawn=True,
        )
    audited = design.of_targets()
    rows = np.flatnonzero(audited.evaluated_TN[0])
    return blind.baseline(
        np.asarray(pool.x[rows]),
        np.asarray(pool.y)[rows],
        audited.member_TN[0, rows],
        seed=seed,
    )


def of_other_targets(
    matrix: Mapping, attacks: Mapping[str, Mapping], member_TN, evaluated_TN, **shared
) -> dict:
    """Returns the cross-target null, where the memberships of different units are independent.

    Args:
        matrix: what `membership.check` returned.
        attacks, member_TN, evaluated_TN: as in `cross_target.check`.
        **shared: its other arguments.

    Returns:
        The result of `cross_target.check`; {why} where the memberships depend on each other.
    """
    if matrix["constant"] and not matrix["paired"] and len(member_TN) > 1:
        return dict(
            why="every record is in the same number of models, so the models' memberships depend "
            "on each other"
        )
    return cross_target.check(attacks, member_TN, evaluated_TN, **shared)
