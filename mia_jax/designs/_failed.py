"""Removes the models that failed from a design."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from mia_jax.types import Design


def without(design: Design, failed: Collection[int]) -> Design:
    """Returns the design in which failed models are neither targets nor shadows.

    A model whose twin failed is no shadow of other models either. Models keep their numbers.

    In a complementary pair every example is IN one model and OUT of the other. If only one of them
    were a shadow, its members would have one more IN shadow than the other examples, and its
    non-members one more OUT shadow. The two sides of an example could then be of any size (in a
    small fleet even empty). Pairs are therefore shadows together or not at all, which keeps as many
    IN as OUT shadows for every example, for members and non-members of a target alike. The
    remaining model of the pair is still a target, because its attackers never see its twin. If a
    design gives shadows and a target is left without any, it is no longer a target.
    """
    if not failed:
        return design
    gone_M = np.isin(np.arange(len(design.member_MN)), list(failed))
    unpaired_M = np.isin(design.unit_M, design.unit_M[gone_M]) & ~gone_M
    shadow_MM = design.shadow_MM & ~gone_M[None] & ~unpaired_M[None] & ~gone_M[:, None]
    kept = [t for t in design.targets if not gone_M[t]]
    if design.supports:
        kept = [t for t in kept if shadow_MM[t].any() or not design.shadow_MM[t].any()]
    return dataclasses.replace(design, shadow_MM=shadow_MM, targets=tuple(kept))


def without_twin(design: Design, failed: Collection[int]) -> list[int]:
    """Returns the models that are no shadows because their twin failed."""
    units = {int(design.unit_M[m]) for m in failed}
    return [
        m
        for m in range(len(design.member_MN))
        if int(design.unit_M[m]) in units and m not in failed
    ]
