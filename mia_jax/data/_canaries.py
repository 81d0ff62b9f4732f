"""Turns rows of a pool into canaries, which a model must memorize in order to fit them.

The design `canaries` decides which models train on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool

KINDS = ("natural", "mislabeled", "gradient_aligned")


def insert(pool: Pool, *, kind: str = "mislabeled", count: int = 1000, seed: int = 0) -> Pool:
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

    Raises:
        ValueError: if there are fewer rows, or for gradient_aligned fewer features, than canaries.
    """
    checks.one_of(KINDS, kind=kind)
    checks.at_least(1, count=count)
    if "canary" in pool.columns:
        raise ValueError(
            f"{pool.name}: the data already has a column 'canary'; leave data.canaries unset."
        )
    if kind != "natural" and not pool.task.has_classes:
        raise ValueError(
            f"kind={kind!r} needs class labels, and the task of this data is {pool.task.kind}; use "
            "kind='natural'."
        )
    if kind == "gradient_aligned" and pool.task.vocabulary is not None:
        raise ValueError(
            "kind='gradient_aligned' makes examples of real numbers, and this data holds tokens; "
            "use kind='mislabeled' or 'natural'."
        )
    free = np.flatnonzero(~np.asarray(pool.columns.get("population", np.zeros(len(pool.y), bool))))
    if count >= len(free):
        raise ValueError(
            f"count={count} canaries must be fewer than the {len(free)} rows outside the "
            "population."
        )
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(free)[:count])
    canary_N = np.zeros(len(pool.y), bool)
    canary_N[rows] = True
    x, y = np.array(pool.x), np.array(pool.y)
    if kind == "mislabeled":
        y[rows] = (y[rows] + rng.integers(1, pool.num_classes, count)) % pool.num_classes
    elif kind == "gradient_aligned":
        x[rows], y[rows] = _least_varying(x[~canary_N], y[~canary_N], pool.num_classes, count)
    return checked(
        dataclasses.replace(pool, x=x, y=y, columns=dict(pool.columns) | dict(canary=canary_N))
    )


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
    ridge = 1e-3 * np.trace(moments) / features * np.eye(features)
    weights = np.linalg.solve(moments + ridge, flat.T @ np.eye(classes)[y] / len(flat))
    return canary_KF.reshape(count, *x.shape[1:]), np.argmin(canary_KF @ weights, 1)
