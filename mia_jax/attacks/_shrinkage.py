"""Empirical Bayes over examples, in closed form: what few shadows borrow from other examples.

Per side, the variance of example n follows log var_n = trend(mid_n) + spread, a scaled inverse
chi-squared prior whose trend and degrees of freedom are fitted to all examples by the moments of
log squared residuals (Smyth 2004, "Linear models and empirical Bayes methods", section 6.2, here
with a trend). Between the sides, IN - OUT differences follow N(trend(mid_n), tau^2) with tau^2 from
the method of moments. Both trends are quadratic in mid_n, the middle of the sides' centers: hard
examples vary and leak more. With one side the trend is constant. Student-t predictives against the
noise of few shadows, under conjugate priors: Brännvall 2026 (arXiv:2603.11799).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, polygamma

from mia_jax.attacks import _sides, _student
from mia_jax.attacks._student import Predictive
from mia_jax.fitting.moments import Moments
from mia_jax.fitting.variances import inverse_trigamma

ZERO = 1e-30  # no standard deviation is smaller
LARGE = 600.0  # |log variance| beyond it is cut
GAUSSIAN = 1000.0  # from this many degrees of freedom on a Student-t is taken for a Gaussian


class Sums(NamedTuple):
    """Sums over examples for a least-squares regression on 1, u, u^2, u = mid - the mean center."""

    xx: np.ndarray  # [3,3]
    xy: np.ndarray  # [3]
    yy: float
    noise: float  # variance of y that is sampling noise
    noises: float  # number of examples behind `noise`
    wobble: float  # variance that the sampling noise gives to the squared residual


def regressions(
    own_N: np.ndarray, sides: Sequence[Moments], fitted: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns a step after `_sides.pool`: returns the sums for the variance trend of each side.

    With two sides they are followed by those for the trend of the sides' differences.
    """
    del own_N
    pools = fitted[0]
    x_N3 = _basis(_sides.centers(sides, pools), pools)
    rows = []
    for side in sides:
        use = (side.count > 1) & (side.m2 > (_student.EPS * side.center) ** 2)
        count = side.count[use].astype(int)
        half = np.arange(1, count.max(initial=2) + 1) / 2 - 0.5  # (count - 1) / 2
        half[0] = 0.5
        log_N = np.log(side.m2[use]) - (np.log(2) + digamma(half))[count - 1]
        noise = polygamma(1, half)
        rows.append(
            _sums(
                x_N3[use],
                log_N,
                noise[count - 1],
                (polygamma(3, half) + 2 * noise**2)[count - 1].sum(),
            )
        )
    if len(sides) == 2:
        out, inside = sides
        use = (out.count > 0) & (inside.count > 0)
        difference_N = (inside.center - out.center)[use] - _shift(pools)
        error_N = sum(
            np.where(s.count > 1, s.m2 / np.maximum(s.count * (s.count - 1), 1), np.nan)[use]
            for s in sides
        )
        rows.append(_sums(x_N3[use], difference_N, error_N))
    return np.stack(rows)


def predictive(
    own_N: np.ndarray, sides: Sequence[Moments], fitted: Sequence[np.ndarray]
) -> list[Predictive] | None:
    """Returns the posterior predictives of the sides, from the sums of `pool` and `regressions`.

    Squared scale: (d0 var0_n + residuals) / (d0 + n - 1) with d0 + n - 1 degrees of freedom, plus
    the uncertainty of the center. With one shadow per side there are no residuals: the differences
    about their trend are then taken as noise of both sides, equal and Gaussian. No variance is
    below the squared float32 resolution of the signal.

    Returns:
        A predictive per side; None where no variance can be estimated. With one side that includes
        the case that all shadows answer alike: densities would then differ only in the number of an
        example's shadows.
    """
    pools, sums = fitted[0], [_unpack(row) for row in fitted[1]]
    center = _sides.centers(sides, pools)
    x_N3 = _basis(center, pools)
    fits = _variances(sides, pools, sums, x_N3)
    if fits is None:
        return None
    floor_N = np.maximum(_student.EPS * np.max(np.abs([own_N, *center]), 0), ZERO) ** 2
    variance, dof = [np.maximum(v, floor_N) for v in fits[0]], fits[1]
    if len(sides) == 1:
        return [
            Predictive(center[0], variance[0] * (1 + 1 / np.maximum(sides[0].count, 1)), dof[0])
        ]
    coefficients, left = _least_squares(sums[-1])
    tau2 = max(left - sums[-1].noise / sums[-1].noises, 0.0) if sums[-1].noises else 0.0
    prior_N = _shift(pools) + x_N3 @ coefficients
    posterior = _joint(sides, variance, prior_N, tau2, center)
    return [
        Predictive(c, v + error_N, d)
        for (c, error_N), v, d in zip(posterior, variance, dof, strict=True)
    ]


