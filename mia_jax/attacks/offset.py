"""Difficulty calibration: the target's signal minus the shadows' signals on the same example.

Source: Watson et al. 2022 (arXiv:2111.08440).
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _sides
from mia_jax.types import Attack


def make(
    *, signal: str = "loss", side: str = "out", center: str = "mean", sign: int | None = None
) -> Attack:
    """Scores sign * (signal of the target - center of the shadows), the mean over the query views.

    An example without shadows on a side takes the other side's center plus the mean difference
    between the sides (with one side: the overall mean).

    Args:
        signal: the scalar signal that is compared.
        side: 'out': the shadows that did not train on the example; 'in': those that did; 'both':
            the mean of the two centers, whatever their numbers.
        center: 'mean' or 'median' of a side's shadows.
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Raises:
        ValueError: No shadow is on the side on any evaluated row.
    """
    kinds = dict(out=(_sides.OUT,), both=(_sides.OUT, _sides.IN)) | {"in": (_sides.IN,)}
    checks.one_of(kinds, side=side)
    checks.one_of(("mean", "median"), center=center)

    def finish(own_N, sides, fitted):
        return own_N - np.mean(_sides.centers(sides, fitted[0] if fitted else None), 0)

    note = (
        f"{signal} minus the {center} over {'IN and OUT' if side == 'both' else side.upper()} "
        "shadows"
    )
    common = dict(signal=signal, sign=sign, kinds=kinds[side], center=center)
    return _sides.attack(steps=(_sides.pool,), finish=finish, enough=1, note=note, **common)
