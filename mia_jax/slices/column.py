"""column:<name> or column:<name>:<bins>: the values of a column, or its quantiles."""

from __future__ import annotations

from mia_jax.metrics import slices


def make(*, name: str, bins: int | None = None):
    """Returns the slices of records by a column.

    Args:
        name: the column.
        bins: how many slices at the column's quantiles; None: one slice per value, or 4 at the
            quantiles where the column has many values.
    """

    def layer(records):
        column = records.columns[name]
        if bins is None and slices.few_values(column):
            return slices.by_value(name, column)
        return slices.by_quantile(name, column, bins or slices.BINS)

    return layer
