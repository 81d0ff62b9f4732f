"""Threshold from random inputs: a member is farther from the decision boundary than they are.

No source model is needed.
"""

from __future__ import annotations

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _signals
from mia_jax.types import Attack


def make(
    *,
    signal: str = "boundary_distance",
    reference: str = "noise_distance",
    share: float = 0.5,
    sign: int | None = None,
) -> Attack:
    """Scores sign * (s(x) - a quantile of the answers to random inputs); a member from 0 on.

    Both are means over the query views. The ranking is that of attack threshold; the difference is
    who chooses the threshold: the report uses this attack's own.

    Args:
        signal: of a signal with parts the last is taken.
        reference: the target's answer to one random input per row.
        share: the quantile of `reference` over the evaluated rows, in (0, 1).
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Source: Li & Zhang 2021 (arXiv:2007.15528), boundary attack.
    """
    checks.fraction(closed="neither", share=share)
    sign = _signals.sign_of(signal, sign)

    def score(evidence, key):
        del key
        value_N, reference_N = (
            _signals.part(evidence.target[name], None, name).astype(np.float64).mean(0)
            for name in (signal, reference)
        )
        limit = np.quantile(sign * reference_N[evidence.evaluated_N], share)
        return np.where(evidence.evaluated_N, sign * value_N - limit, np.nan)

    return Attack(
        score,
        (signal, reference),
        knows="nothing",
        note=f"{signal} above {100 * share:g}% of random inputs",
        threshold=0.0,
    )
