"""A design without the models that failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

from mia_jax.types import Design


def without(design: Design, failed: Collection[int]) -> Design:
    """The design in which no failed model is a target or a shadow, and no model whose twin failed
    is a shadow of another.

    Models keep their numbers. In a complementary pair every example is IN one model and OUT of the
    other. With one of them left, its members would have one more IN shadow than the other examples
    and its non-members one more OUT shadow, so that the two sides of an example could be of any
    size (one of them empty in a small fleet). Pairs are therefore shadows together or not at all,
    which keeps as many IN as OUT shadows for every example, members and non-members of a target
    alike. The remaining model of the pair still is a target: its attackers never see its twin
    anyway. A target that is left without any shadow, under a design that gives shadows, is no
    target any more.
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
    """The models that are no shadows because their twin failed."""
    units = {int(design.unit_M[m]) for m in failed}
    return [
        m
        for m in range(len(design.member_MN))
        if int(design.unit_M[m]) in units and m not in failed
    ]
