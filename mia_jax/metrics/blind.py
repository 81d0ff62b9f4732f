"""The blind baseline: can members be told from the examples alone, without any model?

Then no attack's success is evidence of leakage.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from mia_jax import checks
from mia_jax.metrics import roc

FEATURES = 32  # leading principal components of wider examples
FEWEST = 10  # rows a side


def baseline(x, y, member_N, *, most_rows: int = 2000, seed: int = 0) -> dict:
    """Tests whether classifiers that see only examples and labels, no model, find the members.

    Returns {auc, p_value, rows, features, method}, or {why} if it cannot be run.

    x [N,..] and y [N] (class numbers as one-hot, other labels as they are) of the evaluated rows,
    at most `most_rows` of them, as many members as non-members as there are; where x is empty,
    `labels_only` is there and True. The mean rank of a logistic regression and a random forest;
    each half of the rows is scored by fits on the other half. `auc` is the mean of the halves'.
    P-value of 'AUC <= 1/2': twice the smaller of the halves' Mann-Whitney p-values, each of which
    is valid since its rows are independent of the fit; their sum would not be, for either half
    trained the other's scores.
    """
    member_N = np.asarray(member_N, bool)
    x_NF = np.asarray(x, np.float64).reshape(len(member_N), -1)
    checks.shape("N", member=member_N, y=np.zeros(len(y)))
    rng = np.random.default_rng(seed)
    sides = [
        rng.permutation(np.flatnonzero(side))[: most_rows // 2] for side in (member_N, ~member_N)
    ]
    if min(map(len, sides)) < FEWEST:
        return dict(
            why=f"{len(sides[0])} members and {len(sides[1])} non-members; {FEWEST} of each are "
            "needed"
        )
    rows, member = np.concatenate(sides), np.repeat([True, False], [len(s) for s in sides])
    half = np.concatenate([rng.permutation(len(s)) % 2 for s in sides])
    features = _features(x_NF[rows], np.asarray(y)[rows])
    if not features.shape[1]:
        return dict(why="the examples are all alike, or were not given")
    curves = [
        roc.roc(_scored(features, member, half == h, seed), member[half == h]) for h in (0, 1)
    ]
    p_value = min(1.0, 2 * min(roc.mann_whitney(curve) for curve in curves))
    found = dict(auc=float(np.mean([roc.auc(curve) for curve in curves])), p_value=p_value)
    alone = "" if x_NF.shape[1] else " of the labels alone, for the examples were not given"
    found |= {} if x_NF.shape[1] else dict(labels_only=True)
    return found | dict(
        rows=len(rows),
        features=features.shape[1],
        method=f"logistic regression + random forest{alone}, cross-fitted on halves",
    )


def _features(x, y) -> np.ndarray:
    """Standardized features: the examples, or their leading principal components, and the labels;
    constant ones are left out.
    """
    x = (x - x.mean(0))[:, np.ptp(x, axis=0) > 0]
    x = x / np.maximum(x.std(0), 1e-12)
    if x.shape[1] > FEATURES:
        gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
        vectors = np.linalg.eigh(gram)[1][:, -FEATURES:]
        x = vectors if len(x) < x.shape[1] else x @ vectors
    if y.ndim == 1 and y.dtype.kind in "iub":
        y = (y[:, None] == np.unique(y)).astype(np.float64)
    found = np.concatenate([x, y.reshape(len(x), -1)], 1)
    found = found[:, np.ptp(found, axis=0) > 0]
    return (found - found.mean(0)) / found.std(0)


def _scored(features, member, own, seed: int) -> np.ndarray:
    """Returns the mean of two classifiers' ranks of the rows `own`, fitted on all others."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    score = np.zeros(int(own.sum()))
    for model in (
        LogisticRegression(C=0.1, max_iter=200),
        RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=1),
    ):
        model.fit(features[~own], member[~own])
        score += stats.rankdata(model.predict_proba(features[own])[:, 1])
    return score
