"""Estimates how much of the data a model was trained on, from an attack's scores."""

from __future__ import annotations

import numpy as np

from mia_jax.metrics import dataset_usage
from mia_jax.types import Design

TARGETS = 16  # only the first targets are estimated


def measure(
    score_MN: np.ndarray, *, attack: str, design: Design, threshold_T: np.ndarray, level: float
) -> dict | None:
    """Estimates for the first targets which share of the scored rows they were trained on.

    Args:
        score_MN: the scores of all models, shadows scored as if they were targets.
        attack: the name of the attack.
        design: the design of the run.
        threshold_T: the shadow-calibrated threshold of each target.
        level: the confidence level.

    Returns:
        {attack, level, rows}, with the rows of `dataset_usage.table`; {attack, why} where the rates
            cannot be measured; None without thresholds or without shadows.
    """
    if (
        threshold_T is None
        or np.isnan(threshold_T).any()
        or not design.shadow_MM[list(design.targets)].any()
    ):
        return None
    targets = list(design.targets)[:TARGETS]
    fields = dict(
        targets=targets,
        threshold_M=dict(zip(design.targets, map(float, threshold_T), strict=True)),
        unit_M=design.unit_M,
        level=level,
    )
    try:
        rows = dataset_usage.table(
            score_MN, design.member_MN, design.evaluated_MN, design.shadow_MM, **fields
        )
    except ValueError as error:
        return dict(attack=attack, why=str(error))
    return dict(attack=attack, level=level, rows=rows)
