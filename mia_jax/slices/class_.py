"""class: one slice per class label."""

from __future__ import annotations

from mia_jax.metrics import slices

NEEDS = ("labels",)


def make():
    """Returns the slices of records."""
    return lambda records: slices.by_value("class", records.labels_N)