def _joint(sides, variance, prior_N, tau2: float, center) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the (posterior mean, its variance) of both sides' centers.

    The prior is flat on OUT, and IN - OUT ~ N(prior_N, tau2); the sampling variance is variance /
    count.
    """
    weight = [side.count / v for side, v in zip(sides, variance, strict=True)]
    both = (sides[0].count > 0) & (sides[1].count > 0)
    error_N = sum(
        np.where(both, v / np.maximum(s.count, 1), 1.0)
        for s, v in zip(sides, variance, strict=True)
    )
    trust_N = np.where(both, tau2 / (tau2 + error_N), 0.0)
    difference_N = prior_N + trust_N * (sides[1].center - sides[0].center - prior_N)
    doubt_N = np.where(both, trust_N * error_N, tau2)
    total_N = weight[0] + weight[1]
    known = total_N > 0
    share = [np.where(known, w / np.where(known, total_N, 1), 0.5) for w in weight]
    out_N = share[0] * sides[0].center + share[1] * (sides[1].center - difference_N)
    out_N = np.where(known, out_N, (center[0] + center[1] - difference_N) / 2)
    spread_N = np.where(known, 1 / np.where(known, total_N, 1), variance[0])
    return [
        (out_N, spread_N + share[1] ** 2 * doubt_N),
        (out_N + difference_N, spread_N + share[0] ** 2 * doubt_N),
    ]


def _variances(sides, pools, sums, x_N3):
    """Returns (variance_N of each side, dof_N of each side), or None if nothing is known.

    A side without residuals takes the other side's prior.
    """
    fits = [
        _variance_prior(s) if pools[i, _sides.DOF] else None
        for i, s in enumerate(sums[: len(sides)])
    ]
    if len(sides) == 1 and all(fit is None or fit[0] is None for fit in fits):
        return None
    if not any(fits):
        if not sums[-1].xx[0, 0]:
            return None
        _, left = _least_squares(sums[-1])
        return [np.full(len(x_N3), left / 2)] * 2, [np.full(len(x_N3), np.inf)] * 2
    variance, dof = [], []
    for side, fit in zip(sides, fits, strict=True):
        coefficients, prior_dof = fit or next(f for f in fits if f)
        prior_N = (
            np.zeros(len(x_N3))
            if coefficients is None
            else np.exp(np.clip(x_N3 @ coefficients, -LARGE, LARGE))
        )
        own_dof = np.maximum(side.count - 1, 0)
        if np.isinf(prior_dof):
            variance.append(prior_N)
            dof.append(np.full(len(x_N3), np.inf))
        else:
            variance.append((prior_dof * prior_N + side.m2) / (prior_dof + own_dof))
            dof.append(np.where(prior_dof + own_dof >= GAUSSIAN, np.inf, prior_dof + own_dof))
    return variance, dof


def _variance_prior(sums: Sums) -> tuple[np.ndarray | None, float]:
    """Returns (coefficients of the log prior variance, prior degrees of freedom).

    The degrees are inf if the variances differ by no more than their sampling noise. Two standard
    errors are subtracted from the spread: with 2 or 3 shadows per side it is mostly noise, and too
    little shrinkage costs more than too much.
    """
    count = sums.xx[0, 0]
    if not count:
        return None, np.inf  # no residual above the resolution of the signal
    coefficients, left = _least_squares(sums)
    spread = left - sums.noise / count - 2 * np.sqrt(sums.wobble) / count
    dof = 2 * inverse_trigamma(spread) if spread > 0 else np.inf
    if dof >= GAUSSIAN:
        return coefficients, np.inf
    coefficients = coefficients + np.array([digamma(dof / 2) - np.log(dof / 2), 0, 0])
    return coefficients, dof


def _shift(pools: np.ndarray) -> float:
    """Returns the mean IN signal minus the mean OUT signal."""
    mean = pools[:, _sides.TOTAL] / pools[:, _sides.COUNT]
    return mean[1] - mean[0]


def _basis(center: Sequence[np.ndarray], pools: np.ndarray) -> np.ndarray:
    """Returns 1, u, u^2 [N,3], u = the middle of the centers minus its mean over all values.

    With one side u is 0.
    """
    u_N = (
        np.mean(center, 0) - np.mean(pools[:, _sides.TOTAL] / pools[:, _sides.COUNT])
        if len(center) == 2
        else np.zeros_like(center[0])
    )
    return np.stack([np.ones_like(u_N), u_N, u_N**2], 1)


def _sums(
    x_N3: np.ndarray, y_N: np.ndarray, noise_N: np.ndarray, wobble: float = 0.0
) -> np.ndarray:
    known = ~np.isnan(noise_N)
    return np.concatenate(
        [
            (x_N3.T @ x_N3).ravel(),
            x_N3.T @ y_N,
            [y_N @ y_N, noise_N[known].sum(), known.sum(), wobble],
        ]
    )


def _unpack(row: np.ndarray) -> Sums:
    return Sums(row[:9].reshape(3, 3), row[9:12], *row[12:])


def _least_squares(sums: Sums) -> tuple[np.ndarray, float]:
    """Returns (coefficients, mean squared residual).

    Columns are scaled first; directions without variation are left out.
    """
    scale = np.sqrt(np.where(np.diag(sums.xx) > 0, np.diag(sums.xx), 1.0))
    coefficients = (
        np.linalg.lstsq(sums.xx / np.outer(scale, scale), sums.xy / scale, rcond=1e-9)[0] / scale
    )
    return coefficients, max(float(sums.yy - coefficients @ sums.xy), 0.0) / max(
        sums.xx[0, 0] - 3, 1.0
    )
