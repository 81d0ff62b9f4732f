"""RaMIA: whether anything in a range around the example was a member.

The query views are the range. Source: Tao and Shokri 2024 (arXiv:2408.05131).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mia_jax import checks, registry
from mia_jax.threat_model import Evidence
from mia_jax.types import Attack

DEFAULT = dict(name="base", mode="offline")


def make(*, attack: Mapping = DEFAULT, low: float = 0.4, high: float = 1.0) -> Attack:
    """Scores the trimmed mean of an attack's scores of the example's A query views.

    Each view is scored as if it were the only one. Of the sorted scores those numbered floor(low A)
    .. ceil(high A) - 1 are kept, at least one.

    Args:
        attack: {name: attack, field: value}, as in a config.
        low: leaves out the points of the range that were not trained on.
        high: leaves out outliers.

    Raises:
        ValueError: Not 0 <= low < high <= 1.
    """
    checks.fraction(low=low, high=high)
    if not low < high:
        raise ValueError(f"low={low} must be below high={high}.")
    part = registry.make(
        "attacks", attack["name"], {k: v for k, v in attack.items() if k != "name"}
    )

    def score(evidence, key):
        signals = [n for n in part.needs if n in evidence.target]
        views = len(evidence.target[signals[0]])
        score_AN = np.stack([part.score(_one(evidence, signals, a), key) for a in range(views)])
        return trimmed_mean(score_AN, low, high)

    def score_all(fleet, key):
        signals = [n for n in part.needs if n in fleet.signal]
        views = fleet.signal[signals[0]].shape[1]
        fleets = (
            dataclasses.replace(fleet, signal={n: fleet.signal[n][:, a : a + 1] for n in signals})
            for a in range(views)
        )
        return trimmed_mean(np.stack([part.score_all(f, key) for f in fleets]), low, high)

    note = (
        f"mean of the sorted scores {low:g}..{high:g} of the query views; {attack['name']}: "
        f"{part.note}"
    )
    return Attack(
        score, part.needs, knows=part.knows, score_all=part.score_all and score_all, note=note
    )


def _one(evidence: Evidence, signals: list[str], a: int) -> Evidence:
    """Returns the evidence with only query view `a`."""
    target = {n: evidence.target[n][a : a + 1] for n in signals}
    return dataclasses.replace(
        evidence,
        target=target,
        shadow={n: evidence.shadow[n][:, a : a + 1] for n in signals if n in evidence.shadow},
    )


def trimmed_mean(score_AN: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns the mean over axis 0 of the sorted values floor(low A) .. ceil(high A) - 1.

    At least one value is kept; NaN stays NaN.
    """
    views = len(score_AN)
    start = min(int(np.floor(low * views)), views - 1)
    return np.sort(score_AN, 0)[start : max(int(np.ceil(high * views)), start + 1)].mean(0)
