"""Reruns attacks without groups of units of models, which gives the standard error of the attack.

The standard error is computed in metrics/jackknife.py. These are pure functions of a fleet; they
read and write no file.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from mia_jax import threat_model
from mia_jax.metrics import bootstrap
from mia_jax.pipeline.pieces import Piece, unkept
from mia_jax.threat_model import FleetSignals
from mia_jax.types import Attack, Design

T = TypeVar("T")


def applies(attack: Attack, design: Design, *, groups: int) -> bool:
    """Returns whether an attack is rerun.

    It is rerun if it compares with shadows, scores all targets in one program (`Attack.score_all`;
    an attack that trains something for each target would cost too much), and the targets form
    enough units to be resampled. Under designs with fixed counts per example (`Design.balance`) it
    is not, because without some of the models the counts would reveal who is a member.

    Args:
      attack: the attack.
      design: who trains on what.
      groups: how many groups are left out in turn; fewer than 2 for no reruns.
    """
    reads_shadows = any(need in threat_model.SHADOW_NEEDS for need in attack.needs)
    units = len(np.unique(design.unit_M[list(design.targets)]))
    cheap = attack.score_all is not None and attack.knows == "shadows"
    return (
        groups > 1
        and reads_shadows
        and cheap
        and units >= bootstrap.FEWEST_UNITS
        and not design.balance
    )


def grouped(design: Design, groups: int) -> np.ndarray:
    """Returns the group of every model, group_M; -1 for a model that is neither target nor shadow.

    The units of models are dealt out in turn: first those with targets, then those with shadows
    only, each in the order of their numbers. Hence every group has its share of both.

    Args:
      design: who trains on what.
      groups: the number of groups, at most as many as there are units with targets.
    """
    targets = list(design.targets)
    group_M = np.full(len(design.unit_M), -1)
    with_targets = np.unique(design.unit_M[targets])
    shadows_M = design.shadow_MM[targets].any(0)
    without_targets = np.setdiff1d(np.unique(design.unit_M[shadows_M]), with_targets)
    groups = min(groups, len(with_targets))
    for units in (with_targets, without_targets):
        for place, unit in enumerate(units):
            group_M[design.unit_M == unit] = place % groups
    return group_M


def without(design: Design, gone_M: np.ndarray) -> Design:
    """Returns the design in which the models `gone_M` are neither targets nor shadows.

    All models keep their numbers.
    """
    shadow_MM = design.shadow_MM & ~gone_M[None] & ~gone_M[:, None]
    return dataclasses.replace(
        design, shadow_MM=shadow_MM, targets=tuple(t for t in design.targets if not gone_M[t])
    )


def each(
    attack: Attack,
    fleet: FleetSignals,
    *,
    scored: Sequence[int],
    groups: int,
    scores: Callable[..., np.ndarray],
    key,
    measure: Callable[[Design, np.ndarray], T],
    piece: Piece = unkept,
) -> list[T]:
    """Reruns an attack once without each group of units.

    Args:
      attack: the attack.
      fleet: all that was measured.
      scored: the models that are scored, targets and shadows.
      groups: the number of groups to which the units are dealt out.
      scores: scores(attack, fleet, scored, key) -> score_TN.
      key: the key of the attack.
      measure: measure(design without the group, score_MN) -> what is kept. score_MN is NaN where
        there is no score. The scores of one rerun are held at a time.
      piece: keeps the result of each group, see pipeline/pieces.py.

    Returns:
      The results of `measure` for every group; an empty list if the attack cannot be run without
      one
        of them.
    """
    group_M = grouped(fleet.design, groups)

    def without_group(g: int) -> list[T]:
        """Returns the result without group g in a list; an empty list if there is none."""
        design = without(fleet.design, group_M == g)
        left = [m for m in scored if group_M[m] != g]
        score_MN = np.full(design.member_MN.shape, np.nan)
        try:
            score_MN[left] = scores(attack, dataclasses.replace(fleet, design=design), left, key)
        except ValueError:  # so few shadows lack a side that the attack needs
            return []
        targets = list(design.targets)
        if np.isnan(score_MN[targets][design.of_targets().evaluated_TN]).any():
            return []
        return [measure(design, score_MN)]

    first, *others = (functools.partial(without_group, g) for g in range(int(group_M.max()) + 1))
    kept = piece("0", first)
    if not kept:
        return []
    for result in piece.each({f"{g}": compute for g, compute in enumerate(others, 1)}):
        if not result:
            return []
        kept = kept + result
    return kept
