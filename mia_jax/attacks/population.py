"""P-attack: how the target's signal ranks among its own signals on population rows (Ye et al.

2022, arXiv:2111.09679).
"""

from __future__ import annotations

import numpy as np

from mia_jax.attacks import _sides, _signals
from mia_jax.types import Attack


def make(*, signal: str = "loss", per_class: bool = False, sign: int | None = None) -> Attack:
    """score = 1 - p, p = (1 + #{z: sign s(z) >= sign s(x)}) / (Z + 1) over the Z population rows z;
    mean over query views.

    One model is enough. With one view p is the p-value of "x is not a member": if x is exchangeable
    with the population rows, P(p <= alpha) <= alpha, so score >= 1 - alpha is a rule that needs no
    shadow. `per_class`: among population rows with x's label (a label without population rows:
    among all). The score is a multiple of 1 / (Z + 1): `diagnose` tells the share of rows that tie
    at the top. `sign` None: as the signal declares. ValueError without population rows.
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
    """(1 + #{z >= x}) / (Z + 1) for every x, by sorting z."""
    return (1 + len(value_Z) - np.searchsorted(np.sort(value_Z), value_X, side="left")) / (
        len(value_Z) + 1
    )
