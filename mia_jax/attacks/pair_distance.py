"""Membership from distances between embeddings of an example and of population rows.

It asks how far the net puts an example from others of its class, and from those of other classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mia_jax import checks
from mia_jax.attacks import _sides
from mia_jax.attacks._sides import COUNT, DOF, IN, M2, OUT
from mia_jax.attacks._student import Predictive, log_density
from mia_jax.fitting import moments
from mia_jax.types import Attack

NAME = "pair_distance"
SIZE = 1 << 22  # distances in memory at a time
AGAINST = dict(same=("same",), different=("different",), both=("same", "different"))


def make(*, signal: str = "embedding", against: str = "both") -> Attack:
    """Scores the sum over `against` of log N(s; c_in, v_in) - log N(s; c_out, v_out).

    s is the mean distance |g(x) - g(z)| to population rows z; a class without population rows is
    compared with all of them. Centers c are of the example's shadows that trained on it (IN) and
    that did not (OUT), variances v are pooled over examples. The score is the mean over the query
    views. It says whether x was in any training pair of the target; the pairs themselves are not
    known to the attacker.

    Args:
        signal: a vector per example.
        against: 'same': rows z of x's class; 'different': of the other classes; or 'both'.

    Raises:
        ValueError: There are no population rows, or no shadow is IN (OUT) on any evaluated row.
    """
    checks.one_of(AGAINST, against=against)

    def score(evidence, key):
        del key
        target = distances(evidence.target[signal], evidence.y, evidence.population_N)
        shadow = distances(evidence.shadow[signal], evidence.y, evidence.population_N)
        return sum(
            _score_distances(
                dataclasses.replace(
                    evidence, target={NAME: target[kind]}, shadow={NAME: shadow[kind]}
                )
            )
            for kind in AGAINST[against]
        )

    def score_all(fleet, key):
        del key
        distance = distances(fleet.signal[signal], fleet.y, fleet.design.population_N)
        needs = (NAME, "shadow_in", "shadow_out")
        fleets = [
            dataclasses.replace(fleet, signal={NAME: distance[kind]}) for kind in AGAINST[against]
        ]
        return np.stack(
            [
                sum(_score_distances(part.evidence_against(t, needs)) for part in fleets)
                for t in fleet.design.targets
            ]
        )

    note = f"distances of {signal} to population rows ({against})"
    return Attack(
        score,
        (signal, "y", "population", "shadow_in", "shadow_out"),
        knows="shadows",
        score_all=score_all,
        note=note,
    )


def distances(
    value: np.ndarray, y_N: np.ndarray, population_N: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns {'same', 'different'}: mean distances [..., N] to the population rows.

    Args:
        value: embeddings [..., N, E].
        y_N: class numbers.
        population_N: which rows are population rows.

    Raises:
        ValueError: There are no population rows, or the signal is not a vector per example.
    """
    z = np.flatnonzero(population_N)
    if not len(z):
        raise ValueError(
            "there are 0 population rows to compare with; at least 1 is needed: set "
            "design.population, or pass population_<key>."
        )
    if value.ndim < 2 or value.shape[-2] != len(y_N):
        raise ValueError(
            "pair_distance needs a vector per example, axes [..., N, E]; the signal has shape "
            f"{value.shape}."
        )
    mean = {kind: np.empty(value.shape[:-1]) for kind in ("same", "different")}
    size = max(1, SIZE // len(z))
    for at in np.ndindex(value.shape[:-2]):
        value_ZE = np.asarray(value[(*at, z)]).astype(np.float64)
        for rows in moments.blocks(len(y_N), size):
            value_KE = np.asarray(value[(*at, rows)]).astype(np.float64)
            same_KZ = y_N[rows, None] == y_N[None, z]
            square_KZ = np.zeros(same_KZ.shape)
            for own_K, of_Z in zip(value_KE.T, value_ZE.T, strict=True):
                square_KZ += np.square(own_K[:, None] - of_Z[None])
            distance_KZ = np.sqrt(square_KZ)
            for kind, where_KZ in (("same", same_KZ), ("different", ~same_KZ)):
                where_KZ = where_KZ | ~where_KZ.any(1, keepdims=True)
                total_K = np.where(where_KZ, distance_KZ, 0).sum(1)
                mean[kind][at][rows] = total_K / where_KZ.sum(1)
    return mean


def _score_distances(evidence) -> np.ndarray:
    return _sides.score_evidence(
        evidence,
        signal=NAME,
        sign=1,
        kinds=(OUT, IN),
        center="mean",
        steps=(_sides.pool,),
        finish=_likelihood_ratio,
        enough=np.inf,
    )


def _likelihood_ratio(own_N, sides, fitted) -> np.ndarray:
    pools = fitted[0]
    centers, known = _sides.centers(sides, pools), [row[M2] / row[DOF] for row in pools if row[DOF]]
    if not known or not pools[:, COUNT].all():
        return own_N - np.mean(centers, 0)
    variance = [row[M2] / row[DOF] if row[DOF] else known[0] for row in pools]
    z, log_sd = zip(
        *(
            Predictive(c, v, np.inf).standardized(own_N)
            for c, v in zip(centers, variance, strict=True)
        ),
        strict=True,
    )
    out, inside = (
        log_density(z_N**2, np.inf) - log_N for z_N, log_N in zip(z, log_sd, strict=True)
    )
    return inside - out
