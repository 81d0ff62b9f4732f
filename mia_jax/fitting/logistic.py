"""Logistic regression along a path of penalties. Imports no jax.

Newton's method in float64; each penalty starts from the solution of the previous one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mia_jax import checks
from mia_jax.fitting import rows
from mia_jax.fitting.rows import Classifier

CS = tuple(np.logspace(-4, 2, 10).tolist())
WIDE = 128  # above this many columns quasi-Newton steps, without a Hessian
CHUNK = 512  # factors in (1, 2] whose product is below the largest float64


def make(*, cs: Sequence[float] = CS, inner_folds: int = 3) -> Classifier:
    """Scores log-odds w.x + b that minimize |w|^2 / 2 + C sum_k log(1 + exp(-+ (w.x_k + b))).

    b is not penalized. The minimum, choice and scores are those of scikit-learn's
    LogisticRegression and GridSearchCV.

    Args:
        cs: values of C. The one with the best mean accuracy over stratified folds of the training
            rows is chosen, the first of equals; then all training rows are fitted.
        inner_folds: how many folds choose.

    Raises:
        ValueError: A C is <= 0.
    """
    checks.at_least(2, inner_folds=inner_folds)
    checks.at_least(1, number_of_cs=len(cs))
    checks.positive(**{f"cs[{i}]": c for i, c in enumerate(cs)})
    cs = np.asarray(cs, np.float64)

    def classify(jobs, key):
        del key
        return [_score(job, cs, inner_folds) for job in jobs]

    return classify


def _score(job: rows.Job, cs: np.ndarray, inner_folds: int) -> np.ndarray:
    with rows.one_thread(job.x_KF.size * job.x_KF.shape[1]):
        best = choice(job, cs, inner_folds)
        return predict(
            job.ask_NF, path(job.x_KF, job.member_K, cs[best : best + 1], tolerance=1e-11)
        )[:, 0]


def choice(job: rows.Job, cs: np.ndarray, inner_folds: int) -> int:
    """Returns the position in `cs` of the best mean accuracy over stratified folds."""
    if len(cs) == 1:
        return 0
    fold_K = rows.folds(job.member_K, inner_folds)
    accuracy_FP = np.zeros((inner_folds, len(cs)))
    for f in range(inner_folds):
        kept_K = fold_K != f
        margin_KP = predict(job.x_KF[~kept_K], path(job.x_KF[kept_K], job.member_K[kept_K], cs))
        accuracy_FP[f] = ((margin_KP > 0) == job.member_K[~kept_K, None]).mean(0)
    return int(accuracy_FP.mean(0).argmax())


def predict(x_NF: np.ndarray, beta_FP: np.ndarray) -> np.ndarray:
    """Returns margins [N,P]; the last row of beta_FP is the intercept."""
    return x_NF @ beta_FP[:-1] + beta_FP[-1:]


def balanced(
    x_KF: np.ndarray, member_K: np.ndarray, *, ridge: float = 1e-3
) -> tuple[np.ndarray, float]:
    """Returns (weight_F, intercept) of a regression in which both sides have equal total weight.

    They minimize the mean log loss, members and non-members weighing 1/2 each, plus ridge/2
    |weight|^2.

    Raises:
        ValueError: There are no rows of one side, or values that are not finite.
    """
    inside, outside = int(member_K.sum()), int((~member_K).sum())
    if not inside or not outside:
        raise ValueError(
            f"a logistic regression needs both kinds: there are {inside} member and {outside} "
            "non-member rows."
        )
    checks.finite(features=x_KF)
    share_K = np.where(member_K, 0.5 / inside, 0.5 / outside)
    beta_F = path(x_KF, member_K, np.array([1 / ridge]), tolerance=1e-18, weight_K=share_K)[:, 0]
    return beta_F[:-1], float(beta_F[-1])


def path(
    x_KF: np.ndarray,
    member_K: np.ndarray,
    cs: np.ndarray,
    *,
    tolerance: float = 1e-8,
    weight_K: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the coefficients [F+1,P] at every C, computed in ascending order of C.

    The first starts at 0. `weight_K` are weights of the rows' losses; None: all 1.
    """
    x_KF = np.concatenate([x_KF, np.ones((len(x_KF), 1))], 1)
    y_K = member_K.astype(np.float64)
    beta_FP = np.zeros((x_KF.shape[1], len(cs)))
    beta_F, loss = np.zeros(x_KF.shape[1]), None
    for p in np.argsort(cs, kind="stable"):
        ridge_F = np.append(np.full(x_KF.shape[1] - 1, 1 / cs[p]), 0.0)
        if x_KF.shape[1] > WIDE:
            beta_F = _quasi_newton(x_KF, y_K, weight_K, ridge_F, beta_F)
        else:
            beta_F, loss = _newton(x_KF, y_K, weight_K, ridge_F, beta_F, loss, tolerance)
        beta_FP[:, p] = beta_F
    return beta_FP


