"""Fits the prior of variances that are estimated from few values each. Imports no jax.

Of records whose variances follow a scaled inverse chi-squared distribution, the logarithms of the
estimated variances have moments in closed form, so that the prior follows from their mean and
spread (Smyth 2004, "Linear models and empirical Bayes methods", section 6.2).
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma


def inverse_trigamma(value: float) -> float:
    """Returns the x with trigamma(x) = value > 0.

    By Newton's method on 1 / trigamma, which is convex and nearly linear.
    """
    x = 0.5 + 1 / value
    for _ in range(100):
        tri = polygamma(1, x)
        change = tri * (1 - tri / value) / polygamma(2, x)
        x += change
        if abs(change) <= 1e-12 * x:
            break
    return float(x)


def prior(m2_N: np.ndarray, dof_N: np.ndarray) -> tuple[float, float]:
    """Returns (variance, degrees of freedom) of the common prior of the records' variances.

    A record's variance is then shrunk to (d0 variance + m2) / (d0 + dof). Two standard errors are
    subtracted from the spread of the logarithms, because with few values it is mostly noise and too
    little shrinkage costs more than too much.

    Args:
        m2_N: the sum of squared residuals of each record; records without any spread are left out.
        dof_N: its degrees of freedom.

    Returns:
        The degrees are inf where the variances differ by no more than their sampling noise; the
            variance is then the pooled one. (0, inf) where no record varies.

    >>> prior(np.array([3.0, 3.0, 3.0]), np.array([3, 3, 3]))
    (1.0, inf)
    """
    use = (m2_N > 0) & (dof_N > 0)
    m2_N, half_N = m2_N[use], dof_N[use] / 2
    if not len(m2_N):
        return 0.0, np.inf
    pooled = float(m2_N.sum() / (2 * half_N.sum()))
    log_N = np.log(m2_N) - np.log(2) - digamma(half_N)
    noise_N = polygamma(1, half_N)
    error = np.sqrt((polygamma(3, half_N) + 2 * noise_N**2).sum()) / len(m2_N)
    spread = float(log_N.var() - noise_N.mean() - 2 * error)
    if spread <= 0:
        return pooled, np.inf
    dof = 2 * inverse_trigamma(spread)
    return float(np.exp(log_N.mean() + digamma(dof / 2) - np.log(dof / 2))), dof
