"""Measures how well a net separates pairs of the same class from pairs of two classes.

The pairs are fixed and balanced; they are drawn from rows that a target never saw, and from its
members.
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
from mia_jax.runtime import files

PAIRS = 10_000
THRESHOLD = 1.0  # of objectives/contrastive.py, if the config does not set it
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

    Args:
        folder: the workdir; the embeddings are in signal/embedding.
        models: the numbers of the T targets.
        y_N: the labels.
        member_TN, evaluated_TN: the members and the scored rows of each target.
        threshold: pairs at this distance or more are called different.
        level: the confidence level of the intervals, which resample records, not pairs.

    Returns:
        {pairs, threshold, targets}; None without embeddings. An entry of `targets` has `model`;
            `chosen`, the threshold with the most correct answers among pairs of members;
            `collapsed`, true unless on non-members same < threshold / 2 and different > threshold;
            and `members` and `nonmembers` with the numbers of `numbers`.
    """
    paths = [interactive.signal_file(folder, "embedding", m) for m in models]
    if not all(path.exists() for path in paths):
        return None
    targets = []
    for m, path, member_N, evaluated_N in zip(
        models, paths, np.asarray(member_TN, bool), np.asarray(evaluated_TN, bool), strict=True
    ):
        embedded_NE, of_side = files.read_npy(path)[0].astype(np.float64), {}
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
            of_side[side] = numbers(
                distance_P, pairs[side], threshold=threshold, chosen=chosen, level=level
            )
        outside = of_side["nonmembers"]
        collapsed = not (outside["same"] < threshold / 2 and outside["different"] > threshold)
        targets.append(dict(model=int(m), chosen=float(chosen), collapsed=collapsed, **of_side))
    return dict(pairs=PAIRS, threshold=threshold, targets=targets)


def drawn(y_N, rows_K: np.ndarray) -> np.ndarray:
    """Returns fixed pairs [PAIRS, 2] of the rows: first those of one class, then as many of two.

    They are the same in every call (balanced_pairs.draw).
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
    """Returns what `measure` reports about members or about non-members.

    Args:
        distance_P: the distances of the pairs; the first half of them are of one class, the second
            half of two.
        pair_P2: the two rows of each pair.
        threshold, chosen: the fixed and the chosen threshold.
        level: the confidence level.
        draws: the number of bootstrap draws.

    Returns:
        {accuracy, low, high, accuracy_chosen, auc, same, different}: the accuracy of "different iff
            distance >= threshold" with its interval, that at `chosen`, the AUC of the distance, and
            the mean distances of both halves.
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
