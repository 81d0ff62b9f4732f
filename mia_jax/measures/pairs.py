"""How well a net tells pairs of one class from pairs of two: many fixed balanced pairs of rows that
a target never saw, and of its own.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mia_jax.learners import balanced_pairs
from mia_jax.metrics import bootstrap, intervals, roc
from mia_jax.query import interactive
from mia_jax.runtime import files as workdir

PAIRS = 10_000
THRESHOLD = 1.0  # of objectives/contrastive.py, where the config names no other
SIDES = {"nonmembers": "held out", "members": "members"}


def measure(
    folder: pathlib.Path,
    *,
    models: Sequence[int],
    y_N,
    member_TN,
    evaluated_TN,
    threshold: float,
    level: float = 0.95,
) -> dict | None:
    """Measures how well the distances of embeddings separate pairs of one class from pairs of two.

    Returns {pairs, threshold, targets: [numbers of one target]} of the distances E between the
    embeddings in signal/embedding; None without them.

    The numbers of a target: `chosen`, the threshold on E with the most right among pairs of its
    members, and for members and for evaluated non-members {accuracy [low, high] of "different iff E
    >= threshold", accuracy_chosen, auc of E, same, different (means of E)}. The intervals resample
    records, not pairs. `collapsed`: on non-members not same < threshold / 2 and different >
    threshold.
    """
    files = [interactive.signal_file(folder, "embedding", m) for m in models]
    if not all(file.exists() for file in files):
        return None
    found = []
    for m, file, member_N, evaluated_N in zip(
        models, files, np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool), strict=True
    ):
        embedded_NE, own = workdir.read_npy(file)[0].astype(np.float64), {}
        pairs = {
            side: drawn(y_N, np.flatnonzero(evaluated_N & (member_N == (side == "members"))))
            for side in SIDES
        }
        distance = {
            side: np.linalg.norm(embedded_NE[p[:, 0]] - embedded_NE[p[:, 1]], axis=1)
            for side, p in pairs.items()
        }
        chosen, _ = roc.best_threshold(roc.roc(distance["members"], np.arange(PAIRS) >= PAIRS // 2))
        for side, distance_P in distance.items():
            own[side] = numbers(
                distance_P, pairs[side], threshold=threshold, chosen=chosen, level=level
            )
        outside = own["nonmembers"]
        collapsed = not (outside["same"] < threshold / 2 and outside["different"] > threshold)
        found.append(dict(model=int(m), chosen=float(chosen), collapsed=collapsed, **own))
    return dict(pairs=PAIRS, threshold=threshold, targets=found)


def drawn(y_N, rows_K: np.ndarray) -> np.ndarray:
    """Returns fixed pairs [PAIRS, 2] of the rows: first those of one class, then as many of two.

    They are always the same (balanced_pairs.draw).
    """
    label_K = jnp.asarray(np.asarray(y_N)[rows_K], jnp.int32)
    both = jax.jit(balanced_pairs.draw, static_argnames="count")(
        jax.random.key(0, impl="threefry2x32"),
        label_K,
        jnp.ones(len(rows_K), jnp.float32),
        count=PAIRS // 2,
    )
    return rows_K[np.concatenate(both)]


def numbers(
    distance_P, pair_P2, *, threshold: float, chosen: float, level: float, draws: int = 200
) -> dict[str, float]:
    """Returns what `measure` reports about one side.

    The first half of the pairs is of one class, the second half of two.
    """
    different_P = np.arange(len(distance_P)) >= len(distance_P) // 2
    right_P = (distance_P >= threshold) == different_P
    rows_K, place_P2 = np.unique(pair_P2, return_inverse=True)
    count_KR = bootstrap.counts(np.random.default_rng(0), len(rows_K), draws)
    weight_PR = count_KR[place_P2[..., 0]] * count_KR[place_P2[..., 1]]
    half_R = [
        (weight_PR[half] * right_P[half, None]).sum(0) / weight_PR[half].sum(0)
        for half in (different_P, ~different_P)
    ]
    low, high = intervals.percentile(np.mean(half_R, 0), level)
    return dict(
        accuracy=float(right_P.mean()),
        low=low,
        high=high,
        accuracy_chosen=float(((distance_P >= chosen) == different_P).mean()),
        auc=roc.auc(roc.roc(distance_P, different_P)),
        same=float(distance_P[~different_P].mean()),
        different=float(distance_P[different_P].mean()),
    )
