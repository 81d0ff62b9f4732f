"""Gap attack: a member iff the model classifies the example correctly."""

from __future__ import annotations

import numpy as np

from mia_jax.attacks import _signals
from mia_jax.types import Attack


def make() -> Attack:
    """Scores 1 if the target predicts the true label of the unchanged example, else 0.

    The unchanged example is query view 0. On n members and n non-members the accuracy at the
    threshold 1 is 1/2 + (train accuracy - test accuracy) / 2. Labels only, no shadows.

    Sources: Yeom et al. 2018 (arXiv:1709.01604), adversary 1; Choquette-Choo et al. 2021
    (arXiv:2007.14321).
    """

    def score(evidence, key):
        del key
        correct_AN = _signals.scalar(evidence.target["correct"], "AN", "correct")
        return np.where(evidence.evaluated_N, correct_AN[0].astype(np.float64), np.nan)

    return Attack(
        score,
        ("correct",),
        knows="nothing",
        note="whether the unmodified example is classified correctly",
    )
