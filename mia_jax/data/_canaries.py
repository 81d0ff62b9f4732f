"""Rows of a pool turned into canaries: rows that a model must memorize to fit.

The design `canaries` decides who trains on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mia_jax import checks
from mia_jax.data._pool import checked
from mia_jax.types import Pool

KINDS = ("natural", "mislabeled", "gradient_aligned")


def insert(pool: Pool, *, kind: str = "mislabeled", count: int = 1000, seed: int = 0) -> Pool:
    """The pool with `count` random rows outside the population made canaries, and the boolean
    column `canary` that marks them.

    kind 'natural': the rows as they are. 'mislabeled': a label drawn from the other classes.
    'gradient_aligned': x becomes a direction in which the other rows vary least (an eigenvector of
    the second moments X'X of theirs, from the smallest eigenvalue up, one canary each) at their
    mean norm, with the class that a least-squares classifier of them finds least likely there:
    nothing else pushes the weights in its direction (ClipBKD; values may leave [0, 1]). ValueError
    if there are fewer rows, or for gradient_aligned fewer features, than canaries. Source:
    Jagielski, Ullman and Oprea 2020 (arXiv:2006.07709), Algorithm 2, with one direction a canary;
    mislabeled: Steinke et al. 2023 (arXiv:2305.08846), section 6.
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
    """(x, y) of the canaries."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    features = flat.shape[1]
    if count > features:
        raise ValueError(
            f"count={count} canaries of kind='gradient_aligned' need as many directions, and an "
            f"example has {features} features."
        )
    moments = flat.T @ flat / len(flat)
    direction = np.linalg.eigh(moments)[1].T[:count]  # rising eigenvalues
    own = direction * np.linalg.norm(flat, axis=1).mean()
    ridge = 1e-3 * np.trace(moments) / features * np.eye(features)
    weights = np.linalg.solve(moments + ridge, flat.T @ np.eye(classes)[y] / len(flat))
    return own.reshape(count, *x.shape[1:]), np.argmin(own @ weights, 1)
