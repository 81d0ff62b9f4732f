"""group: the named lists of rows of report.groups."""

from __future__ import annotations

import numpy as np

from mia_jax.metrics import slices


def make():
    """Returns the slices of records."""

    def layers(records):
        rows_N = np.arange(records.evaluated_TN.shape[1])
        return slices.packed(
            {f"group={name}": np.isin(rows_N, rows) for name, rows in records.groups.items()},
            post_hoc=False,
        )

    return layers
