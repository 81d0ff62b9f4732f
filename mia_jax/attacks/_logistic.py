"""Logistic regression with a ridge, for few features and many rows: Newton's method in float64."""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def fit(x_KF: np.ndarray, member_K: np.ndarray, *, ridge: float = 1e-3, steps: int = 100) -> tuple[np.ndarray, float]:
    """(weight_F, intercept) that minimize the mean log loss, members and non-members weighing 1/2 each, plus ridge/2 |weight|^2.

    The intercept is not penalized. Newton steps are halved until the loss does not grow, so separable data end at the ridge's finite optimum.
    ValueError without rows of both kinds or with values that are not finite.
    """
    inside, outside = int(member_K.sum()), int((~member_K).sum())
    if not inside or not outside:
        raise ValueError(f"a logistic regression needs both kinds: there are {inside} member and {outside} non-member rows.")
    if not np.isfinite(x_KF).all():
        raise ValueError(f"{int((~np.isfinite(x_KF)).sum())} of {x_KF.size} features are NaN or infinite.")
    x = np.concatenate([x_KF, np.ones((len(x_KF), 1))], 1)
    share = np.where(member_K, 0.5 / inside, 0.5 / outside)
    sign = np.where(member_K, 1.0, -1.0)
    penalty = np.append(np.full(x_KF.shape[1], ridge), 0.0)
    w = np.zeros(x.shape[1])

    def loss(w):
        return share @ np.logaddexp(0, -sign * (x @ w)) + penalty @ w**2 / 2

    now = loss(w)
    for _ in range(steps):
        p = expit(x @ w)
        gradient = x.T @ (share * (p - member_K)) + penalty * w
        curvature = (x * (share * p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (new := loss(w - size * step)) > now + 1e-15 and size > 1e-9:
            size /= 2
        w, now = w - size * step, new
        if np.abs(size * step).max() <= 1e-10 * (1 + np.abs(w).max()):
            break
    return w[:-1], float(w[-1])
