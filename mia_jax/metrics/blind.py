"""Computes the blind baseline: how well members are identified from the examples alone.

If members can be identified without any model, no attack's success is evidence of leakage.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from mia_jax import checks
from mia_jax.metrics import roc

FEATURES = 32  # leading principal components of wider examples
FEWEST = 10  # rows per side


def baseline(x, y, member_N, *, most_rows: int = 2000, seed: int = 0) -> dict:
    """Tests whether classifiers that see only examples and labels, no model, find the members.

    A row's score is its mean rank by a logistic regression and a random forest. Each half of the
    rows is scored by fits on the other half.

    Args:
        x: the examples [N,..] of the evaluated rows, or an empty array if they are unknown.
        y: their labels [N,..]; class numbers are encoded one-hot, other labels are used as they
            are.
        member_N: whether each row is a member.
        most_rows: at most half of this many members and of non-members are used.
        seed: the seed of the choice of rows and of the classifiers.

    Returns:
        {auc, p_value, rows, features, method}, and `labels_only`=True if x is empty; {why} if the
            test cannot be run. `auc` is the mean of the halves' AUCs. `p_value` is of 'AUC <= 1/2':
            twice the smaller of the halves' Mann-Whitney p-values. Each of them is valid, since its
            rows are independent of the fit; a p-value of both halves together would not be, since
            each half trained the scores of the other.
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
    labels_only = not x_NF.shape[1]
    alone = " of the labels alone, for the examples were not given" if labels_only else ""
    return (
        dict(auc=float(np.mean([roc.auc(curve) for curve in curves])), p_value=p_value)
        | (dict(labels_only=True) if labels_only else {})
        | dict(
            rows=len(rows),
            features=features.shape[1],
            method=f"logistic regression + random forest{alone}, cross-fitted on halves",
        )
    )


def _features(x, y) -> np.ndarray:
    """Returns standardized features [N,F] of examples and labels; constant ones are left out.

    Of wide examples only the leading principal components are used.
    """
    x = (x - x.mean(0))[:, np.ptp(x, axis=0) > 0]
    x = x / np.maximum(x.std(0), 1e-12)
    if x.shape[1] > FEATURES:
        gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
        vectors = np.linalg.eigh(gram)[1][:, -FEATURES:]
        x = vectors if len(x) < x.shape[1] else x @ vectors
    if y.ndim == 1 and y.dtype.kind in "iub":
        y = (y[:, None] == np.unique(y)).astype(np.float64)
    features = np.concatenate([x, y.reshape(len(x), -1)], 1)
    features = features[:, np.ptp(features, axis=0) > 0]
    return (features - features.mean(0)) / features.std(0)


def _scored(features, member, held_out, seed: int) -> np.ndarray:
    """Returns the mean of two classifiers' ranks of the rows `held_out`, fitted on all others."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    score = np.zeros(int(held_out.sum()))
    for model in (
        LogisticRegression(C=0.1, max_iter=200),
        RandomForestClassifier(100, min_samples_leaf=5, random_state=seed, n_jobs=1),
    ):
        model.fit(features[~held_out], member[~held_out])
        score += stats.rankdata(model.predict_proba(features[held_out])[:, 1])
    return score
