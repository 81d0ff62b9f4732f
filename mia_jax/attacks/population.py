"""P-attack: how the target's signal ranks among its own signals on population rows.

Source: Ye et al. 2022 (arXiv:2111.09679).
"""

from __future__ import annotations

import numpy as np

from mia_jax.attacks import _sides, _signals
from mia_jax.types import Attack


def make(*, signal: str = "loss", per_class: bool = False, sign: int | None = None) -> Attack:
    """Scores 1 - p, where p is the example's rank among the Z population rows.

    p = (1 + #{z: sign s(z) >= sign s(x)}) / (Z + 1), the mean over the query views. One model is
    enough. With one query view p is the p-value of "x is not a member": if x is exchangeable with
    the population rows, P(p <= alpha) <= alpha, so score >= 1 - alpha is a rule that needs no
    shadow. The score is a multiple of 1 / (Z + 1); `diagnose` returns the share of rows that tie at
    the top.

    Args:
        signal: the scalar signal that is ranked.
        per_class: ranks among population rows with x's label (for a label without population rows:
            among all).
        sign: +1 if a larger signal means member, -1 if a smaller one does; None: as the signal
            declares.

    Raises:
        ValueError: There are no population rows.
    """
    sign = _signals.sign_of(signal, sign)

    def score(evidence, key):
        del key
        x, z = np.flatnonzero(evidence.evaluated_N), np.flatnonzero(evidence.population_N)
        if not len(z):
            raise ValueError(
                "there are 0 population rows to rank among; at least 1 is needed: set "
                "design.population, or pass population_<key>."
            )
        total_X = np.zeros(len(x))
        value_AN = sign * _signals.scalar(evidence.target[signal], "AN", signal).astype(np.float64)
        for value_N in value_AN:
            score_X = 1 - p_values(value_N[x], value_N[z])
            for label in np.intersect1d(evidence.y[x], evidence.y[z]) if per_class else ():
                own_X, own_Z = evidence.y[x] == label, evidence.y[z] == label
                score_X[own_X] = 1 - p_values(value_N[x][own_X], value_N[z][own_Z])
            total_X += score_X
        return _sides.spread_out(total_X / len(value_AN), evidence.evaluated_N)

    def diagnose(evidence) -> dict[str, float]:
        score_N = score(evidence, None)[evidence.evaluated_N]
        return dict(
            resolution=1 / (int(evidence.population_N.sum()) + 1),
            top_tie_share=float((score_N == score_N.max()).mean()),
        )

    needs = (signal, "population") + (("y",) if per_class else ())
    note = (
        f"{signal} among population rows{' of the class' if per_class else ''}; 1 - score is a "
        "p-value"
    )
    return Attack(score, needs, knows="shadows", note=note, diagnose=diagnose)


def p_values(value_X: np.ndarray, value_Z: np.ndarray) -> np.ndarray:
    """Returns (1 + #{z >= x}) / (Z + 1) for every x, by sorting z."""
    return (1 + len(value_Z) - np.searchsorted(np.sort(value_Z), value_X, side="left")) / (
        len(value_Z) + 1
    )
