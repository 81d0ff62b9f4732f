"""The shadows as targets in turn, each with the other shadows as its own, for tuning attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mia_jax.threat_model import SHADOW_NEEDS, Evidence, FleetSignals
from mia_jax.types import Design


def evidence_of_shadows(
    evidence: Evidence, needs: Sequence[str], *, limit: int
) -> list[tuple[Evidence, np.ndarray]]:
    """Returns [(evidence against a shadow with these needs, the shadow's member_N)].

    A shadow's twin, the shadow with the complementary members, is never among its shadows. What the
    outer evidence hides stays hidden. Left out are shadows without evaluated members and
    non-members and, if `needs` asks for shadows, those that share no visible row with another
    shadow.

    Args:
        evidence: must show each shadow on its own evaluated rows (need 'shadow_own').
        needs: what the evidence against a shadow holds.
        limit: the most shadows, the first ones that can be scored.
    """
    fleet = _fleet(evidence, needs)
    d, cases = fleet.design, []
    uses_shadows = any(need in SHADOW_NEEDS for need in needs)
    for j in d.targets:
        inner = fleet.evidence_against(j, tuple(needs))
        if uses_shadows:
            others = np.flatnonzero(d.shadow_MM[j])
            visible_MN = inner.visible_MN & evidence.visible_MN[others]
            member_MN, own_MN = (
                inner.shadow_member_MN & visible_MN,
                inner.shadow_evaluated_MN & visible_MN,
            )
            inner = dataclasses.replace(
                inner, visible_MN=visible_MN, shadow_member_MN=member_MN, shadow_evaluated_MN=own_MN
            )
        if not uses_shadows or visible_MN.any():
            cases.append((inner, d.member_MN[j]))
        if len(cases) == limit:
            break
    return cases


def _fleet(evidence: Evidence, needs: Sequence[str]) -> FleetSignals:
    """Returns the evidence's shadows as a fleet.

    Its targets are the shadows with evaluated members and non-members.
    """
    member_MN, evaluated_MN = evidence.shadow_member_MN, evidence.shadow_evaluated_MN
    none_N = np.zeros_like(evidence.evaluated_N)
    usable = (member_MN & evaluated_MN).any(1) & (~member_MN & evaluated_MN).any(1)
    design = Design(
        name="shadows",
        member_MN=member_MN,
        evaluated_MN=evaluated_MN,
        shadow_MM=~twins(member_MN & evaluated_MN, evaluated_MN)
        & ~np.eye(len(member_MN), dtype=bool),
        population_N=none_N if evidence.population_N is None else evidence.population_N,
        unit_M=np.arange(len(member_MN)),
        targets=tuple(int(j) for j in np.flatnonzero(usable)),
        supports=frozenset(SHADOW_NEEDS),
    )
    return FleetSignals(
        design=design,
        signal=dict(evidence.shadow),
        num_classes=evidence.num_classes,
        x=evidence.x,
        y=evidence.y,
        columns=evidence.columns,
    )


def twins(member_MN: np.ndarray, evaluated_MN: np.ndarray) -> np.ndarray:
    """Returns whether, on all rows that both evaluate, exactly one of two models trained, [M,M].

    False where no row is evaluated by both.
    """
    inside, known = member_MN.astype(np.float32), evaluated_MN.astype(np.float32)
    outside = known - inside
    common, agree = known @ known.T, inside @ inside.T + outside @ outside.T
    return (common > 0) & (agree == 0)
