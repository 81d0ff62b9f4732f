"""loss: the ten deciles of each target's losses."""

from __future__ import annotations

from mia_jax.metrics import slices

NEEDS = ("loss",)


def make():
    """Returns the slices of records."""
    return lambda records: slices.by_percentile(records.loss_TN, records.evaluated_TN)
