"""correct: whether a target predicts the record correctly."""

from __future__ import annotations

import numpy as np

from mia_jax.metrics import slices

NEEDS = ("correct",)


def make():
    """Returns the slices of records."""

    def layer(records):
        code = np.asarray(records.correct_TN) < 0.5
        return slices.Layer(("correct=True", "correct=False"), code.astype(np.int32), True)

    return layer
