"""Attacks without groups of units of models: what the standard error of an attack on shadows is
made from (metrics/jackknife.py).

Pure functions of a fleet: nothing is read or written here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from mia_jax import threat_model
from mia_jax.metrics import bootstrap
from mia_jax.threat_model import FleetSignals
from mia_jax.types import Attack, Design

T = TypeVar("T")


def applies(attack: Attack, design: Design, *, groups: int) -> bool:
    """Decides whether an attack is rerun.

    It is if it compares with shadows, scores all targets in one program (`Attack.score_all`: what
    trains something for each target would be too dear), and the targets form enough units to be
    resampled. Under designs with fixed counts per example (`Design.balance`) it is not: without
    some of the models the counts would tell who is a member.

    Args:
      attack, design: of the audit.
      groups: how many groups are left out; fewer than 2: never.
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
    """Deals the units of models out to groups.

    Units with targets are dealt out first, then those of shadows alone, each in the order of their
    numbers, so that every group has its share of both.

    Args:
      design: whose models are grouped.
      groups: at most as many as there are units with targets.

    Returns:
      group_M, -1 for models that are neither a target nor a shadow of one.
    """
    targets = list(design.targets)
    group_M = np.full(len(design.unit_M), -1)
    with_targets = np.unique(design.unit_M[targets])
    shadows_M = design.shadow_MM[targets].any(0)
    alone = np.setdiff1d(np.unique(design.unit_M[shadows_M]), with_targets)
    groups = min(groups, len(with_targets))
    for units in (with_targets, alone):
        for place, unit in enumerate(units):
            group_M[design.unit_M == unit] = place % groups
    return group_M


def without(design: Design, gone_M: np.ndarray) -> Design:
    """Returns the design in which the models `gone_M` are neither targets nor shadows; models keep
    their numbers.
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
) -> list[T]:
    """Reruns an attack without each group of units.

    Args:
      attack, fleet: what is rerun, and all that was measured.
      scored: the models that are scored, targets and shadows.
      groups: how many groups the units are dealt out to.
      scores: scores(attack, fleet, scored, key) -> score_TN.
      key: the key of the attack's own run.
      measure: measure(design without the group, score_MN) -> what is kept; score_MN is NaN where
        there is no score, and one rerun's scores are held at a time.

    Returns:
      What `measure` made of every group; an empty list if the attack cannot do without one of them.
    """
    group_M, kept = grouped(fleet.design, groups), []
    for g in range(int(group_M.max()) + 1):
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
        kept.append(measure(design, score_MN))
    return kept
