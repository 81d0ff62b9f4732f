"""Turns rows of a pool into canaries, which a model must memorize in order to fit them.

The design `canaries` decides which models train on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool

KINDS = (
    "natural",
    "mislabeled",
    "gradient_aligned",
    "blank",
    "out_of_distribution",
    "adversarial_input",
    "poisoned",
    "dirac",
)
UNLABELED = ("natural", "dirac")  # kinds that need no class labels
NUMBERS = ("gradient_aligned", "blank", "adversarial_input")  # kinds that make real numbers


def insert(
    pool: Pool,
    *,
    kind: str = "mislabeled",
    count: int = 1000,
    seed: int = 0,
    copies: int = 2,
    strength: float = 0.25,
) -> Pool:
    """Returns the pool with `count` random rows made canaries.

    The boolean column `canary` marks them. Population rows are excluded. The kinds are:

    - 'natural': the rows are unchanged.
    - 'mislabeled': the label is drawn from the other classes (Steinke et al. 2023,
      arXiv:2305.08846, section 6).
    - 'gradient_aligned': x becomes a direction in which the other rows vary least, at their mean
      norm. It is an eigenvector of the second moments X'X of the other rows, one canary each from
      the smallest eigenvalue up. The label is the class that a least-squares classifier of the
      other rows finds least likely there, so nothing else pushes the weights in its direction.
      Values may leave [0, 1]. (ClipBKD: Jagielski, Ullman and Oprea 2020, arXiv:2006.07709,
      Algorithm 2, with one direction per canary.)
    - 'blank': x is 0, with a different label for each canary (Nasr et al. 2023, arXiv:2302.07956).
    - 'out_of_distribution': every feature of x is uniform between its smallest and its largest
      value in the data (tokens: over those that occur), and the label is uniform.
    - 'adversarial_input': x is moved by `strength` times the range of each feature, with the sign
      of the direction in which a least-squares classifier of the other rows takes it for the
      class that it finds next likely. Label and range of the values stay.
    - 'poisoned': the rows are unchanged, and `copies` other rows become copies of each canary with
      one wrong label. No coin decides about the copies: they are in every model, except those
      that the design puts into the population (Tramer et al. 2022, arXiv:2204.00032). The boolean
      column `poison` marks them.
    - 'dirac': the rows are unchanged. Private training gives each canary a parameter that only its
      gradient moves (privacy/dirac.py), so only gradient='private' can have them.

    Args:
        pool: the examples.
        kind: one of KINDS.
        count: the number of canaries.
        seed: the seed of the choice of rows and of what is drawn for them.
        copies: the number of poisoned copies of a canary of kind='poisoned'.
        strength: the size of the change of kind='adversarial_input', in ranges of a feature.

    Raises:
        ValueError: if there are fewer rows than canaries (and copies), for gradient_aligned fewer
            features, or for blank fewer classes.
    """
    checks.one_of(KINDS, kind=kind)
    checks.at_least(1, count=count)
    if "canary" in pool.columns:
        raise ValueError(
            f"{pool.name}: the data already has a column 'canary'; leave data.canaries unset."
        )
    if kind not in UNLABELED and not pool.task.has_classes:
        raise ValueError(
            f"kind={kind!r} needs class labels, and the task of this data is {pool.task.kind}; use "
            "kind='natural'."
        )
    if kind in NUMBERS and pool.task.vocabulary is not None:
        raise ValueError(
            f"kind={kind!r} makes examples of real numbers, and this data holds tokens; "
            "use kind='mislabeled' or 'natural'."
        )
    if kind in ("blank", "poisoned") and np.ndim(pool.y) != 1:
        raise ValueError(
            f"kind={kind!r} needs one class label per example, and the task of this data is "
            f"{pool.task.kind}; use kind='mislabeled' or 'natural'."
        )
    if kind == "blank" and count > pool.num_classes:
        raise ValueError(
            f"count={count} canaries of kind='blank' need as many labels, or two would be the same "
            f"example, and the data has {pool.num_classes} classes; use kind='out_of_distribution'."
        )
    checks.at_least(1, copies=copies)
    checks.positive(strength=strength)
    free = np.flatnonzero(~np.asarray(pool.columns.get("population", np.zeros(len(pool.y), bool))))
    if count >= len(free):
        raise ValueError(
            f"count={count} canaries must be fewer than the {len(free)} rows outside the "
            "population."
        )
    if kind == "poisoned" and count * (1 + copies) > len(free):
        raise ValueError(
            f"count={count} canaries with copies={copies} need {count * (1 + copies)} of the "
            f"{len(free)} rows outside the population."
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(free)
    rows = np.sort(order[:count])
    canary_N = np.zeros(len(pool.y), bool)
    canary_N[rows] = True
    x, y = np.array(pool.x), np.array(pool.y)
    if kind == "mislabeled":
        y[rows] = (y[rows] + rng.integers(1, pool.num_classes, count)) % pool.num_classes
    elif kind == "gradient_aligned":
        x[rows], y[rows] = _least_varying(x[~canary_N], y[~canary_N], pool.num_classes, count)
    elif kind == "blank":
        x[rows], y[rows] = 0, rng.permutation(pool.num_classes)[:count]
    elif kind == "out_of_distribution":
        x[rows] = _uniform(rng, x[~canary_N], count, tokens=pool.task.vocabulary is not None)
        y[rows] = rng.integers(0, pool.num_classes, y[rows].shape)
    elif kind == "adversarial_input":
        x[rows] = _moved(x, y, canary_N, pool.num_classes, strength)
    columns = dict(pool.columns) | dict(canary=canary_N)
    if kind == "poisoned":
        # A copy's label is wrong, and the same for all copies of a canary.
        poison = order[count : count * (1 + copies)].reshape(copies, count)
        wrong = (y[rows] + rng.integers(1, pool.num_classes, count)) % pool.num_classes
        x[poison], y[poison] = x[rows][None], wrong[None]
        columns["poison"] = np.isin(np.arange(len(y)), poison)
    return checked(dataclasses.replace(pool, x=x, y=y, columns=columns))


def _uniform(rng, x: np.ndarray, count: int, *, tokens: bool) -> np.ndarray:
    """Returns the inputs of `count` canaries of kind 'out_of_distribution'."""
    if tokens:
        return rng.choice(np.unique(x), (count, *x.shape[1:])).astype(x.dtype)
    low, high = x.min(0), x.max(0)
    return (low + (high - low) * rng.random((count, *x.shape[1:]))).astype(x.dtype)


def _moved(
    x: np.ndarray, y: np.ndarray, canary_N: np.ndarray, classes: int, strength: float
) -> np.ndarray:
    """Returns the inputs of the canaries of kind 'adversarial_input'."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    low, high = flat[~canary_N].min(0), flat[~canary_N].max(0)
    weights = _least_squares(flat[~canary_N], y[~canary_N], classes)
    rows = np.flatnonzero(canary_N)
    score = flat[rows] @ weights
    score[np.arange(len(rows)), y[rows]] = -np.inf
    towards = weights[:, np.argmax(score, 1)] - weights[:, y[rows]]
    moved = flat[rows] + strength * (high - low) * np.sign(towards.T)
    return np.clip(moved, low, high).reshape(len(rows), *x.shape[1:]).astype(x.dtype)


def _least_squares(flat: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weights [F,C] of the ridge regression of the classes on the features."""
    moments = flat.T @ flat / len(flat)
    ridge = 1e-3 * np.trace(moments) / flat.shape[1] * np.eye(flat.shape[1])
    return np.linalg.solve(moments + ridge, flat.T @ np.eye(classes)[y] / len(flat))


def _least_varying(
    x: np.ndarray, y: np.ndarray, classes: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (x, y) of the canaries of kind 'gradient_aligned'."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    features = flat.shape[1]
    if count > features:
        raise ValueError(
            f"count={count} canaries of kind='gradient_aligned' need as many directions, and an "
            f"example has {features} features."
        )
    moments = flat.T @ flat / len(flat)
    direction = np.linalg.eigh(moments)[1].T[:count]  # In the order of rising eigenvalues.
    canary_KF = direction * np.linalg.norm(flat, axis=1).mean()
    weights = _least_squares(flat, y, classes)
    return canary_KF.reshape(count, *x.shape[1:]), np.argmin(canary_KF @ weights, 1)