class _Loss(NamedTuple):
    """Holds the unpenalized sum of log-losses and its derivatives; quasi-Newton has no Hessian."""

    value: float
    gradient_F: np.ndarray
    hessian_FF: np.ndarray | None


def _loss(
    x_KF: np.ndarray,
    y_K: np.ndarray,
    beta_F: np.ndarray,
    *,
    hessian: bool = True,
    weight_K: np.ndarray | None = None,
) -> _Loss:
    """Returns the loss at beta_F, with one exponential per entry.

    Without weights the sum of log(1 + e) is the logarithm of products of CHUNK factors.
    """
    margin_K = x_KF @ beta_F
    e_K = np.exp(-np.abs(margin_K))
    factor_K = 1 + e_K
    tail_K = e_K / factor_K
    error_K, curvature_K = np.where(margin_K > 0, 1 - tail_K, tail_K) - y_K, tail_K / factor_K
    if weight_K is None:
        whole = len(e_K) - len(e_K) % CHUNK
        logs = np.log(factor_K[:whole].reshape(-1, CHUNK).prod(1)).sum() + np.log(
            factor_K[whole:].prod()
        )
        value = np.maximum(margin_K, 0).sum() - y_K @ margin_K + logs
    else:
        value = weight_K @ (np.maximum(margin_K, 0) - y_K * margin_K + np.log1p(e_K))
        error_K, curvature_K = weight_K * error_K, weight_K * curvature_K
    return _Loss(
        float(value), error_K @ x_KF, (x_KF * curvature_K[:, None]).T @ x_KF if hessian else None
    )


def _newton(
    x_KF, y_K, weight_K, ridge_F, beta_F, loss: _Loss | None, tolerance: float
) -> tuple[np.ndarray, _Loss]:
    """Returns (beta_F, the loss at it) after Newton steps, halved while the objective rises.

    It ends when half the Newton decrement, the distance of the objective from its minimum up to
    third order, is below `tolerance` times the objective at 0. `loss` is the loss at the first
    beta_F if it is known (the penalty is not part of it).
    """
    loss = _loss(x_KF, y_K, beta_F, weight_K=weight_K) if loss is None else loss
    total = len(x_KF) if weight_K is None else weight_K.sum()
    for _ in range(200):
        gradient_F = loss.gradient_F + ridge_F * beta_F
        step_F = np.linalg.solve(loss.hessian_FF + np.diag(ridge_F + 1e-12), gradient_F)
        decrement = float(step_F @ gradient_F)
        if decrement / 2 <= tolerance * total * np.log(2):
            break
        here, share = loss.value + ridge_F @ beta_F**2 / 2, 1.0
        while share > 1e-8:
            new_F = beta_F - share * step_F
            new = _loss(x_KF, y_K, new_F, weight_K=weight_K)
            if new.value + ridge_F @ new_F**2 / 2 <= here - 1e-4 * share * decrement:
                break
            share /= 2
        else:  # the objective is flat to rounding
            break
        beta_F, loss = new_F, new
    return beta_F, loss


def _quasi_newton(x_KF, y_K, weight_K, ridge_F, beta_F) -> np.ndarray:
    def objective(beta_F):
        loss = _loss(x_KF, y_K, beta_F, hessian=False, weight_K=weight_K)
        return loss.value + ridge_F @ beta_F**2 / 2, loss.gradient_F + ridge_F * beta_F

    return minimize(
        objective,
        beta_F,
        jac=True,
        method="L-BFGS-B",
        options=dict(maxiter=1000, ftol=1e-12, gtol=1e-5),
    ).x
